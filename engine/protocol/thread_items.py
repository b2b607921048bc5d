"""Turns and their items as people and clients see them (app_server.md 2.3, 2.4); `to_json` gives the wire form.

They are made from stored events. Members that only clients of a running session get stay at their empty values.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs

from engine.protocol.wire import JsonObject
from engine.records import frozen

__all__ = [
    "ItemsView",
    "OtherItem",
    "ShownAgentMessage",
    "ShownCommand",
    "ShownCompaction",
    "ShownDynamicToolCall",
    "ShownFileChange",
    "ShownImage",
    "ShownMcpToolCall",
    "ShownPlan",
    "ShownReasoning",
    "ShownReview",
    "ShownUserMessage",
    "ShownWebSearch",
    "ThreadItem",
    "ThreadTurn",
    "TurnFailure",
    "TurnStatus",
    "to_json",
]

TurnStatus = Literal["inProgress", "completed", "interrupted", "failed"]
ItemsView = Literal["notLoaded", "summary", "full"]


@frozen
class ShownUserMessage:
    """What the user sent; `content` are user inputs in the app-server's spelling (2.5)."""

    type: ClassVar[str] = "userMessage"
    id: str
    content: tuple[JsonObject, ...]
    client_id: str | None = None


@frozen
class ShownAgentMessage:
    """What the model said."""

    type: ClassVar[str] = "agentMessage"
    id: str
    text: str
    phase: str | None = None
    memory_citation: JsonObject | None = None


@frozen
class ShownReasoning:
    """What the model thought: parts of the summary, and raw parts where they were stored."""

    type: ClassVar[str] = "reasoning"
    id: str
    summary: tuple[str, ...] = ()
    content: tuple[str, ...] = ()


@frozen
class ShownPlan:
    """A proposed plan."""

    type: ClassVar[str] = "plan"
    id: str
    text: str


@frozen(kw_only=True)
class ShownCommand:
    """A command; `command` is quoted for a shell, times are in ms."""

    type: ClassVar[str] = "commandExecution"
    id: str
    command: str
    cwd: str
    process_id: str | None = None
    source: str = "agent"
    status: str
    command_actions: tuple[JsonObject, ...] = ()
    aggregated_output: str | None = None
    exit_code: int | None = None
    duration_ms: int | None = None


@frozen
class ShownFileChange:
    """A patch; `changes` are `{path, kind, diff}`, by path."""

    type: ClassVar[str] = "fileChange"
    id: str
    changes: tuple[JsonObject, ...]
    status: str


@frozen(kw_only=True)
class ShownMcpToolCall:
    """A call of a tool of an MCP server."""

    type: ClassVar[str] = "mcpToolCall"
    id: str
    server: str
    tool: str
    status: str
    arguments: object = None
    result: JsonObject | None = None
    error: JsonObject | None = None
    duration_ms: int | None = None


@frozen(kw_only=True)
class ShownDynamicToolCall:
    """A call of a tool of the host."""

    type: ClassVar[str] = "dynamicToolCall"
    id: str
    namespace: str | None
    tool: str
    arguments: object
    status: str
    content_items: tuple[JsonObject, ...] | None = None
    success: bool | None = None
    duration_ms: int | None = None


@frozen
class ShownWebSearch:
    """A hosted web search."""

    type: ClassVar[str] = "webSearch"
    id: str
    query: str
    action: JsonObject | None = None


@frozen
class ShownImage:
    """An image file the model has looked at."""

    type: ClassVar[str] = "imageView"
    id: str
    path: str


@frozen
class ShownReview:
    """A review began or ended: `enteredReviewMode` or `exitedReviewMode`."""

    type: str
    id: str
    review: str


@frozen
class ShownCompaction:
    """The conversation was compacted here."""

    type: ClassVar[str] = "contextCompaction"
    id: str


@frozen
class OtherItem:
    """An item of a kind this version does not know, in the wire form as far as it is known."""

    type: str
    id: str
    raw: JsonObject


ThreadItem = (
    ShownUserMessage
    | ShownAgentMessage
    | ShownReasoning
    | ShownPlan
    | ShownCommand
    | ShownFileChange
    | ShownMcpToolCall
    | ShownDynamicToolCall
    | ShownWebSearch
    | ShownImage
    | ShownReview
    | ShownCompaction
    | OtherItem
)


@frozen
class TurnFailure:
    """Why a turn failed; `codex_error_info` in the app-server's spelling."""

    message: str
    codex_error_info: object = None
    additional_details: str | None = None


@frozen(kw_only=True)
class ThreadTurn:
    """One turn. Times are unix seconds, `duration_ms` milliseconds; `None` where nobody has told."""

    id: str
    items: tuple[ThreadItem, ...] = ()
    items_view: ItemsView = "full"
    status: TurnStatus
    error: TurnFailure | None = None
    started_at: int | None = None
    completed_at: int | None = None
    duration_ms: int | None = None


def to_json(shown: ThreadTurn | ThreadItem | TurnFailure) -> JsonObject:
    """The app-server's JSON of a turn or an item."""
    if isinstance(shown, OtherItem):
        return {**shown.raw, "type": shown.type, "id": shown.id}
    told: JsonObject = {} if isinstance(shown, ThreadTurn | TurnFailure) else {"type": shown.type}
    for field in attrs.fields(type(shown)):
        value = getattr(shown, field.name)
        if isinstance(value, ThreadTurn | TurnFailure):
            value = to_json(value)
        elif isinstance(value, tuple):
            value = [part if isinstance(part, str | dict) else to_json(part) for part in value]
        told[_camel(field.name)] = value
    if isinstance(shown, ThreadTurn):
        told["rootTurnId"] = shown.id
    return told


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)
