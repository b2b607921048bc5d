"""One running `exec_command`: reads its output to the end, and sees to its end (tools.md 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import attrs
import trio

from engine.execution.output import DELTA_CAP, MAX_DELTAS, HeadTailBuffer, Utf8Chunker, decode_lossy
from engine.execution.process import Process
from engine.records import frozen

__all__ = ["Terminal", "TerminalCallbacks", "TerminalEnd"]

# Upper bounds: end of output ends the wait at once.
TRAILING_OUTPUT_S = 0.1  # for output that others still write after the command's exit
DRAIN_GRACE_S = 0.05  # for what is left in the pipe when nobody is left to write


@frozen
class TerminalEnd:
    """The end of a command, told once: when it has exited and its output is drained.

    `output` are the first and the last half MiB of all that it wrote.
    """

    exit_code: int
    duration_s: float
    output: bytes = attrs.field(repr=False)

    @property
    def output_text(self) -> str:
        return decode_lossy(self.output)


def _ignore(_: object) -> None:
    pass


@frozen
class TerminalCallbacks:
    """How a tool hears of its command; plain functions that must not block. One that raises ends the command.

    `on_begin` gets the session id once the command runs, `on_output` chunks of at most 8192 bytes that are cut between
    UTF-8 characters (at most 10,000 chunks), `on_end` comes last and always, if `on_begin` came.
    """

    on_begin: Callable[[int], None] = _ignore
    on_output: Callable[[bytes], None] = _ignore
    on_end: Callable[[TerminalEnd], None] = _ignore


@final
class Terminal:
    """The command behind a session id. `run` is a child of the session's nursery; it never raises an `Exception`."""

    def __init__(
        self, session_id: int, call_id: str, process: Process, *, tty: bool, callbacks: TerminalCallbacks
    ) -> None:
        self.session_id = session_id
        self.call_id = call_id
        self.process = process
        self.tty = tty
        self.last_used = 0  # of the manager's counter
        self.output = HeadTailBuffer()  # since the last reply
        self.ended = trio.Event()
        self.failure: Exception | None = None  # of a callback, or of the supervisor; raised by the next call
        self.input_lock = trio.Lock()
        self._callbacks = callbacks
        self._transcript = HeadTailBuffer()
        self._chunker = Utf8Chunker()
        self._deltas = 0
        self._started = trio.current_time()

    @property
    def exit_code(self) -> int:
        """Only when ended; -1 if unknown."""
        return -1 if self.process.status is None else self.process.status.returncode

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Read until the end, kill what is left of the tree, tell `on_end`, set `ended`. Also when cancelled."""
        try:
            await self._read_until_exit()
        except Exception as exc:
            self.failure = exc
        finally:
            await self.process.aclose()  # shielded and bounded
            self._finish()

    async def terminate(self) -> None:
        """Kill it and wait until `run` has seen it; shielded and bounded."""
        await self.process.kill_tree()
        with trio.move_on_after(TRAILING_OUTPUT_S + DRAIN_GRACE_S + 1, shield=True):
            await self.ended.wait()

    async def _read_until_exit(self) -> None:
        with trio.CancelScope() as reading:

            def limit() -> None:
                reading.deadline = trio.current_time() + TRAILING_OUTPUT_S

            self.process.call_at_exit(limit)
            await self._read_to_end()
        await self.process.wait()  # a command may close its output and run on
        await self.process.kill_tree()
        with trio.move_on_after(DRAIN_GRACE_S):
            await self._read_to_end()

    async def _read_to_end(self) -> None:
        while data := await self.process.stdout.receive_some(DELTA_CAP):
            self.output.append(data)
            self._transcript.append(data)
            self._emit(self._chunker.feed(data))

    def _emit(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            if self._deltas < MAX_DELTAS:
                self._deltas += 1
                self._callbacks.on_output(chunk)

    def _finish(self) -> None:
        try:
            self._emit(self._chunker.flush())
            duration = trio.current_time() - self._started
            self._callbacks.on_end(TerminalEnd(self.exit_code, duration, self._transcript.drain()))
        except Exception as exc:
            self.failure = self.failure or exc
        finally:
            self.ended.set()
