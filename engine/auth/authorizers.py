"""Who asks at which provider: a key from the environment, a token as it is, the login, the output of a command
(config.md 7 and 15)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, final

import trio

from engine.auth.base import ANONYMOUS, NO_RECOVERY, Authorizer, Recovery, RequestAuth
from engine.auth.errors import LoginError, LoginStoreError, RefreshFailed
from engine.errors import MissingCredential
from engine.telemetry.handle import current

if TYPE_CHECKING:
    from engine.auth.manager import AuthManager
    from engine.config.providers import ProviderInfo

__all__ = ["OTHER_WAYS", "AccountAuthorizer", "EnvironmentKey", "FixedToken", "fixed_authorizer"]

OPENAI_KEY: Final = "OPENAI_API_KEY"
OTHER_WAYS: Final = (
    "Other ways to run: `--oss` uses a model server on this machine, "
    "`--model-provider scripted --script FILE` answers from a script."
)


@final
class FixedToken:
    """A token that stands in the configuration, or none at all."""

    def __init__(self, token: str | None = None) -> None:
        self._auth = ANONYMOUS if token is None else RequestAuth(token)

    async def current(self) -> RequestAuth:
        """The token."""
        return self._auth

    def recovery(self, refused: RequestAuth) -> Recovery:
        """What was refused stays refused."""
        return NO_RECOVERY


@final
class EnvironmentKey:
    """A key in a variable that the provider names, read for each request."""

    def __init__(self, variable: str, instructions: str | None, env: Mapping[str, str]) -> None:
        self._variable = variable
        self._instructions = instructions
        self._env = env

    async def current(self) -> RequestAuth:
        """The key. Raises `MissingCredential`."""
        value = self._env.get(self._variable, "").strip()
        if value:
            return RequestAuth(value)
        instructions = f" {self._instructions}" if self._instructions else ""
        raise MissingCredential(
            f"Missing environment variable: `{self._variable}`.{instructions}", variable=self._variable
        )

    def recovery(self, refused: RequestAuth) -> Recovery:
        """A key that was refused stays refused."""
        return NO_RECOVERY


def fixed_authorizer(provider: ProviderInfo, env: Mapping[str, str]) -> Authorizer | None:
    """Who asks where that needs neither login nor command; `None` where it does."""
    if provider.env_key:
        return EnvironmentKey(provider.env_key, provider.env_key_instructions, env)
    if provider.experimental_bearer_token:
        return FixedToken(provider.experimental_bearer_token)
    if provider.auth is not None or provider.requires_openai_auth:
        return None
    return FixedToken()


@final
class AccountAuthorizer:
    """The engine's login."""

    def __init__(self, provider: ProviderInfo, manager: AuthManager) -> None:
        self._provider = provider
        self._manager = manager

    async def current(self) -> RequestAuth:
        """The login's key or token. Raises `MissingCredential` where there is none, or none that may be used."""
        hint = ""
        try:
            login = await self._manager.login()
        except LoginStoreError as exc:
            login, hint = None, f" ({exc})"
        except LoginError as exc:
            raise MissingCredential(f"{exc}. {OTHER_WAYS}") from exc
        auth = ANONYMOUS if login is None else login.request_auth()
        if auth.token is not None:
            return auth
        if login is not None:
            hint = f" (the login there is of the kind `{login.mode}`, which this engine can't use)"
        raise MissingCredential(
            f"No API key for the provider `{self._provider.id}`: set the environment variable {OPENAI_KEY}, "
            f"or store a key in auth.json{hint}. {OTHER_WAYS}",
            variable=OPENAI_KEY,
        )

    def recovery(self, refused: RequestAuth) -> Recovery:
        """Read the login again, then renew it; of tokens the host supplies: ask the host, once. A key has none."""
        login = self._manager.cached
        if login is None or not refused.backend:
            return NO_RECOVERY
        if login.external:
            return _AskHost(self._manager, refused) if self._manager.renews_external else NO_RECOVERY
        return _ReloadThenRenew(self._manager, refused)


@final
class _ReloadThenRenew:
    """The steps for a login whose tokens are renewed here."""

    def __init__(self, manager: AuthManager, refused: RequestAuth) -> None:
        self._manager = manager
        self._refused = refused
        self._steps = ["reload", "renew"]

    async def next(self) -> bool:
        """A step that changes nothing is followed by the next one at once: the same token would be refused again."""
        while self._steps:
            if self._steps.pop(0) == "reload":
                with _telling("managed", "reload"):
                    await self._manager.reload()
                now = self._manager.cached
                if now is not None and now.request_auth() != self._refused:
                    return True
            else:
                login = self._manager.cached
                if login is None or not login.renewable:
                    _tell("managed", "refresh_token", "recovery_not_run")
                    return False
                with _telling("managed", "refresh_token"):
                    await self._manager.refresh(login)
                return True
        _tell("managed", "done", "recovery_not_run")
        return False


@final
class _AskHost:
    """The one step for tokens that the host supplies."""

    def __init__(self, manager: AuthManager, refused: RequestAuth) -> None:
        self._manager = manager
        self._refused = refused
        self._asked = False

    async def next(self) -> bool:
        login = self._manager.cached
        if self._asked or login is None:
            _tell("external", "done", "recovery_not_run")
            await trio.lowlevel.checkpoint()
            return False
        self._asked = True
        if login.request_auth() == self._refused:
            with _telling("external", "external_refresh"):
                await self._manager.refresh(login)
        return True


def _tell(mode: str, step: str, outcome: str) -> None:
    """The event `codex.auth_recovery` (extensibility.md 9)."""
    current().event("codex.auth_recovery", {"auth.mode": mode, "auth.step": step, "auth.outcome": outcome})


@contextmanager
def _telling(mode: str, step: str) -> Iterator[None]:
    """A step of a recovery that runs in the block."""
    try:
        yield
    except RefreshFailed as exc:
        _tell(mode, step, "recovery_failed_permanent" if exc.permanent else "recovery_failed_transient")
        raise
    except LoginError:
        _tell(mode, step, "recovery_failed_permanent")
        raise
    _tell(mode, step, "recovery_succeeded")
