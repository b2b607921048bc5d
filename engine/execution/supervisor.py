"""Starting OS processes: one supervisor per engine, from which every command is started (CONCURRENCY 1.4).

The supervisor is a small process of its own, started on first use. It makes sure that nothing outlives its owner: a
command's whole tree dies with `Process.aclose`, all of them die with the `open_supervisor` block and with the host,
even when that is killed with SIGKILL. Where `sys.executable` is no Python interpreter (frozen or embedding hosts) its
loop runs in a thread of the host, which finds trees by a mark in their environment (`ENGINE_SCOPE`) and can't outlive a
SIGKILL. The host's signal handlers, SIGCHLD disposition, cwd and subreaper state are left alone.
"""

from __future__ import annotations

import errno
import itertools
import os
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Literal, final

import trio

from engine.errors import ProcessError
from engine.execution._link import EngineClosedProcess, Link, interpreter
from engine.execution._request import FIRST_FREE_FD, Request
from engine.execution.process import ExtraFiles, InputStream, OutputStream, Process, SpawnError, TerminalSize
from engine.records import frozen

__all__ = ["Supervisor", "SupervisorStatistics", "open_supervisor"]

SPAWN_GRACE_S = 20.0  # a start takes 1 ms; a supervisor that hangs longer (cwd on a dead server) is replaced
CLOSE_GRACE_S = 5.0
MAX_EXTRA_FDS = 240  # the kernel passes 253 at once


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
        files = files or ExtraFiles()
        request = _request(argv, cwd, env, files)
        await trio.lowlevel.checkpoint_if_cancelled()
        link = self._ensure_link()
        process = Process(link, number := next(self._numbers), tuple(argv))
        streams = _Streams(request, process, stdin=stdin, stderr=stderr, tty=tty)
        request.targets += (b"%d" % number for number in files.fds)  # after the streams, whose place they may take
        try:
            link.start(process, number, request, [*streams.for_command, *files.fds.values(), *_kept_fds(files)])
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
        if self._closed:
            raise EngineClosedProcess
        if self._link is None or self._link.failure is not None:
            self._link = Link(self._nursery, self._python)
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
            supervisor = Supervisor(nursery, python or interpreter())
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


def _kept_fds(files: ExtraFiles) -> list[int]:
    return [fd for kept in files.kept for fd in kept[:2]]


def _request(argv: Sequence[str], cwd: str, env: Mapping[str, str], files: ExtraFiles) -> Request:
    if not argv:
        raise SpawnError("(empty command)", errno.EINVAL)
    for name in env:
        if not name or "=" in name:
            raise SpawnError(argv[0], errno.EINVAL, f"{name!r} is no name for an environment variable")
    if not all(0 <= number < FIRST_FREE_FD for number in files.fds):
        raise SpawnError(argv[0], errno.EBADF, f"extra file descriptors can be numbers 0 to {FIRST_FREE_FD - 1}")
    if len(files.fds) + 2 * len(files.kept) > MAX_EXTRA_FDS:
        raise SpawnError(argv[0], errno.EMFILE, f"more than {MAX_EXTRA_FDS} extra file descriptors")
    try:
        request = Request(
            targets=[],
            tty=b"",
            cwd=os.fsencode(cwd),
            argv=[os.fsencode(argument) for argument in argv],
            env=[os.fsencode(f"{name}={value}") for name, value in env.items()],
            kept=[os.fsencode(name) for *_, name in files.kept],
            sealed=files.sealed_devices,
            own_session=files.own_session,
        )
    except UnicodeEncodeError as exc:
        raise SpawnError(argv[0], errno.EILSEQ, f"not encodable: {exc.reason}") from None
    if any(b"\0" in text for text in (request.cwd, *request.argv, *request.env, *request.kept)):
        raise SpawnError(argv[0], errno.EINVAL, "an argument, variable or cwd contains a NUL byte")
    return request


class _Streams:
    """The ends of the pipes or the terminal: ours become the process's streams, the others go to the command."""

    def __init__(
        self,
        request: Request,
        process: Process,
        *,
        stdin: Literal["null", "pipe"],
        stderr: Literal["pipe", "stdout"],
        tty: TerminalSize | None,
    ) -> None:
        self.for_command: list[int] = []
        self._keep_open: list[int] = []
        ours: list[int] = []
        try:
            if tty is not None:
                master, slave = os.openpty()
                ours.append(master)
                self._keep_open.append(slave)  # else reading ends before the command has opened it
                termios.tcsetwinsize(slave, (tty.rows, tty.columns))
                request.tty = os.fsencode(os.ttyname(slave))
            else:
                if stdin == "pipe":
                    self._pipe(request, b"0", ours, reads=True)
                self._pipe(request, b"1" if stderr == "pipe" else b"1+2", ours, reads=False)
                if stderr == "pipe":
                    self._pipe(request, b"2", ours, reads=False)
            streams = [trio.lowlevel.FdStream(fd) for fd in ours]
        except OSError as exc:
            for fd in ours:
                os.close(fd)
            self.close_for_command()
            raise ProcessError(f"no pipe or terminal for a command: {exc.strerror}") from exc
        if tty is not None:
            process.stdin = InputStream(streams[0], terminal=True)
        elif stdin == "pipe":
            process.stdin = InputStream(streams.pop(0), terminal=False)
        process.stdout = OutputStream(streams[0])
        if len(streams) > 1:
            process.stderr = OutputStream(streams[1])

    def _pipe(self, request: Request, targets: bytes, ours: list[int], *, reads: bool) -> None:
        """`reads`: the command does, and we write."""
        read, write = os.pipe()
        ours.append(write if reads else read)
        self.for_command.append(read if reads else write)
        request.targets.append(targets)

    def close_for_command(self) -> None:
        for fd in (*self.for_command, *self._keep_open):
            os.close(fd)
        self.for_command, self._keep_open = [], []
