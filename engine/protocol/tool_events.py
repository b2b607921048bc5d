"""Event messages about tool calls: commands, patches, plans, searches, and what the user is asked about them.

Times and ids are as `engine.protocol.events` has them, from where these are imported as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from engine.protocol.turn_items import FileChange
from engine.protocol.wire import JsonObject, Wire, optional
from engine.records import frozen

__all__ = [
    "ApplyPatchApprovalRequest",
    "DynamicToolCallRequest",
    "DynamicToolCallResponse",
    "ExecApprovalRequest",
    "ExecCommandBegin",
    "ExecCommandEnd",
    "ExecCommandOutputDelta",
    "PatchApplyBegin",
    "PatchApplyEnd",
    "PlanStep",
    "PlanUpdate",
    "RequestPermissions",
    "TerminalInteraction",
    "TurnDiff",
    "ViewImageToolCall",
    "WebSearchBegin",
    "WebSearchEnd",
]


@frozen
class ExecCommandBegin(Wire):
    """A command starts. `source`: agent, user_shell, unified_exec_startup, unified_exec_interaction."""

    type: ClassVar[str] = "exec_command_begin"
    call_id: str
    turn_id: str
    started_at_ms: int
    command: tuple[str, ...]
    cwd: str
    parsed_cmd: tuple[JsonObject, ...] = ()
    source: str = "agent"
    process_id: str | None = optional()
    interaction_input: str | None = optional()


@frozen
class ExecCommandOutputDelta(Wire):
    """Output of a running command; `chunk` is base64 of the bytes, `stream` is stdout or stderr."""

    type: ClassVar[str] = "exec_command_output_delta"
    call_id: str
    stream: str
    chunk: str


@frozen
class TerminalInteraction(Wire):
    """Input written to a background terminal."""

    type: ClassVar[str] = "terminal_interaction"
    call_id: str
    process_id: str
    stdin: str


@frozen
class ExecCommandEnd(Wire):
    """A command ended: `completed` (exit 0), `failed` or `declined`. `duration` is `{secs, nanos}`."""

    type: ClassVar[str] = "exec_command_end"
    call_id: str
    turn_id: str
    completed_at_ms: int
    command: tuple[str, ...]
    cwd: str
    exit_code: int
    duration: JsonObject
    status: str
    parsed_cmd: tuple[JsonObject, ...] = ()
    source: str = "agent"
    stdout: str = ""
    stderr: str = ""
    aggregated_output: str = ""
    formatted_output: str = ""
    process_id: str | None = optional()
    interaction_input: str | None = optional()


@frozen
class PatchApplyBegin(Wire):
    """A patch is about to be written."""

    type: ClassVar[str] = "patch_apply_begin"
    call_id: str
    turn_id: str
    auto_approved: bool
    changes: Mapping[str, FileChange]


@frozen
class PatchApplyEnd(Wire):
    """A patch was written, failed or was declined."""

    type: ClassVar[str] = "patch_apply_end"
    call_id: str
    turn_id: str
    stdout: str
    stderr: str
    success: bool
    changes: Mapping[str, FileChange]
    status: str


@frozen
class TurnDiff(Wire):
    """The net change of the turn's patches so far."""

    type: ClassVar[str] = "turn_diff"
    unified_diff: str


@frozen
class PlanStep(Wire):
    """One step of a plan: `pending`, `in_progress` or `completed`."""

    step: str
    status: str


@frozen
class PlanUpdate(Wire):
    """The model's to-do list."""

    type: ClassVar[str] = "plan_update"
    explanation: str | None
    plan: tuple[PlanStep, ...]


@frozen
class ViewImageToolCall(Wire):
    """The model looks at an image file."""

    type: ClassVar[str] = "view_image_tool_call"
    call_id: str
    path: str


@frozen
class WebSearchBegin(Wire):
    """A hosted web search starts."""

    type: ClassVar[str] = "web_search_begin"
    call_id: str


@frozen
class WebSearchEnd(Wire):
    """A hosted web search ended."""

    type: ClassVar[str] = "web_search_end"
    call_id: str
    query: str
    action: JsonObject | None = None


@frozen
class ExecApprovalRequest(Wire):
    """May this command run? (tools.md 4.3)"""

    type: ClassVar[str] = "exec_approval_request"
    call_id: str
    turn_id: str
    started_at_ms: int
    command: tuple[str, ...]
    cwd: str
    reason: str | None = optional()
    approval_id: str | None = optional()
    proposed_execpolicy_amendment: tuple[str, ...] | None = optional()
    additional_permissions: JsonObject | None = optional()
    available_decisions: tuple[object, ...] | None = optional()
    parsed_cmd: tuple[JsonObject, ...] = ()


@frozen
class ApplyPatchApprovalRequest(Wire):
    """May this patch be written?"""

    type: ClassVar[str] = "apply_patch_approval_request"
    call_id: str
    turn_id: str
    started_at_ms: int
    changes: Mapping[str, FileChange]
    reason: str | None = optional()
    grant_root: str | None = optional()


@frozen
class RequestPermissions(Wire):
    """May the session touch this, too? (tools.md 4.6)"""

    type: ClassVar[str] = "request_permissions"
    call_id: str
    turn_id: str
    started_at_ms: int
    permissions: JsonObject
    reason: str | None = optional()
    cwd: str | None = optional()


@frozen
class DynamicToolCallRequest(Wire):
    """A tool of the host is called."""

    type: ClassVar[str] = "dynamic_tool_call_request"
    call_id: str
    turn_id: str
    started_at_ms: int
    tool: str
    arguments: object
    namespace: str | None = None


@frozen
class DynamicToolCallResponse(Wire):
    """What a tool of the host answered."""

    type: ClassVar[str] = "dynamic_tool_call_response"
    call_id: str
    turn_id: str
    completed_at_ms: int
    tool: str
    arguments: object
    content_items: tuple[JsonObject, ...]
    success: bool
    error: str | None = None
    duration: JsonObject | None = None
    namespace: str | None = None
