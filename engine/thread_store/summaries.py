"""Facts of a stored thread from its file, whatever its length, without reading it whole. Blocking.

The first lines tell who and where and what was said first, the last ones what is so now (rollout.md 4.1). Changes of
metadata may stand anywhere; a `thorough` look finds those too, at scanner speed and with constant memory. A file that
has grown since it was looked at is only read on.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator

import attrs

from engine.errors import ProtocolError, StoreError, ThreadNotFound
from engine.protocol.rollout_items import RolloutItem, SessionMeta
from engine.rollout.lines import decode_rollout_line
from engine.rollout.scan import (
    BLANK,
    CONTEXT,
    EVENT_MSG,
    META,
    OTHER_EVENT,
    SESSION_META,
    TURN_CONTEXT,
    USAGE,
    USER_EVENT,
    Scan,
)
from engine.rollout.summary import HEAD_LINES, PREVIEW_LINES
from engine.thread_store.checkpoints import MARK_LENGTH
from engine.thread_store.facts import RELEVANT_EVENTS, Facts

__all__ = ["FileState", "Summary", "catch_up", "summarise"]

FIRST_LOOK = 32 << 10  # bytes at either end
HEAD_LIMIT = 4 << 20  # more than this is no head
TAIL_LIMIT = 1 << 20  # what is told further from the end is old
PIECE = 1 << 20  # bytes scanned at once by a thorough look
SHORT = 8 << 20  # a file up to this long is looked at thoroughly in any case

_RELEVANT = tuple(f'"{name}"'.encode() for name in RELEVANT_EVENTS)

Pause = Callable[[], None]


@attrs.frozen
class FileState:
    """Which file in which state something is from."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileState:
        """From what the system tells."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    @property
    def updated_at(self) -> float:
        """When the file was written last, in unix seconds."""
        return self.mtime_ns / 1e9

    def has_grown_to(self, other: FileState) -> bool:
        """Whether this may be an earlier state of the same file, which was appended to."""
        return (self.device, self.inode) == (other.device, other.inode) and self.size < other.size


@attrs.frozen
class Summary:
    """Facts of a thread, and the state of the file they are from; `mark` is its last bytes."""

    facts: Facts
    state: FileState
    mark: bytes


def summarise(path: str, *, thorough: bool | None = None, pause: Pause | None = None) -> Summary | None:
    """What is known of a thread; `None` if it is no thread. `pause` is called every now and then.

    `thorough`: with changes of metadata wherever they stand; by default where the file is short. Raises `StoreError` if
    the file can't be read, `ThreadNotFound` if there is none.
    """
    try:
        handle, state = _open(path)
        try:
            facts = _head(handle, state.size)
            if facts is None:
                return None
            if thorough if thorough is not None else state.size <= SHORT:
                for line in _lines(handle, 0, state.size, META, pause):
                    _take(facts, line)
            _tail(handle, state.size, facts)
            mark = _mark(handle, state.size)
        finally:
            os.close(handle)
    except FileNotFoundError as exc:
        raise ThreadNotFound(f"no rollout found at {path}", thread=path) from exc
    except OSError as exc:
        raise StoreError(f"failed to read {path}: {exc}") from exc
    return Summary(facts, state, mark)


def catch_up(path: str, facts: Facts, before: FileState, mark: bytes, pause: Pause | None = None) -> Summary | None:
    """Takes what was appended to a file since the state `before`, when it ended with `mark`.

    `None` if it is not that file any more, or was written anew.

    Raises `StoreError` if it can't be read.
    """
    try:
        handle, state = _open(path)
        try:
            if not before.has_grown_to(state) or _mark(handle, before.size) != mark:
                return None
            wanted = META | CONTEXT | USAGE | (0 if facts.preview else USER_EVENT | OTHER_EVENT)
            for line in _lines(handle, before.size, state.size, wanted, pause):
                _take(facts, line)
            mark = _mark(handle, state.size)
        finally:
            os.close(handle)
    except FileNotFoundError as exc:
        raise ThreadNotFound(f"no rollout found at {path}", thread=path) from exc
    except OSError as exc:
        raise StoreError(f"failed to read {path}: {exc}") from exc
    return Summary(facts, state, mark)


def _open(path: str) -> tuple[int, FileState]:
    # Not to wait for a writer where the name is that of a pipe.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no regular file")
    return handle, FileState.of(found)


def _mark(handle: int, size: int) -> bytes:
    return _read(handle, min(size, MARK_LENGTH), max(0, size - MARK_LENGTH))


# --- the beginning -------------------------------------------------------------------------------


def _head(handle: int, size: int) -> Facts | None:
    length = FIRST_LOOK
    while True:
        data = _read(handle, min(length, size), 0)
        whole = len(data) >= size or len(data) < length
        facts, enough = _read_head(data, whole=whole)
        if enough or whole or length >= HEAD_LIMIT:
            return facts
        length *= 4


def _read_head(data: bytes, *, whole: bool) -> tuple[Facts | None, bool]:
    """Facts of the first lines, and whether more lines would change nothing."""
    facts: Facts | None = None
    before: list[RolloutItem] = []  # what stands before the meta
    count = 0
    for start, end, kind in Scan(data).forward():
        if not whole and end == len(data):
            break  # the rest of this line is not there yet
        if kind == BLANK:
            continue
        count += 1
        item = _relevant(data, start, end, kind)
        if facts is not None:
            if item is not None:
                facts.take(item)
        elif isinstance(item, SessionMeta):
            facts = Facts.begin(item)
            for earlier in before:
                facts.take(earlier)
        elif item is not None:
            before.append(item)
        said = facts is not None and facts.preview is not None
        if count >= HEAD_LINES and (said or count >= HEAD_LINES + PREVIEW_LINES):
            return facts, True
    return facts, False


def _relevant(data: bytes, start: int, end: int, kind: int) -> RolloutItem | None:
    if kind == EVENT_MSG:
        if not any(data.find(name, start, end) >= 0 for name in _RELEVANT):
            return None
    elif kind not in (SESSION_META, TURN_CONTEXT):
        return None
    return _decoded(data[start:end])


# --- the end -------------------------------------------------------------------------------------


def _tail(handle: int, size: int, facts: Facts) -> None:
    """Takes the last of what changes with every turn, and the last change of metadata if it is near."""
    length = FIRST_LOOK
    while True:
        begin = max(0, size - length)
        data = _read(handle, size - begin, begin)
        first = 0 if begin == 0 else data.find(b"\n") + 1 or len(data)
        found: dict[int, RolloutItem] = {}
        for start, end, mark in Scan(data).marks_backward(None, first, CONTEXT | USAGE | META):
            if mark in found:
                continue
            item = _decoded(data[start:end])
            if item is None or (isinstance(item, SessionMeta) and item.id != facts.thread_id):
                continue
            found[mark] = item
        if begin == 0 or length >= TAIL_LIMIT or (CONTEXT in found and USAGE in found):
            break
        length *= 4
    for item in found.values():
        facts.take(item)


# --- anywhere ------------------------------------------------------------------------------------


def _lines(handle: int, begin: int, end: int, wanted: int, pause: Pause | None) -> Iterator[bytes]:
    """The lines with a wanted mark between two offsets, but for lines that are longer than any of those."""
    rest, offset, skipping = b"", begin, False
    while offset < end:
        piece = _read(handle, min(PIECE, end - offset), offset)
        if not piece:
            break
        offset += len(piece)
        data = rest + piece
        last = data.rfind(b"\n") + 1
        first = data.find(b"\n") + 1 if skipping else 0
        if last <= first and offset < end:
            skipping = skipping or len(data) > PIECE
            rest = b"" if skipping else data
            continue
        skipping = False
        if offset >= end:
            last = len(data)  # with the last line, though it may lack its end
        for start, stop, _ in Scan(data).marks(first, last, wanted):
            yield data[start:stop]
        rest = data[last:]
        if pause is not None:
            pause()


def _take(facts: Facts, line: bytes) -> None:
    item = _decoded(line)
    if item is not None:
        facts.take(item)


def _decoded(line: bytes) -> RolloutItem | None:
    try:
        return decode_rollout_line(line)
    except ProtocolError:
        return None


def _read(handle: int, length: int, offset: int) -> bytes:
    """`length` bytes from `offset` on, or fewer where the file ends."""
    pieces: list[bytes] = []
    while length > 0:
        piece = os.pread(handle, length, offset)
        if not piece:
            break
        pieces.append(piece)
        length -= len(piece)
        offset += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
