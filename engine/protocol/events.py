"""Event messages: what a session tells its subscribers, in order (session.md 3.2, rollout.md 1.3-1.4).

`Event.id` is the submission that caused it; turn events carry the turn id, startup events `""`.
Times ending in `_at` are unix seconds, `_at_ms` unix milliseconds, `duration_ms` milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from engine.protocol.ids import ThreadId
from engine.protocol.items import ResponseItem
from engine.protocol.profiles import ActivePermissionProfile, PermissionProfile
from engine.protocol.settings import ApprovalPolicy, TokenUsageInfo
from engine.protocol.tool_events import (
    ApplyPatchApprovalRequest,
    DynamicToolCallRequest,
    DynamicToolCallResponse,
    ExecApprovalRequest,
    ExecCommandBegin,
    ExecCommandEnd,
    ExecCommandOutputDelta,
    PatchApplyBegin,
    PatchApplyEnd,
    PlanStep,
    PlanUpdate,
    RequestPermissions,
    TerminalInteraction,
    TurnDiff,
    ViewImageToolCall,
    WebSearchBegin,
    WebSearchEnd,
)
from engine.protocol.turn_items import TurnItem
from engine.protocol.wire import JsonObject, UnknownVariant, Wire, optional
from engine.records import frozen

__all__ = [
    "AgentMessage",
    "AgentMessageContentDelta",
    "AgentReasoning",
    "AgentReasoningRawContent",
    "AgentReasoningSectionBreak",
    "ApplyPatchApprovalRequest",
    "ContextCompacted",
    "DeprecationNotice",
    "DynamicToolCallRequest",
    "DynamicToolCallResponse",
    "ErrorEvent",
    "Event",
    "EventMsg",
    "ExecApprovalRequest",
    "ExecCommandBegin",
    "ExecCommandEnd",
    "ExecCommandOutputDelta",
    "ItemCompleted",
    "ItemStarted",
    "ModelReroute",
    "ModelVerification",
    "PatchApplyBegin",
    "PatchApplyEnd",
    "PlanStep",
    "PlanUpdate",
    "RawResponseItem",
    "ReasoningContentDelta",
    "ReasoningRawContentDelta",
    "RequestPermissions",
    "SessionConfigured",
    "ShutdownComplete",
    "StreamError",
    "TaskComplete",
    "TaskStarted",
    "TerminalInteraction",
    "ThreadRolledBack",
    "TokenCount",
    "TurnAborted",
    "TurnDiff",
    "UserMessage",
    "ViewImageToolCall",
    "Warning",
    "WebSearchBegin",
    "WebSearchEnd",
]


@frozen(kw_only=True)
class SessionConfigured(Wire):
    """The first event of a session; `rollout_path` names a file that usually does not exist yet."""

    type: ClassVar[str] = "session_configured"
    session_id: str
    thread_id: ThreadId
    forked_from_id: str | None = optional()
    thread_source: str | None = optional()
    thread_name: str | None = optional()
    model: str
    model_provider_id: str
    service_tier: str | None = optional()
    approval_policy: ApprovalPolicy
    approvals_reviewer: str
    permission_profile: PermissionProfile | UnknownVariant
    active_permission_profile: ActivePermissionProfile | None = optional()
    cwd: str
    reasoning_effort: str | None = optional()
    initial_messages: Sequence[EventMsg] | None = optional()
    network_proxy: JsonObject | None = optional()
    rollout_path: str | None = optional()


@frozen
class Warning(Wire):
    """Something the user should know; the session goes on."""

    type: ClassVar[str] = "warning"
    message: str


@frozen
class DeprecationNotice(Wire):
    """A deprecated setting is in use."""

    type: ClassVar[str] = "deprecation_notice"
    summary: str
    details: str | None = None


@frozen
class ErrorEvent(Wire):
    """A turn (or an operation) failed; `task_complete` still follows where a turn runs."""

    type: ClassVar[str] = "error"
    message: str
    codex_error_info: str | JsonObject | None = None


@frozen
class StreamError(Wire):
    """A model request failed and is tried again."""

    type: ClassVar[str] = "stream_error"
    message: str
    codex_error_info: str | JsonObject | None = None
    additional_details: str | None = None


@frozen
class TaskStarted(Wire):
    """A turn began."""

    type: ClassVar[str] = "task_started"
    turn_id: str
    started_at: int | None = optional()
    model_context_window: int | None = None
    collaboration_mode_kind: str = "default"


@frozen
class TaskComplete(Wire):
    """A turn ended by itself (also after an `error`)."""

    type: ClassVar[str] = "task_complete"
    turn_id: str
    last_agent_message: str | None = None
    completed_at: int | None = optional()
    duration_ms: int | None = optional()
    time_to_first_token_ms: int | None = optional()


@frozen
class TurnAborted(Wire):
    """A turn was stopped: `interrupted`, `replaced`, `review_ended` or `budget_limited`."""

    type: ClassVar[str] = "turn_aborted"
    turn_id: str | None = None
    reason: str = "interrupted"
    completed_at: int | None = optional()
    duration_ms: int | None = optional()


@frozen
class TokenCount(Wire):
    """Token usage after a response, once its tools are done."""

    type: ClassVar[str] = "token_count"
    info: TokenUsageInfo | None = None
    rate_limits: JsonObject | None = None


@frozen
class UserMessage(Wire):
    """What the user sent, in its persisted form."""

    type: ClassVar[str] = "user_message"
    message: str
    images: tuple[str, ...] | None = None
    local_images: tuple[str, ...] = ()
    text_elements: tuple[JsonObject, ...] = ()


@frozen
class AgentMessage(Wire):
    """What the model said, in its persisted form."""

    type: ClassVar[str] = "agent_message"
    message: str
    phase: str | None = None
    memory_citation: JsonObject | None = None


@frozen
class AgentMessageContentDelta(Wire):
    """The next piece of an agent message."""

    type: ClassVar[str] = "agent_message_content_delta"
    thread_id: str
    turn_id: str
    item_id: str
    delta: str


@frozen
class AgentReasoning(Wire):
    """One finished part of a reasoning summary."""

    type: ClassVar[str] = "agent_reasoning"
    text: str


@frozen
class AgentReasoningRawContent(Wire):
    """One finished part of raw reasoning, where it may be shown."""

    type: ClassVar[str] = "agent_reasoning_raw_content"
    text: str


@frozen
class AgentReasoningSectionBreak(Wire):
    """A new part of the reasoning summary begins."""

    type: ClassVar[str] = "agent_reasoning_section_break"
    item_id: str
    summary_index: int


@frozen
class ReasoningContentDelta(Wire):
    """The next piece of a reasoning summary."""

    type: ClassVar[str] = "reasoning_content_delta"
    thread_id: str
    turn_id: str
    item_id: str
    delta: str
    summary_index: int = 0


@frozen
class ReasoningRawContentDelta(Wire):
    """The next piece of raw reasoning."""

    type: ClassVar[str] = "reasoning_raw_content_delta"
    thread_id: str
    turn_id: str
    item_id: str
    delta: str
    content_index: int = 0


@frozen
class RawResponseItem(Wire):
    """An item as it enters the history."""

    type: ClassVar[str] = "raw_response_item"
    item: ResponseItem


@frozen
class ItemStarted(Wire):
    """A turn item is there, not finished."""

    type: ClassVar[str] = "item_started"
    thread_id: str
    turn_id: str
    item: TurnItem
    started_at_ms: int | None = optional()


@frozen
class ItemCompleted(Wire):
    """A turn item is finished."""

    type: ClassVar[str] = "item_completed"
    thread_id: str
    turn_id: str
    item: TurnItem
    completed_at_ms: int | None = optional()


@frozen
class ModelReroute(Wire):
    """The server answered with another model than was asked for."""

    type: ClassVar[str] = "model_reroute"
    from_model: str
    to_model: str
    reason: str


@frozen
class ModelVerification(Wire):
    """The server asks for a verification of the account."""

    type: ClassVar[str] = "model_verification"
    verifications: tuple[str, ...]


@frozen
class ThreadRolledBack(Wire):
    """The last turns were taken out of the history; the file only grows."""

    type: ClassVar[str] = "thread_rolled_back"
    num_turns: int


@frozen
class ContextCompacted(Wire):
    """The conversation was compacted."""

    type: ClassVar[str] = "context_compacted"


@frozen
class ShutdownComplete(Wire):
    """The last event of a session."""

    type: ClassVar[str] = "shutdown_complete"


EventMsg = (
    SessionConfigured
    | Warning
    | DeprecationNotice
    | ErrorEvent
    | StreamError
    | TaskStarted
    | TaskComplete
    | TurnAborted
    | TokenCount
    | UserMessage
    | AgentMessage
    | AgentMessageContentDelta
    | AgentReasoning
    | AgentReasoningRawContent
    | AgentReasoningSectionBreak
    | ReasoningContentDelta
    | ReasoningRawContentDelta
    | RawResponseItem
    | ItemStarted
    | ItemCompleted
    | ExecCommandBegin
    | ExecCommandOutputDelta
    | TerminalInteraction
    | ExecCommandEnd
    | PatchApplyBegin
    | PatchApplyEnd
    | TurnDiff
    | PlanUpdate
    | ViewImageToolCall
    | WebSearchBegin
    | WebSearchEnd
    | ExecApprovalRequest
    | ApplyPatchApprovalRequest
    | RequestPermissions
    | DynamicToolCallRequest
    | DynamicToolCallResponse
    | ModelReroute
    | ModelVerification
    | ThreadRolledBack
    | ContextCompacted
    | ShutdownComplete
    | UnknownVariant
)

# Other spellings that older and newer writers use for the same event.
EVENT_ALIASES: Mapping[str, str] = {"turn_started": "task_started", "turn_complete": "task_complete"}


@frozen
class Event:
    """One event: the submission that caused it, and what happened."""

    id: str
    msg: EventMsg
