"""A running command: its streams, its exit, and the end of its whole process tree (CONCURRENCY 1.4)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, final

import attrs
import trio

from engine.errors import ProcessError
from engine.records import define, frozen

if TYPE_CHECKING:
    from engine.execution._link import Link

__all__ = ["ExitStatus", "ExtraFiles", "InputStream", "OutputStream", "Process", "SpawnError", "TerminalSize"]

KILL_GRACE_S = 5.0  # SIGKILL takes a few ms; only processes in uninterruptible sleep or of another user take longer


class SpawnError(ProcessError):
    """A command could not be started. `subject` is the program or the cwd at fault, `errno`/`strerror` say why."""

    def __init__(self, subject: str, number: int, detail: str | None = None) -> None:
        self.subject = subject
        self.errno = number
        self.strerror = detail or os.strerror(number)
        super().__init__(f"{subject}: {self.strerror} (os error {number})")


@frozen
class ExitStatus:
    """How a process ended: with `code`, or by `signal`. Both are None if the host's SIGCHLD handling hid it."""

    code: int | None = None
    signal: int | None = None

    @property
    def returncode(self) -> int:
        """As a shell has it: the code, 128 + signal, or -1 for unknown."""
        if self.signal is not None:
            return 128 + self.signal
        return -1 if self.code is None else self.code


@frozen
class TerminalSize:
    """Of a pseudo-terminal, in character cells."""

    rows: int = 24
    columns: int = 80


@define(eq=False)
class ExtraFiles:
    """File descriptors of ours that a command gets besides its streams; the caller closes them after the spawn.

    `fds` maps the number in the command (0 to 255) to ours. 0, 1 and 2 stand for the streams; the process's own are at
    their end then. `kept` are placeholders (fd, path) that the supervisor releases when nothing of the command is left,
    also after a failed start; `kept_by_supervisor` says that it has them. `sealed_devices`: for a sandbox that binds
    /dev/null and its like from the host: where the supervisor is root, the command's view of them is read-only, so that
    the sandbox can use them, but not change their modes. `own_session`: the command makes a session of its own, so its
    terminal is left for that to take.
    """

    fds: Mapping[int, int] = attrs.field(factory=dict)
    kept: tuple[tuple[int, int, str], ...] = ()
    sealed_devices: bool = False
    own_session: bool = False
    kept_by_supervisor: bool = attrs.field(default=False, init=False)


@final
class OutputStream(trio.abc.ReceiveStream):
    """What a command writes. On a terminal the end of output is EIO; it is seen as an ordinary end here."""

    def __init__(self, stream: trio.lowlevel.FdStream) -> None:
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Some bytes, or `b""` at the end of output. Cancellation loses nothing."""
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except trio.BrokenResourceError as exc:
            if isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.EIO:
                return b""
            raise

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


@final
class InputStream(trio.abc.SendStream):
    """A command's standard input: a pipe of its own, or the terminal, which closing leaves open (send Ctrl-D)."""

    def __init__(self, stream: trio.lowlevel.FdStream, *, terminal: bool) -> None:
        self._stream = stream
        self._terminal = terminal

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Waits while the command does not read: give it a deadline. Raises `BrokenResourceError` when nobody can."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    def close(self) -> None:
        if not self._terminal:
            self._stream.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


@final
class Process:
    """A command started by `Supervisor.spawn`, which alone makes these.

    Use it as `async with process:`; leaving the block kills the whole tree (process group, `setsid` and double-forked
    descendants too) and closes the streams, also when cancelled. On a terminal `stderr` is None: one merged stream.
    """

    def __init__(self, link: Link, number: int, argv: tuple[str, ...]) -> None:
        self.argv = argv
        self.pid = 0
        self.stdin: InputStream | None = None
        self.stderr: OutputStream | None = None
        self.stdout: OutputStream
        self._link = link
        self._number = number
        self._status: ExitStatus | None = None
        self._failure: ProcessError | None = None
        self._answered = trio.Event()
        self._exited = trio.Event()
        self._gone = trio.Event()
        self._at_exit: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<Process {self.pid} {self.argv[0]!r} {'running' if self._status is None else self._status}>"

    @property
    def status(self) -> ExitStatus | None:
        """None while running."""
        return self._status

    @property
    def tree_is_gone(self) -> bool:
        """True once neither the command nor anything it started is left."""
        return self._gone.is_set()

    def call_at_exit(self, callback: Callable[[], None]) -> None:
        """Call as soon as the exit is known (at once if it is); also when supervision is lost. Must not raise."""
        if self._exited.is_set():
            callback()
        else:
            self._at_exit.append(callback)

    async def wait(self) -> ExitStatus:
        """Wait for the exit of the command itself; what it leaves running may live on until `kill_tree`.

        Raises `ProcessError` when the supervisor died (everything was killed then). Cancellation leaves it running.
        """
        await self._exited.wait()
        if self._status is None:
            raise ProcessError(str(self._failure))
        return self._status

    async def kill_tree(self) -> bool:
        """SIGKILL to the command and all that it started; wait, shielded, at most 5 s. True if nothing is left.

        Idempotent, and free when nothing is left anyway. The supervisor goes on trying after the 5 s.
        """
        if not self._gone.is_set():
            self._link.request_kill(self._number)
            with trio.move_on_after(KILL_GRACE_S, shield=True):
                await self._gone.wait()
        return self._gone.is_set()

    def close_streams(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    async def aclose(self) -> None:
        """Kill what is left of the tree (shielded, bounded) and close the streams. Idempotent."""
        try:
            await self.kill_tree()
        finally:
            self.close_streams()

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # What the link tells us; all synchronous.

    def _note_spawned(self, pid: int) -> None:
        self.pid = pid
        self._answered.set()

    def _note_failed(self, failure: ProcessError) -> None:
        """It was never started, or its supervisor died."""
        self._failure = failure
        self._answered.set()
        self._note_end()
        self._gone.set()

    def _note_exit(self, status: ExitStatus, *, alone: bool) -> None:
        self._status = status
        if alone:
            self._gone.set()
        self._note_end()

    def _note_end(self) -> None:
        self._exited.set()
        callbacks, self._at_exit = self._at_exit, []
        for callback in callbacks:
            callback()

    def _note_gone(self) -> None:
        self._gone.set()
