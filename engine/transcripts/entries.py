"""What a reader of a thread wants to see of its items: messages, thoughts, tool calls with their results, notes.

What the engine tells the model for itself (context, permissions) and what is told twice (events beside items) is left
out. Rolled back turns stay, with a note: the transcript shows what happened.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Literal

import attrs

from engine.errors import ProtocolError
from engine.protocol.codec import json_value
from engine.protocol.events import ErrorEvent, TaskStarted, ThreadRolledBack, TurnAborted
from engine.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    ImageGenerationCall,
    InputImage,
    InputText,
    LocalShellCall,
    Message,
    OutputContent,
    OutputText,
    Reasoning,
    ResponseItem,
    ToolSearchCall,
    ToolSearchOutput,
    WebSearchCall,
    message_text,
)
from engine.protocol.rollout_items import Compacted, EventLine, ResponseLine, RolloutItem, SessionMeta, TurnContext
from engine.protocol.wire import UnknownVariant
from engine.records import define, frozen
from engine.rollout.boundaries import is_contextual_user_message, is_envelope, user_text

__all__ = ["Called", "Entry", "Note", "Opening", "Said", "Thought", "TurnBegan", "entries"]

WAITING = 1000  # entries that wait for the result of a call before them; a lost result must not hold back the rest


@frozen(kw_only=True)
class Opening:
    """Which thread it is. Each `forked_from` is told once, by the thread itself."""

    thread_id: str
    started: str
    cwd: str
    originator: str
    model_provider: str | None
    forked_from: str | None


@frozen
class TurnBegan:
    """A turn began, at unix seconds if that is known."""

    started_at: int | None


@frozen
class Said:
    """A message of the user, the model or (`agent`) another agent; `images` are URLs, `data:` ones included."""

    who: Literal["user", "assistant", "agent"]
    text: str
    images: tuple[str, ...] = ()


@frozen
class Thought:
    """What the model tells of its reasoning."""

    text: str


@define
class Called:
    """A tool call; `language` says what `input` is. `output` is `None` while there is none."""

    name: str
    input: str
    language: str = ""
    output: str | None = None
    images: tuple[str, ...] = ()


@frozen
class Note:
    """Something that happened to the conversation; `details` may be long."""

    text: str
    details: str = ""


Entry = Opening | TurnBegan | Said | Thought | Called | Note


def entries(items: Iterable[RolloutItem]) -> Iterator[Entry]:
    """The entries of a thread, in order. In constant memory: a call waits for its result no longer than its turn."""
    return _Reader().read(items)


@define(eq=False)
class _Reader:
    waiting: deque[Entry] = attrs.field(factory=deque)
    open_calls: dict[str, Called] = attrs.field(factory=dict)
    opened: bool = False
    model: str | None = None

    def read(self, items: Iterable[RolloutItem]) -> Iterator[Entry]:
        for item in items:
            self.take(item)
            if not self.open_calls or len(self.waiting) > WAITING:
                yield from self.flush()
        yield from self.flush()

    def flush(self) -> Iterator[Entry]:
        self.open_calls.clear()
        while self.waiting:
            yield self.waiting.popleft()

    def take(self, item: RolloutItem) -> None:
        match item:
            case SessionMeta():
                self.opening(item)
            case TurnContext(model=model):
                if model != self.model:
                    self.waiting.append(Note(f"model: {model}"))
                self.model = model
            case Compacted(message=message):
                self.waiting.append(Note("the conversation was compacted", message))
            case ResponseLine(item=response):
                self.response(response)
            case EventLine(msg=TaskStarted(started_at=at)):
                self.open_calls.clear()
                self.waiting.append(TurnBegan(at))
            case EventLine(msg=TurnAborted(reason=reason)):
                self.open_calls.clear()
                self.waiting.append(Note(f"the turn was {'interrupted' if reason == 'interrupted' else reason}"))
            case EventLine(msg=ErrorEvent(message=message)):
                self.waiting.append(Note("an error", message))
            case EventLine(msg=ThreadRolledBack(num_turns=count)):
                which = "turn was" if count == 1 else f"{count} turns were"
                self.waiting.append(Note(f"the last {which} taken back"))

    def opening(self, meta: SessionMeta) -> None:
        if self.opened:
            return  # of the source of a fork, or changed metadata
        self.opened = True
        self.waiting.append(
            Opening(
                thread_id=meta.id,
                started=meta.timestamp,
                cwd=meta.cwd,
                originator=meta.originator,
                model_provider=meta.model_provider,
                forked_from=meta.forked_from_id,
            )
        )

    def response(self, item: ResponseItem) -> None:
        match item:
            case Message():
                self.message(item)
            case Reasoning(summary=summary, content=content):
                parts = [part.text for part in (*summary, *(content or ())) if not isinstance(part, UnknownVariant)]
                if text := "\n\n".join(parts).strip():
                    self.waiting.append(Thought(text))
            case FunctionCall(name=name, namespace=namespace, arguments=arguments, call_id=call_id):
                full = name if namespace is None else f"{namespace}.{name}"
                self.call(call_id, Called(full, *_arguments(arguments)))
            case CustomToolCall(name=name, input=text, call_id=call_id):
                self.call(call_id, Called(name, text, "diff" if name == "apply_patch" else ""))
            case LocalShellCall(action=action, call_id=call_id):
                self.call(call_id, Called("shell", *_arguments(json.dumps(action))))
            case (
                FunctionCallOutput(call_id=call_id, output=output)
                | CustomToolCallOutput(call_id=call_id, output=output)
            ):
                self.result(call_id, *_output(output))
            case ToolSearchCall(arguments=arguments, call_id=call_id):
                self.call(call_id, Called("tool_search", _pretty(arguments), "json"))
            case ToolSearchOutput(tools=tools, call_id=call_id):
                self.result(call_id, "\n".join(str(tool.get("name", tool)) for tool in tools), ())
            case WebSearchCall(action=action):
                self.waiting.append(Called("web_search", _pretty(action), "json"))
            case ImageGenerationCall(revised_prompt=prompt, result=result):
                images = (f"data:image/png;base64,{result}",) if result else ()
                self.waiting.append(Called("image_generation", prompt or "", images=images))
            case UnknownVariant():
                self.waiting.append(Note(f"an item of another version: {item.type or 'no type'}", _pretty(item.raw)))

    def message(self, message: Message) -> None:
        images = tuple(part.image_url for part in message.content if isinstance(part, InputImage))
        if is_envelope(message):
            self.waiting.append(Said("agent", message_text(message)))
        elif message.role == "assistant":
            self.waiting.append(Said("assistant", message_text(message), images))
        elif message.role == "user" and not is_contextual_user_message(message):
            self.open_calls.clear()
            self.waiting.append(Said("user", user_text(message), images))

    def call(self, call_id: str | None, called: Called) -> None:
        self.waiting.append(called)
        if call_id is not None:
            self.open_calls[call_id] = called

    def result(self, call_id: str | None, text: str, images: tuple[str, ...]) -> None:
        called = None if call_id is None else self.open_calls.pop(call_id, None)
        if called is None:
            self.waiting.append(Called("result of an earlier call", "", "", text, images))
        else:
            called.output, called.images = text, images


def _arguments(text: str) -> tuple[str, str]:
    """The arguments of a call as a person reads them, and their language: of a command, the command alone."""
    try:
        value = json_value(text)
    except ProtocolError:
        return text, ""
    if isinstance(value, dict):
        command = value.get("cmd", value.get("command"))
        if isinstance(command, list) and all(isinstance(word, str) for word in command):
            command = command[2] if len(command) == 3 and command[1] in ("-c", "-lc") else " ".join(command)
        if isinstance(command, str):
            return command, "sh"
        if not value:
            return "", ""
    return _pretty(value), "json"


def _output(output: OutputContent) -> tuple[str, tuple[str, ...]]:
    if isinstance(output, str):
        return output, ()
    texts = [part.text for part in output if isinstance(part, InputText | OutputText)]
    return "\n".join(texts), tuple(part.image_url for part in output if isinstance(part, InputImage))


def _pretty(value: object) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, indent=2, default=str)
