from collections.abc import Iterator
from mmap import mmap
from typing import Literal, final

IMPLEMENTATION: Literal["c", "python"]

BLANK: int
SESSION_META: int
RESPONSE_ITEM: int
COMPACTED: int
TURN_CONTEXT: int
EVENT_MSG: int
OTHER: int
BROKEN: int

REPLACEMENT: int
COMPACTION: int
CONTEXT: int
TURN_STARTED: int
TURN_COMPLETE: int
TURN_ABORTED: int
ROLLED_BACK: int
USER_EVENT: int
USAGE: int
OTHER_EVENT: int
USER_ITEM: int
ASSISTANT_ITEM: int
OTHER_ITEM: int
META: int
FOREIGN: int
EMPTY: int
DAMAGED: int
EVENTS: int
ITEMS: int
COMPACTIONS: int
ALL_MARKS: int

Source = bytes | bytearray | memoryview | mmap
Line = tuple[int, int, int]

@final
class Scan:
    def __init__(self, data: Source) -> None: ...
    def forward(self, start: int = 0, end: int | None = None) -> Iterator[Line]: ...
    def backward(self, end: int | None = None, start: int = 0) -> Iterator[Line]: ...
    def marks(self, start: int = 0, end: int | None = None, wanted: int = ...) -> Iterator[Line]: ...
    def marks_backward(self, end: int | None = None, start: int = 0, wanted: int = ...) -> Iterator[Line]: ...
    def count(self, kind: int, start: int = 0, end: int | None = None) -> int: ...
    def turns(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]: ...
