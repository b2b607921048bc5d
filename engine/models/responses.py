"""From raw Responses events to typed ones: a state machine without I/O for every transport (session.md 4.7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from engine.errors import ModelError, ProtocolError
from engine.models.failures import Disconnected, incomplete_failure, response_failure
from engine.models.rate_limits import snapshot_from_event, snapshots_from_headers
from engine.protocol.codec import decode_item
from engine.protocol.items import ResponseItem
from engine.protocol.settings import TokenUsage
from engine.protocol.wire import JsonObject
from engine.records import frozen

__all__ = [
    "Completed",
    "Created",
    "CustomInputDelta",
    "ItemAdded",
    "ItemDone",
    "ModelsEtag",
    "RateLimits",
    "ReasoningIncluded",
    "ReasoningSummaryDelta",
    "ReasoningSummaryPartAdded",
    "ReasoningTextDelta",
    "ResponseDecoder",
    "ResponseEvent",
    "ServerModel",
    "TextDelta",
    "VerificationRequested",
]

# The one verification that means something to a client; others are for newer ones.
TRUSTED_ACCESS: Final = "trusted_access_for_cyber"
_MODEL_HEADERS: Final = ("openai-model", "x-openai-model")


@frozen
class Created:
    """The server took the request."""


@frozen
class ItemAdded:
    """An item begins; `item` is what is there so far."""

    item: ResponseItem


@frozen
class ItemDone:
    """An item is complete."""

    item: ResponseItem


@frozen
class TextDelta:
    """More text of the message `item_id` (`""` where the server names none)."""

    item_id: str
    delta: str


@frozen
class CustomInputDelta:
    """More input of a freeform tool call."""

    item_id: str
    call_id: str | None
    delta: str


@frozen
class ReasoningSummaryDelta:
    """More of part `summary_index` of a reasoning summary."""

    item_id: str
    delta: str
    summary_index: int


@frozen
class ReasoningSummaryPartAdded:
    """The next part of a reasoning summary begins."""

    item_id: str
    summary_index: int


@frozen
class ReasoningTextDelta:
    """More raw reasoning."""

    item_id: str
    delta: str
    content_index: int


@frozen
class Completed:
    """The response is complete. `end_turn` false: the server wants another request."""

    response_id: str
    usage: TokenUsage | None = None
    end_turn: bool | None = None


@frozen
class ServerModel:
    """The model that really answers; told first by the response headers, then whenever it changes."""

    model: str


@frozen
class RateLimits:
    """A rate-limit snapshot in its core wire form."""

    snapshot: JsonObject


@frozen
class ModelsEtag:
    """The version of the server's model catalogue."""

    etag: str


@frozen
class ReasoningIncluded:
    """The server counts earlier reasoning into the usage it reports."""


@frozen
class VerificationRequested:
    """The server recommends a verification of the user, e.g. `trusted_access_for_cyber`."""

    verifications: tuple[str, ...]


ResponseEvent = (
    Created
    | ItemAdded
    | ItemDone
    | TextDelta
    | CustomInputDelta
    | ReasoningSummaryDelta
    | ReasoningSummaryPartAdded
    | ReasoningTextDelta
    | Completed
    | ServerModel
    | RateLimits
    | ModelsEtag
    | ReasoningIncluded
    | VerificationRequested
)

_NOTHING: Final[tuple[ResponseEvent, ...]] = ()


