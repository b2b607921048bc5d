"""Builds a turn from what the session is configured with now; immutable once it runs (session.md 4.1)."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from engine.execution.environment import build_environment
from engine.protocol.ids import TurnId
from engine.protocol.inputs import UserInput
from engine.protocol.items import InputText, Message
from engine.session.context import TurnFacts
from engine.session.environments import placed
from engine.session.local_time import local_date_and_zone
from engine.session.turn import Fence, TurnRun
from engine.tools.apply_patch import TurnDiffTracker
from engine.tools.base import ToolContext
from engine.tools.turn_permissions import TurnPermissions

if TYPE_CHECKING:
    from engine.models.catalogue import ModelInfo
    from engine.session.core import SessionCore
    from engine.session.environments import EnvironmentSelection
    from engine.session.submissions import Submission

__all__ = ["make_turn"]


def make_turn(
    core: SessionCore,
    submission: Submission,
    items: tuple[UserInput, ...],
    model_info: ModelInfo,
    *,
    kind: Literal["regular", "compact", "user_shell"] = "regular",
    host: TurnRun | None = None,
    environments: Sequence[EnvironmentSelection] | None = None,
) -> TurnRun:
    """A turn that is ready to run. With `host`, it runs beside that turn and under its id.

    `environments` are those it selects itself. Raises `InvalidRequest` for a selection that makes no sense.
    """
    services, resources = core.services, core.resources()
    configuration = core.configuration.in_environments(environments, services.environments)
    config = configuration.config
    turn_id = host.id if host is not None else TurnId(submission.id)
    shell = configuration.shell or services.shell()
    date, zone = local_date_and_zone()
    facts = TurnFacts(
        turn_id=turn_id,
        configuration=configuration,
        model=model_info.slug,
        model_info=model_info,
        instructions=core.base_instructions,
        environments=placed(configuration.environments, configuration.cwd),
        shell_name=shell.kind.value,
        current_date=date,
        timezone=zone,
        truncation=model_info.truncation_policy,
        effort=configuration.reasoning_effort or model_info.default_reasoning_level,
        summary=configuration.reasoning_summary or model_info.default_reasoning_summary,
    )
    fence = Fence(core.hub, turn_id)
    context = ToolContext(
        thread_id=core.thread_id,
        turn_id=turn_id,
        cwd=configuration.cwd,
        truncation=facts.truncation,
        permissions=TurnPermissions(
            configuration.permissions.profile,
            configuration.cwd,
            configuration.view,
            resources.approvals,
            services.protected,
        ),
        sandbox=services.sandbox(),
        features=config.features,
        approval_policy=configuration.approval_policy,
        approve=core.approve,
        environment=build_environment(config.shell_environment_policy, services.environment, core.thread_id),
        shell=shell,
        snapshots=resources.snapshots,
        allow_login_shell=config.allow_login_shell,
        model_sees_images="image" in model_info.input_modalities,
        model_sees_original_detail=model_info.supports_image_detail_original,
        supervisor=services.supervisor,
        terminals=resources.terminals(),
        turn_diff=TurnDiffTracker(configuration.cwd),
        emit=fence.emit,
        emit_later=fence.emit_always,
        tell_model=functools.partial(_tell_model, core, fence, facts),
        request_interrupt=core.request_interrupt,
        now_ms=_now_ms,
    )
    return TurnRun(
        core=core,
        id=turn_id,
        kind=kind,
        facts=facts,
        fence=fence,
        model=resources.line_to(services.model_for(config, config.model_provider_id)),
        model_info=model_info,
        registry=resources.registry(model_info, somewhere=bool(configuration.environments)),
        tool_context=context,
        input=items,
    )


def _tell_model(core: SessionCore, fence: Fence, facts: TurnFacts, text: str) -> None:
    """Adds a developer message to the history of a turn that still runs."""
    if fence.open:
        item = Message("developer", (InputText(text),))
        core.history.record([item], facts.truncation)
        core.hub.record(facts.turn_id, [item])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
