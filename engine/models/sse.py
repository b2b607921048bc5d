"""An incremental parser of server-sent events: bytes in, events out, whatever the cuts; no I/O.

Follows the event-stream format of the HTML standard: LF, CRLF or CR ends a line, a byte-order mark at the start is
skipped, comments are dropped, `data` lines are joined with LF, an event without data is none, and what a blank line
does not end is discarded. Only `event` and `data` are kept; reconnecting is not the parser's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from engine.errors import ProtocolError
from engine.models.failures import EventTooLarge
from engine.protocol.codec import json_bytes, json_value

__all__ = ["MAX_EVENT_BYTES", "ServerEvent", "SseParser", "event_values", "sse_bytes"]

# The largest events of real servers carry generated images of a few MiB in base64.
MAX_EVENT_BYTES: Final = 32 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_LF: Final = 0x0A
_CR: Final = 0x0D


class ServerEvent(NamedTuple):
    """One event: its name (`message` where none is given) and its data as UTF-8 bytes."""

    event: str
    data: bytes


class SseParser:
    """Feed it the body as it comes. `limit` bounds the bytes of one event, of unfinished lines and of comments."""

    __slots__ = ("_data", "_event", "_first", "_limit", "_part_size", "_parts", "_size", "_skip_lf")

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._parts: list[bytes] = []  # the unfinished last line
        self._part_size = 0
        self._skip_lf = False  # the last chunk ended with CR: an LF now belongs to it
        self._first = True
        self._event = b""
        self._data: list[bytes] = []
        self._size = 0  # bytes of the lines of the event so far

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that `chunk` completes. Raises `EventTooLarge`; the parser is of no use afterwards."""
        if not chunk:
            return []
        if self._skip_lf:
            self._skip_lf = False
            if chunk[0] == _LF:
                chunk = chunk[1:]
                if not chunk:
                    return []
        if b"\n" not in chunk and b"\r" not in chunk:
            self._keep(chunk)
            return []
        if self._parts:
            self._parts.append(chunk)
            chunk = b"".join(self._parts)
            self._parts.clear()
            self._part_size = 0
        lines = chunk.splitlines()
        last = chunk[-1]
        rest = b""
        if last == _CR:
            self._skip_lf = True
        elif last != _LF:
            rest = lines.pop()
        if self._first:
            self._first = False
            lines[0] = lines[0].removeprefix(_BOM)
        events = self._parse(lines)
        if rest:
            self._keep(rest)
        return events

    def _keep(self, rest: bytes) -> None:
        self._parts.append(rest)
        self._part_size += len(rest)
        # A mark that has not been stripped yet does not count.
        mark = 3 if self._first and b"".join(self._parts[:3]).startswith(_BOM) else 0
        if self._size + self._part_size - mark > self._limit:
            raise EventTooLarge(self._limit)

    def _parse(self, lines: list[bytes]) -> list[ServerEvent]:
        events: list[ServerEvent] = []
        data = self._data
        for line in lines:
            if not line:
                if data:
                    name = self._event.decode(errors="replace") or "message"
                    events.append(ServerEvent(name, data[0] if len(data) == 1 else b"\n".join(data)))
                    data.clear()
                self._event = b""
                self._size = 0
                continue
            if self._size + len(line) > self._limit:
                raise EventTooLarge(self._limit)
            if line.startswith(b":"):
                continue
            self._size += len(line)
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value[1:] if value.startswith(b" ") else value)
            elif field == b"event":
                self._event = value[1:] if value.startswith(b" ") else value
        return events


def event_values(events: Iterable[ServerEvent]) -> list[dict[str, object]]:
    """The JSON objects in the data of events; what is no JSON object is no reason to lose the rest, and is left out."""
    found: list[dict[str, object]] = []
    for _, data in events:
        try:
            value = json_value(data)
        except ProtocolError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def sse_bytes(events: Iterable[Mapping[str, object]]) -> bytes:
    """Raw events as the server sends them: the `type` as event name, the JSON as data."""
    parts: list[bytes] = []
    for event in events:
        name = event.get("type")
        if isinstance(name, str):
            parts.append(f"event: {name}\n".encode())
        parts += (b"data: ", json_bytes(event), b"\n\n")
    return b"".join(parts)
