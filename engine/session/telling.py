"""What a session tells about its start and its turns (session.md 2.4, C4; extensibility.md 9); nothing by default."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from engine import __version__
from engine.config.features import FEATURES, Stage
from engine.errors import ModelError
from engine.models.identity import originator
from engine.protocol.inputs import TextInput, UserInput
from engine.telemetry.handle import NO_TELEMETRY, Telemetry, carrying

if TYPE_CHECKING:
    from engine.session.core import SessionCore
    from engine.session.turn import TurnRun
    from engine.telemetry.trace import StartupTrace

__all__ = ["session_telemetry", "tell_input", "telling", "telling_request"]


def session_telemetry(core: SessionCore, startup: StartupTrace) -> Telemetry:
    """The handle of a session that is up; tells its start, its features that differ from default, and its settings."""
    engine = core.services.telemetry
    if not engine.enabled:
        return NO_TELEMETRY
    configuration, model = core.configuration, core.model_info()
    config = configuration.config
    login = core.services.models.auth.cached
    facts = {
        "conversation.id": core.thread_id,
        "app.version": __version__,
        "originator": originator(core.services.environment),
        "terminal.type": core.services.environment.get("TERM_PROGRAM") or "unknown",
        "model": model.slug,
        "slug": model.slug,
    }
    if login is not None:  # a stored login is read for the first request, not here
        facts["auth_mode"] = login.mode
    telemetry = engine.session(facts, startup)
    telemetry.count("codex.thread.started", tags={"is_git": _is_in_git(configuration.cwd)})
    for name, feature in FEATURES.items():
        enabled = config.features.get(name, feature.default)
        if feature.stage is not Stage.REMOVED and enabled != feature.default:
            telemetry.count("codex.feature.state", tags={"feature": name, "value": enabled})
    if config.active_profile is not None:
        telemetry.count("codex.profile.usage")
    told: dict[str, str | int | None] = {
        "provider_name": config.provider.name or config.model_provider_id,
        "reasoning_effort": configuration.reasoning_effort or model.default_reasoning_level,
        "reasoning_summary": configuration.reasoning_summary,
        "context_window": model.effective_context_window,
        "auto_compact_token_limit": config.model_auto_compact_token_limit,
        "approval_policy": str(configuration.approval_policy),
        "sandbox_policy": configuration.sandbox_policy.type,
        "mcp_servers": "",
        "active_profile": config.active_profile,
    }
    telemetry.event("codex.conversation_starts", {name: value for name, value in told.items() if value is not None})
    return telemetry


def _is_in_git(cwd: str) -> bool:
    folder = cwd
    while not os.path.lexists(os.path.join(folder, ".git")):
        above = os.path.dirname(folder)
        if above == folder:
            return False
        folder = above
    return True


def telling(turn: TurnRun) -> AbstractContextManager[None]:
    """Tells a turn that runs in the block: its span, and at its end how long it took and used."""
    return _telling(turn, turn.core.telemetry) if turn.core.telemetry.enabled else nullcontext()


@contextmanager
def _telling(turn: TurnRun, telemetry: Telemetry) -> Iterator[None]:
    name = "turn" if turn.kind == "regular" else turn.kind
    attributes = {"turn.id": turn.id, "model": turn.model_info.slug}
    with carrying(telemetry), telemetry.span(f"session_task.{name}", attributes):
        if turn.kind == "compact":
            telemetry.count("codex.task.compact", tags={"type": "manual"})
        elif turn.kind == "user_shell":
            telemetry.count("codex.task.user_shell")
        try:
            yield
        finally:
            if turn.kind == "regular":
                _tell_end(turn, telemetry)


def tell_input(turn: TurnRun, items: Sequence[UserInput]) -> None:
    """Tells that the user said something: with what the turn began, or while it ran."""
    telemetry = turn.core.telemetry
    if telemetry.enabled:
        telemetry.prompt("".join(item.text for item in items if isinstance(item, TextInput)))


def telling_request(turn: TurnRun) -> AbstractContextManager[None]:
    """Tells a request of a turn that runs in the block, from its start to the end of the response."""
    return _telling_request(turn, turn.core.telemetry) if turn.core.telemetry.enabled else nullcontext()


@contextmanager
def _telling_request(turn: TurnRun, telemetry: Telemetry) -> Iterator[None]:
    began = time.perf_counter()
    told: dict[str, str | int] = {"success": "false"}
    with telemetry.span("model_request", {"turn.id": turn.id, "model": turn.model_info.slug}):
        try:
            yield
            told["success"] = "true"
        except ModelError as exc:
            told["error.type"] = type(exc).__name__
            if exc.status is not None:
                told["http.response.status_code"] = exc.status
            raise
        finally:
            took = (time.perf_counter() - began) * 1000
            telemetry.count("codex.api_request", tags=told)
            telemetry.measure("codex.api_request.duration_ms", took, told)
            telemetry.event("codex.api_request", {**told, "duration_ms": int(took)})


def _tell_end(turn: TurnRun, telemetry: Telemetry) -> None:
    telemetry.measure("codex.turn.e2e_duration_ms", turn.duration_ms())
    first = turn.first_token_ms()
    if first is not None:
        telemetry.measure("codex.turn.ttft.duration_ms", first)
        telemetry.event("codex.turn_ttft", {"duration_ms": first})
    usage = turn.tokens_used
    for kind, tokens in (
        ("total", usage.total_tokens),
        ("input", usage.input_tokens),
        ("cached_input", usage.cached_input_tokens),
        ("output", usage.output_tokens),
        ("reasoning_output", usage.reasoning_output_tokens),
    ):
        telemetry.count("codex.turn.token_usage", tokens, {"token_type": kind})
