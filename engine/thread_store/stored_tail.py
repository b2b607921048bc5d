"""What a resume needs of a stored thread, read from its end; and how its compactions are counted (rollout.md 5).

A start reads until it knows the settings of the last turn, and at most some megabytes beyond. The history is replayed
when somebody asks for it, the number of the context window when it is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, final

from engine.errors import StoreError
from engine.protocol.events import EventMsg, TokenCount
from engine.protocol.ids import ThreadId
from engine.protocol.rollout_items import SessionMeta, TurnContext
from engine.protocol.settings import TokenUsageInfo, TruncationPolicy
from engine.rollout.blocks import MemorySource, count_compacted
from engine.rollout.inline_images import events_with_images
from engine.rollout.reconstruction import PreviousTurnSettings, Reconstruction, ReverseScan, reconstruct
from engine.rollout.rolling_back import RolledBack, rolled_back, rolled_back_items
from engine.rollout.tail import RolloutTail, first_meta
from engine.thread_store.checkpoints import MARK_LENGTH, Checkpoint
from engine.thread_store.interface import StoredHistory
from engine.thread_store.rollout_bytes import RolloutBytes

__all__ = ["LoadedTail", "RolloutFileTail", "StoredTail"]

AT_ONCE = 4 << 20  # bytes that a start looks at and keeps in memory; what is more is read when it is asked for
LIGHT = 256 << 10  # bytes whose decoding nobody notices
EVENTS_KEPT = 1 << 20  # bytes of the last events that a start hands out of a history that is not kept in memory


class StoredTail(Protocol):
    """The end of a stored thread, as far as a resume has read it.

    - `cwd`: that of the latest turn, else that of the thread; `latest_turn`: what that turn ran with
    - `previous_turn_settings`: those of the last user turn
    - `usage`: what was told last, since the last compaction
    - `events`: those that make up the history, or the last of them; decoded when they are looked at
    - `generation`: how often the thread was compacted, if that is known already; else the store counts it
    - `heavy`: whether `reconstruct` takes so long that it belongs on a worker thread
    - `damaged`: lines that can't be read, among those that were looked at
    """

    @property
    def thread_id(self) -> ThreadId: ...
    @property
    def path(self) -> str | None: ...
    @property
    def meta(self) -> SessionMeta: ...
    @property
    def cwd(self) -> str: ...
    @property
    def latest_turn(self) -> TurnContext | None: ...
    @property
    def previous_turn_settings(self) -> PreviousTurnSettings | None: ...
    @property
    def usage(self) -> TokenUsageInfo | None: ...
    @property
    def events(self) -> Sequence[EventMsg]: ...
    @property
    def generation(self) -> int | None: ...
    @property
    def heavy(self) -> bool: ...
    @property
    def damaged(self) -> int: ...

    def reconstruct(self, policy: TruncationPolicy) -> Reconstruction:
        """History and reference context (rollout.md 5), once. Blocks. Raises `StoreError`."""

    def rolled_back(self, turns: int, policy: TruncationPolicy) -> RolledBack:
        """What is left of the thread as it is now without its last turns (session.md 3.8). Blocks.

        Raises `StoreError`.
        """

    def count_from(self, generation: int) -> None:
        """The thread counts its compactions anew, from `generation` on: it is a fork."""

    def close(self) -> None:
        """Lets go of what the tail holds open; `reconstruct` and counting may not work afterwards. Idempotent."""


@final
class RolloutFileTail:
    """The `StoredTail` of a rollout file. Blocking, but for `close`."""

    def __init__(self, path: Path) -> None:
        """Reads the end of the file. Raises `ThreadNotFound`; `StoreError` where it is no thread or can't be read."""
        file = RolloutBytes(path)
        try:
            self._read(path, file)
        except BaseException:
            file.close()  # the error keeps this frame, and whoever keeps the error would keep the handle
            raise

    def _read(self, path: Path, file: RolloutBytes) -> None:
        meta = first_meta(file)
        if meta is None:
            what = "has no readable session_meta line, so it is no thread" if _has_text(file) else "is empty"
            raise StoreError(f"{path} {what}: there is nothing to go on with")
        tail = RolloutTail(file)
        tail.read(AT_ONCE)
        self.path = str(path)
        self.meta = meta
        self._tail = tail
        self._file: RolloutBytes | None = file  # until everything was read
        self._replayed = False
        self._in_memory = tail.finished and tail.end - tail.start <= AT_ONCE
        self.heavy = not self._in_memory or tail.end - tail.start > LIGHT
        if self._in_memory:
            tail.use(MemorySource(file.read(tail.start, tail.end), tail.start))
        self.events: Sequence[EventMsg] = tail.events(AT_ONCE if self._in_memory else EVENTS_KEPT)
        self._uncounted = tail.counted_from
        self._counted = tail.compactions
        self.generation: int | None = None
        if self._uncounted <= AT_ONCE:
            self.generation = self._count(file, 0, self._uncounted) + self._counted
            self._let_go_of_file()

    @property
    def thread_id(self) -> ThreadId:
        """The id in the first line."""
        return self.meta.id

    @property
    def cwd(self) -> str:
        """See `StoredTail`."""
        context = self._tail.context
        return self.meta.cwd if context is None else context.cwd

    @property
    def latest_turn(self) -> TurnContext | None:
        """See `StoredTail`."""
        return self._tail.context

    @property
    def previous_turn_settings(self) -> PreviousTurnSettings | None:
        """See `StoredTail`."""
        return self._tail.previous_turn_settings

    @property
    def usage(self) -> TokenUsageInfo | None:
        """See `StoredTail`."""
        return self._tail.usage

    @property
    def damaged(self) -> int:
        """See `StoredTail`."""
        return self._tail.damaged

    def reconstruct(self, policy: TruncationPolicy) -> Reconstruction:
        """See `StoredTail`."""
        if self._replayed or (self._file is None and not self._in_memory):
            raise StoreError(f"{self.path} is not open any more")
        made = self._tail.reconstruct(policy)
        self._tail.drop()
        self._replayed = True
        self._let_go_of_file()
        return made

    def rolled_back(self, turns: int, policy: TruncationPolicy) -> RolledBack:
        """See `StoredTail`. Reads those turns and what is left of the history, no more."""
        file = RolloutBytes(Path(self.path))  # what is dropped may lie before all that was kept open
        try:
            return rolled_back(file, turns, policy)
        finally:
            file.close()

    def count_from(self, generation: int) -> None:
        """See `StoredTail`."""
        self.generation = generation
        self._let_go_of_file()

    def close(self) -> None:
        """See `StoredTail`. A history that is in memory stays."""
        self._file = None
        if not self._in_memory:
            self._tail.drop()

    def _let_go_of_file(self) -> None:
        if self.generation is not None and (self._in_memory or self._replayed):
            self._file = None

    def count(
        self, checkpoint: Checkpoint | None, keep_going: Callable[[], bool] = lambda: True
    ) -> tuple[int, Checkpoint | None]:
        """How often the thread was compacted, and how far that was counted for the next time.

        Goes on from `checkpoint` where that fits the file. Raises `StoreError`, also where `keep_going` says no.
        """
        try:
            return self._count_from(checkpoint, keep_going)
        except _GivenUp:
            pass
        # Raised from here: whoever abandoned this call keeps the error, and its frames would keep the file open.
        raise StoreError(f"counting the compactions of {self.path} was given up")

    def _count_from(
        self, checkpoint: Checkpoint | None, keep_going: Callable[[], bool]
    ) -> tuple[int, Checkpoint | None]:
        file = self._file
        if file is None:
            raise StoreError(f"{self.path} is not open any more")
        offset, count = 0, 0
        if checkpoint is not None and _fits(checkpoint, file):
            offset, count = checkpoint.offset, checkpoint.count
        if offset > self._uncounted:
            self.generation = count + self._count(file, offset, self._tail.end, keep_going)
            self._let_go_of_file()
            return self.generation, None
        count += self._count(file, offset, self._uncounted, keep_going)
        self.generation = count + self._counted
        self._let_go_of_file()
        mark = file.read(max(0, self._uncounted - MARK_LENGTH), self._uncounted)
        return self.generation, Checkpoint(*file.identity, self._uncounted, count, mark)

    @staticmethod
    def _count(file: RolloutBytes, start: int, end: int, keep_going: Callable[[], bool] = lambda: True) -> int:
        found = count_compacted(file, start, end, keep_going)
        if found is None:
            raise _GivenUp
        return found


