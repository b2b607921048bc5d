"""The handles hosts hold: `Session` and `Turn`. They own no task; what they start belongs to the session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Literal, Self, cast, final

import trio

from engine.errors import EngineError, InvalidRequest
from engine.protocol.events import Event, TaskComplete, TurnAborted
from engine.protocol.ids import ThreadId, TurnId
from engine.session.delivery import EventStream
from engine.session.settings import Input, SettingsUpdate, TurnResult, as_input
from engine.session.submissions import (
    CANT_STEER_COMPACTION,
    Compact,
    Interrupt,
    Op,
    Rollback,
    RunShell,
    Shutdown,
    Submission,
    UpdateSettings,
    UserTurn,
)

if TYPE_CHECKING:
    from engine.session.core import SessionCore
    from engine.session.status import AgentStatus
    from engine.session.turn import TurnRun
    from engine.telemetry.trace import StartupTrace

__all__ = ["Session", "Turn"]

TURN_BUFFER = 4096  # events a turn handle keeps for a reader that comes late; deltas are merged beyond that


@final
class Turn:
    """A turn that runs in its session. Iterate for its events; the iteration ends with the turn.

    Leaving the handle alone does not stop the turn: `interrupt` does, or leaving `Session.turn()`.
    """

    __slots__ = ("_over", "_run", "_stream")
    _run: TurnRun
    _stream: EventStream
    _over: bool

    def __init__(self) -> None:
        raise TypeError("use `Session.turn()` or `Session.start_turn()` to get a Turn")

    @classmethod
    def _of(cls, run: TurnRun, stream: EventStream) -> Turn:
        turn: Turn = object.__new__(cls)
        turn._run, turn._stream, turn._over = run, stream, False
        return turn

    @property
    def id(self) -> TurnId:
        """The turn's id: the id of the submission that started it."""
        return self._run.id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._over:
            raise StopAsyncIteration
        event = await self._stream.__anext__()
        if event.id == self.id and isinstance(event.msg, TaskComplete | TurnAborted):
            self._over = True
            self._run.core.hub.detach(self._stream)
        return event

    async def result(self) -> TurnResult:
        """Waits for the end. Raises `TurnFailed`, `TurnInterrupted`, `SessionCrashed` or `SessionClosed`.

        Being cancelled stops the waiting, not the turn.
        """
        return await self._run.result.wait()

    async def steer(self, input: Input) -> None:
        """Adds input while the turn runs. Raises `InvalidRequest` where it is over."""
        if self._run.over:
            raise InvalidRequest("no active turn to steer")
        if self._run.kind == "compact":
            raise InvalidRequest(CANT_STEER_COMPACTION)
        self._run.pending.append(as_input(input))
        await trio.lowlevel.checkpoint()

    async def interrupt(self) -> None:
        """Stops the turn; returns once `turn_aborted` is out. Without effect where it is over."""
        await _submit(self._run.core, Interrupt(self.id))

    def pending(self) -> int:
        """How many events wait to be read."""
        return 0 if self._over else self._stream.pending()

    async def _leave(self) -> None:
        """Interrupts a turn that nobody waits for any more, and stops listening to it."""
        core = self._run.core
        if not self._run.over:
            with trio.move_on_after(core.services.grace, shield=True):
                try:
                    await self.interrupt()
                except EngineError:
                    pass  # the session ended, and the turn with it
        core.hub.detach(self._stream)


