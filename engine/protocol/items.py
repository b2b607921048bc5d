"""Response items: what the model says and hears (rollout.md 1.3).

`id` is what the server gave; it is kept in memory, sent back only to endpoints that want it, and not persisted.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs

from engine.protocol.wire import JsonObject, UnknownVariant, Wire, optional, unwritten
from engine.records import frozen

__all__ = [
    "CompactionItem",
    "CompactionTrigger",
    "ContentPart",
    "ContextCompactionItem",
    "CustomToolCall",
    "CustomToolCallOutput",
    "FunctionCall",
    "FunctionCallOutput",
    "ImageGenerationCall",
    "InputImage",
    "InputText",
    "LocalShellCall",
    "Message",
    "OutputContent",
    "OutputText",
    "Reasoning",
    "ReasoningContent",
    "ReasoningSummary",
    "ReasoningText",
    "ResponseItem",
    "SummaryText",
    "ToolSearchCall",
    "ToolSearchOutput",
    "WebSearchCall",
    "message_text",
    "user_message",
]


@frozen
class InputText(Wire):
    """Text given to the model."""

    type: ClassVar[str] = "input_text"
    text: str


@frozen
class InputImage(Wire):
    """An image given to the model: an http(s) or `data:` URL."""

    type: ClassVar[str] = "input_image"
    image_url: str
    detail: str | None = optional()


@frozen
class OutputText(Wire):
    """Text the model wrote."""

    type: ClassVar[str] = "output_text"
    text: str


ContentPart = InputText | InputImage | OutputText | UnknownVariant
OutputContent = str | tuple[InputText | InputImage | UnknownVariant, ...]


@frozen
class Message(Wire):
    """A message of `user`, `assistant`, `developer` or `system`. `phase`: `commentary` or `final_answer`."""

    type: ClassVar[str] = "message"
    role: str
    content: tuple[ContentPart, ...]
    phase: str | None = optional()
    id: str | None = unwritten()


@frozen
class SummaryText(Wire):
    """One part of a reasoning summary."""

    type: ClassVar[str] = "summary_text"
    text: str


@frozen
class ReasoningText(Wire):
    """Raw reasoning."""

    type: ClassVar[str] = "reasoning_text"
    text: str


@frozen
class PlainReasoningText(Wire):
    """Raw reasoning in its older spelling."""

    type: ClassVar[str] = "text"
    text: str


ReasoningSummary = SummaryText | UnknownVariant
ReasoningContent = ReasoningText | PlainReasoningText | UnknownVariant


@frozen
class Reasoning(Wire):
    """What the model thought: a summary, maybe the raw text, maybe an opaque encrypted form."""

    type: ClassVar[str] = "reasoning"
    summary: tuple[ReasoningSummary, ...] = ()
    content: tuple[ReasoningContent, ...] | None = optional()
    encrypted_content: str | None = None
    id: str | None = unwritten()


@frozen
class FunctionCall(Wire):
    """A call of a function tool; `arguments` is JSON text as the model wrote it."""

    type: ClassVar[str] = "function_call"
    name: str
    namespace: str | None = attrs.field(default=None, kw_only=True, metadata={"engine.omit_default": True})
    arguments: str = attrs.field(kw_only=True)
    call_id: str = attrs.field(kw_only=True)
    id: str | None = unwritten()


@frozen
class FunctionCallOutput(Wire):
    """The answer to a `FunctionCall`: plain text, or a list of parts."""

    type: ClassVar[str] = "function_call_output"
    call_id: str
    output: OutputContent


@frozen
class CustomToolCall(Wire):
    """A call of a freeform tool; `input` is raw text."""

    type: ClassVar[str] = "custom_tool_call"
    status: str | None = attrs.field(default=None, kw_only=True, metadata={"engine.omit_default": True})
    call_id: str = attrs.field(kw_only=True)
    name: str = attrs.field(kw_only=True)
    input: str = attrs.field(kw_only=True)
    id: str | None = unwritten()


@frozen
class CustomToolCallOutput(Wire):
    """The answer to a `CustomToolCall`."""

    type: ClassVar[str] = "custom_tool_call_output"
    call_id: str
    name: str | None = attrs.field(default=None, kw_only=True, metadata={"engine.omit_default": True})
    output: OutputContent = attrs.field(kw_only=True)


@frozen
class LocalShellCall(Wire):
    """A shell call of older models; read, never produced (tools.md 1.2)."""

    type: ClassVar[str] = "local_shell_call"
    status: str
    action: JsonObject
    call_id: str | None = None
    id: str | None = unwritten()


@frozen
class ToolSearchCall(Wire):
    """The model looks for deferred tools."""

    type: ClassVar[str] = "tool_search_call"
    execution: str
    arguments: object = None
    call_id: str | None = None
    status: str | None = optional()
    id: str | None = unwritten()


@frozen
class ToolSearchOutput(Wire):
    """The tools found by a `ToolSearchCall`."""

    type: ClassVar[str] = "tool_search_output"
    status: str
    execution: str
    tools: tuple[JsonObject, ...]
    call_id: str | None = None


@frozen
class WebSearchCall(Wire):
    """A hosted web search, done by the server."""

    type: ClassVar[str] = "web_search_call"
    status: str | None = optional()
    action: JsonObject | None = optional()
    id: str | None = unwritten()


@frozen
class ImageGenerationCall(Wire):
    """A hosted image generation; `result` is base64."""

    type: ClassVar[str] = "image_generation_call"
    id: str
    status: str
    revised_prompt: str | None = optional()
    result: str = ""


@frozen
class CompactionItem(Wire):
    """An opaque compaction made by the server."""

    type: ClassVar[str] = "compaction"
    encrypted_content: str


@frozen
class ContextCompactionItem(Wire):
    """A compaction marker of newer servers."""

    type: ClassVar[str] = "context_compaction"
    encrypted_content: str | None = optional()


@frozen
class CompactionTrigger(Wire):
    """Asks the server to compact; never stored."""

    type: ClassVar[str] = "compaction_trigger"


ResponseItem = (
    Message
    | Reasoning
    | FunctionCall
    | FunctionCallOutput
    | CustomToolCall
    | CustomToolCallOutput
    | LocalShellCall
    | ToolSearchCall
    | ToolSearchOutput
    | WebSearchCall
    | ImageGenerationCall
    | CompactionItem
    | ContextCompactionItem
    | CompactionTrigger
    | UnknownVariant
)

Role = Literal["user", "assistant", "developer", "system"]


def user_message(*texts: str, role: Role = "user") -> Message:
    """A message with one `input_text` part per text."""
    return Message(role=role, content=tuple(InputText(text) for text in texts))


def message_text(message: Message) -> str:
    """All text parts of a message, joined without separator."""
    return "".join(part.text for part in message.content if isinstance(part, InputText | OutputText))
