"""Starting OS processes: one supervisor per engine, from which every command is started (CONCURRENCY 1.4).

The supervisor is a small process of its own, started on first use. It makes sure that nothing outlives its owner: a
command's whole tree dies with `Process.aclose`, all of them die with the `open_supervisor` block and with the host,
even when that is killed with SIGKILL. Where `sys.executable` is no Python interpreter (frozen or embedding hosts) its
loop runs in a thread of the host, which finds trees by a mark in their environment (`ENGINE_SCOPE`) and can't outlive a
SIGKILL. The host's signal handlers, SIGCHLD disposition, cwd and subreaper state are left alone.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, final

import trio

from engine.errors import ProcessError
from engine.records import frozen

if TYPE_CHECKING:
    from engine.execution._link import Link
    from engine.execution.process import ExtraFiles, Process, TerminalSize

__all__ = ["Supervisor", "SupervisorStatistics", "open_supervisor"]

SPAWN_GRACE_S = 20.0  # a start takes 1 ms; a supervisor that hangs longer (cwd on a dead server) is replaced
CLOSE_GRACE_S = 5.0


@frozen
class SupervisorStatistics:
    """State at one moment. `live`: commands of whose tree something may be left; `starts`: supervisors so far."""

    kind: Literal["none", "process", "thread"]
    pid: int | None
    starts: int
    spawned: int
    live: int


@final
class Supervisor:
    """Starts commands. Made by `open_supervisor`."""

    def __init__(self, nursery: trio.Nursery, python: str | None) -> None:
        self._nursery = nursery
        self._python = python
        self._link: Link | None = None
        self._closed = False
        self._numbers = itertools.count(1)
        self._starts = 0
        self._spawned = 0

    def statistics(self) -> SupervisorStatistics:
        link = self._running_link()
        kind: Literal["none", "process", "thread"] = "none"
        if link is not None:
            kind = "process" if link.end.kind == "process" else "thread"
        return SupervisorStatistics(
            kind=kind,
            pid=link.end.pid if link else None,
            starts=self._starts,
            spawned=self._spawned,
            live=len(link.processes) if link else 0,
        )

    @trio.lowlevel.enable_ki_protection  # Ctrl-C between two lines would leave a process or its pipes to nobody
    async def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        stdin: Literal["null", "pipe"] = "null",
        stderr: Literal["pipe", "stdout"] = "pipe",
        tty: TerminalSize | None = None,
        files: ExtraFiles | None = None,
    ) -> Process:
        """Start a command in a session and process group of its own, with exactly `env`; `argv[0]` is looked up there.

        `stderr="stdout"` merges both into one pipe, in the order written. `tty` gives it a pseudo-terminal as
        controlling terminal and as all three streams; `stdin` and `stderr` are then ignored. `files` are further file
        descriptors for it.

        Raises `SpawnError` (program missing or not executable, bad cwd, arguments too long, NUL in an argument) or
        `ProcessError` (no supervisor, no file descriptors left). A spawn that is cancelled while the supervisor works
        on it still returns the process (within 20 s), so it is never lost: enter it (`async with process:`) at once.
        """
        # With the first command: an engine that runs none needs no supervisor.
        from engine.execution._spawning import Streams, kept_fds, request_of
        from engine.execution.process import ExtraFiles, Process

        files = files or ExtraFiles()
        request = request_of(argv, cwd, env, files)
        await trio.lowlevel.checkpoint_if_cancelled()
        link = self._ensure_link()
        process = Process(link, number := next(self._numbers), tuple(argv))
        streams = Streams(request, process, stdin=stdin, stderr=stderr, tty=tty)
        request.targets += (b"%d" % number for number in files.fds)  # after the streams, whose place they may take
        try:
            link.start(process, number, request, [*streams.for_command, *files.fds.values(), *kept_fds(files)])
            files.kept_by_supervisor = True
            with trio.move_on_after(SPAWN_GRACE_S, shield=True) as patience:
                await process._answered.wait()
            if patience.cancelled_caught:
                link.abort(f"did not start {argv[0]} within {SPAWN_GRACE_S:g} s")
                raise ProcessError(str(link.failure))
            if process._failure is not None:
                raise process._failure
        except BaseException:
            if not process.tree_is_gone:  # Ctrl-C, or no answer in time
                link.request_kill(number)
            process.close_streams()
            raise
        finally:
            streams.close_for_command()
        self._spawned += 1
        return process

    def _running_link(self) -> Link | None:
        return None if self._link is None or self._link.ended.is_set() else self._link

    def _ensure_link(self) -> Link:
        # Without an await, so there is never more than one starter.
        from engine.execution._link import EngineClosedProcess, Link, interpreter

        if self._closed:
            raise EngineClosedProcess
        if self._link is None or self._link.failure is not None:
            self._link = Link(self._nursery, self._python or interpreter())
            self._starts += 1
            self._nursery.start_soon(self._link.run)
        return self._link

    async def _close(self) -> None:
        self._closed = True
        link = self._link
        if link is None:
            return
        link.close()
        with trio.move_on_after(CLOSE_GRACE_S, shield=True):
            await link.ended.wait()
        if not link.ended.is_set():
            link.abort(f"did not end within {CLOSE_GRACE_S:g} s")
            with trio.CancelScope(shield=True):  # bounded: `Link.run` has a deadline for each of its steps now
                await link.ended.wait()


@asynccontextmanager
async def open_supervisor(*, python: str | None = None) -> AsyncIterator[Supervisor]:
    """A `Supervisor` for the block; no process exists before the first spawn, and none after the block.

    `python` names an interpreter for the supervisor process, for hosts whose `sys.executable` is none. Leaving kills
    what still runs; shielded, a few ms, at most 10 s. Exceptions of the block pass through as they are.
    """
    error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            supervisor = Supervisor(nursery, python)
            try:
                yield supervisor
            except BaseException as exc:
                error = exc
                raise
            finally:
                await supervisor._close()
    except BaseExceptionGroup as group:
        if error is None or len(group.exceptions) > 1:
            raise
    if error is not None:
        raise error  # our tasks raise nothing, so it was alone in the nursery's group
