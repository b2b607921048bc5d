"""What the model is told besides the conversation: all of it at first, later only what changed (session.md 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.models.personality import personality_message
from engine.protocol.items import InputText, Message, ResponseItem, user_message
from engine.protocol.rollout_items import TurnContext
from engine.protocol.settings import TruncationPolicy
from engine.records import frozen
from engine.session.collaboration import recorded
from engine.session.environments import TurnEnvironment
from engine.session.permission_text import permission_text

if TYPE_CHECKING:
    from engine.exec_policy.rules import PrefixRule
    from engine.models.catalogue import ModelInfo
    from engine.session.configuration import SessionConfiguration

__all__ = ["TurnFacts", "context_items", "interruption_marker", "tells_permissions", "turn_context"]

INTERRUPTED = (
    "The user interrupted the previous turn on purpose. Commands that were running in the background may still run, "
    "and tools that were aborted may have done part of their work. Check the state before you repeat anything."
)


@frozen(kw_only=True)
class TurnFacts:
    """What one turn runs with, looked up once when it starts. `instructions` are the base instructions in use."""

    turn_id: str
    configuration: SessionConfiguration
    model: str
    model_info: ModelInfo
    instructions: str
    environments: tuple[TurnEnvironment, ...]
    shell_name: str
    current_date: str
    timezone: str
    truncation: TruncationPolicy
    effort: str | None
    summary: str


def turn_context(facts: TurnFacts) -> TurnContext:
    """The rollout line of a turn: the reference that later turns are compared with."""
    configuration = facts.configuration
    projection = configuration.permissions.turn(configuration.view)
    return TurnContext(
        turn_id=facts.turn_id,
        cwd=configuration.cwd,
        current_date=facts.current_date,
        timezone=facts.timezone,
        approval_policy=configuration.approval_policy,
        sandbox_policy=projection.sandbox_policy,
        permission_profile=projection.profile,
        file_system_sandbox_policy=projection.differing_file_system,
        model=facts.model,
        personality=configuration.personality,
        collaboration_mode=recorded(configuration.collaboration, model=facts.model, effort=facts.effort),
        realtime_active=False,
        effort=facts.effort,
        summary=facts.summary,
        truncation_policy=facts.truncation,
    )


def context_items(
    facts: TurnFacts,
    now: TurnContext,
    reference: TurnContext | None,
    previous_model: str | None,
    allowed: Sequence[PrefixRule] = (),
) -> list[ResponseItem]:
    """The context items of a turn: everything where there is no reference, else what differs from it.

    `allowed` are the rules that allow commands; `tells_permissions` says whether they matter.
    """
    if reference is None:
        return _full(facts, previous_model, allowed)
    return _changes(facts, now, reference, previous_model, allowed)


def tells_permissions(facts: TurnFacts, now: TurnContext, reference: TurnContext | None) -> bool:
    """Whether the turn tells the model what it may touch."""
    return facts.configuration.config.include_permissions_instructions and (
        reference is None
        or now.permission_profile != reference.permission_profile
        or now.approval_policy != reference.approval_policy
    )


def _full(facts: TurnFacts, previous_model: str | None, allowed: Sequence[PrefixRule]) -> list[ResponseItem]:
    config = facts.configuration.config
    sections: list[str] = []
    if previous_model is not None and previous_model != facts.model:
        sections.append(_model_switch(previous_model, facts.model))
    if config.include_permissions_instructions:
        sections.append(_permissions(facts, allowed))
    if facts.configuration.developer_instructions:
        sections.append(facts.configuration.developer_instructions)
    sections += _collaboration(facts)
    sections += _personality(facts, changed=False)
    items: list[ResponseItem] = []
    if sections:
        items.append(user_message(*sections, role="developer"))
    said = _agents_md(facts)
    if config.include_environment_context:
        said.append(_environment(facts, facts.environments))
    if said:
        items.append(user_message(*said))
    return items


def _changes(
    facts: TurnFacts,
    now: TurnContext,
    reference: TurnContext,
    previous_model: str | None,
    allowed: Sequence[PrefixRule],
) -> list[ResponseItem]:
    config = facts.configuration.config
    sections: list[str] = []
    last_model = previous_model or reference.model
    if last_model != facts.model:
        sections.append(_model_switch(last_model, facts.model))
    if tells_permissions(facts, now, reference):
        sections.append(_permissions(facts, allowed))
    if now.collaboration_mode != reference.collaboration_mode:
        sections += _collaboration(facts)
    if (now.model, now.personality) != (reference.model, reference.personality) and now.model == reference.model:
        sections += _personality(facts, changed=True)
    items: list[ResponseItem] = []
    if sections:
        items.append(user_message(*sections, role="developer"))
    moved = now.cwd != reference.cwd
    same_time = (now.current_date, now.timezone) == (reference.current_date, reference.timezone)
    if config.include_environment_context and (moved or not same_time):
        items.append(user_message(_environment(facts, facts.environments if moved else ())))
    return items


def _agents_md(facts: TurnFacts) -> list[str]:
    """What AGENTS.md files say, unless the turn works nowhere."""
    text = facts.configuration.config.user_instructions.text
    if text is None or not facts.environments:
        return []
    return [
        f"# AGENTS.md instructions for {facts.configuration.cwd}\n\n<INSTRUCTIONS>\n{text}\n</INSTRUCTIONS>",
    ]


def _collaboration(facts: TurnFacts) -> list[str]:
    text = facts.configuration.collaboration.instructions
    if not text or not facts.configuration.config.include_collaboration_mode_instructions:
        return []
    return [f"<collaboration_mode>\n{text}\n</collaboration_mode>"]


def _personality(facts: TurnFacts, *, changed: bool) -> list[str]:
    personality = facts.configuration.personality
    if personality is None or not facts.configuration.config.features["personality"]:
        return []
    text = personality_message(facts.model_info, personality, facts.instructions, changed=changed)
    return [] if text is None else [f"<personality_spec>\n{text}\n</personality_spec>"]


def _environment(facts: TurnFacts, environments: Sequence[TurnEnvironment]) -> str:
    """Date and time zone, and where commands run: one place by itself, several by their ids."""
    lines: list[str] = []
    if len(environments) == 1:
        lines += _place(environments[0], facts.shell_name)
    elif environments:
        lines.append("<environments>")
        for environment in environments:
            lines.append(f'  <environment id="{environment.id}">')
            lines += [f"    {line}" for line in _place(environment, facts.shell_name)]
            lines.append("  </environment>")
        lines.append("</environments>")
    lines += [f"<current_date>{facts.current_date}</current_date>", f"<timezone>{facts.timezone}</timezone>"]
    body = "".join(f"  {line}\n" for line in lines)
    return f"<environment_context>\n{body}</environment_context>"


def _place(environment: TurnEnvironment, shell: str) -> list[str]:
    return [f"<cwd>{environment.cwd}</cwd>", f"<shell>{shell}</shell>"]


def _model_switch(before: str, after: str) -> str:
    return (
        "<model_switch>\n"
        f"Until now the conversation was held by the model `{before}`; from here on `{after}` continues it. "
        "What was said and done before stays true.\n"
        "</model_switch>"
    )


def _permissions(facts: TurnFacts, allowed: Sequence[PrefixRule]) -> str:
    configuration = facts.configuration
    return permission_text(
        configuration.permissions.profile,
        configuration.approval_policy,
        cwd=configuration.cwd,
        view=configuration.view,
        features=configuration.config.features,
        allowed=allowed,
    )


def interruption_marker() -> Message:
    """The item that tells the model that the user interrupted a turn."""
    return Message(role="user", content=(InputText(f"<turn_aborted>\n{INTERRUPTED}\n</turn_aborted>"),))
