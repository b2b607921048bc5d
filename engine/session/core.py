"""The inside of a running session: its state, and the loop that takes submissions in order (session.md 3.1)."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from engine.errors import EngineError, InvalidRequest, SessionClosed, SessionCrashed, StoreError, TurnInterrupted
from engine.models.catalogue import ModelInfo, find_model
from engine.protocol.events import ErrorEvent, ShutdownComplete, TurnAborted, Warning
from engine.protocol.ids import SessionId, ThreadId, TurnId
from engine.protocol.settings import TokenUsage, TokenUsageInfo
from engine.records import define
from engine.session.delivery import EventHub
from engine.session.history import History
from engine.session.submissions import (
    Compact,
    Interrupt,
    ReloadConfig,
    Rollback,
    RunShell,
    Shutdown,
    Submission,
    UpdateSettings,
    UserTurn,
)
from engine.session.telling import end_telling, telling_operation
from engine.session.ward import Ward
from engine.telemetry.handle import NO_TELEMETRY, Telemetry

if TYPE_CHECKING:
    from engine.protocol.rollout_items import TurnContext
    from engine.protocol.wire import JsonObject
    from engine.session.compaction.hooks import CompactionHooks
    from engine.session.configuration import SessionConfiguration
    from engine.session.prewarm import Prewarm
    from engine.session.resume import StoredPast
    from engine.session.services import Services
    from engine.session.settings import SettingsUpdate
    from engine.session.tracing import ThreadTrace
    from engine.session.turn import TurnRun
    from engine.session.turn_resources import TurnResources
    from engine.telemetry.trace import StartupTrace, TraceRecorder
    from engine.tools.approvals import Approver
    from engine.tools.functions import Tool

__all__ = ["SessionCore"]

NO_REVIEWER = (
    "Approvals can't be reviewed automatically yet; whatever needs an approval is decided by the user, as with "
    "approvals_reviewer = user."
)

QUEUE_SIZE = 512  # submissions; senders wait beyond that
INTERRUPT_GRACE = 0.1  # seconds a turn has to wind up before it is fenced off
FLUSH_BOUND = 5.0  # seconds an interrupt waits for the disk


@define(eq=False, kw_only=True)
class SessionCore:
    """State of one session. Only its own tasks touch it; handles go through `submit`."""

    services: Services
    thread_id: ThreadId
    session_id: SessionId
    configuration: SessionConfiguration
    base_instructions: str
    functions: Sequence[Tool] = ()
    approve: Approver
    hub: EventHub
    history: History = attrs.field(factory=History)
    reference: TurnContext | None = None
    previous_model: str | None = None
    usage: TokenUsageInfo | None = None
    rate_limits: JsonObject | None = None
    generation: int = 0
    """How often the thread was compacted, as far as it is counted; numbers the context window."""
    counting: trio.Event | None = None
    """Set once `generation` is counted; `None` where there was nothing to count."""
    compaction_hooks: CompactionHooks
    """Asked before and after each compaction."""
    past: StoredPast | None = None
    """What a resumed thread brings along, until it is needed."""
    default_model: str | None = None
    """The model of a session that names none, as its start chose it."""
    prewarm: Prewarm | None = None
    """The connection that is being prepared, until the first turn takes it."""
    rollout_path: str | None = None
    startup: TraceRecorder | None = None
    telemetry: Telemetry = NO_TELEMETRY
    """What the session tells about itself goes there."""
    trace: ThreadTrace | None = None
    """Its part of a rollout trace, where one is wanted."""
    active: TurnRun | None = None
    beside: set[TurnRun] = attrs.field(factory=set)
    """The user's own commands that run beside the active turn, under its id."""
    closed: trio.Event = attrs.field(factory=trio.Event)
    crash: SessionCrashed | None = None
    up: bool = False
    closing: bool = False
    on_finished: Callable[[SessionCore], None] | None = None
    ward: Ward = attrs.field(init=False)
    _handling: Submission | None = attrs.field(default=None, init=False)
    _shutdown_id: str = attrs.field(default="", init=False)
    _resources: TurnResources | None = attrs.field(default=None, init=False)
    _send: trio.MemorySendChannel[Submission] = attrs.field(init=False)
    _receive: trio.MemoryReceiveChannel[Submission] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Submission](QUEUE_SIZE)
        if self.configuration.config.requirements.rules is not None:
            self.resources()  # rules of an administrator that can't be used fail the start

    # --- from outside --------------------------------------------------------------------------

    async def submit(self, submission: Submission) -> None:
        """Queues a submission; waits while the queue is full. Raises `SessionClosed` or `SessionCrashed`."""
        self.check_running()
        try:
            await self._send.send(submission)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.check_running()
            raise SessionClosed("the session is closed; start or resume one to go on") from None

    def withdraw(self, submission: Submission) -> None:
        """Nobody waits for the reply any more: the operation is skipped, or the turn it started is interrupted."""
        if not submission.reply.arrived():
            submission.reply.fail(InvalidRequest("the request was withdrawn"))
        elif self.active is not None and self.active.id == TurnId(submission.id):
            self.request_interrupt(self.active.id)
        else:
            for running in self.beside:
                if running is submission.reply.value:
                    running.scope.cancel(reason="its caller was cancelled")

    def check_running(self) -> None:
        """Raises `SessionCrashed` or `SessionClosed` where the session takes no more."""
        if self.crash is not None:
            raise self.crash
        if self.closing or self.closed.is_set():
            raise SessionClosed("the session is closed; start or resume one to go on")

    def request_interrupt(self, turn_id: TurnId | None = None) -> None:
        """Asks for an interrupt without waiting; the turn (with `turn_id`, only that one) is aborted soon after."""
        try:
            self._send.send_nowait(Submission(Interrupt(turn_id)))
        except trio.WouldBlock:
            self.ward.start_soon("interrupt", self.abort, "interrupted")  # past a full queue
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the session is over, and the turn with it

    @property
    def startup_trace(self) -> StartupTrace | None:
        """How the start went, and how its background steps are doing."""
        return None if self.startup is None else self.startup.trace()

    def model_slug(self) -> str:
        """The model later turns use."""
        return self.model_info().slug

    def model_info(self) -> ModelInfo:
        """What is known of that model."""
        configuration = self.configuration
        catalogue = self.services.models.catalogue(configuration.config)
        # What the start chose stays, also where a catalogue that came later would choose another.
        return find_model(configuration.model or self.default_model, configuration.config, catalogue)

    def force_stop(self) -> None:
        """Cancels everything the session runs; what is left to do is the guard's."""
        self.closing = True
        self.ward.nursery.cancel_scope.cancel(reason="the session was stopped")

    # --- the loop ------------------------------------------------------------------------------

    async def loop(self) -> None:
        """Takes submissions until a shutdown. Being cancelled is the end by force: the active turn was aborted."""
        try:
            async for submission in self._receive:
                if submission.reply.arrived():
                    continue  # withdrawn while it was queued
                self._handling = submission
                try:
                    with telling_operation(self, submission):
                        await self._handle(submission)
                except EngineError as exc:
                    submission.reply.fail(exc)
                self._handling = None
                if isinstance(submission.op, Shutdown):
                    return
        except trio.Cancelled:
            if self.active is not None and not self.ward.failures:
                self._tell_aborted(self.active, "interrupted")
            raise

    async def _handle(self, submission: Submission) -> None:
        match submission.op:
            case UpdateSettings(update):
                self.apply(submission, update)
                self.configuration = self.configuration.in_environments(update.environments, self.services.environments)
                submission.reply.answer(None)
            case ReloadConfig(fresh):
                self.configuration = self.configuration.with_user_layers(fresh)
                submission.reply.answer(None)
            case Interrupt(turn_id):
                if self.active is not None and turn_id in (None, self.active.id):
                    await self.abort("interrupted")
                self.hub.then(functools.partial(submission.reply.answer, None))  # `turn_aborted` is out by then
            case Shutdown():
                self._shutdown_id = submission.id
                await self._shut_down()
                submission.reply.answer(None)
            case UserTurn() | RunShell() | Compact() | Rollback() as op:
                from engine.session.turn_operations import perform  # with the first: no start needs what turns need

                await perform(self, submission, op)

    def apply(self, submission: Submission, update: SettingsUpdate | None) -> None:
        """Takes new settings, all or none. Raises `InvalidRequest`, told as an event too."""
        if update is None:
            return
        try:
            cwd = None if update.cwd is None else absolute_folder(update.cwd, self.configuration.cwd)
            self.configuration = self.configuration.apply(update, cwd=cwd)
        except InvalidRequest as exc:
            self.hub.emit(submission.id, ErrorEvent(str(exc), "bad_request"))
            raise
        if update.approvals_reviewer is not None and self.configuration.approvals_reviewer != "user":
            self.hub.emit(submission.id, Warning(NO_REVIEWER))

    # --- for its turns -------------------------------------------------------------------------

    def resources(self) -> TurnResources:
        """What the turns share; made with the first one."""
        if self._resources is None:
            from engine.session.turn_resources import TurnResources

            self._resources = TurnResources(self)
        return self._resources

    async def use_prewarm(self, limit: float) -> None:
        """The first turn takes the prepared connection, and waits for it until it is `limit` seconds old."""
        prewarm, self.prewarm = self.prewarm, None
        if prewarm is not None:
            await prewarm.settle(limit)

    async def settle_past(self) -> None:
        """Returns when history and reference context of a resumed thread are there. Raises `StoreError`."""
        if self.past is not None:
            await self.past.ready()
            self.history.settle()

    async def generation_counted(self) -> None:
        """Returns when `generation` is the number of the context window."""
        if self.counting is not None:
            await self.counting.wait()

    def estimate_usage(self, window: int | None) -> None:
        """Tells the usage of the window from the history alone: it is another one than the last response counted."""
        from engine.session.compaction.estimate import history_tokens

        total = self.usage.total_token_usage if self.usage is not None else TokenUsage()
        estimate = TokenUsage(total_tokens=history_tokens(self.history.items, self.base_instructions))
        self.usage = TokenUsageInfo(total, estimate, window)

    def turn_over(self, turn: TurnRun) -> None:
        """A turn concluded."""
        self.beside.discard(turn)
        if self.active is turn:
            self.active = None

    async def flush_quietly(self) -> StoreError | None:
        """Flushes the rollout; returns what went wrong instead of raising it. The items stay queued."""
        if self.hub.live is None:
            return None
        try:
            await self.hub.live.flush()
        except StoreError as exc:
            return exc
        return None

    async def abort(self, reason: str) -> None:
        """Stops the active turn: 100 ms to wind up, then the fence (session.md 3.5)."""
        turn = self.active
        if turn is None:
            return
        for running in (turn, *self.beside):
            running.scope.cancel(reason=reason)
        try:
            with trio.move_on_after(INTERRUPT_GRACE):
                await turn.finished.wait()
            self._close_fence(turn, reason)
            if reason == "interrupted" and not turn.over:
                with trio.move_on_after(FLUSH_BOUND):
                    await self.flush_quietly()
        finally:
            self._tell_aborted(turn, reason)  # also where the session is stopped by force meanwhile

    def _close_fence(self, turn: TurnRun, reason: str) -> None:
        """Drops what else comes of the turn; the model will find the marker of an interrupt."""
        if not turn.fence.open:
            return
        turn.fence.open = False
        if reason == "interrupted" and self.configuration.config.interrupt_message:
            from engine.session.context import interruption_marker

            marker = interruption_marker()
            self.history.record([marker], turn.facts.truncation)
            self.hub.record(turn.id, [marker], announce=False)

    @trio.lowlevel.enable_ki_protection
    def _tell_aborted(self, turn: TurnRun, reason: str) -> None:
        """The last event of an aborted turn; none where it has completed by itself."""
        if turn.over:
            return
        self._close_fence(turn, reason)
        duration = turn.duration_ms()
        self.hub.emit(turn.id, TurnAborted(turn.id, reason, completed_at=int(time.time()), duration_ms=duration))
        turn.conclude(TurnInterrupted(reason))

    async def _shut_down(self) -> None:
        self.closing = True
        await self.abort("interrupted")
        if self._resources is not None:
            await self._resources.close()

    # --- the end -------------------------------------------------------------------------------

    def finish(self, error: Exception | None, persistence_error: Exception | None) -> None:
        """The session is over. A crash is kept for whoever asks; nothing is raised here."""
        self.closing = True
        self.hub.stop_persisting()
        if error is not None:
            crash = SessionCrashed(f"the session {self.thread_id} ended by an error: {error}")
            crash.__cause__ = error
            self.crash = crash
        outcome = self.crash or SessionClosed("the session was closed before the turn completed")
        for running in list(self.beside):
            running.conclude(outcome)
        if self.active is not None:
            self.active.conclude(outcome)
        if persistence_error is not None:
            self.hub.emit("", ErrorEvent("Failed to shutdown thread persistence", "other"))
        if error is None:
            self.hub.emit(self._shutdown_id, ShutdownComplete())
        end_telling(self, orderly=self._shutdown_id != "")
        self._refuse_queued(outcome)
        self.hub.end(self.crash)
        self._resources = None
        self.closed.set()
        if self.on_finished is not None:
            self.on_finished(self)
        if error is not None:
            self.services.crashed(self, error)

    def _refuse_queued(self, outcome: SessionCrashed | SessionClosed) -> None:
        if self._handling is not None:
            self._handling.reply.fail(outcome)
        while True:
            try:
                submission = self._receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            submission.reply.fail(outcome)
        self._receive.close()


def absolute_folder(path: os.PathLike[str] | str, base: str) -> str:
    """`path` made absolute on `base`. Raises `InvalidRequest` where it is no directory."""
    absolute = os.path.normpath(os.path.join(base, os.path.expanduser(os.fspath(path))))
    if not os.path.isdir(absolute):
        problem = "is not a directory" if os.path.exists(absolute) else "does not exist"
        raise InvalidRequest(f"the working directory {absolute} {problem}")
    return absolute
