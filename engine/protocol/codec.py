"""The core wire: wire classes to and from JSON values, JSON values to and from text (rollouts, core events, requests).

A process that writes and reads nothing pays for no codec: cattrs, the hooks (`engine.protocol.conversion`) and msgspec
come with the first call. `docs/decisions.md` has the figures of that choice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from engine.errors import ProtocolError
from engine.protocol.rollout_items import LINE_CLASSES, EventLine, ResponseLine, RolloutItem, UnknownLine
from engine.protocol.wire import JsonObject

if TYPE_CHECKING:
    import cattrs

    from engine.protocol.events import EventMsg
    from engine.protocol.items import ResponseItem

__all__ = [
    "decode",
    "decode_event",
    "decode_item",
    "decode_line",
    "encode",
    "encode_line",
    "json_bytes",
    "json_value",
]

T = TypeVar("T")
_Hook = Callable[[Any, Any], Any]


@functools.cache
def converter() -> cattrs.Converter:
    """The converter of the core wire; made once per process."""
    from engine.protocol.conversion import make_converter

    return make_converter()


def decode(kind: type[T], value: object) -> T:
    """`value` (parsed JSON) as `kind`. Raises `ProtocolError`."""
    made: T = _structured(converter().get_structure_hook(kind), value, kind)
    return made


@functools.cache
def _item_hook() -> _Hook:
    """Found once: looking a union up costs as much as decoding a small item."""
    from engine.protocol.items import ResponseItem

    return converter().get_structure_hook(cast("type[ResponseItem]", ResponseItem))


@functools.cache
def _event_hook() -> _Hook:
    """As `_item_hook`."""
    from engine.protocol.events import EventMsg

    return converter().get_structure_hook(cast("type[EventMsg]", EventMsg))


def _misfits() -> tuple[type[Exception], ...]:
    from engine.protocol.conversion import MISFITS

    return MISFITS


def _structured(hook: _Hook, value: object, kind: object) -> Any:
    try:
        return hook(value, kind)
    except KeyError as exc:
        raise ProtocolError(f"the field `{exc.args[0]}` is missing") from exc
    except _misfits() as exc:
        raise ProtocolError(str(exc)) from exc


def encode(value: object) -> Any:
    """The JSON value of a wire object."""
    return converter().unstructure(value)


def decode_item(value: object) -> ResponseItem:
    """A response item; an unknown `type` becomes an `UnknownVariant`. Raises `ProtocolError`."""
    made: ResponseItem = _structured(_item_hook(), value, None)
    return made


def decode_event(value: object) -> EventMsg:
    """An event message; an unknown `type` becomes an `UnknownVariant`. Raises `ProtocolError`."""
    made: EventMsg = _structured(_event_hook(), value, None)
    return made


def decode_line(line_type: str, payload: object) -> RolloutItem:
    """The payload of a rollout line. A line type nobody knows becomes an `UnknownLine`. Raises `ProtocolError`."""
    if line_type == "response_item":
        return ResponseLine(decode_item(payload))
    if line_type == "event_msg":
        return EventLine(decode_event(payload))
    cls = LINE_CLASSES.get(line_type)
    if cls is None:
        return UnknownLine(line_type, payload)
    return decode(cls, payload)


def encode_line(item: RolloutItem) -> JsonObject:
    """`{"type": ..., "payload": ...}` of a rollout item; the writer adds the time stamp."""
    match item:
        case ResponseLine():
            payload = encode(item.item)
        case EventLine():
            payload = encode(item.msg)
        case UnknownLine():
            payload = item.payload
        case _:
            payload = encode(item)
    return {"type": item.line_type, "payload": payload}


@functools.cache
def _encoder() -> Callable[[object], bytes]:
    import msgspec

    return msgspec.json.encode


@functools.cache
def _decoder() -> Callable[[bytes | str], Any]:
    import msgspec

    return msgspec.json.decode


def _not_json() -> tuple[type[Exception], ...]:
    import msgspec

    return (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def json_bytes(value: object) -> bytes:
    """Compact JSON text of a JSON value."""
    return _encoder()(value)


def json_value(text: bytes | str) -> Any:
    """A parsed JSON text. Raises `ProtocolError`."""
    try:
        return _decoder()(text)
    except _not_json() as exc:
        raise ProtocolError(f"not JSON: {exc}") from exc
