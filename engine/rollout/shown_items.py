"""From stored events to the items of a turn that people see (app_server.md 2.4, 5). Pure."""

from __future__ import annotations

import os.path
import shlex
from collections.abc import Mapping
from typing import Final

from engine.protocol.events import (
    AgentMessage,
    ContextCompacted,
    DynamicToolCallRequest,
    DynamicToolCallResponse,
    EventMsg,
    ExecCommandEnd,
    ItemCompleted,
    PatchApplyEnd,
    UserMessage,
    ViewImageToolCall,
    WebSearchEnd,
)
from engine.protocol.inputs import ImageInput, LocalImageInput, TextInput
from engine.protocol.thread_items import (
    OtherItem,
    ShownAgentMessage,
    ShownCommand,
    ShownCompaction,
    ShownDynamicToolCall,
    ShownFileChange,
    ShownImage,
    ShownMcpToolCall,
    ShownPlan,
    ShownReasoning,
    ShownReview,
    ShownUserMessage,
    ShownWebSearch,
    ThreadItem,
)
from engine.protocol.turn_items import (
    AddChange,
    AgentMessageItem,
    ContextCompactionTurnItem,
    DeleteChange,
    FileChange,
    FileChangeItem,
    PlanItem,
    ReasoningItem,
    TurnItem,
    UpdateChange,
    UserMessageItem,
    WebSearchItem,
    agent_text,
)
from engine.protocol.wire import JsonObject, UnknownVariant

__all__ = ["camel_words", "shown_item"]

_REVIEWS: Final = {"entered_review_mode": "enteredReviewMode", "exited_review_mode": "exitedReviewMode"}


def shown_item(msg: EventMsg, unnamed: str) -> ThreadItem | None:
    """What an event shows as a whole item; `unnamed` is the id of one that has none. Reasoning is not among them: its
    parts are told one by one."""
    match msg:
        case UserMessage():
            return ShownUserMessage(unnamed, _user_content(msg))
        case AgentMessage():
            return ShownAgentMessage(unnamed, msg.message, msg.phase, msg.memory_citation)
        case ItemCompleted():
            return _completed(msg.item)
        case ExecCommandEnd():
            return ShownCommand(
                id=msg.call_id,
                command=shlex.join(msg.command),
                cwd=msg.cwd,
                process_id=msg.process_id,
                source=_camel(msg.source),
                status=msg.status,
                command_actions=tuple(_action(part, msg.cwd) for part in msg.parsed_cmd),
                aggregated_output=msg.aggregated_output or None,
                exit_code=msg.exit_code,
                duration_ms=_ms(msg.duration),
            )
        case PatchApplyEnd():
            return ShownFileChange(msg.call_id, _changes(msg.changes), msg.status)
        case ViewImageToolCall():
            return ShownImage(msg.call_id, msg.path)
        case WebSearchEnd():
            return ShownWebSearch(msg.call_id, msg.query, _camel_object(msg.action))
        case DynamicToolCallRequest():
            return ShownDynamicToolCall(
                id=msg.call_id,
                namespace=msg.namespace,
                tool=msg.tool,
                arguments=msg.arguments,
                status="inProgress",
            )
        case DynamicToolCallResponse():
            return ShownDynamicToolCall(
                id=msg.call_id,
                namespace=msg.namespace,
                tool=msg.tool,
                arguments=msg.arguments,
                status="completed" if msg.success else "failed",
                content_items=msg.content_items,
                success=msg.success,
                duration_ms=_ms(msg.duration),
            )
        case ContextCompacted():
            return ShownCompaction(unnamed)
        case UnknownVariant():
            return _other(msg.raw, unnamed)
    return None


def _completed(item: TurnItem) -> ThreadItem | None:
    match item:
        case UserMessageItem():
            return ShownUserMessage(item.id, tuple(_input(part) for part in item.content))
        case AgentMessageItem():
            return ShownAgentMessage(item.id, agent_text(item), item.phase)
        case PlanItem():
            return ShownPlan(item.id, item.text)
        case ReasoningItem():
            return ShownReasoning(item.id, item.summary_text, item.raw_content)
        case WebSearchItem():
            return ShownWebSearch(item.id, item.query, _camel_object(item.action))
        case FileChangeItem():
            return ShownFileChange(item.id, _changes(item.changes), item.status or "inProgress")
        case ContextCompactionTurnItem():
            return ShownCompaction(item.id)
        case UnknownVariant():
            name, found = item.type, item.raw.get("id")
            if not name or not isinstance(found, str):
                return None
            raw = _camel_object({key: value for key, value in item.raw.items() if key not in ("type", "id")})
            return OtherItem(name[0].lower() + name[1:], found, raw or {})


