"""Forks as files: a new first line, then the lines of the source up to the cut (rollout.md 6). Blocking.

Lines that can be read get a new time and are otherwise left as they are, unknown fields included; lines nobody can
read, and those of other writers, are copied byte for byte. Memory is constant but for the longest line. The file gets
its name when it is whole.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from engine.errors import InvalidRequest, ProtocolError, StoreError
from engine.protocol.events import ItemCompleted, TurnAborted
from engine.protocol.items import CompactionTrigger
from engine.protocol.rollout_items import EventLine, ResponseLine, RolloutItem
from engine.protocol.wire import UnknownVariant
from engine.rollout.blocks import blocks
from engine.rollout.fork_points import (
    UnfinishedTurn,
    cut_before_user_message,
    fork_turn_positions,
    unfinished_turn,
)
from engine.rollout.lines import decode_rollout_line, encode_rollout_line
from engine.rollout.ordinals import next_ordinal
from engine.rollout.policy import PersistenceMode, is_known, is_persisted
from engine.rollout.scan import (
    ALL_MARKS,
    ASSISTANT_ITEM,
    DAMAGED,
    EMPTY,
    FOREIGN,
    ROLLED_BACK,
    TURN_ABORTED,
    TURN_COMPLETE,
    TURN_STARTED,
    USER_ITEM,
    Scan,
)
from engine.rollout.tail import first_meta
from engine.thread_store.files import FileOperations, FileStatus, RealFiles, create_with_folders
from engine.thread_store.interface import (
    BeforeUserMessage,
    ForkThread,
    Interrupted,
    LastTurns,
    Snapshot,
    ThroughTurn,
)
from engine.thread_store.locks import RolloutLock, RolloutLocks
from engine.thread_store.rollout_bytes import RolloutBytes
from engine.thread_store.rollout_file import PART_SUFFIX

__all__ = ["Fork", "Section", "first_line", "forked_items", "interruption", "is_copied", "kept_line", "section"]

BREATH: Final = 0.0005  # seconds given to others after each block
_LIFE = TURN_STARTED | TURN_COMPLETE | TURN_ABORTED | ROLLED_BACK | USER_ITEM | ASSISTANT_ITEM
_STAMP = re.compile(rb'(\s*\{\s*"timestamp"\s*:\s*)"[^"\\]*"')
_MAIL = b"trigger_turn"  # what mail between agents always has in it


@attrs.frozen
class Section:
    """The part of a source that a fork keeps, in whatever counts its positions, and a turn that ends it unfinished."""

    start: int
    end: int
    unfinished: str | None = None
    interrupted: bool = False


def section(items: list[RolloutItem], snapshot: Snapshot, *, size: int) -> Section:
    """What `snapshot` keeps of a source with `size` items, as positions in `items`, where only turns matter.

    Raises `InvalidRequest` for a turn that is not there.
    """
    open_turn = unfinished_turn(items)
    match snapshot:
        case BeforeUserMessage(n):
            return Section(0, _cut(items, n, open_turn, size))
        case LastTurns(n):
            positions = fork_turn_positions(items)
            if n <= 0:
                return Section(size, size)
            return Section(positions[-n] if n < len(positions) else 0, size)
        case ThroughTurn(turn_id):
            return Section(0, _end_of(items, turn_id, size))
        case Interrupted():
            if open_turn is None:
                return Section(0, size)
            return Section(0, size, open_turn.turn_id, interrupted=True)


def _cut(items: list[RolloutItem], n: int, open_turn: UnfinishedTurn | None, size: int) -> int:
    kept = cut_before_user_message(items, n, open_turn)
    return size if kept >= len(items) else kept


def _end_of(items: list[RolloutItem], turn_id: str, size: int) -> int:
    """Where the turn after `turn_id` begins."""
    found = False
    for position, item in enumerate(items):
        if isinstance(item, EventLine) and item.msg.type == "task_started":
            if found:
                return position
            found = getattr(item.msg, "turn_id", None) == turn_id
    if not found:
        raise InvalidRequest(f"the thread has no turn {turn_id}")
    return size


def first_line(params: ForkThread, source_id: str) -> Callable[[str], bytes]:
    """Makes the first line of the fork, given the time of writing."""
    git = params.git
    if callable(git):
        try:
            git = git()
        except Exception:  # facts for people; a fork must not fail for want of them
            git = None
    meta = attrs.evolve(params.meta, forked_from_id=source_id, git=git or params.meta.git)
    return lambda stamp: encode_rollout_line(meta, stamp)


def kept_line(raw: bytes, mark: int, mode: PersistenceMode, stamp: bytes) -> bytes:
    """What a fork has in place of a line, which ends with its line end if it has one; nothing if it is not copied."""
    if mark == EMPTY:
        return b""
    whole = raw if raw.endswith(b"\n") else raw + b"\n"
    if mark in (DAMAGED, FOREIGN):
        return whole
    try:
        item = decode_rollout_line(raw.strip())
    except ProtocolError:
        return whole
    if item is None or not is_copied(item, mode):
        return b""
    if not is_known(item) or (isinstance(item, ResponseLine) and isinstance(item.item, UnknownVariant)):
        return whole
    found = _STAMP.match(whole)
    return whole if found is None else found[1] + b'"' + stamp + b'"' + whole[found.end() :]


def is_copied(item: RolloutItem, mode: PersistenceMode) -> bool:
    """Whether a fork in `mode` keeps an item of its source: what that mode persists, and what nobody here knows."""
    if isinstance(item, ResponseLine):
        return not isinstance(item.item, CompactionTrigger)
    if isinstance(item, EventLine):
        # Later writers tell messages as completed items.
        return not is_known(item) or isinstance(item.msg, ItemCompleted) or is_persisted(item, mode)
    return True


@attrs.define(eq=False)
class Fork:
    """A fork on its way, in a worker thread that may outlive whoever waits for it.

    Once it is `done`: `head` makes its first line again, `found` is its file, which `lock` keeps for us, `ordinal` the
    number of its next line if it has some, and `made` are the folders that were made for it, innermost first.
    """

    head: Callable[[str], bytes] | None = None
    found: FileStatus | None = None
    ordinal: int | None = None
    lock: RolloutLock | None = None
    made: list[str] = attrs.field(factory=list)
    path: str = ""
    done: bool = False
    _files: FileOperations = attrs.field(factory=RealFiles)
    _given_up: bool = False
    _mutex: threading.Lock = attrs.field(factory=threading.Lock)

    def write(
        self,
        files: FileOperations,
        locks: RolloutLocks,
        open_source: Callable[[], RolloutBytes],
        path: str,
        params: ForkThread,
        stamp: str,
        *,
        durable: bool,
    ) -> None:
        """Writes the file. Raises `ThreadNotFound`, `InvalidRequest`, `StoreError`; then nothing is left of it."""
        self.path = path
        self._files = files
        opened = open_source()
        try:
            self._write(locks, opened, params, stamp, durable)
        except OSError as exc:
            self._remove()
            raise StoreError(f"failed to fork {opened.path} to {path}: {exc}") from exc
        except BaseException:
            self._remove()
            raise
        finally:
            opened.close()  # a traceback that nobody looks at may hold it for long
        with self._mutex:
            self.done = True
            given_up = self._given_up
        if given_up:
            self._remove()

    def give_up(self) -> None:
        """Nobody waits any more: what was written is removed, by us or, where it is still at it, by the thread."""
        with self._mutex:
            self._given_up = True
            done = self.done
        if done:
            self._remove()

    def _write(self, locks: RolloutLocks, source: RolloutBytes, params: ForkThread, stamp: str, durable: bool) -> None:
        meta = first_meta(source)
        if meta is None:
            raise StoreError(f"{source.path} has no readable session_meta line, so it is no thread")
        kept = _section_of(source, params.snapshot)
        self.head = first_line(params, meta.id)
        files, part = self._files, self.path + PART_SUFFIX
        handle = create_with_folders(files, part, self.made)
        try:
            for data in self._content(source, kept, params, stamp):
                view = memoryview(data)
                while view:
                    view = view[files.write(handle, view) :]
            self.found = files.handle_status(handle)
            self.ordinal = next_ordinal(RolloutBytes(Path(part)))
        finally:
            files.close(handle)
        if durable:
            files.sync(part)
        self.lock = locks.take(self.path)
        files.rename(part, self.path)
        if durable:
            for folder in (os.path.dirname(self.path), *map(os.path.dirname, self.made)):
                files.sync(folder)

    def _content(self, source: RolloutBytes, kept: Section, params: ForkThread, stamp: str) -> Iterator[bytes]:
        assert self.head is not None
        yield self.head(stamp)
        time_bytes = stamp.encode()
        for position, data in blocks(source, kept.start, kept.end):
            pieces: list[bytes] = []
            at = 0
            for _, end, mark in Scan(data).marks(wanted=ALL_MARKS):
                behind = data.find(b"\n", end) + 1 or len(data)
                pieces.append(kept_line(data[at:behind], mark, params.mode, time_bytes))
                at = behind
            yield b"".join(pieces)
            if self._given_up:
                raise StoreError("the fork was given up")
            if params.progress is not None:
                params.progress(position + len(data) - kept.start, kept.end - kept.start)
            time.sleep(BREATH)
        if kept.interrupted:
            assert isinstance(params.snapshot, Interrupted)
            number = next_ordinal(source)
            for item in interruption(kept, params.snapshot):
                yield encode_rollout_line(item, stamp, number)
                number = None if number is None else number + 1

    def _remove(self) -> None:
        for path in (self.path, self.path + PART_SUFFIX):
            try:
                self._files.remove(path)
            except OSError:
                pass
        if self.lock is not None:
            self.lock.release()
        for folder in self.made:
            try:
                self._files.remove_directory(folder)
            except OSError:
                break  # somebody else has put something there


def forked_items(items: Sequence[RolloutItem], snapshot: Snapshot, mode: PersistenceMode) -> list[RolloutItem]:
    """What a fork keeps of a source whose items are all there. Raises `InvalidRequest`."""
    kept = section(list(items), snapshot, size=len(items))
    copied = [item for item in items[kept.start : kept.end] if is_copied(item, mode)]
    if kept.interrupted:
        assert isinstance(snapshot, Interrupted)
        copied += interruption(kept, snapshot)
    return copied


def interruption(kept: Section, snapshot: Interrupted) -> list[RolloutItem]:
    """What tells that the unfinished turn at the end of a fork was interrupted."""
    marker: list[RolloutItem] = [] if snapshot.marker is None else [ResponseLine(snapshot.marker)]
    return [*marker, EventLine(TurnAborted(kept.unfinished, "interrupted"))]


def _section_of(source: RolloutBytes, snapshot: Snapshot) -> Section:
    """What a snapshot keeps of a file, in bytes."""
    if isinstance(snapshot, LastTurns) and snapshot.n <= 0:
        return Section(source.size, source.size)
    items: list[RolloutItem] = []
    offsets: list[int] = []
    size = 0
    for offset, data in blocks(source, 0, source.size):
        for start, end, mark in Scan(data).marks(wanted=_LIFE):
            if mark == ASSISTANT_ITEM and data.find(_MAIL, start, end) < 0:
                continue
            try:
                item = decode_rollout_line(data[start:end])
            except ProtocolError:
                continue
            if item is not None:
                items.append(item)
                offsets.append(offset + start)
        size = offset + len(data)
        time.sleep(BREATH)
    found = section(items, snapshot, size=len(items))
    offsets.append(size)
    start = offsets[found.start] if found.start else 0
    return attrs.evolve(found, start=start, end=offsets[found.end])
