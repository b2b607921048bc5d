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

Source = bytes | bytearray | memoryview | mmap
Line = tuple[int, int, int]

@final
class Scan:
    def __init__(self, data: Source) -> None: ...
    def forward(self, start: int = 0) -> Iterator[Line]: ...
    def backward(self, end: int | None = None) -> Iterator[Line]: ...
    def count(self, kind: int) -> int: ...
