"""One rollout item as one JSONL line, and back (rollout.md 1.2)."""

from __future__ import annotations

import time

import attrs

from engine.errors import ProtocolError
from engine.protocol.codec import decode_line, encode_line, json_bytes, json_value
from engine.protocol.events import ThreadRolledBack
from engine.protocol.items import ResponseItem
from engine.protocol.rollout_items import Compacted, EventLine, RolloutItem

__all__ = ["decode_rollout_line", "encode_rollout_line", "format_timestamp"]

# Items of an older writer that no reader wants back (rollout.md 4.1).
GHOST_SNAPSHOT = "ghost_snapshot"

_last_second: tuple[int, str] = (-1, "")


def format_timestamp(unix_ns: int) -> str:
    """A moment as `2025-01-02T03:04:05.678Z`: UTC, milliseconds (cut, not rounded)."""
    global _last_second
    second, rest = divmod(unix_ns, 1_000_000_000)
    shown, text = _last_second  # one object, so threads never see the halves of two seconds
    if shown != second:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _last_second = (second, text)
    return f"{text}.{rest // 1_000_000:03d}Z"


def encode_rollout_line(item: RolloutItem, timestamp: str, ordinal: int | None = None) -> bytes:
    """`item` as a line with its line end. `timestamp` is the moment of writing, see `format_timestamp`; `ordinal` the
    number of the line where lines have one.

    Text that has no UTF-8 form (lone surrogates, from undecodable output) is written with replacement characters:
    a transcript must not stop for one character.
    """
    number = {} if ordinal is None else {"ordinal": ordinal}
    value = {"timestamp": timestamp, **number, **encode_line(item)}
    try:
        return json_bytes(value) + b"\n"
    except UnicodeEncodeError:
        return json_bytes(_encodable(value)) + b"\n"


def decode_rollout_line(line: bytes) -> RolloutItem | None:
    """The item of a line without its line end; `None` for an item that readers drop. Raises `ProtocolError`.

    Types nobody knows become an `UnknownLine` or an `UnknownVariant`.
    """
    value = json_value(line)
    if not isinstance(value, dict):
        raise ProtocolError("a rollout line is an object")
    line_type = value.get("type")
    if not isinstance(line_type, str):
        raise ProtocolError("the line has no `type`", path="type")
    if not isinstance(value.get("timestamp"), str):
        raise ProtocolError("the line has no `timestamp`", path="timestamp")
    payload = value.get("payload")
    if line_type == "response_item" and isinstance(payload, dict) and payload.get("type") == GHOST_SNAPSHOT:
        return None
    item = decode_line(line_type, payload)
    if isinstance(item, EventLine) and isinstance(item.msg, ThreadRolledBack) and not 0 <= item.msg.num_turns < 2**32:
        raise ProtocolError("out of range", path="payload.num_turns")
    if isinstance(item, Compacted) and item.replacement_history is not None:
        kept = tuple(part for part in item.replacement_history if not _is_ghost(part))
        if len(kept) != len(item.replacement_history):
            return attrs.evolve(item, replacement_history=kept)
    return item


def _is_ghost(item: ResponseItem) -> bool:
    return item.type == GHOST_SNAPSHOT


def _encodable(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case dict():
            return {_encodable(key): _encodable(part) for key, part in value.items()}
        case list() | tuple():
            return [_encodable(part) for part in value]
        case _:
            return value
