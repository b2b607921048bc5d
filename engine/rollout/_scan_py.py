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
    "ALL_MARKS",
    "ASSISTANT_ITEM",
    "BLANK",
    "BROKEN",
    "COMPACTED",
    "COMPACTION",
    "COMPACTIONS",
    "CONTEXT",
    "DAMAGED",
    "EMPTY",
    "EVENTS",
    "EVENT_MSG",
    "FOREIGN",
    "IMPLEMENTATION",
    "ITEMS",
    "META",
    "OTHER",
    "OTHER_EVENT",
    "OTHER_ITEM",
    "REPLACEMENT",
    "RESPONSE_ITEM",
    "ROLLED_BACK",
    "SESSION_META",
    "TURN_ABORTED",
    "TURN_COMPLETE",
    "TURN_CONTEXT",
    "TURN_STARTED",
    "USAGE",
    "USER_EVENT",
    "USER_ITEM",
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

REPLACEMENT = 1 << 0
COMPACTION = 1 << 1
CONTEXT = 1 << 2
TURN_STARTED = 1 << 3
TURN_COMPLETE = 1 << 4
TURN_ABORTED = 1 << 5
ROLLED_BACK = 1 << 6
USER_EVENT = 1 << 7
USAGE = 1 << 8
OTHER_EVENT = 1 << 9
USER_ITEM = 1 << 10
ASSISTANT_ITEM = 1 << 11
OTHER_ITEM = 1 << 12
META = 1 << 13
FOREIGN = 1 << 14
EMPTY = 1 << 15
DAMAGED = 1 << 16
EVENTS = TURN_STARTED | TURN_COMPLETE | TURN_ABORTED | ROLLED_BACK | USER_EVENT | USAGE | OTHER_EVENT
ITEMS = USER_ITEM | ASSISTANT_ITEM | OTHER_ITEM
COMPACTIONS = REPLACEMENT | COMPACTION
ALL_MARKS = (1 << 17) - 1

Source = bytes | bytearray | memoryview | mmap.mmap
Line = tuple[int, int, int]

_KINDS = {
    b"session_meta": SESSION_META,
    b"response_item": RESPONSE_ITEM,
    b"compacted": COMPACTED,
    b"turn_context": TURN_CONTEXT,
    b"event_msg": EVENT_MSG,
}
# The marks a line of a kind can have.
_MARKS_OF = (EMPTY, META, ITEMS, COMPACTIONS, CONTEXT, EVENTS, FOREIGN, DAMAGED)
_EVENT_MARKS = {
    b"task_complete": TURN_COMPLETE,
    b"task_started": TURN_STARTED,
    b"thread_rolled_back": ROLLED_BACK,
    b"token_count": USAGE,
    b"turn_aborted": TURN_ABORTED,
    b"turn_complete": TURN_COMPLETE,
    b"turn_started": TURN_STARTED,
    b"user_message": USER_EVENT,
}
_BOM = b"\xef\xbb\xbf"

