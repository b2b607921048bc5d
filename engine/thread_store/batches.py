"""The blocking half of the appender: takes batches of jobs, writes each file's lines in order, says what came of it.

Runs on the appender's own thread. It knows no Trio; what it keeps per file is in `FileState`, which no other thread
touches. An item is never written twice: after an error only the unwritten rest stays, to the byte, and goes first
at the next try (rollout.md 2).
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict, deque
from collections.abc import Container, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, final

import attrs

from engine.errors import StoreError

if TYPE_CHECKING:
    from engine.thread_store.barrier import Barrier
    from engine.thread_store.files import FileOperations
    from engine.thread_store.rollout_writer import RolloutWriter

__all__ = ["BatchWriter", "FileState", "Job", "Outcome", "Verb"]

WRITE_SIZE = 1 << 20  # bytes joined for one write


class Verb(Enum):
    """What a job asks for."""

    APPEND = auto()
    FLUSH = auto()  # try to write what is left
    PERSIST = auto()  # the same, and make the file if there is none
    CLOSE = auto()  # flush, then give the handle back if all is written
    DROP = auto()  # forget what is left
    ERASE = auto()  # drop, and remove the file if it came from here


@attrs.frozen
class Job:
    """One job for one writer. `lines` with the number of the last item in them, or a barrier to answer."""

    verb: Verb
    writer: RolloutWriter
    lines: bytes = b""
    number: int = 0
    barrier: Barrier | None = None


@attrs.define(eq=False)
class FileState:
    """What is left to write to one file, and how it stands.

    - `left`: lines with the number of the last item in them; of the first, `offset` bytes are written
    - `seen`, `written`: the number of the last item handed in, and of the last one written
    - `made`: the directories that were made for it, innermost first
    """

    left: deque[tuple[bytes, int]] = attrs.field(factory=deque)
    offset: int = 0
    seen: int = 0
    written: int = 0
    exists: bool = False
    joined: bool = False
    made: list[str] = attrs.field(factory=list)
    freed: int = 0
    dirty: bool = False
    new: bool = False


@attrs.define(eq=False)
class Outcome:
    """How a writer stands after a batch. `freed` bytes left the queue; `unsynced` paths were written and not synced."""

    writer: RolloutWriter
    exists: bool
    seen: int
    written: int
    freed: int
    error: StoreError | None
    barriers: list[Barrier]
    unsynced: list[str]
    sync_failed: bool = False


@final
class BatchWriter:
    """Writes batches with `files`. At most `open_files` handles stay open, those used last.

    `sync` says whether outcomes name what has to be synced.
    """

    def __init__(self, files: FileOperations, *, open_files: int, sync: bool = False) -> None:
        self._files = files
        self._sync = sync
        self._open_files = open_files
        self._handles: OrderedDict[RolloutWriter, int] = OrderedDict()

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Does a batch, in order per writer. Raises nothing: errors are in the outcomes."""
        touched: dict[RolloutWriter, list[Job]] = {}
        for job in jobs:
            touched.setdefault(job.writer, []).append(job)
        return [self._serve(writer, asked) for writer, asked in touched.items()]

    def close_handles(self) -> None:
        """Gives back every handle."""
        while self._handles:
            self._close(next(iter(self._handles)))

    def _serve(self, writer: RolloutWriter, jobs: list[Job]) -> Outcome:
        state = writer.file_state()
        verbs = {job.verb for job in jobs}
        barriers = [job.barrier for job in jobs if job.barrier is not None]
        for job in jobs:
            if job.verb is Verb.APPEND:
                state.left.append((job.lines, job.number))
                state.seen = job.number
        try:
            error = self._do(writer, state, verbs)
        except Exception as exc:  # a bug must not end the thread that all sessions share
            error = StoreError(f"failed to write {writer.path}: {exc!r}")
            error.__cause__ = exc
        if Verb.CLOSE in verbs and error is None:
            self._close(writer)
        freed, state.freed = state.freed, 0
        unsynced: list[str] = []
        if self._sync and state.dirty:
            unsynced = [writer.path]
            if state.new:  # else the file could not be found again
                unsynced += [os.path.dirname(path) for path in (writer.path, *state.made)]
        state.dirty = state.new = False
        return Outcome(writer, state.exists, state.seen, state.written, freed, error, barriers, unsynced)

    def _do(self, writer: RolloutWriter, state: FileState, verbs: Container[Verb]) -> StoreError | None:
        if writer.dropped:
            return self._forget(writer, state, erase=Verb.ERASE in verbs)
        if state.left or (Verb.PERSIST in verbs and not state.exists):
            return self._drain(writer, state)
        return None

    def _drain(self, writer: RolloutWriter, state: FileState) -> StoreError | None:
        """Writes all that is left; after an error once more with a fresh handle. The error of the second try."""
        for last_try in (False, True):
            try:
                self._write_all(self._handle(writer, state), state)
                return None
            except OSError as exc:
                self._close(writer)
                if exc.errno in (errno.EMFILE, errno.ENFILE):
                    self.close_handles()
                if last_try:
                    error = StoreError(f"failed to write {writer.path}: {exc}")
                    error.__cause__ = exc
                    return error
        raise AssertionError("unreachable")

    def _handle(self, writer: RolloutWriter, state: FileState) -> int:
        handle = self._handles.get(writer)
        if handle is not None:
            self._handles.move_to_end(writer)
            return handle
        while len(self._handles) >= self._open_files:
            self._close(next(iter(self._handles)))
        handle = self._open(writer, state)
        self._handles[writer] = handle
        return handle

    def _open(self, writer: RolloutWriter, state: FileState) -> int:
        files = self._files
        if state.exists or writer.head is None:
            handle = files.open(writer.path)
            state.exists = True
            if writer.head is None and not state.joined:
                # A torn last line must not swallow ours; its bytes stay where they are.
                try:
                    torn = files.lacks_line_end(writer.path)
                except OSError:
                    files.close(handle)
                    raise
                if torn:
                    state.left.appendleft((b"\n", 0))
                state.joined = True
            return handle
        state.made = files.make_directories(os.path.dirname(writer.path)) + state.made
        first_line = writer.head(writer.began)
        handle = files.create(writer.path)
        state.exists = state.new = True
        state.left.appendleft((first_line, 0))
        return handle

    def _write_all(self, handle: int, state: FileState) -> None:
        left = state.left
        while left:
            data = self._next_bytes(state)
            count = self._files.write(handle, data)
            if count <= 0:
                raise OSError(errno.EIO, "nothing was written")
            state.dirty = True
            state.offset += count
            while left and state.offset >= len(left[0][0]):
                lines, number = left.popleft()
                state.offset -= len(lines)
                if number:
                    state.written = number
                    state.freed += len(lines)

    @staticmethod
    def _next_bytes(state: FileState) -> bytes | memoryview:
        left = state.left
        first = left[0][0]
        if len(left) == 1 or len(first) >= WRITE_SIZE:
            return memoryview(first)[state.offset :] if state.offset else first
        pieces: list[bytes] = []
        size = 0
        for lines, _ in left:
            pieces.append(lines)
            size += len(lines)
            if size >= WRITE_SIZE:
                break
        return memoryview(b"".join(pieces))[state.offset :]

    def _forget(self, writer: RolloutWriter, state: FileState, *, erase: bool) -> StoreError | None:
        """Drops what is left; with `erase` also a file that this life of the thread has made."""
        state.freed += sum(len(lines) for lines, number in state.left if number)
        state.left.clear()
        state.offset = 0
        state.dirty = False
        self._close(writer)
        if erase and state.exists and writer.head is not None:
            try:
                self._files.remove(writer.path)
            except FileNotFoundError:
                pass
            except OSError as exc:
                error = StoreError(f"failed to remove {writer.path}: {exc}")
                error.__cause__ = exc
                return error
            state.exists = False
            self._remove_empty(state)
        return None

    def _remove_empty(self, state: FileState) -> None:
        for path in state.made:
            try:
                self._files.remove_directory(path)
            except OSError:
                return  # somebody else has put something there
        state.made = []

    def _close(self, writer: RolloutWriter) -> None:
        handle = self._handles.pop(writer, None)
        if handle is not None:
            try:
                self._files.close(handle)
            except OSError:
                pass  # the handle is gone either way; a lost write shows at the next one
