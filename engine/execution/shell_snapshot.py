"""What a login shell sets up, kept in a file that later commands load instead of the profile (tools.md 3.5).

A snapshot is made in the background, for the folder a session works in, when its first login command runs. Nothing
waits for it and nothing fails without it: commands run as written until it is there.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import attrs
import trio

from engine.errors import EngineError
from engine.execution.oneshot import CommandResult, run_command
from engine.execution.shells import Shell, shell_argv
from engine.execution.snapshot_folder import SnapshotFolder
from engine.execution.snapshot_text import (
    READABLE_SHELLS,
    SNAPSHOT_BYTES,
    loading_script,
    profile_files,
    read_snapshot,
    snapshot_script,
)
from engine.execution.supervisor import Supervisor
from engine.records import define
from engine.telemetry.handle import current

__all__ = ["ShellSnapshots", "Spawn"]

LIMIT_MS = 10_000  # for the profile, and once more for the check
# A profile that is killed half-way leaves its locks: with pyenv's, every later login shell of the user waits a minute.
PATIENCE_S = 2.0  # to end by itself once nobody wants its snapshot any more

logger = logging.getLogger("engine")


# Starts a task by name that ends with the session.
Spawn = Callable[[str, Callable[[], Awaitable[None]]], None]


class _Problem(NamedTuple):
    """Why there is no snapshot; `tried`: there was one, but it did not work."""

    text: str
    tried: bool = False


@define(eq=False)
class _Wanted:
    """The snapshot for one folder: being made, there (`file`), or not to be had (over, without a file)."""

    cwd: str
    file: str | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    settled: trio.Event = attrs.field(factory=trio.Event, init=False)


@define(eq=False, kw_only=True)
class ShellSnapshots:
    """The snapshot of one session, its file gone when the session is.

    - `environment`: what the commands of the session start with; the profile runs in it, too
    - `kept`: names that hold their values whatever a profile says (`set` of the environment policy)
    - `last_used`: when a thread was last written to, in unix seconds; None if it is not stored
    """

    supervisor: Supervisor
    folder: SnapshotFolder
    thread_id: str
    shell: Shell
    environment: Mapping[str, str] = attrs.field(repr=False)
    kept: Collection[str] = ()
    spawn: Spawn
    last_used: Callable[[str], float | None]
    _wanted: _Wanted | None = attrs.field(default=None, init=False)

    def wrapped(
        self,
        argv: Sequence[str],
        *,
        cwd: str,
        session_cwd: str,
        env: Mapping[str, str],
        guarded: Callable[[Sequence[str]], bool],
    ) -> tuple[str, ...]:
        """The command line that does what `argv` does in `cwd`, with the snapshot in place of the profile.

        It is `argv` itself for other commands than scripts of login shells, for other folders than the one the session
        works in, and as long as there is no snapshot; the first call has one made. What `env` says counts for more than
        the snapshot.

        `guarded` says whether files are safe from sandboxed commands: a profile that is not would run here what such a
        command has put there, outside of every sandbox, so then there is no snapshot.
        """
        if len(argv) < 3 or argv[1] != "-lc" or cwd != session_cwd or self.shell.kind not in READABLE_SHELLS:
            return tuple(argv)
        if not guarded(profile_files(self.shell.kind, self.environment)):
            return tuple(argv)
        wanted = self._wanted_for(cwd)
        if wanted.file is None or not os.path.isfile(wanted.file):
            return tuple(argv)
        script = loading_script(self.shell.kind, wanted.file, argv, sorted(self._names_to_keep(env)))
        return (self.shell.path, "-c", script)

    async def settled(self) -> None:
        """Returns once it is clear whether there is a snapshot; at once where none is being made."""
        if self._wanted is not None:
            await self._wanted.settled.wait()

    def _wanted_for(self, cwd: str) -> _Wanted:
        wanted = self._wanted
        if wanted is None or wanted.cwd != cwd:
            if wanted is not None:
                wanted.scope.cancel(reason="the session works in another folder")
            wanted = self._wanted = _Wanted(cwd)
            self.spawn("shell snapshot", functools.partial(self._keep, wanted))
        return wanted

    def _names_to_keep(self, env: Mapping[str, str]) -> Iterator[str]:
        """What must be after loading as it was before."""
        for name in {*env, *self.environment, *self.kept}:
            if name in self.kept or env.get(name) != self.environment.get(name):
                yield name

    async def _keep(self, wanted: _Wanted) -> None:
        """Makes the snapshot and keeps its file until it is cancelled. Raises nothing of its own."""
        stem = os.path.join(self.folder.path, self.thread_id)
        stamp = time.time_ns()
        temporary, final = f"{stem}.tmp-{stamp}", f"{stem}.{stamp}.sh"
        self.folder.active.add(self.thread_id)
        began = time.perf_counter()
        try:
            with wanted.scope:
                problem = await self._make(temporary, wanted.cwd)
                if problem is None:
                    os.rename(temporary, final)
                    wanted.file = final
                    wanted.settled.set()
                    _tell(began, None)
                    await trio.sleep_forever()
                _tell(began, "validation_failed" if problem.tried else "write_failed")
                logger.info("session %s has no shell snapshot for %s: %s", self.thread_id, wanted.cwd, problem.text)
        except (EngineError, OSError) as exc:
            _tell(began, "write_failed")
            logger.info("session %s has no shell snapshot for %s: %s", self.thread_id, wanted.cwd, exc)
        finally:
            wanted.file = None
            wanted.settled.set()
            for path in (temporary, final):
                with suppress(OSError):
                    os.unlink(path)
            if self._wanted is wanted:  # else the next one has files there
                self.folder.active.discard(self.thread_id)

    async def _make(self, temporary: str, cwd: str) -> _Problem | None:
        """Writes a snapshot that was tried out; what is wrong with it otherwise. Raises `EngineError`, `OSError`."""
        shown = await self._run_patiently(shell_argv(self.shell, snapshot_script(self.shell.kind), login=True), cwd)
        if (problem := _problem(shown)) is not None:
            return _Problem(f"the profile {problem}")
        if len(shown.stdout) >= SNAPSHOT_BYTES:
            return _Problem("the profile sets too much")
        try:
            text = read_snapshot(self.shell.kind, shown.stdout)
        except ValueError as exc:
            return _Problem(str(exc))
        await trio.to_thread.run_sync(self.folder.write, temporary, text, self.last_used)
        tried = await self._run([self.shell.path, "-c", 'set -e; . "$1"', self.shell.name, temporary], cwd)
        if (problem := _problem(tried)) is not None:
            return _Problem(f"the snapshot {problem} when it is loaded", tried=True)
        return None

    async def _run_patiently(self, argv: Sequence[str], cwd: str) -> CommandResult:
        """The same as `_run`, but a cancellation kills the command only after `PATIENCE_S`. Raises the same."""
        ended: CommandResult | EngineError | OSError | None = None
        patience, over = trio.CancelScope(shield=True), trio.Event()

        async def run() -> None:
            nonlocal ended
            with patience:
                try:
                    ended = await self._run(argv, cwd)
                except (EngineError, OSError) as exc:
                    ended = exc
            over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            try:
                await over.wait()
            finally:
                patience.deadline = trio.current_time() + PATIENCE_S
        assert ended is not None
        if isinstance(ended, Exception):
            raise ended
        return ended

    async def _run(self, argv: Sequence[str], cwd: str) -> CommandResult:
        return await run_command(self.supervisor, argv, cwd=cwd, env=self.environment, timeout_ms=LIMIT_MS)


def _tell(began: float, failure: str | None) -> None:
    """The metrics of a snapshot that was made, or was not to be had (session.md 2.8)."""
    tags = {"success": "true"} if failure is None else {"success": "false", "failure_reason": failure}
    current().count("codex.shell_snapshot", tags=tags)
    current().measure("codex.shell_snapshot.duration_ms", int((time.perf_counter() - began) * 1000), tags)


def _problem(result: CommandResult) -> str | None:
    if result.timed_out:
        return f"takes more than {LIMIT_MS / 1000:g} seconds"
    return None if result.exit_code == 0 else f"ends with exit code {result.exit_code}"
