"""The host's end of one running supervisor: its start, the socket to it, and what happens when it dies."""

from __future__ import annotations

import array
import fcntl
import logging
import os
import random
import re
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import trio

from engine.errors import EngineClosed, ProcessError
from engine.execution import _process_tree as tree
from engine.execution import _procfs
from engine.execution import _supervisor_main as wire
from engine.execution._request import Request
from engine.execution.process import ExitStatus, Process, SpawnError

__all__ = ["Link", "start_supervisor"]

_LOG = logging.getLogger(__name__)
_EOF_GRACE_S = 1.0  # between SIGKILL to the supervisor and the end of its socket
_SWEEP_GRACE_S = 2.0
_NO_SIGPIPE = getattr(socket, "MSG_NOSIGNAL", 0)


class SupervisorEnd(Protocol):
    """What runs at the other end of the socket."""

    kind: str
    pid: int | None

    def kill(self) -> None:
        """End it at once, if that is possible."""

    async def reap(self) -> str:
        """Wait until it has ended; what it said and how it ended, for people."""

    def find_left_over(self, sessions: set[int]) -> list[int]:
        """Pids of what it could not kill before it died; `sessions` are those of the commands not known to be gone."""


class SupervisorProcess:
    """A supervisor as a child process of the host."""

    kind = "process"

    def __init__(self, pid: int, scope: int, stderr: int) -> None:
        self.pid: int | None = pid
        self._scope = scope
        self._stderr = stderr
        self._reaped = False
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except (AttributeError, OSError):
            self._pidfd = None  # not Linux; or it ended already in a host that ignores SIGCHLD

    def kill(self) -> None:
        if self._reaped:
            return
        try:
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            elif self.pid is not None:
                os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    async def reap(self) -> str:
        assert self.pid is not None
        how = "ended"
        try:
            if self._pidfd is not None:
                await trio.lowlevel.wait_readable(self._pidfd)
            while (found := os.waitpid(self.pid, os.WNOHANG))[0] == 0:  # noqa: ASYNC110, ASYNC222
                await trio.sleep(0.005)  # no pidfd on this platform
            code = os.waitstatus_to_exitcode(found[1])
            how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        except ChildProcessError:
            pass  # somebody in the host reaps or ignores all children
        finally:
            self._reaped = True
            try:
                said = os.read(self._stderr, 65536).decode(errors="replace").strip()
            except OSError:
                said = ""
            os.close(self._stderr)
            if self._pidfd is not None:
                trio.lowlevel.notify_closing(self._pidfd)
                os.close(self._pidfd)
        return f"{how}: {said.splitlines()[-1]}" if said else how

    def find_left_over(self, sessions: set[int]) -> list[int]:
        first, last = self._scope, self._scope + tree.LABELS_PER_SCOPE
        return [
            pid
            for pid in _procfs.all_pids()
            if (first <= _procfs.label_of(pid) < last or _procfs.session_of(pid) in sessions)
            and not _procfs.is_zombie(pid)
        ]


class SupervisorThread:
    """A supervisor loop in a thread of the host."""

    kind = "thread"
    pid: int | None = None

    def __init__(self, thread: threading.Thread, platform: tree.Platform) -> None:
        self._thread = thread
        self._platform = platform

    def kill(self) -> None:
        """A thread can't be; it ends when the socket does."""

    async def reap(self) -> str:
        while self._thread.is_alive():  # noqa: ASYNC110  # it closed its socket as its last act
            await trio.sleep(0.001)
        return "ended"

    def find_left_over(self, sessions: set[int]) -> list[int]:
        self._platform.kill_everything([])
        return []


def interpreter() -> str | None:
    """`sys.executable` if it is a Python interpreter and the supervisor's source is a file, else None."""
    if not sys.executable or getattr(sys, "frozen", False) or not Path(wire.__file__).is_file():
        return None
    name = os.path.basename(sys.executable)
    return sys.executable if re.fullmatch(r"python[\d.]*[a-z-]*", name, re.IGNORECASE) else None


