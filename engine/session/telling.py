"""What a session tells about its start, its turns and its end (session.md 2.4, C4; extensibility.md 9, 10).

To its telemetry, to its rollout trace and to analytics; by default nobody wants any of it, and then each of these
functions is one question.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

from engine import __version__
from engine.config.features import FEATURES, Stage
from engine.models.identity import originator
from engine.protocol.inputs import ImageInput, LocalImageInput, TextInput, UserInput
from engine.telemetry.analytics import ThreadInitialized, TurnEnded
from engine.telemetry.handle import Attributes, Beginning, Telemetry, carrying, current

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.session.core import SessionCore
    from engine.session.services import Services
    from engine.session.startup import Start, Step
    from engine.session.submissions import Submission
    from engine.session.turn import TurnRun
    from engine.telemetry.trace import StartupTrace

__all__ = [
    "begin_telling",
    "end_telling",
    "learn_login",
    "tell_compaction",
    "tell_input",
    "tell_unstarted",
    "telling",
    "telling_background",
    "telling_operation",
    "telling_phase",
]

logger = logging.getLogger("engine.telemetry")

_UNTOLD: AbstractContextManager[None] = nullcontext()
# The names of operations on the wire (session.md 3.1).
_OPERATIONS = {
    "Compact": "compact",
    "Interrupt": "interrupt",
    "ReloadConfig": "reload_user_config",
    "Rollback": "thread_rollback",
    "RunShell": "run_user_shell_command",
    "Shutdown": "shutdown",
    "UpdateSettings": "override_turn_context",
    "UserTurn": "user_turn",
}
# The metrics of starts have no other word for how long all of it took.
WHOLE_START = "thread_start_total"


# --- the start and the end -----------------------------------------------------------------------


def begin_telling(core: SessionCore, start: Start) -> None:
    """A session is up. From now on it has a trace and a telemetry handle, where somebody wants them. Never raises."""
    services = core.services
    if not services.telemetry.enabled and services.bundles is None and not services.analytics.enabled:
        return
    try:
        if services.bundles is not None:
            from engine.session.tracing import trace_session

            core.trace = trace_session(core, services.bundles)
        if services.telemetry.enabled and core.startup_trace is not None:
            core.telemetry = _tell_start(core, start, core.startup_trace)
        if services.analytics.enabled:
            services.analytics.track(
                ThreadInitialized(core.thread_id, core.model_slug(), core.configuration.ephemeral, _kind(start))
            )
    except Exception:  # what describes a session must not end it
        logger.exception("session %s is not described as it should be", core.thread_id)


def tell_unstarted(start: Start, *, failed: bool) -> None:
    """A start failed, or was cancelled. Never raises."""
    telemetry = start.services.telemetry
    if not telemetry.enabled:
        return
    status: Literal["failed", "cancelled"] = "failed" if failed else "cancelled"
    try:
        environment = start.services.environment
        start.trace.finish()
        startup = start.trace.trace()
        facts = {**_program(start.services), "session_init.kind": _kind(start)}
        if start.thread_id is not None:
            facts["conversation.id"] = start.thread_id
        handle = telemetry.session(
            Beginning(
                facts,
                startup,
                status,
                steps=_steps(start),
                carrier=start.request.settings.trace_context,
                ambient=_ambient(environment),
            )
        )
        _tell_phase(handle, WHOLE_START, startup.duration, status)
    except Exception:
        logger.exception("a start that came to nothing is not described as it should be")


def end_telling(core: SessionCore, *, orderly: bool) -> None:
    """A session is over, and all its events are emitted. `orderly`: it was asked to end. Never raises."""
    if core.trace is None and not core.telemetry.enabled:
        return
    try:
        if core.trace is not None:
            core.trace.ended("failed" if core.crash is not None else "completed" if orderly else "aborted")
        if core.telemetry.enabled:
            from engine.rollout.boundaries import is_user_turn_boundary

            turns = sum(map(is_user_turn_boundary, core.history.own_items))  # what nobody looked at is not read now
            core.telemetry.count("codex.conversation.turn.count", turns)
    except Exception:
        logger.exception("the end of session %s is not described as it should be", core.thread_id)


def _tell_start(core: SessionCore, start: Start, startup: StartupTrace) -> Telemetry:
    """The handle of a session that is up; tells its start, its features that differ from default, and its settings."""
    services, configuration, model = core.services, core.configuration, core.model_info()
    config = configuration.config
    source = configuration.source
    facts = {
        "conversation.id": core.thread_id,
        **_program(services),
        "terminal.type": services.environment.get("TERM_PROGRAM") or services.environment.get("TERM") or "unknown",
        "model": model.slug,
        "slug": model.slug,
        "session_source": source if isinstance(source, str) else next(iter(source), "unknown"),
    }
    if start.request.settings.service_name is not None:
        facts["service_name"] = start.request.settings.service_name
    telemetry = services.telemetry.session(
        Beginning(
            facts,
            startup,
            steps=_steps(start),
            carrier=start.request.settings.trace_context,
            ambient=_ambient(services.environment),
        )
    )
    core.telemetry = telemetry
    learn_login(core)
    _tell_phase(telemetry, WHOLE_START, startup.duration, "ready")
    telemetry.count("codex.thread.started", tags={"is_git": "true" if _is_in_git(configuration.cwd) else "false"})
    for name, feature in FEATURES.items():
        enabled = config.features.get(name, feature.default)
        if feature.stage is not Stage.REMOVED and enabled != feature.default:
            telemetry.count("codex.feature.state", tags={"feature": name, "value": "true" if enabled else "false"})
    if config.active_profile is not None:
        telemetry.count("codex.profile.usage")
    told: dict[str, str | int | None] = {
        "provider_name": config.provider.name or config.model_provider_id,
        "reasoning_effort": configuration.reasoning_effort or model.default_reasoning_level,
        "reasoning_summary": configuration.reasoning_summary or model.default_reasoning_summary,
        "context_window": model.effective_context_window,
        "auto_compact_token_limit": config.model_auto_compact_token_limit,
        "approval_policy": str(configuration.approval_policy),
        "sandbox_policy": configuration.sandbox_policy.type,
    }
    telemetry.event(
        "codex.conversation_starts",
        {name: value for name, value in told.items() if value is not None},
        {"mcp_servers": "", "active_profile": config.active_profile or ""},
    )
    return telemetry


def _program(services: Services) -> dict[str, str | int | float | bool]:
    return {"app.version": __version__, "originator": originator(services.environment)}


def _kind(start: Start) -> str:
    if start.request.thread is None:
        return "new"
    return "resumed" if start.request.snapshot is None else "forked"


def _steps(start: Start) -> dict[str, Attributes]:
    """The attributes of spans of steps; those of a step that did not come that far are left out."""
    told: dict[str, Attributes] = {"stored_thread": {"session_init.kind": _kind(start)}}
    if start.configuration is not None:
        told["thread_persistence"] = {"session_init.ephemeral": start.configuration.ephemeral}
    return told


def _ambient(environment: Mapping[str, str]) -> Mapping[str, str]:
    return {name.lower(): value for name in ("TRACEPARENT", "TRACESTATE") if (value := environment.get(name))}


def telling_phase(phase: str) -> AbstractContextManager[None]:
    """Tells a phase of a start that runs in the block, in a task of the session."""
    telemetry = current()
    return _telling_phase(telemetry, phase) if telemetry.enabled else _UNTOLD


@contextmanager
def _telling_phase(telemetry: Telemetry, phase: str) -> Iterator[None]:
    began, status = time.perf_counter(), "cancelled"
    try:
        yield
        status = "ready"
    except Exception:
        status = "failed"
        raise
    finally:
        _tell_phase(telemetry, phase, time.perf_counter() - began, status)


def _tell_phase(telemetry: Telemetry, phase: str, seconds: float, status: str) -> None:
    took = int(seconds * 1000)
    telemetry.measure("codex.startup.phase.duration_ms", took, {"phase": phase, "status": status})
    telemetry.event("codex.startup_phase", {"startup.phase": phase, "startup.status": status, "duration_ms": took})


def telling_background(start: Start, step: Step) -> AbstractContextManager[None]:
    """Tells a step that runs in the block once the session is up."""
    core = start.core
    return nullcontext() if core is None or not core.telemetry.enabled else _within(core.telemetry, step.span)


def telling_operation(core: SessionCore, submission: Submission) -> AbstractContextManager[None]:
    """Tells an operation that is handled in the block."""
    if not core.telemetry.enabled:
        return _UNTOLD
    name = type(submission.op).__name__
    return core.telemetry.span(f"op.dispatch.{_OPERATIONS.get(name, name)}", {"submission.id": submission.id})


@contextmanager
def _within(telemetry: Telemetry, span: str) -> Iterator[None]:
    with carrying(telemetry), telemetry.span(span):
        yield


def learn_login(core: SessionCore) -> None:
    """Whose session it is, as soon as that is known: a stored login is read for the first request, not for a start."""
    login = core.services.models.auth.cached
    if login is None or not core.telemetry.enabled:
        return
    private = {"user.account_id": login.account_id, "user.email": login.email}
    core.telemetry.learn(
        {"auth_mode": login.mode}, {name: value for name, value in private.items() if value is not None}
    )


def _is_in_git(cwd: str) -> bool:
    folder = cwd
    while not os.path.lexists(os.path.join(folder, ".git")):
        above = os.path.dirname(folder)
        if above == folder:
            return False
        folder = above
    return True


# --- turns ---------------------------------------------------------------------------------------


def telling(turn: TurnRun) -> AbstractContextManager[None]:
    """Tells a turn that runs in the block: its span, and at its end how long it took and used."""
    core = turn.core
    return _telling(turn) if core.telemetry.enabled or core.services.analytics.enabled else nullcontext()


@contextmanager
def _telling(turn: TurnRun) -> Iterator[None]:
    telemetry, model = turn.core.telemetry, turn.model_info.slug
    name = "turn" if turn.kind == "regular" else turn.kind
    if telemetry.enabled:
        telemetry.learn({"model": model, "slug": model})
    with carrying(telemetry), telemetry.span(f"session_task.{name}", {"turn.id": turn.id, "model": model}):
        if turn.kind == "user_shell":
            telemetry.count("codex.task.user_shell")
        ended = False
        try:
            yield
            ended = True
        finally:
            if turn.kind == "regular":
                _tell_end(turn, telemetry)
            turn.core.services.analytics.track(
                TurnEnded(turn.thread_id, turn.id, turn.kind, model, turn.duration_ms(), completed=ended)
            )


def tell_compaction(turn: TurnRun, trigger: str, *, remote: bool) -> None:
    """Tells that a history is compacted, by the server or by the model."""
    if turn.core.telemetry.enabled:
        tags = {"type": "remote" if remote else "local", "trigger": trigger}
        turn.core.telemetry.count("codex.task.compact", tags=tags)


def tell_input(turn: TurnRun, items: Sequence[UserInput]) -> None:
    """Tells that the user said something: with what the turn began, or while it ran."""
    telemetry = turn.core.telemetry
    if telemetry.enabled:
        kinds = {"text": TextInput, "image": ImageInput, "local_image": LocalImageInput}
        counts = {f"{name}_input_count": sum(isinstance(item, kind) for item in items) for name, kind in kinds.items()}
        telemetry.prompt("".join(item.text for item in items if isinstance(item, TextInput)), counts)


def _tell_end(turn: TurnRun, telemetry: Telemetry) -> None:
    telemetry.measure("codex.turn.e2e_duration_ms", turn.duration_ms())
    telemetry.measure("codex.turn.tool.call", turn.tool_calls)
    first = turn.first_token_ms()
    if first is not None:
        telemetry.measure("codex.turn.ttft.duration_ms", first)
        telemetry.event("codex.turn_ttft", {"duration_ms": first})
    message = turn.first_message_ms()
    if message is not None:
        telemetry.measure("codex.turn.ttfm.duration_ms", message)
    usage = turn.tokens_used
    for kind, tokens in (
        ("total", usage.total_tokens),
        ("input", usage.input_tokens),
        ("cached_input", usage.cached_input_tokens),
        ("output", usage.output_tokens),
        ("reasoning_output", usage.reasoning_output_tokens),
    ):
        telemetry.measure("codex.turn.token_usage", tokens, {"token_type": kind})
