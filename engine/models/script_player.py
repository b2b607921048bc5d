"""Which response of a script answers a request, and the events it consists of: pure, shared by model and server.

A response is played as actions: events to send, pauses, raw text, the way it ends. Ids of items and calls are fresh
for every request, so that a script that repeats itself, also in a later process, never uses a call id twice.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final, NoReturn

import attrs

from engine.errors import ModelError, ScriptError
from engine.models.script_requests import ScriptedRequest, fill
from engine.models.scripts import (
    CallFunction,
    CallTool,
    Cut,
    Delay,
    Expect,
    Failed,
    Garbage,
    HttpAnswer,
    Incomplete,
    Patch,
    RawEvent,
    Reason,
    Say,
    Script,
    ScriptedResponse,
    Shell,
    Step,
    Usage,
    Wait,
    When,
    as_response,
)
from engine.protocol.codec import json_bytes
from engine.protocol.wire import JsonObject
from engine.records import define, frozen

__all__ = [
    "Action",
    "Emit",
    "End",
    "Hold",
    "Pause",
    "Played",
    "ScriptExhausted",
    "ScriptMismatch",
    "ScriptPlayer",
    "Text",
]

SHELL_TOOLS: Final[Mapping[str, str]] = {"exec_command": "cmd", "shell_command": "command"}
SHOWN: Final = 200  # characters of a request that an error repeats


class ScriptMismatch(ScriptError, ModelError):
    """The request is not the one the script expected. Final for the turn."""


class ScriptExhausted(ScriptError, ModelError):
    """The script has no answer left for this request. Final for the turn."""


@frozen
class Emit:
    """Events to send together."""

    events: tuple[JsonObject, ...]


@frozen
class Text:
    """Text to put into the event stream as it is."""

    text: str


@frozen
class Pause:
    """Seconds to wait."""

    seconds: float


@frozen
class Hold:
    """Wait to be released."""


@frozen
class End:
    """The end of the stream; `dropped`: the connection breaks instead of ending the body."""

    dropped: bool = False


Action = Emit | Text | Pause | Hold | End


@frozen
class Played:
    """What a request gets: a stream (2xx) as actions, or a plain answer as `body`. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    actions: Iterator[Action] = attrs.field(factory=lambda: iter(()))


class ScriptPlayer:
    """Walks through a script. `requests` keeps the last `record` requests, oldest first.

    `ids`: the part of all made ids that tells processes apart; random unless given.
    """

    def __init__(self, script: Script, *, ids: str | None = None, record: int = 256) -> None:
        self.script = script
        self.requests: deque[ScriptedRequest] = deque(maxlen=record)
        self._ids = os.urandom(3).hex() if ids is None else ids
        self._used: dict[tuple[str, int], int] = {}
        self._number = 0

    def play(self, body: JsonObject, headers: Mapping[str, str], frame: JsonObject | None = None) -> Played:
        """The answer to a request; `frame` as in `ScriptedRequest`. Raises `ScriptMismatch`, `ScriptExhausted`."""
        self._number += 1
        request = ScriptedRequest(body, headers, self._number, frame)
        if self.requests.maxlen:
            self.requests.append(request)
        response = self._choose(request)
        first = response.steps[0] if response.steps else None
        if isinstance(first, HttpAnswer):
            return _plain(first)
        made = _Maker(self.script, response, request, f"{self._ids}{self._number}")
        headers = {"content-type": "text/event-stream"} | {
            name.lower(): text for name, text in response.headers.items()
        }
        return Played(200, headers, actions=made.actions())

    def _choose(self, request: ScriptedRequest) -> ScriptedResponse:
        thread = request.thread_id if self.script.scope == "thread" else ""
        for position, response in enumerate(self.script.responses):
            if not isinstance(response, ScriptedResponse):
                return as_response(response(request))
            key = (thread, position)
            if response.repeat is not None and self._used.get(key, 0) >= response.repeat:
                continue
            if response.when is not _ALWAYS and not _matches(response.when, request):
                continue
            if response.repeat is not None:
                self._used[key] = self._used.get(key, 0) + 1
            if response.expect is not _ANYTHING:
                self._check(response.expect, request, position)
            return response
        raise ScriptExhausted(
            f"{self.script.name}: no answer left for request {request.number} "
            f"(user turn {request.user_turn}, step {request.step}); "
            f"the script has {len(self.script.responses)} response{'s' * (len(self.script.responses) > 1)}"
        )

    def _check(self, expect: Expect, request: ScriptedRequest, position: int) -> None:
        def differs(what: str, wanted: str, got: str) -> NoReturn:
            shown = got if len(got) <= SHOWN else got[:SHOWN] + "..."
            raise ScriptMismatch(
                f"{self.script.name}: response {position + 1} expected {what} {wanted!r} "
                f"in request {request.number}, got {shown!r}"
            )

        if expect.model is not None and expect.model != request.model:
            differs("the model", expect.model, request.model)
        user = request.user_texts[-1] if request.user_texts else ""
        if expect.user_text is not None and expect.user_text not in user:
            differs("a user message with", expect.user_text, user)
        output = request.tool_outputs[-1] if request.tool_outputs else ""
        if expect.tool_output is not None and expect.tool_output not in output:
            differs("a tool output with", expect.tool_output, output)
        for text in expect.history:
            if text not in request.all_texts:
                differs("a history with", text, ", ".join(request.user_texts))
        for text in expect.absent:
            if text in request.all_texts:
                differs("a history without", text, text)
        for name in expect.tools:
            if name not in request.tools:
                differs("the tool", name, ", ".join(request.tools))


