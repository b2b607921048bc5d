"""Tokens that a command prints: `model_providers.<id>.auth` (config.md 7)."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, final

import trio

from engine.auth.base import NO_RECOVERY, Recovery, RequestAuth
from engine.auth.errors import TokenCommandFailed
from engine.errors import ProcessError

if TYPE_CHECKING:
    from engine.config.providers import ProviderAuth
    from engine.execution.oneshot import CommandResult

__all__ = ["CommandTokens", "RunCommand"]

SHOWN: Final = 2000  # characters of what a failed command said

RunCommand = Callable[[Sequence[str], str, Mapping[str, str], int], Awaitable["CommandResult"]]
"""Runs a command to its end: arguments, cwd, environment, timeout in milliseconds. Raises `ProcessError`."""


@final
class CommandTokens:
    """Runs the command when a token is needed, keeps the token for its interval, and runs it once more after a 401.

    Requests that need a token at the same time share one run. `home` is where a `cwd` that is not absolute begins.
    """

    def __init__(
        self,
        auth: ProviderAuth,
        run: RunCommand,
        *,
        home: str,
        env: Mapping[str, str],
        now: Callable[[], float] = trio.current_time,
    ) -> None:
        self._auth = auth
        self._run = run
        self._cwd = os.path.normpath(os.path.join(home, auth.cwd or ""))
        self._env = env
        self._now = now
        self._lock = trio.Lock()
        self._token: str | None = None
        self._fetched_at = 0.0

    async def current(self) -> RequestAuth:
        """The token. Raises `TokenCommandFailed`. Cancelled: the command is killed, with all that it started."""
        async with self._lock:
            if self._token is None or self._is_old():
                self._token = None
                self._token = await self._fetch()
                self._fetched_at = self._now()
            return RequestAuth(self._token)

    def recovery(self, refused: RequestAuth) -> Recovery:
        """One more run."""
        return _RunAgain(self, refused) if refused.token is not None else NO_RECOVERY

    def forget(self, token: str) -> None:
        """The token was refused: the next request runs the command, unless there is another token by now."""
        if self._token == token:
            self._token = None

    def _is_old(self) -> bool:
        interval = self._auth.refresh_interval_ms
        return interval > 0 and self._now() >= self._fetched_at + interval / 1000

    async def _fetch(self) -> str:
        command = self._auth.command
        named = f"provider auth command `{command}`"
        # With a separator it is a path, beginning at the cwd; a bare name is looked up in PATH.
        program = os.path.join(self._cwd, command) if os.sep in command else command
        try:
            result = await self._run((program, *self._auth.args), self._cwd, self._env, self._auth.timeout_ms)
        except ProcessError as exc:
            raise TokenCommandFailed(f"{named} failed to start: {exc}") from exc
        if result.timed_out:
            raise TokenCommandFailed(f"{named} timed out after {self._auth.timeout_ms} ms")
        if result.exit_code != 0:
            said = result.stderr_text.strip()[:SHOWN]
            raise TokenCommandFailed(f"{named} exited with status {result.exit_code}" + (f": {said}" if said else ""))
        try:
            token = result.stdout.decode().strip()
        except UnicodeDecodeError:
            raise TokenCommandFailed(f"{named} wrote non-UTF-8 data to stdout") from None
        if not token:
            raise TokenCommandFailed(f"{named} produced an empty token")
        return token


@final
class _RunAgain:
    """The one step of a recovery: a new token."""

    def __init__(self, tokens: CommandTokens, refused: RequestAuth) -> None:
        self._tokens = tokens
        self._refused = refused
        self._done = False

    async def next(self) -> bool:
        await trio.lowlevel.checkpoint()
        if self._done or self._refused.token is None:
            return False
        self._done = True
        self._tokens.forget(self._refused.token)
        return True