def _other(raw: JsonObject, unnamed: str) -> ThreadItem | None:
    """Items of events that this engine persists and has no class for."""
    kind, call_id = raw.get("type"), raw.get("call_id")
    if isinstance(kind, str) and kind in _REVIEWS:
        told = raw.get("review", raw.get("user_facing_hint"))
        return ShownReview(_REVIEWS[kind], unnamed, told if isinstance(told, str) else "")
    if not isinstance(call_id, str):
        return None
    if kind == "mcp_tool_call_end":
        return _mcp_call(raw, call_id)
    if kind == "image_generation_end":
        kept = {_camel(key): value for key, value in raw.items() if key not in ("type", "call_id")}
        return OtherItem("imageGeneration", call_id, kept)
    return None


def _mcp_call(raw: JsonObject, call_id: str) -> ThreadItem:
    invocation, outcome = raw.get("invocation"), raw.get("result")
    called = invocation if isinstance(invocation, dict) else {}
    answer = outcome.get("Ok") if isinstance(outcome, dict) else None
    failed = not isinstance(answer, dict) or answer.get("isError", answer.get("is_error")) is True
    result: JsonObject | None = None
    error: JsonObject | None = None
    if isinstance(answer, dict):
        result = {
            "content": answer.get("content", []),
            "structuredContent": answer.get("structuredContent", answer.get("structured_content")),
            "_meta": answer.get("_meta"),
        }
    elif isinstance(outcome, dict):
        error = {"message": str(outcome.get("Err", ""))}
    return ShownMcpToolCall(
        id=call_id,
        server=str(called.get("server", "")),
        tool=str(called.get("tool", "")),
        status="failed" if failed else "completed",
        arguments=called.get("arguments"),
        result=result,
        error=error,
        duration_ms=_ms(raw.get("duration")),
    )


# --- parts ---------------------------------------------------------------------------------------


def _user_content(msg: UserMessage) -> tuple[JsonObject, ...]:
    content: list[JsonObject] = []
    if msg.message.strip():
        elements = [_camel_object(element) for element in msg.text_elements]
        content.append({"type": "text", "text": msg.message, "text_elements": elements})
    content += [{"type": "image", "url": url} for url in msg.images or ()]
    content += [{"type": "localImage", "path": path} for path in msg.local_images]
    return tuple(content)


def _input(part: object) -> JsonObject:
    match part:
        case TextInput():
            elements = [_camel_object(element) for element in part.text_elements]
            return {"type": "text", "text": part.text, "text_elements": elements}
        case ImageInput():
            return {"type": "image", "url": part.image_url, **_detail(part.detail)}
        case LocalImageInput():
            return {"type": "localImage", "path": part.path, **_detail(part.detail)}
        case UnknownVariant():
            return dict(part.raw)
    return {"type": getattr(part, "type", ""), "name": getattr(part, "name", ""), "path": getattr(part, "path", "")}


def _detail(detail: str | None) -> JsonObject:
    return {} if detail is None else {"detail": detail}


def _changes(changes: Mapping[str, FileChange]) -> tuple[JsonObject, ...]:
    return tuple(_change(path, changes[path]) for path in sorted(changes))


def _change(path: str, change: FileChange) -> JsonObject:
    match change:
        case AddChange():
            return {"path": path, "kind": {"type": "add"}, "diff": change.content}
        case DeleteChange():
            return {"path": path, "kind": {"type": "delete"}, "diff": change.content}
        case UpdateChange():
            kind: JsonObject = {"type": "update", "move_path": change.move_path}
            return {"path": path, "kind": kind, "diff": change.unified_diff}
        case UnknownVariant():
            return {"path": path, "kind": dict(change.raw), "diff": ""}


def _action(parsed: JsonObject, cwd: str) -> JsonObject:
    """A part of a command as clients see it; the path of what is read is absolute."""
    action = {("command" if key == "cmd" else key): value for key, value in parsed.items()}
    action["type"] = _camel(str(parsed.get("type", "unknown")))
    path = action.get("path")
    if action["type"] == "read" and isinstance(path, str):
        action["path"] = os.path.join(cwd, path)
    return action


def _ms(duration: object) -> int | None:
    if not isinstance(duration, dict):
        return None
    seconds, nanos = duration.get("secs"), duration.get("nanos")
    if not isinstance(seconds, int) or not isinstance(nanos, int):
        return None
    return seconds * 1000 + nanos // 1_000_000


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in others)


def _camel_object(value: JsonObject | None) -> JsonObject | None:
    """Names of members, and a `type`, in the app-server's spelling."""
    if value is None:
        return None
    told: JsonObject = {_camel(key): part for key, part in value.items()}
    if isinstance(told.get("type"), str):
        told["type"] = _camel(str(told["type"]))
    return told


def camel_words(value: object) -> object:
    """An error's kind in the app-server's spelling, with whatever is in it."""
    if isinstance(value, str):
        return _camel(value)
    if isinstance(value, dict):
        return {_camel(key): camel_words(part) if isinstance(part, dict) else part for key, part in value.items()}
    return value
