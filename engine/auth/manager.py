"""Who the engine is at OpenAI's servers: one login for all sessions, renewed by one request at a time (config.md 15).

A login comes from the host (a key, or tokens it renews itself), the store, or the environment. Renewing runs in a task
of the manager's own, so that a turn which is interrupted meanwhile neither waits for it nor loses the answer: a server
takes a refresh token only once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol, final

import attrs
import trio

from engine.auth.base import RequestAuth
from engine.auth.errors import LoginError, LoginStoreError, RefreshFailed
from engine.auth.record import AuthRecord, Mode, Tokens, token_claims
from engine.auth.refreshing import due, renewed, request_tokens, token_url
from engine.errors import InvalidRequest
from engine.records import define, frozen

if TYPE_CHECKING:
    from engine.auth.storage import LoginStore
    from engine.http import HttpClients

__all__ = ["AuthManager", "ExternalLogin", "ExternalTokens", "Login", "open_auth"]

logger = logging.getLogger("engine")

OPENAI_KEY: Final = "OPENAI_API_KEY"
ACCESS_TOKEN: Final = "CODEX_ACCESS_TOKEN"
LOOK: Final = 0.5  # seconds that a start waits for the stored login
FINISH: Final = 5.0  # seconds that a renewal under way has left when the engine closes
LOG_IN_AGAIN: Final = "Log in again."
ACCOUNT_CHANGED: Final = (
    f"The login could not be renewed: you have logged out, or logged in to another account. {LOG_IN_AGAIN}"
)


@frozen
class Login:
    """A login as requests use it. `renewable`: its tokens can be renewed here; `external`: the host renews them.

    `told_plan` is what a host says of the plan.
    """

    record: AuthRecord = attrs.field(repr=False)
    external: bool = False
    told_plan: str | None = None

    @property
    def mode(self) -> Mode:
        """What kind of login it is."""
        return self.record.mode

    @property
    def backend(self) -> bool:
        """Whether it is a ChatGPT-type login."""
        return self.mode != "apikey"

    @property
    def renewable(self) -> bool:
        """Whether its tokens can be renewed here."""
        return self.mode == "chatgpt" and self.record.tokens is not None and not self.external

    @property
    def account_id(self) -> str | None:
        """The account of a ChatGPT-type login."""
        return self.record.account_id

    @property
    def email(self) -> str | None:
        """Whose login it is, where its tokens say."""
        tokens = self.record.tokens
        return None if tokens is None else token_claims(tokens.id_token).email

    @property
    def plan(self) -> str | None:
        """The plan of the account, where the host or its tokens say."""
        tokens = self.record.tokens
        if self.told_plan is not None or tokens is None:
            return self.told_plan
        return token_claims(tokens.id_token).plan or token_claims(tokens.access_token).plan

    def request_auth(self) -> RequestAuth:
        """What requests send."""
        tokens = self.record.tokens
        if not self.backend:
            return RequestAuth(self.record.api_key)
        return RequestAuth(None if tokens is None else tokens.access_token, self.account_id, backend=True)


@frozen
class ExternalLogin:
    """Tokens that a host supplies: the access token of a ChatGPT login, and what goes with it."""

    access_token: str = attrs.field(repr=False)
    account_id: str
    plan: str | None = None


class ExternalTokens(Protocol):
    """Asks the host for tokens: when the first request needs some, and after a 401.

    `previous_account` is the one that new tokens must be for; `None` the first time.
    """

    async def __call__(self, previous_account: str | None, /) -> ExternalLogin:
        """Tokens. Any exception means that there are none."""
        ...


@define(eq=False)
class _Flight:
    """A renewal under way; everybody who needs it waits for this one."""

    done: trio.Event = attrs.field(factory=trio.Event)
    failure: LoginError | None = None


@final
class AuthManager:
    """The login of an engine; made by `open_auth`. All methods may be called from any task at any time.

    Errors are `LoginError` and its children; a cancelled caller never leaves anything half done.
    """

    def __init__(
        self,
        store: LoginStore,
        http: HttpClients,
        nursery: trio.Nursery,
        *,
        env: Mapping[str, str],
        api_key: str | None,
        external: ExternalTokens | None,
        forced_method: str | None,
        workspaces: Sequence[str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._http = http
        self._nursery = nursery
        self._env = env
        self._api_key = (api_key or "").strip() or None
        self._external = external
        self._forced_method = forced_method
        self._workspaces = tuple(workspaces)
        self._now = now
        self._loading = trio.Lock()
        self._seen: object = None  # of the store, when it was read
        self._loaded = False
        self._looked = False
        self._stored: Login | None = None
        self._supplied: Login | None = None  # by the host, in memory only
        self._flight: _Flight | None = None
        self._lost: dict[object, RefreshFailed] = {}

    # --- the login now ---------------------------------------------------------------------------

    @property
    def cached(self) -> Login | None:
        """The login as far as it is known without waiting: not renewed, and the store as it was read last."""
        return self._host() or self._stored or self._environment()

    async def login(self) -> Login | None:
        """The login now, `None` without one. Tokens that are over are renewed first; where that fails they stay.

        Raises `LoginStoreError`, and `LoginError` for a login that configuration does not allow.
        """
        found = await self._current()
        if found is not None and found.renewable and due(found.record, self._now()):
            try:
                await self.refresh(found)
            except LoginError as exc:
                logger.warning("the login is used as it is: %s", exc)
            found = await self._current()
        if found is not None:
            self._check_allowed(found.mode, found.account_id)
        return found

    async def known(self) -> Login | None:
        """The login without renewing it or asking the host. Reads the store where that changed, for half a second at
        most: a keyring may not answer. What goes wrong is said by the first request.
        """
        if self._external is not None and self._api_key is None and self._supplied is None:
            await trio.lowlevel.checkpoint()
            return None
        stale = self._seen != self._store.identity() if self._loaded else not self._looked
        if self._host() is None and stale:
            with trio.move_on_after(LOOK):
                try:
                    await self.reload()
                except LoginStoreError as exc:
                    logger.info("the stored login is not known yet: %s", exc)
            self._looked = True  # not where the caller was cancelled
        else:
            await trio.lowlevel.checkpoint()
        return self.cached

    async def _current(self) -> Login | None:
        if self._external is not None and self._supplied is None and self._api_key is None:
            await self._join(None)
            return self._supplied
        host = self._host()
        if host is not None:
            await trio.lowlevel.checkpoint()
            return host
        if not self._loaded or self._seen != self._store.identity():
            await self.reload()
        else:
            await trio.lowlevel.checkpoint()
        return self.cached

    def _host(self) -> Login | None:
        if self._api_key is not None:
            return Login(AuthRecord(auth_mode="apikey", api_key=self._api_key), external=True)
        if self._supplied is not None:
            return self._supplied
        token = self._env.get(ACCESS_TOKEN, "").strip()
        if not token:
            return None
        tokens = Tokens("", token, "", token_claims(token).account_id)
        return Login(AuthRecord(auth_mode="chatgptAuthTokens", tokens=tokens), external=True)

    def _environment(self) -> Login | None:
        key = self._env.get(OPENAI_KEY, "").strip()
        return Login(AuthRecord(auth_mode="apikey", api_key=key), external=True) if key else None

    async def reload(self) -> bool:
        """Reads the stored login again; whether it changed. Raises `LoginStoreError`; the old one then stays."""
        async with self._loading:
            seen = self._store.identity()
            record = await self._store.load()
            self._seen, self._loaded = seen, True
            return self._adopt(record)

    def _adopt(self, record: AuthRecord | None) -> bool:
        before = None if self._stored is None else self._stored.record
        if record is not None and record.mode == "apikey" and record.api_key is None:
            record = None  # an empty file is no login
        if record is not None and record.mode == "chatgpt" and record.tokens is None:
            record = None
        if record != before:
            self._stored = None if record is None else Login(record)
        return record != before

    def _check_allowed(self, mode: Mode, account: str | None) -> None:
        wanted = self._forced_method
        if wanted == "api" and mode != "apikey":
            raise LoginError("`forced_login_method` asks for an API key, and the login is a ChatGPT login")
        if wanted == "chatgpt" and mode == "apikey":
            raise LoginError("`forced_login_method` asks for a ChatGPT login, and the login is an API key")
        if self._workspaces and mode != "apikey" and account not in self._workspaces:
            allowed = ", ".join(self._workspaces)
            raise LoginError(f"`forced_chatgpt_workspace_id` allows {allowed}, and the login is for {account}")

    # --- logging in and out ----------------------------------------------------------------------

    async def log_in_with_key(self, key: str) -> None:
        """Stores an API key as the login. Raises `InvalidRequest` where that is not allowed, `LoginStoreError`."""
        if self._forced_method == "chatgpt":
            raise InvalidRequest("API key login is disabled. Use ChatGPT login instead.")
        if not key.strip():
            raise InvalidRequest("the API key is empty")
        await self._save(AuthRecord(auth_mode="apikey", api_key=key.strip()))

    async def log_in_with_tokens(self, record: AuthRecord) -> None:
        """Stores a ChatGPT login that somebody made. Raises as `log_in_with_key`."""
        self._check_chatgpt(record.account_id)
        await self._save(record)

    def use_tokens(self, login: ExternalLogin) -> None:
        """Uses tokens of the host's from now on; they are kept in memory only. Raises `InvalidRequest`."""
        self._check_chatgpt(login.account_id)
        self._supplied = _external(login)

    def _check_chatgpt(self, account: str | None) -> None:
        if self._forced_method == "api":
            raise InvalidRequest("ChatGPT login is disabled. Use API key login instead.")
        try:
            self._check_allowed("chatgpt", account)
        except LoginError as exc:
            raise InvalidRequest(str(exc)) from None

    async def _save(self, record: AuthRecord) -> None:
        async with self._loading:
            await self._store.save(record)
            self._seen, self._loaded = self._store.identity(), True
            self._adopt(record)
            self._supplied = None

    async def log_out(self) -> bool:
        """Removes the login from every store; whether there was one. Raises `LoginStoreError`."""
        async with self._loading:
            there = self._supplied is not None
            self._supplied = None
            there |= await self._store.delete()
            self._seen, self._loaded = self._store.identity(), True
            self._adopt(None)
        return there

    # --- renewing --------------------------------------------------------------------------------

    async def refresh(self, failed: Login) -> None:
        """Renews `failed`, together with everybody who asks meanwhile. Raises `RefreshFailed`; `LoginStoreError` where
        the stored login can't be read.

        Where somebody else changed the login already, that is enough. A permanent failure is remembered for that login
        and raised again without a request.
        """
        lost = self._lost.get(_key(failed))
        if lost is not None:
            await trio.lowlevel.checkpoint()
            raise _again(lost)
        await self._join(failed)

    async def _join(self, failed: Login | None) -> None:
        if self._flight is None:
            flight = self._flight = _Flight()
            self._nursery.start_soon(self._fly, flight, failed, name="login renewal")
        else:
            flight = self._flight
        await flight.done.wait()
        if flight.failure is not None:
            raise _again(flight.failure)

    async def _fly(self, flight: _Flight, failed: Login | None) -> None:
        flight.failure = RefreshFailed("the login could not be renewed: the engine is closing", permanent=False)
        try:
            if failed is None or failed.external:
                await self._ask_host(failed)
            else:
                await self._renew(failed)
            flight.failure = None
        except LoginError as exc:
            flight.failure = exc
            if failed is not None and isinstance(exc, RefreshFailed) and exc.permanent:
                self._lost[_key(failed)] = exc
        except Exception as exc:  # nothing of this may end the engine
            logger.exception("renewing the login failed")
            flight.failure = RefreshFailed(f"the login could not be renewed: {exc!r}", permanent=False)
        finally:
            self._flight = None
            flight.done.set()

    async def _renew(self, failed: Login) -> None:
        if await self._changed_meanwhile(failed):
            return
        try:
            answer = await request_tokens(self._http, token_url(self._env), failed.record)
        except RefreshFailed as exc:
            # Another process may have been faster with the same token.
            if exc.reason == "reused" and await self._changed_meanwhile(failed):
                return
            raise
        record = renewed(failed.record, answer, self._now())
        try:
            await self._save(record)
        except LoginStoreError as exc:
            # The server has forgotten the old tokens, so the new ones count even if they can't be kept.
            logger.error("the renewed login could not be stored, and will be lost with this process: %s", exc)
            self._adopt(record)

    async def _changed_meanwhile(self, failed: Login) -> bool:
        """Whether the stored login is another one by now. Raises `RefreshFailed` if it is somebody else's."""
        await self.reload()
        stored = self._stored
        if stored is None or stored.account_id != failed.account_id:
            raise RefreshFailed(ACCOUNT_CHANGED, permanent=True, reason="account")
        return stored.record != failed.record

    async def _ask_host(self, failed: Login | None) -> None:
        if self._external is None or (failed is not None and self._supplied is None):
            raise RefreshFailed(f"The login is no longer accepted. {LOG_IN_AGAIN}", permanent=True)
        if self._supplied != failed:
            return
        account = None if failed is None else failed.account_id
        try:
            login = await self._external(account)
        except Exception as exc:
            raise RefreshFailed(f"the host gave no tokens: {exc}", permanent=False) from exc
        if account is not None and login.account_id != account:
            raise RefreshFailed(ACCOUNT_CHANGED, permanent=True, reason="account")
        self._supplied = _external(login)

    async def settle(self) -> None:
        """Lets a renewal that is under way come to its end, for 5 s at most; also when cancelled."""
        if self._flight is not None:
            with trio.move_on_after(FINISH, shield=True):
                await self._flight.done.wait()

    @property
    def renews_external(self) -> bool:
        """Whether the host can be asked for new tokens."""
        return self._external is not None