def start_supervisor(python: str | None) -> tuple[socket.socket, SupervisorEnd]:
    """Start one, without waiting for it: what is sent to the socket meanwhile is read when it is up.

    `python` names the interpreter; without one the thread is used. Raises `ProcessError`.
    """
    scope = random.SystemRandom().randrange(1, 1 << 36) * tree.LABELS_PER_SCOPE  # below 2**60: fits an rlim_t
    try:
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            if python is None or not hasattr(os, "posix_spawn"):
                return ours, _start_thread(theirs, scope)
            end = _start_process(python, theirs, scope)
            theirs.close()
            return ours, end
        except BaseException:
            ours.close()
            theirs.close()
            raise
    except (OSError, RuntimeError) as exc:  # RuntimeError: no more threads
        how = f"with {python}" if python else "as a thread"
        raise ProcessError(f"the process supervisor could not be started {how}: {exc}") from exc


def _start_thread(theirs: socket.socket, scope: int) -> SupervisorThread:
    from engine.execution._spawner_thread import ThreadPlatform, run

    platform = ThreadPlatform(scope)
    thread = threading.Thread(target=run, args=(theirs, platform), name="engine-spawner", daemon=True)
    thread.start()
    return SupervisorThread(thread, platform)


def _start_process(python: str, theirs: socket.socket, scope: int) -> SupervisorProcess:
    stderr, stderr_write = os.pipe()
    os.set_blocking(stderr, False)
    # Above 2 even in a host that closed its standard streams.
    control_fd = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 3)
    stderr_fd = fcntl.fcntl(stderr_write, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(stderr_write)
    try:
        signals = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
        pid = os.posix_spawn(
            python,
            [python, "-I", "-S", wire.__file__, str(os.getpid()), str(scope)],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, control_fd, 0),
                (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, stderr_fd, 2),
            ],
            setsid=True,  # away from the host's terminal and its Ctrl-C
            setsigmask=(),
            setsigdef=signals,
        )
    except BaseException:
        os.close(stderr)
        raise
    finally:
        os.close(control_fd)
        os.close(stderr_fd)
    return SupervisorProcess(pid, scope, stderr)


