"""The model-visible history of a session and the form of it a request carries (session.md 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import attrs

from engine.errors import ProtocolError
from engine.protocol.codec import decode_item, encode
from engine.protocol.items import (
    CompactionTrigger,
    ContentPart,
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    LocalShellCall,
    Message,
    OutputContent,
    OutputText,
    Reasoning,
    ReasoningText,
    ResponseItem,
    ToolSearchCall,
    ToolSearchOutput,
)
from engine.protocol.settings import TruncationPolicy
from engine.protocol.truncation import scaled, truncate_output
from engine.protocol.wire import JsonObject, UnknownVariant
from engine.records import define, frozen

__all__ = ["History", "Stored", "is_kept", "request_form", "sent_again", "without_noise"]

IMAGE_OMITTED = "image content omitted because you do not support image input"
ABORTED = "aborted"
# What servers add to output parts and nobody reads again; kept out of rollouts and requests.
OUTPUT_NOISE = ("annotations", "logprobs", "status")
ENTRY_FACTOR = 1.2  # tool outputs enter the history with a little more than the turn's budget

_Call = FunctionCall | CustomToolCall | LocalShellCall | ToolSearchCall
_Output = FunctionCallOutput | CustomToolCallOutput | ToolSearchOutput


def is_kept(item: ResponseItem) -> bool:
    """Whether an item belongs into the history at all."""
    if isinstance(item, UnknownVariant | CompactionTrigger):
        return False
    return not (isinstance(item, Message) and item.role == "system")


def _truncated(item: ResponseItem, policy: TruncationPolicy) -> ResponseItem:
    if isinstance(item, FunctionCallOutput | CustomToolCallOutput):
        output = truncate_output(item.output, scaled(policy, ENTRY_FACTOR))
        return item if output is item.output else attrs.evolve(item, output=output)
    return item


@frozen
class Stored:
    """Items from a store, oldest first; `forms` where they were made beside them."""

    items: Sequence[ResponseItem]
    forms: Sequence[JsonObject] | None = None


@define(eq=False)
class History:
    """Items oldest first, and beside each the JSON value a request carries for it, made once.

    What a resumed thread brings along may be deferred: it is there as soon as somebody looks.
    """

    _items: list[ResponseItem] = attrs.field(factory=list, init=False)
    _forms: list[JsonObject | None] = attrs.field(factory=list, init=False)
    _deferred: Callable[[], Stored] | None = attrs.field(default=None, init=False)

    @property
    def items(self) -> Sequence[ResponseItem]:
        """The items, oldest first. Raises what the deferred part raises."""
        self.settle()
        return self._items

    @property
    def own_items(self) -> Sequence[ResponseItem]:
        """The items that are here, without what is still deferred."""
        return self._items

    def record(self, items: Iterable[ResponseItem], policy: TruncationPolicy) -> list[ResponseItem]:
        """Adds what belongs into the history; returns it as it was stored (tool outputs truncated)."""
        kept = [_truncated(item, policy) for item in items if is_kept(item)]
        self._items.extend(kept)
        self._forms.extend([None] * len(kept))
        return kept

    def replace(self, items: Iterable[ResponseItem]) -> None:
        """Starts over with `items`."""
        self._deferred = None
        self._items = list(items)
        self._forms = [None] * len(self._items)

    def defer(self, load: Callable[[], Stored]) -> None:
        """Starts over with what `load` will give; it is called once, by whoever looks first."""
        self.replace(())
        self._deferred = load

    def settle(self) -> None:
        """Puts what was deferred in front. Raises what that raises; it stays deferred then."""
        if self._deferred is not None:
            stored = self._deferred()
            self._deferred = None
            self._items[:0] = stored.items
            forms: Sequence[JsonObject | None] | None = stored.forms
            self._forms[:0] = forms or [None] * len(stored.items)

    def for_request(self, *, images: bool) -> list[JsonObject]:
        """The `input` of a request: every call has its output right after it, no output is without its call."""
        self.settle()
        answered: dict[str, list[int]] = {}
        calls = {call_id for item in self._items if (call_id := _call_id(item)) is not None}
        for position, item in enumerate(self._items):
            if isinstance(item, _Output) and item.call_id is not None:
                answered.setdefault(item.call_id, []).append(position)
        made: list[JsonObject] = []
        for position, item in enumerate(self._items):
            if isinstance(item, _Output) and item.call_id is not None and item.call_id not in calls:
                continue
            form = self._form(position, item)
            made.append(form if images else _without_images(item, form))
            call_id = _call_id(item)
            if call_id is not None and call_id not in answered:
                made.append(request_form(_aborted(item, call_id)))
        return made

    def _form(self, position: int, item: ResponseItem) -> JsonObject:
        form = self._forms[position]
        if form is None:
            form = self._forms[position] = request_form(item)
        return form


def _call_id(item: ResponseItem) -> str | None:
    return item.call_id if isinstance(item, _Call) else None


def _aborted(call: ResponseItem, call_id: str) -> ResponseItem:
    if isinstance(call, CustomToolCall):
        return CustomToolCallOutput(call_id, output=ABORTED)
    if isinstance(call, ToolSearchCall):
        return ToolSearchOutput(status="completed", execution="client", tools=(), call_id=call_id)
    return FunctionCallOutput(call_id, ABORTED)


def request_form(item: ResponseItem) -> JsonObject:
    """An item as a request carries it; reasoning has its own rule for `content` (session.md 4.6)."""
    form: JsonObject = encode(item)
    if isinstance(item, Reasoning):
        if item.content is None:
            form["content"] = None
        elif not any(isinstance(part, ReasoningText) for part in item.content):
            form.pop("content", None)
    return form


def sent_again(raw: JsonObject) -> JsonObject | None:
    """How later requests carry an output item that a server sent; `None` for one that leaves no trace."""
    try:
        item = decode_item(raw)
    except ProtocolError:
        return None
    return request_form(without_noise(item)) if is_kept(item) else None


def _without_images(item: ResponseItem, form: JsonObject) -> JsonObject:
    if isinstance(item, Message):
        if any(isinstance(part, InputImage) for part in item.content):
            return {**form, "content": [encode(_text_for(part)) for part in item.content]}
    elif isinstance(item, FunctionCallOutput | CustomToolCallOutput) and _has_image(item.output):
        parts = item.output if not isinstance(item.output, str) else ()
        return {**form, "output": [encode(_text_for(part)) for part in parts]}
    return form


def _has_image(output: OutputContent) -> bool:
    return not isinstance(output, str) and any(isinstance(part, InputImage) for part in output)


def _text_for(part: ContentPart) -> ContentPart:
    return InputText(IMAGE_OMITTED) if isinstance(part, InputImage) else part


def without_noise(item: ResponseItem) -> ResponseItem:
    """The item without fields that only servers write; unknown ones stay."""
    if isinstance(item, Message):
        content = tuple(
            attrs.evolve(part, extra=_quiet(part.extra)) if isinstance(part, OutputText) and part.extra else part
            for part in item.content
        )
        return attrs.evolve(item, content=content, extra=_quiet(item.extra))
    if isinstance(item, FunctionCall | Reasoning) and item.extra:
        return attrs.evolve(item, extra=_quiet(item.extra))
    return item


def _quiet(extra: object) -> dict[str, object]:
    assert hasattr(extra, "items")
    return {key: value for key, value in extra.items() if key not in OUTPUT_NOISE}
