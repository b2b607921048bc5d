"""The start of a session: a graph of steps as data, run under nurseries, whole or not at all.

session.md 2 and CONCURRENCY 1.1. The guard is entered before the first await and owns the live thread for life; steps
run one after the other in the session's task, and from where some can overlap in an inner nursery, each as soon as what
it needs is there; failures are recorded, never raised through a nursery; `commit()` and `started()` are adjacent and
follow a last cancellation point. What a step starts for longer than the start is a child of the session's nursery,
`Start.ward`: it ends with a start that fails.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from engine.errors import EngineClosed, EngineError, SessionStartError
from engine.protocol.events import Warning
from engine.records import define, frozen
from engine.session.telling import begin_telling, tell_unstarted, telling_background
from engine.session.ward import Ward, collapse
from engine.telemetry.trace import TraceRecorder
from engine.thread_store.guard import LiveThreadGuard

if TYPE_CHECKING:
    from pathlib import Path

    from engine.models.catalogue import ModelInfo
    from engine.protocol.ids import ThreadId
    from engine.session.configuration import SessionConfiguration
    from engine.session.core import SessionCore
    from engine.session.resolving import Resolved
    from engine.session.services import Services
    from engine.session.settings import SessionSettings, SettingsUpdate
    from engine.thread_store.interface import Snapshot
    from engine.thread_store.live_thread import LiveThread
    from engine.thread_store.stored_tail import StoredTail
    from engine.tools.approvals import Approver
    from engine.tools.functions import Tool

__all__ = ["Start", "StartRequest", "Step", "StepFailed", "check_graph", "session_main"]

logger = logging.getLogger("engine")


class StepFailed(EngineError):
    """A step did not end in time, or ended without what it is there for."""


@frozen(kw_only=True)
class StartRequest:
    """What a caller asked for: a new session (`thread` is `None`), or a stored thread to go on with.

    With `snapshot`, it goes on with a fork of that thread.
    """

    settings: SessionSettings
    update: SettingsUpdate | None = None
    thread: ThreadId | Path | Literal["last"] | None = None
    any_cwd: bool = False
    snapshot: Snapshot | None = None
    functions: Sequence[Tool] = ()
    approve: Approver


@define(eq=False)
class Start:
    """One start on its way: what the steps found so far. A step writes only its own fields."""

    services: Services
    request: StartRequest
    guard: LiveThreadGuard
    trace: TraceRecorder
    resolved: Resolved | None = None
    configuration: SessionConfiguration | None = None
    model: ModelInfo | None = None
    tail: StoredTail | None = None
    thread_id: ThreadId | None = None
    live: LiveThread | None = None
    core: SessionCore | None = None
    undo: list[Callable[[], None]] = attrs.field(factory=list)
    """What a start that fails takes back, besides the thread; quick, and never raises."""
    ward: Ward = attrs.field(init=False)
    """The nursery of the session, for what a step starts and does not wait for."""
    warnings: list[str] = attrs.field(factory=list)
    """For the user; the step that makes the session tells them, in their place (session.md 2.4)."""

    def warn(self, text: str) -> None:
        """Tells the user: with the session, or at once where that is there."""
        if self.core is None:
            self.warnings.append(text)
        else:
            self.core.hub.emit("", Warning(text))

    def go_without(self, step: Step, why: Exception) -> None:
        """An optional step has failed: told as its policy says."""
        logger.warning(
            "startup step %s failed: %s", step.name, why, exc_info=None if isinstance(why, EngineError) else why
        )
        if step.on_failure == "warn":
            self.warn(f"The session goes on without its startup step `{step.name}`: {why}")


@frozen
class Step:
    """One step of the start.

    - `needs`: the steps that come before it
    - `budget_ms`: what it may cost in a warm start; bench.toml measures it
    - `when`: `before_ready` steps hold the session back, `background` ones run in its nursery once it is up, if
      `applies` says that there is something to do
    - `on_failure`: what a failure is: the end of the start (of the session, if that is up), or only a line in the log,
      or that and a warning for the user
    - `deadline`: seconds after which a step that hangs has failed; `None` where it never waits. Watching costs some
      microseconds: `waits` says whether there is something to wait for in this start
    - `gives`: the fields of `Start` that it fills
    """

    name: str
    run: Callable[[Start], Awaitable[None]]
    needs: tuple[str, ...] = ()
    budget_ms: float = 0.1
    when: Literal["before_ready", "background"] = "before_ready"
    applies: Callable[[Start], bool] = lambda start: True
    on_failure: Literal["fail", "warn", "log"] = "fail"
    deadline: float | None = None
    waits: Callable[[Start], bool] = lambda start: True
    gives: tuple[str, ...] = ()

    @property
    def span(self) -> str:
        """The name of its span."""
        return f"session_init.{self.name}"


def check_graph(graph: Sequence[Step]) -> None:
    """Raises `ValueError` where names repeat, or a need is missing or comes later (so there are no cycles)."""
    known: set[str] = set()
    for step in graph:
        missing = [need for need in step.needs if need not in known]
        if missing or step.name in known:
            raise ValueError(f"startup step {step.name!r}: duplicate, or needs {missing} before it")
        known.add(step.name)


async def _run_step(step: Step, start: Start) -> None:
    began = time.perf_counter()
    status: Literal["ok", "failed", "cancelled"] = "cancelled"
    try:
        if step.deadline is not None and step.waits(start):
            await _run_in_time(step, start, step.deadline)
        else:
            await step.run(start)
        for field in step.gives:
            if getattr(start, field) is None:
                raise StepFailed(f"the startup step `{step.name}` left `{field}` empty")
        status = "ok"
    except Exception:
        status = "failed"
        raise
    finally:
        start.trace.add(step.name, began, time.perf_counter(), status)


async def _run_in_time(step: Step, start: Start, seconds: float) -> None:
    with trio.CancelScope(deadline=trio.current_time() + seconds) as scope:
        await step.run(start)
    if scope.cancelled_caught:
        raise StepFailed(f"the startup step `{step.name}` was not done within {seconds:g} s")


async def _run_optional(step: Step, start: Start) -> None:
    """As `_run_step`, but a failure ends nothing."""
    try:
        await _run_step(step, start)
    except BaseExceptionGroup as group:  # of a nursery in the step
        exc = collapse(group)
        if not isinstance(exc, Exception):
            raise exc from None
        start.go_without(step, exc)
    except Exception as exc:
        start.go_without(step, exc)


async def _run_in_background(step: Step, start: Start) -> None:
    await trio.lowlevel.checkpoint()  # whoever asked for the session goes first
    start.trace.begin_background(step.name)
    with telling_background(start, step):
        await _runner(step)(step, start)


def _runner(step: Step) -> Callable[[Step, Start], Awaitable[None]]:
    return _run_step if step.on_failure == "fail" else _run_optional


def _waits(step: Step, start: Start) -> bool:
    return step.deadline is not None and step.waits(start)


async def _run_in_order(steps: Sequence[Step], start: Start, ward: Ward, done: set[str]) -> Sequence[Step]:
    """Runs the steps one after the other in this task, as long as there is nothing to overlap: a task costs more than
    a step that does not wait. Returns what is left, from the first step on that waits while another could run."""
    for at, step in enumerate(steps):
        if _waits(step, start) and any(done.issuperset(other.needs) for other in steps[at + 1 :]):
            return steps[at:]
        await trio.lowlevel.checkpoint_if_cancelled()
        await ward.run(step.name, _runner(step), step, start)
        if ward.failures:
            break
        done.add(step.name)
    return ()


def _failures(*wards: Ward | None) -> list[tuple[str, Exception]]:
    return [failure for ward in wards if ward is not None for failure in ward.failures]


async def _run_from(step: Step, steps: Sequence[Step], start: Start, ward: Ward, done: set[str]) -> None:
    """Runs a step and what it made ready: the first of that here, because a task costs more than a step, the rest as
    children."""
    following: Step | None = step
    while following is not None:
        step, following = following, None
        await trio.lowlevel.checkpoint_if_cancelled()
        await ward.run(step.name, _runner(step), step, start)
        if ward.failures:
            return
        done.add(step.name)
        for ready in steps:
            if step.name in ready.needs and done.issuperset(ready.needs):
                if following is None:
                    following = ready
                else:
                    ward.start_soon(ready.name, _run_from, ready, steps, start, ward, done)


@trio.lowlevel.enable_ki_protection
async def session_main(
    services: Services,
    request: StartRequest,
    graph: Sequence[Step],
    closing: Callable[[], bool],
    *,
    task_status: trio.TaskStatus[SessionCore],
) -> None:
    """The task of one session, from its first step to its last flush. `task_status` is told when it is ready."""
    core: SessionCore | None = None
    first: Ward | None = None
    ward: Ward | None = None
    failures_told = False
    guard = LiveThreadGuard(services.store, services.grace)
    start = Start(services, request, guard, TraceRecorder())
    try:
        async with guard:
            async with trio.open_nursery() as session_nursery:
                start.ward = ward = Ward(session_nursery)
                steps = [step for step in graph if step.when == "before_ready"]
                done: set[str] = set()
                left = await _run_in_order(steps, start, ward, done)
                if left:
                    async with trio.open_nursery() as startup:
                        first = Ward(startup)
                        for step in left:
                            if done.issuperset(step.needs):
                                first.start_soon(step.name, _run_from, step, left, start, first, done)
                if not ward.failures and not (first is not None and first.failures) and not closing():
                    core = start.core
                    assert core is not None, "the graph has a step that makes the session"
                    core.ward = ward
                    start.trace.finish()
                    core.startup = start.trace
                    for step in graph:
                        if step.when == "background" and step.applies(start):
                            ward.start_soon(step.name, _run_in_background, step, start)
                    await trio.lowlevel.checkpoint_if_cancelled()  # the last fallible line
                    guard.commit()
                    core.up = True
                    task_status.started(core)
                    begin_telling(core, start)
                    with core.telemetry.span("session_loop"):
                        await ward.run("submission loop", core.loop)
                session_nursery.cancel_scope.cancel(reason="the session is over")
        if core is None or not core.up:
            await trio.lowlevel.checkpoint_if_cancelled()  # cancelled and failed is always cancelled
            if closing():
                raise EngineClosed("the engine is closing; the session was not started")
            (stage, cause), *also = _failures(first, ward)
            error = SessionStartError(stage, cause, also)
            error.startup_trace = start.trace.trace()
            if guard.error is not None:
                error.add_note(f"and discarding the thread failed: {guard.error!r}")
            raise error from cause
    except SessionStartError:
        failures_told = True
        raise
    finally:
        if start.tail is not None:
            start.tail.close()
        if core is None or not core.up:
            tell_unstarted(start, failed=failures_told)
            for undo in start.undo:
                undo()
        failures = _failures(first, ward)
        if guard.error is not None:
            # An error of ours says what failed and was told as a warning; only a bug needs its stack.
            bug = None if isinstance(guard.error, EngineError) else guard.error
            logger.error("the thread of a session was not let go in good order: %s", guard.error, exc_info=bug)
        if core is not None and core.up:
            core.finish(failures[0][1] if failures else None, guard.error)
        elif not failures_told:
            for stage, cause in failures:
                logger.error("startup step %s failed in a start that was cancelled", stage, exc_info=cause)


async def start_session(
    nursery: trio.Nursery,
    pending: set[trio.CancelScope],
    services: Services,
    request: StartRequest,
    graph: Sequence[Step],
    closing: Callable[[], bool],
) -> SessionCore:
    """Starts a session in `nursery` under a scope the engine can cancel. Nothing but `return` may follow the start."""
    if closing():
        raise EngineClosed("the engine is closing; it starts no more sessions")
    try:
        with trio.CancelScope() as scope:
            pending.add(scope)
            try:
                core: SessionCore = await nursery.start(session_main, services, request, graph, closing)
                return core
            finally:
                pending.discard(scope)
    except BaseExceptionGroup as group:
        raise collapse(group) from None
    raise EngineClosed("the engine closed while the session was starting")