# The order every known writer uses; anything else takes the long way.
_USUAL = re.compile(
    rb'[ \t\r]*+\{[ \t\r]*+"timestamp"[ \t\r]*+:[ \t\r]*+"[^"\\]*+"[ \t\r]*+,'
    rb'[ \t\r]*+"type"[ \t\r]*+:[ \t\r]*+"([^"\\]*+)"'
)
_USUAL_PAYLOAD = re.compile(rb'[ \t\r]*+,[ \t\r]*+"payload"[ \t\r]*+:[ \t\r]*+')
_USUAL_TYPE = re.compile(rb'\{[ \t\r]*+"type"[ \t\r]*+:[ \t\r]*+"([^"\\]*+)"')
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

    def forward(self, start: int = 0, end: int | None = None) -> Iterator[Line]:
        """`(start, end, kind)` of each line from offset `start` on, which must be the start of a line, up to `end`."""
        kind_of = self._kind
        for first, last in self._lines(start, end):
            yield first, last, kind_of(first, last)

    def backward(self, end: int | None = None, start: int = 0) -> Iterator[Line]:
        """`(start, end, kind)` of each line before offset `end` (default: all), last line first, down to `start`."""
        kind_of = self._kind
        for first, last in self._lines_backward(start, end):
            yield first, last, kind_of(first, last)

    def marks(self, start: int = 0, end: int | None = None, wanted: int = ALL_MARKS) -> Iterator[Line]:
        """`(start, end, mark)` of each line between two offsets whose mark is among `wanted`, first line first."""
        mark_of = self._mark
        for first, last in self._lines(start, end):
            if mark := mark_of(first, last, wanted):
                yield first, last, mark

    def marks_backward(self, end: int | None = None, start: int = 0, wanted: int = ALL_MARKS) -> Iterator[Line]:
        """As `marks`, last line first."""
        mark_of = self._mark
        for first, last in self._lines_backward(start, end):
            if mark := mark_of(first, last, wanted):
                yield first, last, mark

    def count(self, kind: int, start: int = 0, end: int | None = None) -> int:
        """How many lines between two offsets are of `kind`."""
        kind_of = self._kind
        return sum(kind_of(first, last) == kind for first, last in self._lines(start, end))

    def turns(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """`(start, end)` of each turn between two offsets: from the line that starts it to that of the next one."""
        begun: int | None = None
        asked: int | None = None  # the first user item that is in no turn yet
        told = False  # whether lines tell where turns start
        for at, _, mark in self.marks(start, end, TURN_STARTED | USER_EVENT | USER_ITEM | ASSISTANT_ITEM):
            begins: int | None = None
            if mark == TURN_STARTED:
                told = True
                begins = at
            elif told:
                continue
            elif mark == USER_ITEM:
                asked = at if asked is None else asked
            elif mark == USER_EVENT:
                begins = at if asked is None else asked
            else:
                begins = asked
            if begins is not None:
                asked = None
                if begun is not None:
                    yield begun, begins
                begun = begins
        if begun is not None:
            yield begun, self._limit(end)

    def _limit(self, end: int | None) -> int:
        return self._size if end is None else max(0, min(end, self._size))

    def _lines(self, start: int, end: int | None) -> Iterator[tuple[int, int]]:
        data, position, high = self._data, max(0, start), self._limit(end)
        find = data.find
        while position < high:
            newline = find(b"\n", position, high)
            stop = high if newline < 0 else newline
            following = stop + 1
            if stop > position and data[stop - 1] == 13:
                stop -= 1
            if data[position] == 239 and data[position : min(position + 3, stop)] == _BOM:
                position += 3
            yield position, stop
            position = following

    def _lines_backward(self, start: int, end: int | None) -> Iterator[tuple[int, int]]:
        data, low, high = self._data, max(0, start), self._limit(end)
        rfind = data.rfind
        more = low < high
        if more and data[high - 1] == 10:
            high -= 1
        while more:
            position = max(rfind(b"\n", low, high) + 1, low)
            stop = high
            high = position - 1
            more = position > low
            if stop > position and data[stop - 1] == 13:
                stop -= 1
            if stop > position and data[position] == 239 and data[position : min(position + 3, stop)] == _BOM:
                position += 3
            yield position, stop

    def _kind(self, start: int, end: int) -> int:
        data = self._data
        usual = _USUAL.match(data, start, end)
        last = end - 1
        if usual is not None:
            while data[last] in b" \t\r":
                last -= 1
            # A line that was cut does not end in a brace (or does so by rare luck).
            return _KINDS.get(usual[1], OTHER) if data[last] == 125 else BROKEN
        if _end(_BLANK, data, start, end) == end:
            return BLANK
        while data[last] in b" \t\r":
            last -= 1
        if data[last] != 125:
            return BROKEN
        name = self._text(self._member(_end(_SPACE, data, start, end), last + 1, b"type"), last + 1)
        return BROKEN if name is None else _KINDS.get(_unescaped(name) or b"", OTHER)

    def _mark(self, start: int, end: int, wanted: int) -> int:
        """The mark of a line, or 0 if it is none of `wanted`."""
        kind = self._kind(start, end)
        possible = _MARKS_OF[kind]
        if not possible & wanted:
            return 0
        if kind == RESPONSE_ITEM:
            return self._item(self._payload(start, end), end) & wanted
        if kind == EVENT_MSG:
            return self._event(self._payload(start, end), end) & wanted
        if kind == COMPACTED:
            history = self._member(self._payload(start, end), end, b"replacement_history")
            return (COMPACTION if history is None or self._data[history] != 91 else REPLACEMENT) & wanted
        return possible

    def _payload(self, start: int, end: int) -> int | None:
        usual = _USUAL.match(self._data, start, end)
        if usual is not None:
            payload = _USUAL_PAYLOAD.match(self._data, usual.end(), end)
            if payload is not None:
                return payload.end() if payload.end() < end else None
        return self._member(_end(_SPACE, self._data, start, end), end, b"payload")

    def _event(self, payload: int | None, end: int) -> int:
        mark = _EVENT_MARKS.get(self._type_of(payload, end) or b"", OTHER_EVENT)
        if mark == USAGE:
            info = self._member(payload, end, b"info")
            return OTHER_EVENT if info is None or self._data[info] != 123 else USAGE
        return mark

    def _item(self, payload: int | None, end: int) -> int:
        if self._type_of(payload, end) != b"message":
            return OTHER_ITEM
        role = _unescaped(self._text(self._member(payload, end, b"role"), end) or b"")
        return USER_ITEM if role == b"user" else ASSISTANT_ITEM if role == b"assistant" else OTHER_ITEM

    def _type_of(self, payload: int | None, end: int) -> bytes | None:
        if payload is None:
            return None
        usual = _USUAL_TYPE.match(self._data, payload, end)
        if usual is not None:
            return usual[1]
        return _unescaped(self._text(self._member(payload, end, b"type"), end) or b"")

    def _text(self, at: int | None, end: int) -> bytes | None:
        """What stands between the quotes of the string at `at`; `None` if there is no whole string."""
        string = None if at is None else _STRING.match(self._data, at, end)
        return None if string is None else string[1]

    def _member(self, position: int | None, end: int, name: bytes) -> int | None:
        """Where the value of the first member `name` begins in the object that begins at `position`, if it has one."""
        data = self._data
        if position is None or position >= end or data[position] != 123:
            return None
        position += 1
        while True:
            position = _end(_SPACE, data, position, end)
            key = _STRING.match(data, position, end)
            if key is None:
                return None
            position = _end(_SPACE, data, key.end(), end)
            if position >= end or data[position] != 58:
                return None
            position = _end(_SPACE, data, position + 1, end)
            if _unescaped(key[1]) == name:
                return position if position < end else None
            position = _end(_SPACE, data, self._after_value(position, end), end)
            if position >= end or data[position] != 44:
                return None
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
