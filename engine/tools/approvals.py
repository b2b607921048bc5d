"""Asking the user: the request an approver sees, what it may answer, and the default that refuses (tools.md 4.3)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import trio

from engine.protocol.events import ApplyPatchApprovalRequest, ExecApprovalRequest
from engine.protocol.turn_items import FileChange
from engine.records import frozen
from engine.tools.host_code import call_host
from engine.tools.parsed_commands import parse_command

if TYPE_CHECKING:
    from engine.tools.base import ToolContext

__all__ = [
    "ApprovalRequest",
    "Approver",
    "CommandApproval",
    "Decision",
    "PatchApproval",
    "ToolApproval",
    "ask",
    "refuse",
]

logger = logging.getLogger("engine.tools")

Decision = Literal["approved", "approved_for_session", "denied", "abort"]


@frozen(kw_only=True)
class CommandApproval:
    """May this command run? `command` is the argv, `cwd` absolute."""

    call_id: str
    turn_id: str
    command: tuple[str, ...]
    cwd: str
    reason: str | None = None


@frozen(kw_only=True)
class PatchApproval:
    """May this patch be written? `changes` maps absolute paths."""

    call_id: str
    turn_id: str
    changes: Mapping[str, FileChange]
    reason: str | None = None


@frozen(kw_only=True)
class ToolApproval:
    """May this tool of the host be called with these arguments?"""

    call_id: str
    turn_id: str
    tool: str
    arguments: Mapping[str, object]


ApprovalRequest = CommandApproval | PatchApproval | ToolApproval


class Approver(Protocol):
    """Decides an approval request.

    Runs in the task of the tool call, so an interrupt cancels it. An exception counts as a refusal.
    """

    async def __call__(self, request: ApprovalRequest, /) -> Decision: ...


async def refuse(request: ApprovalRequest, /) -> Decision:
    """The default approver: says no to everything."""
    return "denied"


async def ask(context: ToolContext, request: ApprovalRequest) -> bool:
    """Whether the user agrees; subscribers hear of the question about a command or a patch.

    `abort` interrupts the whole turn; an approver that fails has refused.
    """
    _announce(context, request)
    try:
        decision = await call_host(context.approve, request)
    except Exception:
        logger.exception("the approver failed; the request counts as refused")
        return False
    if decision == "abort":
        context.request_interrupt()
        await trio.sleep_forever()
    return decision in ("approved", "approved_for_session")


def _announce(context: ToolContext, request: ApprovalRequest) -> None:
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
                    parsed_cmd=parse_command(request.command),
                )
            )
        case PatchApproval():
            context.emit(
                ApplyPatchApprovalRequest(
                    request.call_id, request.turn_id, context.now_ms(), changes=request.changes, reason=request.reason
                )
            )
        case ToolApproval():
            pass  # the events of a tool of the host begin with its call
