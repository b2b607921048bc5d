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
from engine.exec_policy.in_force import RulesInForce
from engine.execution.terminals import TerminalManager
from engine.models.base import ModelSession, SessionFacts, open_model_session
from engine.models.catalogue import ModelInfo, find_model
from engine.protocol.events import ErrorEvent, ShutdownComplete, TurnAborted, Warning
from engine.protocol.ids import SessionId, ThreadId, TurnId
from engine.protocol.rollout_items import TurnContext
from engine.protocol.settings import TokenUsage, TokenUsageInfo
from engine.protocol.wire import JsonObject
from engine.records import define
from engine.session.compaction.estimate import history_tokens
from engine.session.context import interruption_marker
from engine.session.delivery import EventHub
from engine.session.history import History, sent_again
from engine.session.rollback import roll_back
from engine.session.settings import SettingsUpdate
from engine.session.shell_snapshots import session_snapshots
from engine.session.submissions import (
    Compact,
    Interrupt,
    Rollback,
    RunShell,
    Shutdown,
    Submission,
    UpdateSettings,
    UserTurn,
)
from engine.session.turn import CANT_STEER_COMPACTION, TurnRun
from engine.session.turn_setup import make_turn
from engine.session.user_shell import run_user_shell
from engine.session.ward import Ward
from engine.telemetry.handle import NO_TELEMETRY, Telemetry
from engine.tools.approvals import Approver
from engine.tools.builtin import session_tools
from engine.tools.functions import Tool
from engine.tools.registry import ToolRegistry
from engine.tools.turn_permissions import SessionApprovals

if TYPE_CHECKING:
    from engine.execution.shell_snapshot import ShellSnapshots
    from engine.models.base import Model
    from engine.session.compaction.hooks import CompactionHooks
    from engine.session.configuration import SessionConfiguration
    from engine.session.prewarm import Prewarm
    from engine.session.resume import StoredPast
    from engine.session.services import Services
    from engine.telemetry.trace import StartupTrace

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
    approvals: SessionApprovals = attrs.field(init=False)
    """What the user agreed to for the whole session."""
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
    startup_trace: StartupTrace | None = None
    telemetry: Telemetry = NO_TELEMETRY
    """What the session tells about itself goes there."""
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
    _terminals: TerminalManager | None = attrs.field(default=None, init=False)
    _snapshots: tuple[ShellSnapshots | None] | None = attrs.field(default=None, init=False)
    _registries: dict[tuple[str, bool], ToolRegistry] = attrs.field(factory=dict, init=False)
    _line: tuple[Model, ModelSession] | None = attrs.field(default=None, init=False)
    _send: trio.MemorySendChannel[Submission] = attrs.field(init=False)
    _receive: trio.MemoryReceiveChannel[Submission] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        config = self.configuration.config
        self.approvals = SessionApprovals(RulesInForce.of(config))
        self._send, self._receive = trio.open_memory_channel[Submission](QUEUE_SIZE)

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
            case UserTurn() as op:
                submission.reply.answer(await self._user_turn(submission, op))
            case UpdateSettings(update):
                self._apply(submission, update)
                self.configuration = self.configuration.in_environments(update.environments, self.services.environments)
                submission.reply.answer(None)
            case RunShell() as op:
                submission.reply.answer(self._user_shell(submission, op))
            case Compact():
                submission.reply.answer(await self._compact(submission))
            case Rollback(turns):
                await roll_back(self, submission.id, turns)
                self.hub.then(functools.partial(submission.reply.answer, None))
            case Interrupt(turn_id):
                if self.active is not None and turn_id in (None, self.active.id):
                    await self.abort("interrupted")
                self.hub.then(functools.partial(submission.reply.answer, None))  # `turn_aborted` is out by then
            case Shutdown():
                self._shutdown_id = submission.id
                await self._shut_down()
                submission.reply.answer(None)

    def _apply(self, submission: Submission, update: SettingsUpdate | None) -> None:
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

    async def _user_turn(self, submission: Submission, op: UserTurn) -> TurnRun:
        # Settings are committed even where the input ends up steering the active turn.
        self._apply(submission, op.update)
        model_info = self.model_info()
        if model_info.is_fallback:
            self.hub.emit(
                submission.id,
                Warning(
                    f"Model metadata for `{model_info.slug}` not found. Defaulting to fallback metadata; "
                    "this can degrade performance and cause issues."
                ),
            )
        if self.active is not None and self.active.kind == "compact":
            self.hub.emit(
                submission.id,
                ErrorEvent(CANT_STEER_COMPACTION, {"active_turn_not_steerable": {"turn_kind": "compact"}}),
            )
            raise InvalidRequest(CANT_STEER_COMPACTION)
        if self.active is not None and self.active.kind == "regular":
            self.active.pending.append(op.input)
            return self.active
        await self.abort("replaced")
        if submission.reply.arrived():
            raise InvalidRequest("the request was withdrawn")
        environments = op.update.environments if op.update is not None else None
        turn = make_turn(self, submission, op.input, model_info, environments=environments)
        turn.output_schema = op.update.output_schema if op.update is not None else None
        self._start(turn, submission)
        return turn

    async def _compact(self, submission: Submission) -> TurnRun:
        await self.abort("replaced")
        if submission.reply.arrived():
            raise InvalidRequest("the request was withdrawn")
        turn = make_turn(self, submission, (), self.model_info(), kind="compact")
        self._start(turn, submission)
        return turn

    def _user_shell(self, submission: Submission, op: RunShell) -> TurnRun:
        model_info = self.model_info()
        host = self.active
        turn = make_turn(self, submission, (), model_info, kind="user_shell", host=host)
        if host is None:
            self.active = turn
        else:
            self.beside.add(turn)
        self.ward.start_soon("user shell", run_user_shell, turn, op.command, host, context=submission.context)
        return turn

    def _start(self, turn: TurnRun, submission: Submission) -> None:
        self.hub.stop_replay()
        self.active = turn
        self.ward.start_soon(f"turn {turn.id}", turn.run, context=submission.context)

    def registry(self, model_info: ModelInfo, *, somewhere: bool = True) -> ToolRegistry:
        """The tools of a turn with this model; `somewhere` says whether it has an environment to work in."""
        key = (model_info.slug, somewhere)
        registry = self._registries.get(key)
        if registry is None:
            tools = session_tools(self.configuration.config, model_info, self.functions, somewhere=somewhere)
            registry = self._registries[key] = ToolRegistry(tools)
        return registry

    def terminals(self) -> TerminalManager:
        """The background terminals; made with the first turn."""
        if self._terminals is None:
            self._terminals = TerminalManager(
                self.services.supervisor,
                self.ward.nursery,
                max_poll_ms=self.configuration.config.background_terminal_max_timeout,
            )
        return self._terminals

    def snapshots(self) -> ShellSnapshots | None:
        """What commands load in place of the user's profile; `None` where the session wants none."""
        if self._snapshots is None:
            self._snapshots = (session_snapshots(self),)
        return self._snapshots[0]

    def line_to(self, model: Model) -> ModelSession:
        """The session's own line to a model, kept while its turns use that model."""
        if self._line is not None:
            known, line = self._line
            if known is model:
                return line
            line.fall_back()  # lets its connection go
        facts = SessionFacts(
            spawn=self.ward.start_soon,
            input_form=sent_again,
            acknowledge=self.configuration.config.features.get("responses_websocket_response_processed", False),
        )
        line = open_model_session(model, facts)
        self._line = (model, line)
        return line

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
        if self._terminals is not None:
            await self._terminals.close()

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
        self._refuse_queued(outcome)
        self.hub.end(self.crash)
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