class ResponseDecoder:
    """Turns the raw events of one response into typed ones.

    `deferred` (SSE): a `response.failed` or `response.incomplete` is kept until `closed()`; otherwise (WebSocket)
    `feed` raises it at once. Unknown events, events without their parts and items that do not parse are ignored.
    """

    __slots__ = ("_deferred", "_model", "completed", "failure")

    def __init__(self, *, deferred: bool = True) -> None:
        self._deferred = deferred
        self._model: str | None = None
        self.completed = False
        self.failure: ModelError | None = None

    def open(self, headers: Mapping[str, str], *, limits: bool = True) -> list[ResponseEvent]:
        """What the response headers (names in lower case) say, before the first event; `limits`: rate limits too."""
        events: list[ResponseEvent] = []
        if model := headers.get("openai-model"):
            self._model = model
            events.append(ServerModel(model))
        if limits:
            events.extend(RateLimits(snapshot) for snapshot in snapshots_from_headers(headers))
        if etag := headers.get("x-models-etag", "").strip():
            events.append(ModelsEtag(etag))
        if "x-reasoning-included" in headers:
            events.append(ReasoningIncluded())
        return events

    def feed(self, raw: Mapping[str, object]) -> Sequence[ResponseEvent]:
        """The typed events of one raw event, usually none or one; nothing after completion. Raises `ModelError`."""
        if self.completed:
            return _NOTHING
        kind = raw.get("type")
        handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
        events = _NOTHING if handler is None else handler(self, raw)
        if "headers" in raw or "response" in raw:
            model = _server_model(raw)
            if model is not None and model != self._model:
                self._model = model
                return [ServerModel(model), *events]
        return events

    def closed(self) -> ModelError:
        """Why a stream that ended without `response.completed` failed."""
        return self.failure or Disconnected("stream closed before response.completed")

    def fail(self, failure: ModelError) -> Sequence[ResponseEvent]:
        """Notes a failure the server told; the last one counts."""
        if not self._deferred:
            raise failure
        self.failure = failure
        return _NOTHING


_Handler = Callable[[ResponseDecoder, Mapping[str, object]], Sequence[ResponseEvent]]


def _text(raw: Mapping[str, object], key: str) -> str | None:
    value = raw.get(key)
    return value if isinstance(value, str) else None


def _index(raw: Mapping[str, object], key: str) -> int | None:
    value = raw.get(key)
    return value if type(value) is int else None


def _object(raw: Mapping[str, object], key: str) -> Mapping[str, object] | None:
    value = raw.get(key)
    return value if isinstance(value, dict) else None


def _server_model(raw: Mapping[str, object]) -> str | None:
    response = _object(raw, "response")
    for holder in (response, raw):
        headers = None if holder is None else _object(holder, "headers")
        for name, value in (headers or {}).items():
            if name.lower() not in _MODEL_HEADERS:
                continue
            if isinstance(value, list) and value:
                value = value[0]
            if isinstance(value, str) and value:
                return value
    return None


def _created(_: ResponseDecoder, raw: Mapping[str, object]) -> Sequence[ResponseEvent]:
    return (Created(),) if raw.get("response") is not None else _NOTHING


def _item(raw: Mapping[str, object]) -> ResponseItem | None:
    item = raw.get("item")
    # Only a tag makes an item; without one there is nothing a later reader could tell it by.
    if not isinstance(item, dict) or not isinstance(item.get("type"), str):
        return None
    try:
        return decode_item(item)
    except ProtocolError:
        return None


def _item_added(_: ResponseDecoder, raw: Mapping[str, object]) -> Sequence[ResponseEvent]:
    item = _item(raw)
    return _NOTHING if item is None else (ItemAdded(item),)


def _item_done(_: ResponseDecoder, raw: Mapping[str, object]) -> Sequence[ResponseEvent]:
    item = _item(raw)
    return _NOTHING if item is None else (ItemDone(item),)


def _text_delta(_: ResponseDecoder, raw: Mapping[str, object]) -> Sequence[ResponseEvent]:
    delta = _text(raw, "delta")
    return _NOTHING if delta is None else (TextDelta(_text(raw, "item_id") or "", delta),)


def _custom_input_delta(_: ResponseDecoder, raw: Mapping[str, object]) -> Sequence[ResponseEvent]:
    delta = _text(raw, "delta")
    if delta is None:
        return _NOTHING
    return (CustomInputDelta(_text(raw, "item_id") or "", _text(raw, "call_id"), delta),)


def _summary_delta(_: ResponseDecoder, raw: Mapping[str, object]) -> Sequence[ResponseEvent]:
    delta, index = _text(raw, "delta"), _index(raw, "summary_index")
    if delta is None or index is None:
        return _NOTHING
    return (ReasoningSummaryDelta(_text(raw, "item_id") or "", delta, index),)