class _GivenUp(Exception):
    """Nobody waits for the count any more."""


def _fits(checkpoint: Checkpoint, file: RolloutBytes) -> bool:
    """Whether what a checkpoint counted still stands in the file."""
    if (checkpoint.device, checkpoint.inode) != file.identity or not 0 <= checkpoint.offset <= file.size:
        return False
    start = checkpoint.offset - len(checkpoint.mark)
    return start >= 0 and file.read(start, checkpoint.offset) == checkpoint.mark


def _has_text(file: RolloutBytes) -> bool:
    return any(file.read(at, min(at + AT_ONCE, file.size)).strip() for at in range(0, file.size, AT_ONCE))


@final
class LoadedTail:
    """The `StoredTail` of a thread all of whose items are there."""

    def __init__(self, history: StoredHistory) -> None:
        self._history = history
        self.thread_id = history.thread_id
        self.path = history.path
        self.meta = history.meta
        self.cwd = history.cwd
        contexts = (item for item in reversed(history.items) if isinstance(item, TurnContext))
        self.latest_turn = next(contexts, None)
        self.generation: int | None = history.generation
        self.damaged = history.damaged
        self.heavy = False
        self.events: Sequence[EventMsg] = tuple(events_with_images(history.items))
        infos = (msg.info for msg in reversed(self.events) if isinstance(msg, TokenCount))
        self.usage = next((info for info in infos if info is not None), None)
        scan = ReverseScan()
        for position in range(len(history.items) - 1, -1, -1):
            scan.take(history.items[position], position + 1)
            if scan.complete:
                break
        scan.finish()
        self.previous_turn_settings = scan.previous

    def reconstruct(self, policy: TruncationPolicy) -> Reconstruction:
        """See `StoredTail`."""
        return reconstruct(self._history.items, policy)

    def rolled_back(self, turns: int, policy: TruncationPolicy) -> RolledBack:
        """See `StoredTail`."""
        return rolled_back_items(self._history.items, turns, policy)

    def count_from(self, generation: int) -> None:
        """See `StoredTail`."""
        self.generation = generation

    def close(self) -> None:
        """See `StoredTail`."""
