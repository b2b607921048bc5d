"""Turn items: what one step of a turn looks like to people, carried by `item_started` and `item_completed`.

Tags are in Pascal case on the core wire; the app-server has its own spelling (app_server.md 2.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from engine.protocol.inputs import UserInput
from engine.protocol.wire import JsonObject, UnknownVariant, Wire, optional
from engine.records import frozen

__all__ = [
    "AddChange",
    "AgentMessageContent",
    "AgentMessageItem",
    "AgentText",
    "ContextCompactionTurnItem",
    "DeleteChange",
    "FileChange",
    "FileChangeItem",
    "PlanItem",
    "ReasoningItem",
    "TurnItem",
    "UpdateChange",
    "UserMessageItem",
    "WebSearchItem",
    "agent_text",
]


@frozen
class UserMessageItem(Wire):
    """What the user sent."""

    type: ClassVar[str] = "UserMessage"
    id: str
    content: tuple[UserInput, ...]


@frozen
class AgentText(Wire):
    """A text part of an agent message."""

    type: ClassVar[str] = "Text"
    text: str


AgentMessageContent = AgentText | UnknownVariant


@frozen
class AgentMessageItem(Wire):
    """What the model says to the user."""

    type: ClassVar[str] = "AgentMessage"
    id: str
    content: tuple[AgentMessageContent, ...]
    phase: str | None = optional()


@frozen
class PlanItem(Wire):
    """A proposed plan (plan mode)."""

    type: ClassVar[str] = "Plan"
    id: str
    text: str


@frozen
class ReasoningItem(Wire):
    """What the model thought: summary parts, and raw parts where they may be shown."""

    type: ClassVar[str] = "Reasoning"
    id: str
    summary_text: tuple[str, ...]
    raw_content: tuple[str, ...] = ()


@frozen
class WebSearchItem(Wire):
    """A hosted web search."""

    type: ClassVar[str] = "WebSearch"
    id: str
    query: str
    action: JsonObject | None = None


@frozen
class AddChange(Wire):
    """A file that is new (or overwritten whole)."""

    type: ClassVar[str] = "add"
    content: str


@frozen
class DeleteChange(Wire):
    """A file that goes; `content` is what it held."""

    type: ClassVar[str] = "delete"
    content: str


@frozen
class UpdateChange(Wire):
    """A file that changes, and maybe moves."""

    type: ClassVar[str] = "update"
    unified_diff: str
    move_path: str | None = None


FileChange = AddChange | DeleteChange | UpdateChange | UnknownVariant


@frozen
class FileChangeItem(Wire):
    """A patch. `changes` maps absolute paths; `status` is absent while it runs."""

    type: ClassVar[str] = "FileChange"
    id: str
    changes: Mapping[str, FileChange]
    status: str | None = optional()
    auto_approved: bool | None = optional()
    stdout: str | None = optional()
    stderr: str | None = optional()


@frozen
class ContextCompactionTurnItem(Wire):
    """The conversation was compacted."""

    type: ClassVar[str] = "ContextCompaction"
    id: str


TurnItem = (
    UserMessageItem
    | AgentMessageItem
    | PlanItem
    | ReasoningItem
    | WebSearchItem
    | FileChangeItem
    | ContextCompactionTurnItem
    | UnknownVariant
)


def agent_text(item: AgentMessageItem) -> str:
    """The whole text of an agent message."""
    return "".join(part.text for part in item.content if isinstance(part, AgentText))
