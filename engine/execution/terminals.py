"""Unified exec: commands that may run on in the background of a session, and talking to them (tools.md 3.3).

A command belongs to the `exec_command` call until that has returned its session id: an error or a cancellation before
kills it. From then on it is a background terminal of the session: it survives turns and interrupts, until it ends, is
pruned or the manager is closed. All waiting times are upper bounds; exit and end of output end a wait at once.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import final

import attrs
import trio

from engine.errors import ProcessError, SessionClosed
from engine.execution._terminal import Terminal, TerminalCallbacks, TerminalEnd
from engine.execution.output import decode_lossy, estimate_tokens
from engine.execution.process import ExtraFiles, TerminalSize
from engine.execution.supervisor import Supervisor
from engine.records import frozen

__all__ = [
    "TerminalCallbacks",
    "TerminalEnd",
    "TerminalInfo",
    "TerminalInputClosed",
    "TerminalManager",
    "TerminalOutput",
    "TerminalStatistics",
    "UnknownTerminal",
]

DEFAULT_EXEC_YIELD_MS = 10_000
DEFAULT_WRITE_YIELD_MS = 250
MIN_YIELD_MS, MAX_YIELD_MS = 250, 30_000
MIN_POLL_MS = 5_000  # of a write_stdin without input
DEFAULT_MAX_POLL_MS = 300_000  # `background_terminal_max_timeout`
MAX_TERMINALS = 64
PROTECTED_TERMINALS = 8  # most recently used ones, never pruned
_CLOSED = "the session is closed; it starts no more commands"
SESSION_IDS = range(1_000, 100_000)


class UnknownTerminal(ProcessError):
    """No background terminal has this session id: it never did, or its end was reported already."""

    def __init__(self, session_id: int) -> None:
        self.session_id = session_id
        super().__init__(f"Unknown process id {session_id}")


class TerminalInputClosed(ProcessError):
    """Input for a command that was started without a terminal."""

    def __init__(self) -> None:
        super().__init__("stdin is closed for this session; rerun exec_command with tty=true to keep stdin open")


@frozen
class TerminalOutput:
    """The reply of one call. Either `exit_code` (the command has ended) or `session_id` (it runs on) is set.

    `output` is what it wrote since the last reply, at most the first and the last half MiB of it (`omitted_bytes` are
    missing between them); the limit for the model is not applied. `original_token_count` counts the missing ones too.
    `call_id` is the `exec_command` call that started it. `input_accepted` is False if the command did not read all of
    the input within the wait; the rest was dropped.
    """

    chunk_id: str
    call_id: str
    wall_time_s: float
    exit_code: int | None
    session_id: int | None
    original_token_count: int
    output: str = attrs.field(repr=False)
    omitted_bytes: int = 0
    input_accepted: bool = True


@frozen
class TerminalInfo:
    """A background terminal."""

    session_id: int
    call_id: str
    argv: tuple[str, ...]
    tty: bool
    running: bool


@frozen
class TerminalStatistics:
    """`in_call`: commands whose session id has not been handed out (yet)."""

    background: int
    in_call: int


@final
class TerminalManager:
    """The background terminals of one session. `nursery` is the session's: readers live there, and only there."""

    def __init__(
        self,
        supervisor: Supervisor,
        nursery: trio.Nursery,
        *,
        max_poll_ms: int = DEFAULT_MAX_POLL_MS,
        random_source: random.Random | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._nursery = nursery
        self._max_poll_ms = max(max_poll_ms, MIN_POLL_MS)
        self._random = random_source or random.Random()
        self._background: dict[int, Terminal] = {}
        self._in_call: dict[int, Terminal | None] = {}  # None: reserved, not started
        self._uses = itertools.count(1)
        self._closed = False

    async def exec_command(
        self,
        argv: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        call_id: str,
        tty: bool = False,
        yield_time_ms: int = DEFAULT_EXEC_YIELD_MS,
        callbacks: TerminalCallbacks | None = None,
        files: ExtraFiles | None = None,
    ) -> TerminalOutput:
        """Run a command; reply when it has ended or after `yield_time_ms` (clamped to 250..30000).

        `env` is complete (`unified_exec_environment`), `files` go to `Supervisor.spawn`. Without `tty` it has no input
        and one merged output.
        Raises `SpawnError`/`ProcessError` (nothing runs, no callback came), `SessionClosed`, what a callback raised.
        Cancellation kills the command and all that it started, within ms.
        """
        started = trio.current_time()
        session_id = self._reserve()
        try:
            callbacks = callbacks or TerminalCallbacks()
            terminal = await self._start(session_id, argv, cwd, env, call_id, tty, callbacks, files)
            try:
                callbacks.on_begin(session_id)
                with trio.move_on_after(clamp(yield_time_ms, MIN_YIELD_MS, MAX_YIELD_MS) / 1000):
                    await terminal.ended.wait()
                if not terminal.ended.is_set():
                    await self._make_room()
                # No checkpoint from here to the return: it has ended, or its id is handed out.
                if not terminal.ended.is_set():
                    self._check_open()
                    self._background[session_id] = terminal
                    terminal.last_used = next(self._uses)
                return self._reply(terminal, started)
            finally:
                if session_id not in self._background and not terminal.ended.is_set():
                    await terminal.terminate()
        finally:
            del self._in_call[session_id]

    async def write_stdin(
        self, session_id: int, chars: str = "", *, yield_time_ms: int = DEFAULT_WRITE_YIELD_MS
    ) -> TerminalOutput:
        """Send `chars` as they are (Ctrl-C is `\\x03`) and reply with the output since the last reply.

        Waits until the command has ended, at most `yield_time_ms`: clamped to 250..30000 with input, to
        5000..`max_poll_ms` without. Raises `UnknownTerminal`, `TerminalInputClosed`, and what a callback raised.
        Cancellation leaves the command running and its output for the next call.
        """
        started = trio.current_time()
        terminal = self._background.get(session_id)
        if terminal is None:
            raise UnknownTerminal(session_id)
        if chars and not terminal.tty:
            raise TerminalInputClosed
        terminal.last_used = next(self._uses)
        limit = (MIN_YIELD_MS, MAX_YIELD_MS) if chars else (MIN_POLL_MS, self._max_poll_ms)
        accepted = True
        with trio.move_on_after(clamp(yield_time_ms, *limit) / 1000):
            if chars:
                accepted = False
                await self._send(terminal, chars.encode("utf-8", "replace"))
                accepted = True
            await terminal.ended.wait()
        if terminal.ended.is_set():
            self._background.pop(session_id, None)
        return attrs.evolve(self._reply(terminal, started), input_accepted=accepted)

    def terminals(self) -> tuple[TerminalInfo, ...]:
        """The background terminals, in the order in which they became such."""
        return tuple(
            TerminalInfo(
                terminal.session_id,
                terminal.call_id,
                terminal.process.argv,
                terminal.tty,
                running=not terminal.ended.is_set(),
            )
            for terminal in self._background.values()
        )

    def statistics(self) -> TerminalStatistics:
        return TerminalStatistics(background=len(self._background), in_call=len(self._in_call))

    async def terminate_all(self) -> None:
        """Kill every command, those of running calls too; shielded, some ms, at most about 6 s."""
        running = [terminal for terminal in (*self._background.values(), *self._in_call.values()) if terminal]
        self._background.clear()
        with trio.CancelScope(shield=True):  # each of them is bounded
            async with trio.open_nursery() as all_at_once:
                for terminal in running:
                    all_at_once.start_soon(terminal.terminate)

    async def close(self) -> None:
        """`terminate_all`, and start nothing any more. Idempotent."""
        self._closed = True
        await self.terminate_all()

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosed(_CLOSED)

    def _reserve(self) -> int:
        self._check_open()
        while (session_id := self._random.choice(SESSION_IDS)) in self._background or session_id in self._in_call:
            pass
        self._in_call[session_id] = None
        return session_id

    @trio.lowlevel.enable_ki_protection  # between `spawn` and the task that owns the process it would be nobody's
    async def _start(
        self,
        session_id: int,
        argv: Sequence[str],
        cwd: str,
        env: Mapping[str, str],
        call_id: str,
        tty: bool,
        callbacks: TerminalCallbacks,
        files: ExtraFiles | None,
    ) -> Terminal:
        process = await self._supervisor.spawn(
            argv, cwd=cwd, env=env, stderr="stdout", tty=TerminalSize() if tty else None, files=files
        )
        try:
            self._check_open()
            terminal = Terminal(session_id, call_id, process, tty=tty, callbacks=callbacks)
            self._nursery.start_soon(terminal.run)
        except BaseException as exc:
            await process.aclose()
            if isinstance(exc, RuntimeError):  # the nursery is closed
                raise SessionClosed(_CLOSED) from exc
            raise
        self._in_call[session_id] = terminal
        return terminal

    async def _send(self, terminal: Terminal, data: bytes) -> None:
        if terminal.process.stdin is None or terminal.ended.is_set():
            return
        try:
            async with terminal.input_lock:
                await terminal.process.stdin.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it is ending; the reply tells how

    async def _make_room(self) -> None:
        while len(self._background) >= MAX_TERMINALS:
            victim = self._background.pop(
                choose_victim(
                    [
                        (terminal.session_id, terminal.last_used, terminal.ended.is_set())
                        for terminal in self._background.values()
                    ]
                )
            )
            await victim.terminate()

    def _reply(self, terminal: Terminal, started: float) -> TerminalOutput:
        """Takes the output out. Synchronous."""
        if terminal.failure is not None:
            self._background.pop(terminal.session_id, None)
            raise terminal.failure
        ended = terminal.ended.is_set()
        total, omitted = terminal.output.total, terminal.output.omitted
        output = terminal.output.drain(whole_characters=not ended)
        return TerminalOutput(
            chunk_id=f"{self._random.getrandbits(24):06x}",
            call_id=terminal.call_id,
            wall_time_s=trio.current_time() - started,
            exit_code=terminal.exit_code if ended else None,
            session_id=None if ended else terminal.session_id,
            original_token_count=estimate_tokens(total - terminal.output.total),
            output=decode_lossy(output),
            omitted_bytes=omitted,
        )


def clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


def choose_victim(terminals: Sequence[tuple[int, int, bool]]) -> int:
    """Which one to give up. Each is (session id, last use, has ended); there are more than the protected ones.

    Among all but the 8 most recently used: the least recently used one that has ended, else the least recently used.
    """
    by_use = sorted(terminals, key=lambda terminal: terminal[1])
    candidates = by_use[: max(len(by_use) - PROTECTED_TERMINALS, 1)]
    ended = [terminal for terminal in candidates if terminal[2]]
    return (ended or candidates)[0][0]
