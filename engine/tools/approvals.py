"""Asking the user: what an approver sees, what it may answer, and the default that refuses (tools.md 4.3)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, cast

import trio

from engine.protocol.codec import encode
from engine.protocol.events import ApplyPatchApprovalRequest, ExecApprovalRequest, RequestPermissions
from engine.protocol.profiles import AdditionalPermissionProfile
from engine.protocol.turn_items import FileChange
from engine.protocol.wire import JsonObject
from engine.records import frozen

if TYPE_CHECKING:
    from engine.tools.base import ToolContext

__all__ = [
    "ApprovalRequest",
    "Approver",
    "CommandApproval",
    "Decision",
    "ExecPolicyAmendment",
    "PatchApproval",
    "PermissionGrant",
    "PermissionsApproval",
    "ToolApproval",
    "agreed",
    "decide",
    "refuse",
]

logger = logging.getLogger("engine.tools")


@frozen
class ExecPolicyAmendment:
    """Agrees, and lets every command that begins with these words run from now on, unsandboxed and without a question.

    The rule is saved to `rules/default.rules` of the home.
    """

    prefix: tuple[str, ...]


@frozen
class PermissionGrant:
    """Agrees to a part of the permissions that were asked for, until the turn ends or for the session."""

    permissions: AdditionalPermissionProfile
    scope: Literal["turn", "session"] = "turn"


Decision = (
    Literal["approved", "approved_for_session", "denied", "timed_out", "abort"] | ExecPolicyAmendment | PermissionGrant
)


@frozen(kw_only=True)
class CommandApproval:
    """May this command run? `command` is the argv, `cwd` absolute.

    - `sandboxed`: whether the sandbox holds it if it is approved
    - `additional_permissions`: what it may touch besides, if it is approved
    - `proposed_amendment`: the prefix that answering with `ExecPolicyAmendment` is meant for
    """

    call_id: str
    turn_id: str
    command: tuple[str, ...]
    cwd: str
    reason: str | None = None
    sandboxed: bool = True
    additional_permissions: AdditionalPermissionProfile | None = None
    proposed_amendment: tuple[str, ...] | None = None

    @property
    def available_decisions(self) -> tuple[Decision, ...]:
        """What a dialog should offer. `approved_for_session` and `denied` are accepted all the same."""
        if self.additional_permissions is not None or self.proposed_amendment is None:
            return ("approved", "abort")
        return ("approved", ExecPolicyAmendment(self.proposed_amendment), "abort")


@frozen(kw_only=True)
class PatchApproval:
    """May this patch be written? `changes` maps absolute paths."""

    call_id: str
    turn_id: str
    changes: Mapping[str, FileChange]
    reason: str | None = None


@frozen(kw_only=True)
class PermissionsApproval:
    """May the session touch this, too? Any approval grants all of it; `PermissionGrant` grants a part."""

    call_id: str
    turn_id: str
    permissions: AdditionalPermissionProfile
    cwd: str
    reason: str | None = None


@frozen(kw_only=True)
class ToolApproval:
    """May this tool of the host be called with these arguments?"""

    call_id: str
    turn_id: str
    tool: str
    arguments: Mapping[str, object]


ApprovalRequest = CommandApproval | PatchApproval | PermissionsApproval | ToolApproval


class Approver(Protocol):
    """Decides an approval request.

    Runs in the task of the tool call, so an interrupt cancels it. An exception counts as a refusal, and so does an
    answer that is no decision about this kind of request.
    """

    async def __call__(self, request: ApprovalRequest, /) -> Decision: ...


async def refuse(request: ApprovalRequest, /) -> Decision:
    """The default approver: says no to everything."""
    return "denied"


async def decide(context: ToolContext, request: ApprovalRequest) -> Decision:
    """What the user says; subscribers hear of the question.

    `abort` interrupts the whole turn and never comes back; an approver that fails has refused.
    """
    from engine.tools.host_code import call_host
    from engine.tools.telling import tell_decision, tell_question

    _announce(context, request)
    kind = _KINDS[type(request)]
    tell_question(kind)
    try:
        decision = _understood(request, await call_host(context.approve, request))
    except Exception:
        logger.exception("the approver failed; the request counts as refused")
        decision = "denied"
    tell_decision(kind, request.call_id, _word(decision), "user")
    if decision == "abort":
        context.request_interrupt()
        await trio.sleep_forever()
    return decision


_KINDS: Mapping[type[ApprovalRequest], str] = {
    CommandApproval: "command",
    PatchApproval: "patch",
    PermissionsApproval: "permissions",
    ToolApproval: "tool",
}


def _word(decision: Decision) -> str:
    match decision:
        case ExecPolicyAmendment():
            return "approved_execpolicy_amendment"
        case PermissionGrant():
            return f"approved_for_{decision.scope}"
    return decision


def agreed(decision: Decision) -> bool:
    """Whether it is a yes."""
    return isinstance(decision, ExecPolicyAmendment | PermissionGrant) or decision in (
        "approved",
        "approved_for_session",
    )


_WORDS = ("approved", "approved_for_session", "denied", "timed_out", "abort")


def _understood(request: ApprovalRequest, answer: object) -> Decision:
    """The decision, if it answers this kind of request. Whatever else an approver returns is a refusal."""
    match request, answer:
        case _, str() if answer in _WORDS:
            return cast(Decision, answer)
        case CommandApproval(), ExecPolicyAmendment(prefix=(_, *_)):
            return answer
        case PermissionsApproval(), PermissionGrant(scope="turn" | "session"):
            return answer
    kind = type(request).__name__
    logger.error("%r is no decision about a %s; the request counts as refused", answer, kind)
    return "denied"


def _announce(context: ToolContext, request: ApprovalRequest) -> None:
    from engine.tools.parsed_commands import parse_command

    match request:
        case CommandApproval():
            context.emit(
                ExecApprovalRequest(
                    request.call_id,
                    request.turn_id,
                    context.now_ms(),
                    command=request.command,
                    cwd=request.cwd,
                    reason=request.reason,
                    proposed_execpolicy_amendment=request.proposed_amendment,
                    additional_permissions=_permissions(request.additional_permissions),
                    available_decisions=_offered(request.available_decisions),
                    parsed_cmd=parse_command(request.command),
                )
            )
        case PatchApproval():
            context.emit(
                ApplyPatchApprovalRequest(
                    request.call_id, request.turn_id, context.now_ms(), changes=request.changes, reason=request.reason
                )
            )
        case PermissionsApproval():
            context.emit(
                RequestPermissions(
                    request.call_id,
                    request.turn_id,
                    context.now_ms(),
                    reason=request.reason,
                    permissions=encode(request.permissions),
                    cwd=request.cwd,
                )
            )
        case ToolApproval():
            pass  # the events of a tool of the host begin with its call


def _permissions(permissions: AdditionalPermissionProfile | None) -> JsonObject | None:
    return None if permissions is None else encode(permissions)


def _offered(decisions: Sequence[Decision]) -> tuple[object, ...]:
    """The decisions as they stand in an event."""
    return tuple(
        {"approved_execpolicy_amendment": {"proposed_execpolicy_amendment": list(decision.prefix)}}
        if isinstance(decision, ExecPolicyAmendment)
        else decision
        for decision in decisions
    )