@final
class Session:
    """A running session. All methods may be called from any task of the engine's Trio run."""

    __slots__ = ("_core",)
    _core: SessionCore

    def __init__(self) -> None:
        raise TypeError("use `Engine.start_session()` or `Engine.resume_session()` to get a Session")

    @classmethod
    def _of(cls, core: SessionCore) -> Session:
        session: Session = object.__new__(cls)
        session._core = core
        return session

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Session) and other._core is self._core

    def __hash__(self) -> int:
        return hash(self._core)

    @property
    def thread_id(self) -> ThreadId:
        """The id of the thread; `Engine.resume_session` takes it."""
        return self._core.thread_id

    @property
    def rollout_path(self) -> str | None:
        """The file the thread is written to (it comes into being with the first item worth keeping)."""
        return self._core.rollout_path

    @property
    def status(self) -> AgentStatus:
        """What the session is doing: `pending_init`, `running`, `interrupted`, `shutdown`, `{"completed": text}` or
        `{"errored": text}`."""
        return self._core.hub.status

    @property
    def startup_trace(self) -> StartupTrace:
        """Which step of the start ran when and for how long; those in the background as far as they have got."""
        trace = self._core.startup_trace
        assert trace is not None
        return trace

    @property
    def model(self) -> str:
        """The model later turns use."""
        return self._core.model_slug()

    async def run(self, input: Input, update: SettingsUpdate | None = None) -> TurnResult:
        """A whole turn: starts it and waits for its end. Raises what `Turn.result` raises.

        Being cancelled interrupts the turn.
        """
        async with self.turn(input, update) as turn:
            return await turn.result()

    @asynccontextmanager
    async def turn(self, input: Input, update: SettingsUpdate | None = None) -> AsyncIterator[Turn]:
        """A turn for the length of a block; leaving it early interrupts the turn (bounded by the engine's grace)."""
        turn = await self.start_turn(input, update)
        try:
            yield turn
        finally:
            await turn._leave()

    async def start_turn(self, input: Input, update: SettingsUpdate | None = None) -> Turn:
        """Starts a turn that belongs to the session. Where one is active already, the input steers that one.

        Raises `InvalidRequest` for empty input or settings that make no sense; then nothing has changed.
        """
        return await self._begin(Submission(UserTurn(as_input(input), update)))

    async def _begin(self, submission: Submission) -> Turn:
        hub = self._core.hub
        # Attached before the turn exists, so that no event of it is missed; steering keeps the events of the other id.
        wanted = {submission.id}
        stream = EventStream(TURN_BUFFER, "merge_deltas", lambda event: event.id in wanted)
        hub.attach(stream)
        try:
            await self._core.submit(submission)
            run = cast("TurnRun", await submission.reply.wait())
        except BaseException:
            hub.detach(stream)
            self._core.withdraw(submission)
            raise
        wanted.add(run.id)  # type: ignore[arg-type]  # ids of turns and submissions are one kind on the wire
        return Turn._of(run, stream)

    async def run_shell(self, command: str) -> TurnResult:
        """Runs a command of the user's own; the model sees its result with the next request.

        No sandbox holds it and nobody is asked, whatever the session's mode is (tools.md 3.6): it is the user's doing.
        Being cancelled kills it, with all that it started (bounded by the engine's grace).
        """
        core = self._core
        submission = Submission(RunShell(command))
        try:
            run = cast("TurnRun", await _answer(core, submission))
            return await run.result.wait()
        finally:
            core.withdraw(submission)
            begun = cast("TurnRun | None", submission.reply.value)
            if begun is not None:  # it may be over for everybody else long before its processes are gone
                with trio.move_on_after(core.services.grace, shield=True):
                    try:
                        await begun.result.wait()
                    except EngineError:
                        pass  # it is over
                    await begun.finished.wait()

    async def compact(self) -> TurnResult:
        """Replaces the history by what the user said and a summary, in a turn of its own; an active turn is replaced.

        Raises what `Turn.result` raises; the history is as before then, but where not even the request for a summary
        fits the model's window (docs/compaction.md). Being cancelled interrupts it.
        """
        turn = await self.start_compaction()
        try:
            return await turn.result()
        finally:
            await turn._leave()

    async def start_compaction(self) -> Turn:
        """As `compact`, for those who want its events: starts the turn, which belongs to the session."""
        return await self._begin(Submission(Compact()))

    async def rollback(self, turns: int = 1) -> None:
        """Takes the last `turns` turns of the user out of the history; the rollout keeps them, with a mark.

        Files that a turn changed stay as they are. Raises `InvalidRequest` while a turn runs and for an ephemeral
        session, `StoreError` where the rollout can't be read.
        """
        await _submit(self._core, Rollback(turns))

    def events(
        self, *, buffer: int = 1024, overflow: Literal["end", "merge_deltas"] = "end"
    ) -> AbstractContextManager[EventStream]:
        """All events from now on; the first subscriber also gets those of the start.

        `buffer` is how far the reader may fall behind. Beyond that, `end` ends the stream with `EventsLost`;
        `merge_deltas` first joins deltas of the same item and drops command output deltas.
        """
        return self._core.hub.subscribe(buffer=buffer, overflow=overflow)

    async def steer(self, input: Input, *, expected: TurnId | None = None) -> TurnId:
        """Adds input to the active turn and returns its id. Raises `InvalidRequest` (session.md 3.3)."""
        items = as_input(input)
        self._core.check_running()
        active = self._core.active
        if active is None:
            raise InvalidRequest("no active turn to steer")
        if active.kind == "compact":
            raise InvalidRequest(CANT_STEER_COMPACTION)
        if expected is not None and expected != active.id:
            raise InvalidRequest(f"expected active turn id `{expected}` but found `{active.id}`")
        active.pending.append(items)
        await trio.lowlevel.checkpoint()
        return active.id

    async def interrupt(self) -> None:
        """Stops the active turn, if there is one; returns once `turn_aborted` is out."""
        await _submit(self._core, Interrupt())

    async def update(self, update: SettingsUpdate) -> None:
        """New settings for later turns, all or nothing. Raises `InvalidRequest`."""
        await _submit(self._core, UpdateSettings(update))

    async def flush(self) -> None:
        """Returns when everything recorded so far is with the operating system (on disk with `durability = "fsync"`).

        Raises `StoreError`; what could not be written stays queued and is tried again.
        """
        if self._core.hub.live is not None:
            await self._core.hub.live.flush()

    async def durable(self) -> None:
        """Returns when the thread can be resumed from the store, by another process too, even before its first turn.

        In this engine `Engine.resume_session` takes the id from the moment it is known. Raises `StoreError` while the
        thread can't be stored, `InvalidRequest` for an ephemeral session, `SessionClosed`. Cancelling ends the wait.
        """
        self._core.check_running()
        if self._core.hub.live is None:
            raise InvalidRequest("an ephemeral session is not stored; it can't be resumed")
        await self._core.hub.live.persist()

    async def aclose(self) -> None:
        """Ends the session: interrupts the turn, stops background terminals, flushes. Idempotent.

        Bounded by the engine's grace; being cancelled ends it by force, still tidy.
        """
        core = self._core
        if core.closed.is_set():
            await trio.lowlevel.checkpoint()
            return
        try:
            with trio.move_on_after(core.services.grace):
                try:
                    await core.submit(Submission(Shutdown()))
                except EngineError:
                    pass  # it is ending already; wait for that
                await core.closed.wait()
        finally:
            if not core.closed.is_set():
                core.force_stop()
                with trio.move_on_after(2 * core.services.grace, shield=True):
                    await core.closed.wait()

    async def wait_closed(self) -> None:
        """Returns when the session has ended. Raises `SessionCrashed` where it ended by an error of its own."""
        await self._core.closed.wait()
        if self._core.crash is not None:
            raise self._core.crash


async def _submit(core: SessionCore, op: Op) -> object:
    return await _answer(core, Submission(op))


async def _answer(core: SessionCore, submission: Submission) -> object:
    await core.submit(submission)
    return await submission.reply.wait()