def _key(login: Login) -> object:
    """What tells one login from another, its renewed self included."""
    tokens = login.record.tokens
    return None if tokens is None else (tokens.access_token, tokens.refresh_token, login.account_id)


def _external(login: ExternalLogin) -> Login:
    tokens = Tokens("", login.access_token, "", login.account_id)
    return Login(AuthRecord(auth_mode="chatgptAuthTokens", tokens=tokens), external=True, told_plan=login.plan)


def _again(failure: LoginError) -> LoginError:
    """The same failure once more: one exception object belongs to one raising."""
    if isinstance(failure, RefreshFailed):
        return RefreshFailed(str(failure), permanent=failure.permanent, reason=failure.reason)
    return LoginStoreError(str(failure))


@asynccontextmanager
async def open_auth(
    store: LoginStore,
    http: HttpClients,
    *,
    env: Mapping[str, str],
    api_key: str | None = None,
    external: ExternalTokens | None = None,
    forced_method: str | None = None,
    workspaces: Sequence[str] = (),
    now: Callable[[], float] = time.time,
) -> AsyncIterator[AuthManager]:
    """A manager for the length of a block. A renewal that is under way at the end has 5 s to finish."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        manager = AuthManager(
            store,
            http,
            nursery,
            env=env,
            api_key=api_key,
            external=external,
            forced_method=forced_method,
            workspaces=workspaces,
            now=now,
        )
        try:
            yield manager
        except Exception as exc:
            failure = exc  # crosses no nursery: raised below, as it came
        finally:
            await manager.settle()
            nursery.cancel_scope.cancel(reason="the engine is closing")
    if failure is not None:
        raise failure
