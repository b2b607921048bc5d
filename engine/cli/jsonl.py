"""From core events to the JSON lines of `engine exec --json` (app_server.md 6.4). Pure: events in, JSON objects out."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

import attrs

from engine.cli.outcome import TurnOutcome, affects_turn
from engine.protocol.events import (
    DeprecationNotice,
    ErrorEvent,
    Event,
    ExecCommandBegin,
    ExecCommandEnd,
    ItemCompleted,
    ItemStarted,
    PlanUpdate,
    StreamError,
    TaskComplete,
    TaskStarted,
    Warning,
)
from engine.protocol.turn_items import (
    AddChange,
    AgentMessageItem,
    DeleteChange,
    FileChange,
    FileChangeItem,
    ReasoningItem,
    WebSearchItem,
    agent_text,
)
from engine.protocol.wire import JsonObject
from engine.records import define

__all__ = ["JsonLines", "stream_error_text"]


def stream_error_text(msg: StreamError) -> str:
    """What people are told about a retry: `Reconnecting... 1/5 (details)`."""
    return f"{msg.message} ({msg.additional_details})" if msg.additional_details else msg.message


def deprecation_text(msg: DeprecationNotice) -> str:
    """A deprecation in one line."""
    return f"{msg.summary} ({msg.details})" if msg.details else msg.summary


@define(eq=False)
class JsonLines:
    """Maps the events of one process to JSON lines, in order.

    Item numbers are given at first emission and count on over the process. `outcome` is fed along the way.
    """

    outcome: TurnOutcome = attrs.field(factory=TurnOutcome)
    _next: int = attrs.field(default=0, init=False)
    _open: dict[str, str] = attrs.field(factory=dict, init=False)
    _plan: JsonObject | None = attrs.field(default=None, init=False)

    def map(self, event: Event) -> Iterator[JsonObject]:
        """The lines that `event` becomes; often none."""
        msg = event.msg
        if isinstance(msg, Warning):
            yield self._completed({"id": self._number(), "type": "error", "message": msg.message})
            return
        if isinstance(msg, DeprecationNotice):
            yield self._completed({"id": self._number(), "type": "error", "message": deprecation_text(msg)})
            return
        if not self.outcome.belongs(event):
            return
        self.outcome.observe(msg)
        match msg:
            case TaskStarted():
                yield {"type": "turn.started"}
            case ItemStarted(item=item):
                yield from self._item(item, started=True)
            case ItemCompleted(item=item):
                yield from self._item(item, started=False)
            case ExecCommandBegin():
                yield from self._command_begin(msg)
            case ExecCommandEnd():
                yield from self._command_end(msg)
            case PlanUpdate():
                yield self._plan_update(msg)
            case StreamError():
                yield {"type": "error", "message": stream_error_text(msg)}
            case ErrorEvent(message=message) if affects_turn(msg):
                yield {"type": "error", "message": message}
            case TaskComplete():
                yield from self._turn_end()

    def _number(self) -> str:
        self._next += 1
        return f"item_{self._next - 1}"

    def _id(self, call: str, *, ends: bool) -> str:
        """The number of a started item; an item that was never started gets one now."""
        if call not in self._open:
            self._open[call] = self._number()
        return self._open.pop(call) if ends else self._open[call]

    def _completed(self, item: JsonObject) -> JsonObject:
        return {"type": "item.completed", "item": item}

    def _item(self, item: object, *, started: bool) -> Iterator[JsonObject]:
        kind = "item.started" if started else "item.completed"
        match item:
            case AgentMessageItem() if not started:
                yield self._completed({"id": self._number(), "type": "agent_message", "text": agent_text(item)})
            case ReasoningItem() if not started:
                text = "\n".join(item.summary_text)
                if text.strip():
                    yield self._completed({"id": self._number(), "type": "reasoning", "text": text})
            case WebSearchItem():
                self._id(item.id, ends=not started)  # takes a number; readers see the id of the call
                action: JsonObject = item.action if item.action is not None else {"type": "other"}
                made: JsonObject = {"id": item.id, "type": "web_search", "query": item.query, "action": action}
                yield {"type": kind, "item": made}
            case FileChangeItem():
                status = "in_progress" if started else _file_change_status(item.status)
                number = self._id(item.id, ends=not started)
                changes = _changes(item.changes)
                yield {
                    "type": kind,
                    "item": {"id": number, "type": "file_change", "changes": changes, "status": status},
                }

    def _command_begin(self, msg: ExecCommandBegin) -> Iterator[JsonObject]:
        if msg.source == "unified_exec_interaction":
            return
        item: JsonObject = {
            "id": self._id(msg.call_id, ends=False),
            "type": "command_execution",
            "command": shlex.join(msg.command),
            "aggregated_output": "",
            "exit_code": None,
            "status": "in_progress",
        }
        yield {"type": "item.started", "item": item}

    def _command_end(self, msg: ExecCommandEnd) -> Iterator[JsonObject]:
        if msg.source == "unified_exec_interaction":
            return
        item: JsonObject = {
            "id": self._id(msg.call_id, ends=True),
            "type": "command_execution",
            "command": shlex.join(msg.command),
            "aggregated_output": msg.aggregated_output,
            "exit_code": msg.exit_code,
            "status": msg.status,
        }
        yield self._completed(item)

    def _plan_update(self, msg: PlanUpdate) -> JsonObject:
        items = [{"text": step.step, "completed": step.status == "completed"} for step in msg.plan]
        if self._plan is None:
            self._plan = {"id": self._number(), "type": "todo_list", "items": items}
            return {"type": "item.started", "item": self._plan}
        self._plan = {**self._plan, "items": items}
        return {"type": "item.updated", "item": self._plan}

    def _turn_end(self) -> Iterator[JsonObject]:
        if self._plan is not None:
            yield self._completed(self._plan)
            self._plan = None
        if self.outcome.error is not None:
            yield {"type": "turn.failed", "error": {"message": self.outcome.error}}
            return
        usage = self.outcome.usage
        written = usage.extra.get("cache_write_input_tokens", 0) if usage is not None else 0
        yield {
            "type": "turn.completed",
            "usage": {
                "input_tokens": usage.input_tokens if usage else 0,
                "cached_input_tokens": usage.cached_input_tokens if usage else 0,
                "cache_write_input_tokens": written,
                "output_tokens": usage.output_tokens if usage else 0,
                "reasoning_output_tokens": usage.reasoning_output_tokens if usage else 0,
            },
        }


def _file_change_status(status: str | None) -> str:
    return "failed" if status == "declined" else status or "completed"


def _changes(changes: Mapping[str, FileChange]) -> list[JsonObject]:
    return [{"path": path, "kind": _kind(changes[path])} for path in sorted(changes)]


def _kind(change: FileChange) -> str:
    match change:
        case AddChange():
            return "add"
        case DeleteChange():
            return "delete"
        case _:
            return "update"
