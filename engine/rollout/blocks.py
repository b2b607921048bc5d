"""Reads a rollout in blocks of whole lines, from either end, through whatever holds its bytes.

Nothing is mapped: a file that somebody cuts while it is mapped kills the process that looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, final

from engine.rollout.scan import BROKEN, COMPACTED, Scan

__all__ = ["BLOCK", "FIRST_BLOCK", "ByteSource", "MemorySource", "TailReader", "blocks", "count_compacted"]

FIRST_BLOCK = 64 << 10  # bytes read at once from the end; doubled up to a `BLOCK`
BLOCK = 1 << 20
_SPACE = b" \t\r"
_IN_FRONT = _SPACE + b"\xef\xbb\xbf"


class ByteSource(Protocol):
    """The bytes of one rollout as it was when the source was made. `size` is how many there are."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, end: int) -> bytes:
        """The bytes between two offsets, all of them. Raises `EngineError` where they can't be had any more."""


@final
class MemorySource:
    """Bytes in memory that stood at `offset` in the rollout. What is in front of them can't be read."""

    __slots__ = ("_data", "offset")

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self._data = data
        self.offset = offset

    @property
    def size(self) -> int:
        """The offset behind the last byte."""
        return self.offset + len(self._data)

    def read(self, start: int, end: int) -> bytes:
        """See `ByteSource`."""
        assert start >= self.offset
        return self._data[start - self.offset : end - self.offset]


def blocks(source: ByteSource, start: int, end: int, size: int = BLOCK) -> Iterator[tuple[int, bytes]]:
    """`(offset, data)` of pieces between two offsets, first one first; `start` must be the start of a line.

    Each is about `size` long and ends with a line (the last one where `end` is), however long that line is.
    """
    while start < end:
        pieces: list[bytes] = []
        stop = start
        cut = 0
        while stop < end and not cut:
            pieces.append(source.read(stop, min(stop + size * len(pieces or (1,)), end)))
            stop += len(pieces[-1])
            cut = pieces[-1].rfind(b"\n") + 1
        if stop < end:
            stop -= len(pieces[-1]) - cut
            pieces[-1] = pieces[-1][:cut]
        yield start, b"".join(pieces)
        start = stop


@final
class TailReader:
    """Finds lines from the end of a rollout backwards. `position`: what lies from there on was looked at.

    Holds one block, or the line that is longer.
    """

    __slots__ = ("_block", "_largest", "_low", "_offset", "_scan", "_size", "_source", "position")

    def __init__(self, source: ByteSource, largest: int = BLOCK) -> None:
        self._source = source
        self._largest = largest
        self._size = min(FIRST_BLOCK, largest)
        self.position = source.size
        self.go_to(self.position)

    def go_to(self, position: int) -> None:
        """Goes on from `position`, the start of a line, whatever was looked at before."""
        self.position = position
        self._block = b""
        self._scan = Scan(b"")
        self._offset = position  # of the block in the rollout
        self._low = 0  # of the first whole line in the block

    def find(self, wanted: int, down_to: int = 0) -> tuple[int, int, int] | None:
        """`(start, end, mark)` of the next line backwards whose mark is among `wanted`.

        `None` if there is none before `position` is at or below `down_to`.
        """
        while self.position > down_to:
            if self.position <= self._offset + self._low:
                self._read()
            for start, end, mark in self._scan.marks_backward(self.position - self._offset, self._low, wanted):
                self.position = self._offset + start
                return self.position, self._offset + end, mark
            self.position = self._offset + self._low
        return None

    def text(self, start: int, end: int) -> bytes:
        """The bytes of the line that was found last."""
        return self._block[start - self._offset : end - self._offset]

    def _read(self) -> None:
        """Takes the block in front of `position`."""
        size = self._size
        self._size = min(size * 2, self._largest)
        end = self.position - 1  # whether that byte is a line end says nothing about where a line starts
        start = max(0, self.position - size)
        pieces = [self._source.read(start, self.position)]
        newline = pieces[0].find(b"\n", 0, end - start)
        while newline < 0 and start > 0:
            size *= 2
            stop, start = start, max(0, start - size)
            pieces.append(self._source.read(start, stop))
            newline = pieces[-1].find(b"\n")
        self._block = pieces[0] if len(pieces) == 1 else b"".join(reversed(pieces))
        self._offset = start
        self._low = newline + 1 if start > 0 else 0
        self._scan = Scan(self._block)


def count_compacted(
    source: ByteSource, start: int, end: int, keep_going: Callable[[], bool] = lambda: True, size: int = BLOCK
) -> int | None:
    """How many lines between two offsets are `compacted`; `None` if `keep_going` said no on the way.

    `start` must be the start of a line. In constant memory, as long as lines tell their type near their beginning.
    """
    found = 0
    while start < end:
        if not keep_going():
            return None
        data = source.read(start, min(start + size, end))
        cut = data.rfind(b"\n") + 1
        if cut or start + len(data) == end:
            cut = cut if start + len(data) < end else len(data)
            found += Scan(data).count(COMPACTED, 0, cut)
            start += cut
        else:
            kind, start = _long_line(source, start, end, data)
            found += kind == COMPACTED
    return found


def _long_line(source: ByteSource, start: int, end: int, head: bytes) -> tuple[int, int]:
    """The kind of the line that begins with `head`, and the offset behind its end."""
    # With its last byte put on, the beginning tells the kind: unless the type comes after it.
    [(_, _, kind)] = Scan(head + b"}").forward()
    pieces = [head]
    position = start + len(head)
    last = head.rstrip(_SPACE)[-1:]
    newline = -1
    while position < end and newline < 0:
        piece = source.read(position, min(position + len(head), end))
        newline = piece.find(b"\n")
        part = piece if newline < 0 else piece[:newline]
        last = part.rstrip(_SPACE)[-1:] or last
        position += len(piece) if newline < 0 else newline + 1
        if kind == BROKEN and head.lstrip(_IN_FRONT)[:1] in (b"{", b""):
            pieces.append(part)
    if len(pieces) > 1:
        [(_, _, kind)] = Scan(b"".join(pieces)).forward()
        return kind, position
    return kind if last == b"}" else BROKEN, position
