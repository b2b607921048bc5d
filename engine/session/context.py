"""What the model is told besides the conversation: all of it at first, later only what changed (session.md 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.protocol.items import InputText, Message, ResponseItem, user_message
from engine.protocol.profiles import DangerFullAccess, ExternalSandbox, ReadOnly, SandboxPolicy, WorkspaceWrite
from engine.protocol.rollout_items import TurnContext
from engine.protocol.settings import (
    ApprovalPolicy,
    CollaborationMode,
    CollaborationSettings,
    GranularApproval,
    TruncationPolicy,
)
from engine.protocol.wire import UnknownVariant
from engine.records import frozen

if TYPE_CHECKING:
    from engine.session.configuration import SessionConfiguration

__all__ = ["TurnFacts", "context_items", "interruption_marker", "turn_context"]

INTERRUPTED = (
    "The user interrupted the previous turn on purpose. Commands that were running in the background may still run, "
    "and tools that were aborted may have done part of their work. Check the state before you repeat anything."
)


@frozen(kw_only=True)
class TurnFacts:
    """What one turn runs with, looked up once when it starts."""

    turn_id: str
    configuration: SessionConfiguration
    model: str
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
        collaboration_mode=CollaborationMode(
            mode="default", settings=CollaborationSettings(model=facts.model, reasoning_effort=facts.effort)
        ),
        realtime_active=False,
        effort=facts.effort,
        summary=facts.summary,
        truncation_policy=facts.truncation,
    )


def context_items(
    facts: TurnFacts, now: TurnContext, reference: TurnContext | None, previous_model: str | None
) -> list[ResponseItem]:
    """The context items of a turn: everything where there is no reference, else what differs from it."""
    if reference is None:
        return _full(facts, now, previous_model)
    return _changes(facts, now, reference, previous_model)


def _full(facts: TurnFacts, now: TurnContext, previous_model: str | None) -> list[ResponseItem]:
    config = facts.configuration.config
    sections: list[str] = []
    if previous_model is not None and previous_model != facts.model:
        sections.append(_model_switch(previous_model, facts.model))
    if config.include_permissions_instructions:
        sections.append(_permissions(now))
    if facts.configuration.developer_instructions:
        sections.append(facts.configuration.developer_instructions)
    items: list[ResponseItem] = []
    if sections:
        items.append(user_message(*sections, role="developer"))
    if config.include_environment_context:
        items.append(
            user_message(
                _environment(cwd=now.cwd, shell=facts.shell_name, date=facts.current_date, zone=facts.timezone)
            )
        )
    return items


def _changes(
    facts: TurnFacts, now: TurnContext, reference: TurnContext, previous_model: str | None
) -> list[ResponseItem]:
    config = facts.configuration.config
    sections: list[str] = []
    last_model = previous_model or reference.model
    if last_model != facts.model:
        sections.append(_model_switch(last_model, facts.model))
    permissions_changed = (
        now.permission_profile != reference.permission_profile or now.approval_policy != reference.approval_policy
    )
    if permissions_changed and config.include_permissions_instructions:
        sections.append(_permissions(now))
    items: list[ResponseItem] = []
    if sections:
        items.append(user_message(*sections, role="developer"))
    moved = now.cwd != reference.cwd
    same_time = (now.current_date, now.timezone) == (reference.current_date, reference.timezone)
    if config.include_environment_context and (moved or not same_time):
        items.append(
            user_message(
                _environment(
                    cwd=now.cwd if moved else None,
                    shell=facts.shell_name if moved else None,
                    date=facts.current_date,
                    zone=facts.timezone,
                )
            )
        )
    return items


def _environment(*, cwd: str | None, shell: str | None, date: str, zone: str) -> str:
    lines = [("cwd", cwd), ("shell", shell), ("current_date", date), ("timezone", zone)]
    body = "".join(f"  <{name}>{value}</{name}>\n" for name, value in lines if value is not None)
    return f"<environment_context>\n{body}</environment_context>"


def _model_switch(before: str, after: str) -> str:
    return (
        "<model_switch>\n"
        f"Until now the conversation was held by the model `{before}`; from here on `{after}` continues it. "
        "What was said and done before stays true.\n"
        "</model_switch>"
    )


def _permissions(now: TurnContext) -> str:
    return (
        "<permissions instructions>\n"
        f"{_sandbox_text(now.sandbox_policy)}\n{_approval_text(now.approval_policy)}\n"
        "</permissions instructions>"
    )


def _network_text(enabled: bool) -> str:
    return "Network access is enabled." if enabled else "Network access is restricted."


def _sandbox_text(policy: SandboxPolicy | UnknownVariant) -> str:
    match policy:
        case DangerFullAccess():
            return (
                "Sandbox mode: `danger-full-access`. Commands and patches run without a sandbox: "
                "every file the user may change can be changed. Network access is enabled."
            )
        case ExternalSandbox():
            return (
                "Sandbox mode: `danger-full-access`. Somebody else isolates this machine; commands run as they are. "
                + _network_text(policy.network_access == "enabled")
            )
        case WorkspaceWrite():
            roots = ", ".join(f"`{root}`" for root in sorted(policy.writable_roots))
            extra = f" Also writable: {roots}." if roots else ""
            return (
                "Sandbox mode: `workspace-write`. Every file can be read; files below the working directory can be "
                f"changed, others not.{extra} {_network_text(policy.network_access)}"
            )
        case ReadOnly():
            return "Sandbox mode: `read-only`. Files can be read; nothing can be changed. " + _network_text(
                policy.network_access
            )
    return "Sandbox mode: unknown. Assume that nothing can be changed."


def _approval_text(policy: ApprovalPolicy) -> str:
    if isinstance(policy, GranularApproval):
        return (
            "Approval policy: `granular`. Only some kinds of requests reach the user; the others are refused at once."
        )
    texts = {
        "never": "Approval policy: `never`. Nobody can be asked; work with what is allowed.",
        "untrusted": "Approval policy: `untrusted`. The user is asked before each command not known to be safe.",
        "on-failure": "Approval policy: `on-failure`. The user is asked when the sandbox stopped a command.",
        "on-request": "Approval policy: `on-request`. Ask for approval by the parameters of the tool when a command "
        "needs more than the sandbox allows.",
    }
    return texts.get(policy, f"Approval policy: `{policy}`.")


def interruption_marker() -> Message:
    """The item that tells the model that the user interrupted a turn."""
    return Message(role="user", content=(InputText(f"<turn_aborted>\n{INTERRUPTED}\n</turn_aborted>"),))