def _summary_part(_: ResponseDecoder, raw: Mapping[str, object]) -> Sequence[ResponseEvent]:
    index = _index(raw, "summary_index")
    return _NOTHING if index is None else (ReasoningSummaryPartAdded(_text(raw, "item_id") or "", index),)


def _reasoning_delta(_: ResponseDecoder, raw: Mapping[str, object]) -> Sequence[ResponseEvent]:
    delta, index = _text(raw, "delta"), _index(raw, "content_index")
    if delta is None or index is None:
        return _NOTHING
    return (ReasoningTextDelta(_text(raw, "item_id") or "", delta, index),)


def _completed(decoder: ResponseDecoder, raw: Mapping[str, object]) -> Sequence[ResponseEvent]:
    response = raw.get("response")
    if response is None:
        return _NOTHING
    if not isinstance(response, dict):
        raise Disconnected("failed to parse ResponseCompleted: `response` is no object")
    response_id, end_turn = response.get("id"), response.get("end_turn")
    if not isinstance(response_id, str):
        raise Disconnected("failed to parse ResponseCompleted: the field `id` is missing")
    if end_turn is not None and not isinstance(end_turn, bool):
        raise Disconnected("failed to parse ResponseCompleted: `end_turn` is no boolean")
    usage = _usage(response.get("usage"))
    decoder.completed = True
    return (Completed(response_id, usage, end_turn),)


def _count(table: Mapping[str, object], key: str) -> int:
    value = table.get(key)
    if type(value) is not int:
        raise Disconnected(f"failed to parse ResponseCompleted: `usage.{key}` is no integer")
    return value


def _detail(table: Mapping[str, object], key: str, part: str) -> int:
    details = table.get(key)
    return 0 if not isinstance(details, dict) or details.get(part) is None else _count(details, part)


def _usage(value: object) -> TokenUsage | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Disconnected("failed to parse ResponseCompleted: `usage` is no object")
    return TokenUsage(
        input_tokens=_count(value, "input_tokens"),
        cached_input_tokens=_detail(value, "input_tokens_details", "cached_tokens"),
        output_tokens=_count(value, "output_tokens"),
        reasoning_output_tokens=_detail(value, "output_tokens_details", "reasoning_tokens"),
        total_tokens=_count(value, "total_tokens"),
    )


def _failed(decoder: ResponseDecoder, raw: Mapping[str, object]) -> Sequence[ResponseEvent]:
    response = _object(raw, "response")
    if response is None:
        return _NOTHING
    return decoder.fail(response_failure(_object(response, "error")))


def _incomplete(decoder: ResponseDecoder, raw: Mapping[str, object]) -> Sequence[ResponseEvent]:
    details = _object(_object(raw, "response") or {}, "incomplete_details") or {}
    return decoder.fail(incomplete_failure(_text(details, "reason")))


def _metadata(_: ResponseDecoder, raw: Mapping[str, object]) -> Sequence[ResponseEvent]:
    wanted = (_object(raw, "metadata") or {}).get("openai_verification_recommendation")
    found = wanted == TRUSTED_ACCESS or (isinstance(wanted, list) and TRUSTED_ACCESS in wanted)
    return (VerificationRequested((TRUSTED_ACCESS,)),) if found else _NOTHING


def _rate_limits(_: ResponseDecoder, raw: Mapping[str, object]) -> Sequence[ResponseEvent]:
    return (RateLimits(snapshot_from_event(raw)),)


_HANDLERS: Final[Mapping[str, _Handler]] = {
    "response.created": _created,
    "response.output_item.added": _item_added,
    "response.output_item.done": _item_done,
    "response.output_text.delta": _text_delta,
    "response.custom_tool_call_input.delta": _custom_input_delta,
    "response.reasoning_summary_text.delta": _summary_delta,
    "response.reasoning_summary_part.added": _summary_part,
    "response.reasoning_text.delta": _reasoning_delta,
    "response.completed": _completed,
    "response.failed": _failed,
    "response.incomplete": _incomplete,
    "response.metadata": _metadata,
    "codex.rate_limits": _rate_limits,
}
