"""The scanner in pure Python: lines of a rollout and their top-level `type`, without parsing JSON.

Twin of `_speedups/scan.pyx`: the same names and the same results on any bytes. What a line is and how it is
told apart is documented in `engine.rollout.scan`, which chooses between the two.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from typing import Literal, final

__all__ = [
    "BLANK",
    "BROKEN",
    "COMPACTED",
    "EVENT_MSG",
    "IMPLEMENTATION",
    "OTHER",
    "RESPONSE_ITEM",
    "SESSION_META",
    "TURN_CONTEXT",
    "Scan",
]

IMPLEMENTATION: Literal["c", "python"] = "python"

BLANK = 0
SESSION_META = 1
RESPONSE_ITEM = 2
COMPACTED = 3
TURN_CONTEXT = 4
EVENT_MSG = 5
OTHER = 6
BROKEN = 7

Source = bytes | bytearray | memoryview | mmap.mmap
Line = tuple[int, int, int]

_KINDS = {
    b"session_meta": SESSION_META,
    b"response_item": RESPONSE_ITEM,
    b"compacted": COMPACTED,
    b"turn_context": TURN_CONTEXT,
    b"event_msg": EVENT_MSG,
}
_BOM = b"\xef\xbb\xbf"

# The order every known writer uses; anything else takes the long way.
_USUAL = re.compile(
    rb'[ \t\r]*+\{[ \t\r]*+"timestamp"[ \t\r]*+:[ \t\r]*+"[^"\\]*+"[ \t\r]*+,'
    rb'[ \t\r]*+"type"[ \t\r]*+:[ \t\r]*+"([^"\\]*+)"'
)
_SPACE = re.compile(rb"[ \t\r]*+")
_BLANK = re.compile(rb"[ \t\r\x0b\x0c]*+")
_STRING = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
_SCALAR = re.compile(rb"[^,}]*+")
_NESTED = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4}))?")


@final
class Scan:
    """The lines of one rollout held in memory. `data` must not change (an mmap: not be closed) while this lives."""

    __slots__ = ("_data", "_size")

    def __init__(self, data: Source) -> None:
        self._data: bytes | bytearray | mmap.mmap
        if isinstance(data, bytes | bytearray | mmap.mmap):
            self._data = data
        else:
            self._data = bytes(memoryview(data))
        self._size = len(self._data)

    def forward(self, start: int = 0) -> Iterator[Line]:
        """`(start, end, kind)` of each line from offset `start` on, which must be the start of a line."""
        data, size, kind_of = self._data, self._size, self._kind
        find = data.find
        position = max(0, start)
        if position == 0 and data[:3] == _BOM:
            position = 3
        while position < size:
            newline = find(b"\n", position)
            stop = size if newline < 0 else newline
            end = stop - 1 if stop > position and data[stop - 1] == 13 else stop
            yield position, end, kind_of(position, end)
            position = stop + 1

    def backward(self, end: int | None = None) -> Iterator[Line]:
        """`(start, end, kind)` of each line before offset `end` (default: all), last line first."""
        data, kind_of = self._data, self._kind
        rfind = data.rfind
        first = 3 if data[:3] == _BOM else 0
        stop = self._size if end is None else max(0, min(end, self._size))
        if stop > first and data[stop - 1] == 10:
            stop -= 1
        elif stop <= first:
            return
        while True:
            start = max(rfind(b"\n", first, stop) + 1, first)
            line_end = stop - 1 if stop > start and data[stop - 1] == 13 else stop
            yield start, line_end, kind_of(start, line_end)
            if start <= first:
                return
            stop = start - 1

    def count(self, kind: int) -> int:
        """How many lines are of `kind`."""
        return sum(1 for line in self.forward() if line[2] == kind)

    def _kind(self, start: int, end: int) -> int:
        data = self._data
        usual = _USUAL.match(data, start, end)
        if usual is None:
            return self._unusual_kind(start, end)
        # A line that was cut does not end in a brace (or does so by rare luck).
        last = end - 1
        while data[last] in b" \t\r":
            last -= 1
        if data[last] != 125:
            return BROKEN
        return _KINDS.get(usual[1], OTHER)

    def _unusual_kind(self, start: int, end: int) -> int:
        data = self._data
        if _end(_BLANK, data, start, end) == end:
            return BLANK
        last = end - 1
        while data[last] in b" \t\r":
            last -= 1
        position = _end(_SPACE, data, start, end)
        if data[position] != 123 or data[last] != 125 or last == position:
            return BROKEN
        end = last + 1
        position += 1
        while True:
            position = _end(_SPACE, data, position, end)
            key = _STRING.match(data, position, end)
            if key is None:
                return BROKEN
            position = _end(_SPACE, data, key.end(), end)
            if position >= end or data[position] != 58:
                return BROKEN
            position = _end(_SPACE, data, position + 1, end)
            if _unescaped(key[1]) == b"type":
                value = _STRING.match(data, position, end)
                return BROKEN if value is None else _KINDS.get(_unescaped(value[1]) or b"", OTHER)
            position = self._after_value(position, end)
            position = _end(_SPACE, data, position, end)
            if position >= end or data[position] != 44:
                return BROKEN
            position += 1

    def _after_value(self, position: int, end: int) -> int:
        """The offset behind the value at `position`, or `end` if it has no end."""
        data = self._data
        if position >= end:
            return end
        first = data[position]
        if first == 34:
            string = _STRING.match(data, position, end)
            return end if string is None else string.end()
        if first not in b"{[":
            return _end(_SCALAR, data, position, end)
        depth = 0
        for token in _NESTED.finditer(data, position, end):
            mark = token[0]
            if mark in (b"{", b"["):
                depth += 1
            elif mark in (b"}", b"]"):
                depth -= 1
                if depth == 0:
                    return token.end()
        return end


def _end(pattern: re.Pattern[bytes], data: bytes | bytearray | mmap.mmap, start: int, end: int) -> int:
    """Where a match ends of a pattern that may match nothing, so always matches."""
    match = pattern.match(data, start, end)
    assert match is not None
    return match.end()


def _unescaped(raw: bytes) -> bytes | None:
    """The text of a JSON string whose escapes all stand for ASCII by number; else `None`, which equals no name."""
    if b"\\" not in raw:
        return raw
    made = bytearray()
    position = 0
    for escape in _ESCAPE.finditer(raw):
        # The other escapes stand for characters that no name holds.
        if escape[1] is None or (code := int(escape[1], 16)) >= 128:
            return None
        made += raw[position : escape.start()]
        made.append(code)
        position = escape.end()
    return bytes(made + raw[position:])