class Link:
    """One supervisor as long as it lives. `run` is a child of the supervisor's nursery; all else is synchronous."""

    def __init__(self, nursery: trio.Nursery, python: str | None) -> None:
        self.control, self.end = start_supervisor(python)
        self.processes: dict[int, Process] = {}
        self.failure: ProcessError | None = None  # set once it takes no more requests
        self.ended = trio.Event()
        self._nursery = nursery
        self._closing = False
        self._reason = ""
        self._outgoing: deque[tuple[memoryview, Sequence[int]]] = deque()
        # Not reached by a cancellation from outside: those who clean up need the answers. Ended by `close` and `abort`.
        self._reading = trio.CancelScope(shield=True)
        self._writing: trio.CancelScope | None = None

    def start(self, process: Process, number: int, request: Request, fds: Sequence[int]) -> None:
        """Ask for a start; the answer comes to `process`. `fds` must stay open until then. Raises `ProcessError`."""
        self.processes[number] = process
        try:
            self._send(wire.encode_frame(wire.SPAWN, number, request.encode()), fds)
        except ProcessError:
            del self.processes[number]
            raise

    def request_kill(self, number: int) -> None:
        try:
            self._send(wire.encode_frame(wire.KILL, number))
        except ProcessError:
            pass  # its death kills them all

    def close(self) -> None:
        """Ask it to kill everything and end; then wait for `ended`."""
        self._closing = True
        self.failure = self.failure or EngineClosedProcess()
        try:
            self.control.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is dead already

    def abort(self, reason: str) -> None:
        """It does not do its work any more: end it by force. What it leaves is killed from here."""
        self._reason = self._reason or reason
        self.failure = self.failure or ProcessError(f"the process supervisor {reason}")
        self.end.kill()
        self.close()
        self._reading.deadline = min(self._reading.deadline, trio.current_time() + _EOF_GRACE_S)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Read until it ends; then tell everybody."""
        with self._reading:
            await self._read()
        if self._writing is not None:
            self._writing.cancel()
        how = "did not end"
        with trio.move_on_after(_EOF_GRACE_S, shield=True):
            how = await self.end.reap()
        if not self._closing or self._reason:
            what = self._reason or how
            self.failure = ProcessError(f"the process supervisor {what}; everything that ran under it was killed")
            _LOG.warning("the process supervisor %s", what)
            await self._sweep()
        trio.lowlevel.notify_closing(self.control)
        self.control.close()
        failure = self.failure or ProcessError("the process supervisor ended")
        processes, self.processes = self.processes, {}
        for process in processes.values():
            process._note_failed(failure)
        self.ended.set()

    async def _read(self) -> None:
        buffer = bytearray()
        while True:
            await trio.lowlevel.wait_readable(self.control)
            try:
                data = self.control.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            buffer += data
            for operation, number, payload in wire.take_frames(buffer):
                self._dispatch(operation, number, payload)

    def _dispatch(self, operation: int, number: int, payload: bytes) -> None:
        if operation == wire.FATAL:
            self._reason = f"failed: {payload.decode(errors='replace')}"
            return
        process = self.processes.get(number)
        if process is None:
            return
        if operation == wire.SPAWNED:
            process._note_spawned(int.from_bytes(payload, "big"))
        elif operation == wire.FAILED:
            process._note_failed(SpawnError(os.fsdecode(payload[4:]), int.from_bytes(payload[:4], "big")))
        elif operation == wire.EXITED:
            code = int.from_bytes(payload[:4], "big", signed=True)
            status = ExitStatus(code=code) if code >= 0 else ExitStatus(signal=-code)
            process._note_exit(status if code != tree.UNKNOWN_EXIT else ExitStatus(), alone=bool(payload[4]))
        elif operation == wire.GONE:
            process._note_gone()
        if process.tree_is_gone:
            del self.processes[number]

    def _send(self, frame: bytes, fds: Sequence[int] = ()) -> None:
        if self.failure is not None:
            raise self.failure if isinstance(self.failure, EngineClosed) else ProcessError(str(self.failure))
        self._outgoing.append((memoryview(frame), fds))
        try:
            self._push()
        except OSError as exc:
            self.failure = ProcessError(f"the process supervisor is gone: {exc.strerror}")
            raise ProcessError(str(self.failure)) from exc
        if self._outgoing and self._writing is None:
            self._writing = trio.CancelScope(shield=True)
            self._nursery.start_soon(self._write, self._writing)

    def _push(self) -> None:
        """Write what the socket takes now. File descriptors travel with the first byte of their frame."""
        while self._outgoing:
            data, fds = self._outgoing[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self.control.sendmsg([data], rights, _NO_SIGPIPE)
            except BlockingIOError:
                return
            if sent < len(data):
                self._outgoing[0] = (data[sent:], ())
            else:
                self._outgoing.popleft()

    @trio.lowlevel.enable_ki_protection
    async def _write(self, scope: trio.CancelScope) -> None:
        """Only when the socket is full; those who wait for answers have the deadlines."""
        with scope:
            while self._outgoing:
                await trio.lowlevel.wait_writable(self.control)
                try:
                    self._push()
                except OSError:
                    break  # the reader sees it too
        self._writing = None

    async def _sweep(self) -> None:
        """Kill what a supervisor left that died without doing it."""
        sessions = {process.pid for process in self.processes.values() if process.pid}
        with trio.move_on_after(_SWEEP_GRACE_S, shield=True):
            while left := self.end.find_left_over(sessions):
                for pid in left:
                    _procfs.kill(pid)
                await trio.sleep(0.002)


class EngineClosedProcess(ProcessError, EngineClosed):
    """The supervisor's block was left; it starts nothing any more."""

    def __init__(self) -> None:
        super().__init__("the engine is closed; it starts no more processes")