_ALWAYS: Final = attrs.fields(ScriptedResponse).when.default
_ANYTHING: Final = attrs.fields(ScriptedResponse).expect.default


def _matches(when: When, request: ScriptedRequest) -> bool:
    return (
        (when.user_turn is None or when.user_turn == request.user_turn)
        and (when.step is None or when.step == request.step)
        and (when.model is None or when.model == request.model)
        and (when.user_text is None or when.user_text in (request.user_texts or ("",))[-1])
        and (when.tool_output is None or when.tool_output in (request.tool_outputs or ("",))[-1])
    )


def _plain(answer: HttpAnswer) -> Played:
    headers = {name.lower(): text for name, text in answer.headers.items()}
    if isinstance(answer.body, str):
        return Played(answer.status, {"content-type": "text/plain; charset=utf-8"} | headers, answer.body.encode())
    body = json_bytes(answer.body)
    return Played(answer.status, {"content-type": "application/json"} | headers, body)


@define(eq=False)
class _Maker:
    """Makes the events of one response."""

    script: Script
    response: ScriptedResponse
    request: ScriptedRequest
    ids: str
    count: int = attrs.field(default=0, init=False)  # output items so far
    batch: list[JsonObject] = attrs.field(factory=list, init=False)

    def actions(self) -> Iterator[Action]:
        response_id = f"resp_{self.ids}"
        raw = self.response.raw
        usage = self.script.usage
        if not raw:
            self.batch.append({"type": "response.created", "response": {"id": response_id}})
        for step in self.response.steps:
            match step:
                case Usage():
                    usage = step
                case Delay():
                    yield from self.flush()
                    yield Pause(step.seconds)
                case Wait():
                    yield from self.flush()
                    yield Hold()
                case Garbage():
                    yield from self.flush()
                    yield Text(self.text(step.text))
                case Cut():
                    yield from self.flush()
                    yield End(dropped=step.how == "drop")
                    return
                case Failed():
                    error = {"code": step.code, "message": self.text(step.message)}
                    self.batch.append({"type": "response.failed", "response": {"id": response_id, "error": error}})
                    yield from self.flush()
                    yield End()
                    return
                case Incomplete():
                    details = {"id": response_id, "incomplete_details": {"reason": step.reason}}
                    self.batch.append({"type": "response.incomplete", "response": details})
                    yield from self.flush()
                    yield End()
                    return
                case _:
                    yield from self.item(step)
        if not raw:
            self.batch.append(self.completed(response_id, usage))
        yield from self.flush()
        yield End()

    def flush(self) -> Iterator[Action]:
        if self.batch:
            batch, self.batch = tuple(self.batch), []
            yield Emit(batch)

    def completed(self, response_id: str, usage: Usage | None) -> JsonObject:
        response: JsonObject = {"id": response_id}
        if usage is not None:
            response["usage"] = {
                "input_tokens": usage.input,
                "input_tokens_details": {"cached_tokens": usage.cached},
                "output_tokens": usage.output,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning},
                "total_tokens": usage.input + usage.output if usage.total is None else usage.total,
            }
        if self.response.end_turn is not None:
            response["end_turn"] = self.response.end_turn
        return {"type": "response.completed", "response": response}

    def item(self, step: Step) -> Iterator[Action]:
        match step:
            case RawEvent():
                self.batch.append(step.event)
            case Say():
                yield from self.message(step)
            case Reason():
                yield from self.reasoning(step)
            case CallFunction():
                arguments = step.arguments
                text = arguments if isinstance(arguments, str) else json_bytes(self.value(arguments)).decode()
                self.call(step.name, self.text(text) if isinstance(arguments, str) else text, step)
            case CallTool():
                yield from self.custom(step.name, self.text(step.input), step.call_id, step.chunk)
            case Shell():
                self.shell(self.text(step.command), step.call_id)
            case Patch():
                text = self.text(step.text)
                if "apply_patch" in self.request.tools:
                    yield from self.custom("apply_patch", text, step.call_id, 0)
                else:
                    end = "" if text.endswith("\n") else "\n"
                    self.shell(f"apply_patch <<'EOF'\n{text}{end}EOF\n", step.call_id)

    def text(self, text: str) -> str:
        return fill(text, self.request) if self.response.template else text

    def value(self, value: object) -> object:
        if not self.response.template:
            return value
        if isinstance(value, str):
            return fill(value, self.request)
        if isinstance(value, Mapping):
            return {name: self.value(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(part) for part in value]
        return value

    def begin(self, prefix: str) -> tuple[str, int]:
        index = self.count
        self.count += 1
        return f"{prefix}_{self.ids}_{index}", index

    def done(self, index: int, item: JsonObject) -> None:
        self.batch.append({"type": "response.output_item.done", "output_index": index, "item": item})

    def deltas(self, kind: str, text: str, chunk: int, interval: float, base: JsonObject) -> Iterator[Action]:
        for at in range(0, len(text), chunk):
            if at and interval:
                yield from self.flush()
                yield Pause(interval)
            self.batch.append({"type": kind, **base, "delta": text[at : at + chunk]})

    def message(self, step: Say) -> Iterator[Action]:
        item_id, index = self.begin("msg")
        text = self.text(step.text)
        item: JsonObject = {"type": "message", "role": "assistant", "id": item_id, "content": []}
        if step.phase is not None:
            item["phase"] = step.phase
        self.batch.append({"type": "response.output_item.added", "output_index": index, "item": item})
        base: JsonObject = {"item_id": item_id, "output_index": index, "content_index": 0}
        yield from self.deltas("response.output_text.delta", text, step.chunk, step.interval, base)
        self.done(index, item | {"content": [{"type": "output_text", "text": text}]})

    def reasoning(self, step: Reason) -> Iterator[Action]:
        item_id, index = self.begin("rs")
        item: JsonObject = {"type": "reasoning", "id": item_id, "summary": []}
        self.batch.append({"type": "response.output_item.added", "output_index": index, "item": item})
        summary = [{"type": "summary_text", "text": self.text(part)} for part in step.summary]
        for position, part in enumerate(summary):
            base: JsonObject = {"item_id": item_id, "output_index": index, "summary_index": position}
            empty = {"type": "summary_text", "text": ""}
            self.batch.append({"type": "response.reasoning_summary_part.added", **base, "part": empty})
            kind = "response.reasoning_summary_text.delta"
            yield from self.deltas(kind, part["text"], step.chunk, step.interval, base)
        final: JsonObject = item | {"summary": summary}
        if step.raw is not None:
            raw = self.text(step.raw)
            base = {"item_id": item_id, "output_index": index, "content_index": 0}
            yield from self.deltas("response.reasoning_text.delta", raw, step.chunk, step.interval, base)
            final["content"] = [{"type": "reasoning_text", "text": raw}]
        if step.encrypted is not None:
            final["encrypted_content"] = step.encrypted
        self.done(index, final)

    def call(self, name: str, arguments: str, step: CallFunction) -> None:
        item_id, index = self.begin("fc")
        item: JsonObject = {
            "type": "function_call",
            "id": item_id,
            "call_id": step.call_id or f"call_{self.ids}_{index}",
        }
        if step.namespace is not None:
            item["namespace"] = step.namespace
        self.done(index, item | {"name": name, "arguments": arguments})

    def shell(self, command: str, call_id: str | None) -> None:
        name = next((tool for tool in SHELL_TOOLS if tool in self.request.tools), "exec_command")
        arguments = json_bytes({SHELL_TOOLS[name]: command}).decode()
        self.call(name, arguments, CallFunction(name, arguments, call_id))

    def custom(self, name: str, text: str, call_id: str | None, chunk: int) -> Iterator[Action]:
        item_id, index = self.begin("ctc")
        call_id = call_id or f"call_{self.ids}_{index}"
        item: JsonObject = {"type": "custom_tool_call", "id": item_id, "call_id": call_id, "name": name}
        if chunk:
            started = item | {"input": ""}
            self.batch.append({"type": "response.output_item.added", "output_index": index, "item": started})
            base: JsonObject = {"item_id": item_id, "output_index": index, "call_id": call_id}
            yield from self.deltas("response.custom_tool_call_input.delta", text, chunk, 0.0, base)
        self.done(index, item | {"input": text})
