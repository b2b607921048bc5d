"""One rollout file as the appender's thread sees it: what is left to write, and what may have happened to the file.

An item is never written twice: after an error only the unwritten rest stays, to the byte, and goes first at the next
try (rollout.md 2). Before each write the file is looked at, because others reach it too:

- its last line is torn (a crash, a power cut): the torn bytes go to `<rollout>.torn` beside it, byte for byte, and the
  rollout is cut back to its last whole line. A last line that only lacks its line end gets one.
- it has grown: another program has appended; ours begins on a line of its own.
- it was moved (archived by another program, or brought back): it is followed.
- it was removed or replaced: as long as we hold it open its bytes are still there, and are written anew under its name.
  What stands there now is kept as `<rollout>.replaced`.
- it was cut, or removed while it was not open: `ContentLost`; the thread is written anew from memory (`rewrite`).
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, final

import attrs

from engine.errors import ProtocolError
from engine.protocol.codec import json_value
from engine.records import define, frozen
from engine.thread_store.files import create_with_folders

if TYPE_CHECKING:
    from engine.thread_store.barrier import Barrier
    from engine.thread_store.files import FileOperations, FileStatus
    from engine.thread_store.rollout_writer import RolloutWriter

__all__ = ["PART_SUFFIX", "REPLACED_SUFFIX", "TORN_SUFFIX", "ContentLost", "RolloutFile"]

WRITE_SIZE = 1 << 20  # bytes joined for one write
LOOK_BACK = 64 << 10  # bytes read at once to find the last line end
LOOKS = 20  # at all places, for a file that others move to and fro while it is looked for
TORN_SUFFIX = ".torn"
REPLACED_SUFFIX = ".replaced"
PART_SUFFIX = ".part"  # a file on its way to its name

_Filler = Callable[[int], None]


class ContentLost(Exception):
    """Bytes that were written are gone, and no handle leads to them any more."""


@frozen
class _Lines:
    """Whole lines that wait; `number` is that of the last item in them, `counted` their bytes in the queue."""

    data: bytes
    number: int
    counted: int


@final
@define(eq=False)
class RolloutFile:
    """What is left to write to one file, and how it stands. Only the appender's thread touches it.

    - `left`: what waits; of the first, `offset` bytes are written
    - `seen`, `written`: the number of the last item handed in, and of the last one written
    - `identity`, `size`: which file it was when we last looked, and how long
    - `made`: the directories that were made for it, innermost first
    - `freed`: bytes that left the queue; `dirty`, `new`: what has to be synced. The batch writer takes these.
    - `barriers`, `answered`: whom to tell, and the last number told
    """

    files: FileOperations
    writer: RolloutWriter
    left: deque[_Lines] = attrs.field(factory=deque)
    offset: int = 0
    seen: int = 0
    written: int = 0
    answered: int = 0
    handle: int | None = None
    identity: tuple[int, int] | None = None
    size: int = 0
    exists: bool = False
    joined: bool = False
    made: list[str] = attrs.field(factory=list)
    freed: int = 0
    dirty: bool = False
    new: bool = False
    aside: list[str] = attrs.field(factory=list)
    barriers: list[Barrier] = attrs.field(factory=list)
    restored: bool = False
    _memory: tuple[bytes, int] | None = None

    def __attrs_post_init__(self) -> None:
        found = self.writer.found
        self.exists = self.writer.joins
        self.made = list(self.writer.made)
        if found is not None:
            self.identity, self.size = found.identity, found.size

    def add(self, data: bytes, number: int) -> None:
        """Whole lines to write after all others."""
        self.left.append(_Lines(data, number, len(data)))
        self.seen = number

    def rewrite(self, data: bytes, number: int) -> None:
        """Everything up to item `number` but the first line: at the next write it becomes a new file."""
        self._memory = (data, number)

    def write(self) -> None:
        """Writes all that is left, and finds or makes the file. Raises `OSError`, `ContentLost`."""
        if self._memory is not None:
            self._write_anew(*self._memory)
            self._memory = None
        elif self.exists:
            self._look()
        if self.left or not self.exists:
            self._write_all(self.open())

    def open(self) -> int:
        """The handle, opened if need be. Raises `OSError`."""
        if self.handle is None:
            self.handle = self._open_existing() if self.exists else self._create()
        return self.handle

    def close(self) -> None:
        """Gives the handle back. Raises nothing."""
        handle, self.handle = self.handle, None
        if handle is not None:
            try:
                self.files.close(handle)
            except OSError:
                pass  # the handle is gone either way; a lost write shows at the next one

    def may_close(self) -> bool:
        """Whether closing the handle loses nothing: the file has a name, or could be given its name again."""
        if self.handle is None or self.writer.dropped:
            return True
        try:
            if self.files.handle_status(self.handle).links > 0:
                return True
            self._write_from_handle()
        except OSError:
            return False
        return True

    def forget(self, *, erase: bool) -> None:
        """Drops what is left; with `erase` also the file, if this life of the thread has made it. Raises `OSError`."""
        self.freed += sum(lines.counted for lines in self.left)
        self.left.clear()
        self.offset = 0
        self.dirty = False
        self.close()
        self.writer.release_lock()
        if erase and self.exists and self.writer.owns_file:
            try:
                self.files.remove(self.writer.path)
            except FileNotFoundError:
                pass
            self.exists = False
            self._remove_empty()

    def take_unsynced(self) -> list[str]:
        """The paths that have to be synced before what was written is durable; forgets them."""
        paths: list[str] = []
        if self.dirty:
            paths = [self.writer.path, *self.aside]
            if self.new or self.aside:  # else the file could not be found again
                paths += [os.path.dirname(path) for path in (self.writer.path, *self.made)]
        self.dirty = self.new = False
        self.aside = []
        return paths

    # --- making and finding ----------------------------------------------------------------------

    def _create(self) -> int:
        writer = self.writer
        assert writer.head is not None
        first_line = writer.head(writer.began)
        handle = create_with_folders(self.files, writer.path, self.made)
        self._stands(self.files.handle_status(handle))
        self.joined = self.new = True
        self.left.appendleft(_Lines(first_line, 0, 0))
        writer.take_lock()
        return handle

    def _open_existing(self) -> int:
        for _ in range(LOOKS):
            try:
                return self._open_at(self.writer.path)
            except FileNotFoundError:
                self._look()  # it was moved right now
        raise OSError(errno.ESTALE, "others keep moving it")  # the next try looks again

    def _open_at(self, path: str) -> int:
        handle = self.files.open(path)
        try:
            found = self.files.handle_status(handle)
            if self.identity is not None and found.identity != self.identity:
                raise OSError(errno.ESTALE, "it was replaced right now")  # the next try looks at it
            if not self.joined:
                self._stands(found)
                self._mend_end(handle)
                self.joined = True
        except OSError:
            self.files.close(handle)
            raise
        return handle

    def _stands(self, found: FileStatus) -> None:
        self.exists = True
        self.identity, self.size = found.identity, found.size

    def _mend_end(self, handle: int) -> None:
        """Makes the file end with a line end before anything of this life is written to it."""
        rest = self._after_last_line(handle)
        if not rest:
            return
        if _is_whole(rest):
            self.left.appendleft(_Lines(b"\n", 0, 0))
            return
        torn = self.writer.path + TORN_SUFFIX
        self.files.add_to(torn, rest + b"\n")
        self.files.truncate(handle, self.size - len(rest))
        self.size -= len(rest)
        self.dirty = True
        self.aside.append(torn)

    def _after_last_line(self, handle: int) -> bytes:
        pieces: list[bytes] = []
        end = self.size
        while end > 0:
            start = max(0, end - LOOK_BACK)
            piece = self.files.read(handle, end - start, start)
            at = piece.rfind(b"\n")
            pieces.append(piece[at + 1 :])
            if at >= 0:
                break
            end = start
        return b"".join(reversed(pieces))

    # --- what others may have done ---------------------------------------------------------------

    def _look(self) -> None:
        """Finds out what has become of the file. Afterwards it is ours, under `writer.path`."""
        if self.identity is None:
            if self.files.status(self.writer.path) is None:
                raise ContentLost
            return  # joined without knowing anything of it
        found = self._find(self.identity)
        if found is not None:
            if found.size < self.size:
                raise ContentLost
            if found.size > self.size and self.joined:
                self._has_grown(found.size)
        elif self.handle is None:
            raise ContentLost
        else:
            self._write_from_handle()

    def _find(self, identity: tuple[int, int]) -> FileStatus | None:
        """The file, wherever it was moved to; one that is moved on between two looks is looked for again."""
        for _ in range(LOOKS):
            for place in (self.writer.path, *self.writer.places()):
                found = self.files.status(place)
                if found is not None and found.identity == identity:
                    self.writer.path = place
                    return found
            if self.handle is not None and self.files.handle_status(self.handle).links == 0:
                break  # removed for good
        return None

    def _has_grown(self, size: int) -> None:
        self.size = size
        if self.offset:
            # The rest of our line would continue a line of somebody else: the whole line again.
            first = self.left[0]
            start = first.data.rfind(b"\n", 0, self.offset) + 1
            self.left[0] = _Lines(first.data[start:], first.number, first.counted)
            self.offset = 0
        handle = self.open()
        try:
            whole = self.files.read(handle, 1, size - 1) == b"\n"
        except OSError:  # not ours to read; a blank line does no harm
            whole = False
        if not whole:
            self.left.appendleft(_Lines(b"\n", 0, 0))

    def _write_from_handle(self) -> None:
        """The name is gone or leads elsewhere, the bytes are still there: gives them the name again."""
        old = self.handle
        assert old is not None

        def fill(new: int) -> None:
            self.files.copy(old, new, self.size)

        size, offset = self.size, self.offset
        self._make_anew(fill)
        self.files.close(old)
        self.size, self.offset = size, offset

    def _write_anew(self, data: bytes, number: int) -> None:
        """A new file from memory, which holds everything up to item `number`."""

        def fill(new: int) -> None:
            view = memoryview(data)
            while view:
                view = view[self.files.write(new, view) :]

        writer = self.writer
        if writer.head is not None:
            data = writer.head(writer.began) + data
        self.close()
        self._make_anew(fill)
        while self.left and self.left[0].number <= number:
            lines = self.left.popleft()
            self.freed += lines.counted
        self.offset = 0
        self.written = max(self.written, number)

    def _make_anew(self, fill: _Filler) -> None:
        path = self.writer.path
        part = path + PART_SUFFIX
        if self.files.status(part) is not None:
            self.files.remove(part)  # of a life that was cut short
        new = create_with_folders(self.files, part, self.made)
        try:
            fill(new)
            if self.files.status(path) is not None:
                self.files.rename(path, self._unused(path + REPLACED_SUFFIX))
            self.files.rename(part, path)
            found = self.files.handle_status(new)
        except OSError:
            self.files.close(new)
            if self.files.status(part) is not None:
                self.files.remove(part)
            raise
        self.handle = new
        self._stands(found)
        self.joined = self.dirty = self.new = self.restored = True

    def _unused(self, path: str) -> str:
        name, number = path, 1
        while self.files.status(name) is not None:
            number += 1
            name = f"{path}-{number}"
        return name

    def _remove_empty(self) -> None:
        for path in self.made:
            try:
                self.files.remove_directory(path)
            except OSError:
                return  # somebody else has put something there
        self.made = []

    # --- writing ---------------------------------------------------------------------------------

    def _write_all(self, handle: int) -> None:
        left = self.left
        while left:
            count = self.files.write(handle, self._next_bytes())
            if count <= 0:
                raise OSError(errno.EIO, "nothing was written")
            self.dirty = True
            self.size += count
            self.offset += count
            while left and self.offset >= len(left[0].data):
                lines = left.popleft()
                self.offset -= len(lines.data)
                self.freed += lines.counted
                if lines.number:
                    self.written = lines.number

    def _next_bytes(self) -> bytes | memoryview:
        left = self.left
        first = left[0].data
        if len(left) == 1 or len(first) >= WRITE_SIZE:
            return memoryview(first)[self.offset :] if self.offset else first
        pieces: list[bytes] = []
        size = 0
        for lines in left:
            pieces.append(lines.data)
            size += len(lines.data)
            if size >= WRITE_SIZE:
                break
        return memoryview(b"".join(pieces))[self.offset :]


def _is_whole(line: bytes) -> bool:
    """Whether a last line lacks its line end only."""
    if not line.rstrip().endswith(b"}"):
        return False
    try:
        return isinstance(json_value(line), dict)
    except ProtocolError:
        return False
