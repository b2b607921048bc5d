"""The payloads of rollout lines (rollout.md 1.2-1.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from engine.protocol.events import EventMsg
from engine.protocol.ids import ThreadId
from engine.protocol.items import ResponseItem
from engine.protocol.profiles import FileSystemSandboxPolicy, PermissionProfile, SandboxPolicy
from engine.protocol.settings import ApprovalPolicy, CollaborationMode, GitInfo, SessionSource, TruncationPolicy
from engine.protocol.wire import JsonObject, UnknownVariant, Wire, defaulted, optional
from engine.records import frozen

__all__ = [
    "BaseInstructions",
    "Compacted",
    "EventLine",
    "ResponseLine",
    "RolloutItem",
    "SessionMeta",
    "TurnContext",
    "TurnContextNetwork",
    "UnknownLine",
]


@frozen
class BaseInstructions(Wire):
    """The base instructions a thread started with."""

    text: str


@frozen(kw_only=True)
class SessionMeta(Wire):
    """The first line of a thread: who, where, with what. `timestamp` is UTC in milliseconds with `Z`."""

    line_type: ClassVar[str] = "session_meta"
    id: ThreadId
    forked_from_id: str | None = optional()
    timestamp: str
    cwd: str
    originator: str
    cli_version: str
    source: SessionSource = "vscode"
    thread_source: str | None = optional()
    agent_nickname: str | None = optional()
    agent_role: str | None = optional()
    agent_path: str | None = optional()
    model_provider: str | None = None
    base_instructions: BaseInstructions | None = None
    dynamic_tools: tuple[JsonObject, ...] = defaulted(())
    memory_mode: str | None = optional()
    git: GitInfo | None = optional()


@frozen
class TurnContextNetwork(Wire):
    """Domains a managed network allows and denies."""

    allowed_domains: tuple[str, ...] = ()
    denied_domains: tuple[str, ...] = ()


@frozen(kw_only=True)
class TurnContext(Wire):
    """The settings a turn ran with; the newest one is the reference for context diffs."""

    line_type: ClassVar[str] = "turn_context"
    turn_id: str | None = optional()
    trace_id: str | None = optional()
    cwd: str
    current_date: str | None = optional()
    timezone: str | None = optional()
    approval_policy: ApprovalPolicy
    sandbox_policy: SandboxPolicy | UnknownVariant
    permission_profile: PermissionProfile | UnknownVariant | None = optional()
    network: TurnContextNetwork | None = optional()
    file_system_sandbox_policy: FileSystemSandboxPolicy | UnknownVariant | None = optional()
    model: str
    personality: str | None = optional()
    collaboration_mode: CollaborationMode | None = optional()
    realtime_active: bool | None = optional()
    effort: str | None = optional()
    summary: str
    user_instructions: str | None = optional()
    developer_instructions: str | None = optional()
    final_output_json_schema: object = optional()
    truncation_policy: TruncationPolicy | None = optional()


@frozen
class Compacted(Wire):
    """The conversation was compacted; with `replacement_history`, that is the history from here on."""

    line_type: ClassVar[str] = "compacted"
    message: str
    replacement_history: tuple[ResponseItem, ...] | None = optional()


@frozen
class ResponseLine:
    """A model-visible item."""

    line_type: ClassVar[str] = "response_item"
    item: ResponseItem


@frozen
class EventLine:
    """An event that is kept."""

    line_type: ClassVar[str] = "event_msg"
    msg: EventMsg


@frozen
class UnknownLine:
    """A line of a type this version does not know."""

    line_type: str
    payload: object


RolloutItem = SessionMeta | TurnContext | Compacted | ResponseLine | EventLine | UnknownLine

LINE_CLASSES: Mapping[str, type[SessionMeta] | type[TurnContext] | type[Compacted]] = {
    "session_meta": SessionMeta,
    "turn_context": TurnContext,
    "compacted": Compacted,
}
