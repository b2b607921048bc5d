"""The writer of one rollout file, as its live thread sees it: numbers what is handed in, never waits, keeps errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, final

from engine.errors import StoreError
from engine.rollout.lines import encode_rollout_line
from engine.thread_store.barrier import Barrier
from engine.thread_store.batches import Job, Verb
from engine.thread_store.rollout_file import RolloutFile

if TYPE_CHECKING:
    from engine.protocol.rollout_items import RolloutItem
    from engine.thread_store.appender import Appender
    from engine.thread_store.files import FileOperations, FileStatus
    from engine.thread_store.locks import RolloutLock

__all__ = ["RolloutWriter", "WriteWatcher"]

log = logging.getLogger(__name__)


class WriteWatcher(Protocol):
    """Wants to know what becomes of a rollout; called on Trio's thread. Must be quick and must not raise."""

    def appended(self, items: Sequence[RolloutItem]) -> None:
        """These were handed in."""

    def stored(self) -> None:
        """More of what was handed in is in the file."""

    def over(self) -> None:
        """Nothing more will be written; the file stays as it is, or was removed."""


@final
class RolloutWriter:
    """Hands lines to the appender. Made by a store, for one life of one thread.

    `head` makes the first line of a file, on the appender's thread, as of the moment of the first item (`began`). With
    `found` the file is there already and is gone on with, as it is without `head`; what this life has made itself it
    `owns_file`, and may erase it, with the folders that were `made` for it.
    `ordinal` is the number of the next line, where lines have one.
    `places` tells where others may move the file to; `lock` keeps other writers away, and is taken once there is one.
    Numbers count items: `submitted` were handed in, up to `acknowledged` the appender has dealt with them (written, or
    failed and kept in order), up to `written` they are in the file (with durability `fsync`: on the disk). `error` is
    that of the last try, `None` after one that went well.
    """

    __slots__ = (
        "_appender",
        "_file",
        "_lock",
        "_memory",
        "_notice",
        "_observer",
        "_watcher",
        "acknowledged",
        "began",
        "dropped",
        "error",
        "exists",
        "found",
        "head",
        "joins",
        "made",
        "ordinal",
        "owns_file",
        "path",
        "places",
        "queued",
        "stuck",
        "submitted",
        "unsynced",
        "used",
        "written",
    )

    def __init__(
        self,
        appender: Appender,
        path: str,
        head: Callable[[str], bytes] | None,
        *,
        found: FileStatus | None = None,
        owns_file: bool | None = None,
        places: Callable[[], Sequence[str]] = tuple,
        lock: RolloutLock | None = None,
        made: Sequence[str] = (),
        ordinal: int | None = None,
    ) -> None:
        self._appender = appender
        self._observer: Callable[[int], None] | None = None
        self._memory: Callable[[], Sequence[RolloutItem]] | None = None
        self._notice: Callable[[str], None] | None = None
        self._watcher: WriteWatcher | None = None
        self._file: RolloutFile | None = None  # of the appender's thread
        self._lock = lock
        self.path = path
        self.head = head
        self.found = found
        self.joins = head is None or found is not None
        self.owns_file = not self.joins if owns_file is None else owns_file
        self.places = places
        self.made = tuple(made)
        self.ordinal = ordinal
        self.began = ""
        self.submitted = 0
        self.acknowledged = 0
        self.written = 0
        self.error: StoreError | None = None
        self.queued = 0  # bytes
        self.exists = self.joins  # whether there is a file
        self.used = False  # whether the appender knows this writer
        self.stuck = False  # whether the last try failed
        self.dropped = False
        self.unsynced: StoreError | None = None  # a failed sync: what was written before it may be lost

    @property
    def is_idle(self) -> bool:
        """Whether everything handed in is written."""
        return self.written == self.submitted and self.error is None

    def append(self, items: Sequence[RolloutItem]) -> None:
        """Queues items; never waits."""
        stamp = self._appender.timestamp()
        self.began = self.began or stamp
        lines = self._encoded(items, stamp)
        self.submitted += len(items)
        self.queued += len(lines)
        if self._watcher is not None:
            self._watcher.appended(items)
        self.used = True
        self._appender.send(Job(Verb.APPEND, self, lines, self.submitted), len(lines))

    def _encoded(self, items: Sequence[RolloutItem], stamp: str) -> bytes:
        first = self.ordinal
        if first is None:
            return b"".join([encode_rollout_line(item, stamp) for item in items])
        self.ordinal = first + len(items)
        return b"".join([encode_rollout_line(item, stamp, first + number) for number, item in enumerate(items)])

    async def room(self) -> None:
        """Waits while too much is queued, here or in the whole engine; a writer that can't write holds nobody up."""
        await self._appender.room(self)

    async def flush(self) -> None:
        """Waits until everything handed in is written; a file that nothing was handed in for is not made.

        Raises `StoreError` if it can't be written now; it stays queued. Cancelling abandons the wait, not the writing.
        """
        await self._ask(Verb.FLUSH, needed=self.used and not (self.exists and self.is_idle))

    async def persist(self) -> None:
        """As `flush`, and sees to it that there is a file: made with its first line, or made anew if it was removed."""
        await self._ask(Verb.PERSIST, needed=True)

    async def close(self) -> None:
        """As `flush`, then gives the file back. What can't be written stays, and the writer with it."""
        await self._ask(Verb.CLOSE, needed=self.used or self.joins)
        while not self.is_idle:  # handed in meanwhile
            await self._ask(Verb.CLOSE, needed=True)

    async def drop(self, *, erase: bool = False) -> None:
        """Forgets what is not written yet; with `erase` also removes a file this writer has made.

        Returns when the appender has let go of the file. Cancelling abandons the wait only.
        """
        await self._wait_for(self.drop_nowait(erase=erase))

    def drop_nowait(self, *, erase: bool = False) -> Barrier | None:
        """As `drop`, without waiting."""
        self.dropped = True
        try:
            return self._send(Verb.ERASE if erase else Verb.DROP) if self.used or self.joins else None
        except StoreError:  # the appender is closed; what was handed in before is written or reported
            self.release_lock()
            return None

    def observe(self, observer: Callable[[int], None]) -> None:
        """Calls `observer(acknowledged)` on Trio's thread whenever that number grows; it must not raise."""
        self._observer = observer

    def moved_to(self, path: str) -> None:
        """The file has another place; the appender would find it there by itself."""
        self.path = path

    def on_lost(self, memory: Callable[[], Sequence[RolloutItem]]) -> None:
        """`memory` gives what a lost file is written anew from: all items up to now, but for the first line."""
        self._memory = memory

    def on_notice(self, notice: Callable[[str], None]) -> None:
        """Calls `notice(text)` on Trio's thread with what the user should know of the file; it must not raise."""
        self._notice = notice

    def watch(self, watcher: WriteWatcher) -> None:
        """Tells `watcher` what is handed in, and when something was written."""
        self._watcher = watcher

    # --- for the appender ----------------------------------------------------------------------

    def file(self, files: FileOperations) -> RolloutFile:
        """What the appender's thread keeps about the file; made on first use."""
        if self._file is None:
            self._file = RolloutFile(files, self)
        return self._file

    def take_lock(self) -> None:
        """The file is there now: keeps others away. Raises `StoreError` if somebody else has it already."""
        if self._lock is not None:
            self._lock.take()

    def release_lock(self) -> None:
        """The file is no longer written."""
        if self._lock is not None:
            self._lock.release()

    def restore(self) -> None:
        """The file is lost: hands in everything up to now, from memory. Called on Trio's thread; raises nothing."""
        stamp = self._appender.timestamp()
        lines, number = b"", 0  # what is left comes after it
        if self._memory is not None:
            going_on = self.ordinal
            try:
                items = self._memory()
                self.ordinal = None if going_on is None else 1  # behind the first line
                lines = self._encoded(items, stamp)
                number = self.submitted
            except Exception:  # a bug elsewhere; whoever waits for the file must not wait for ever
                log.exception("the transcript %s is lost, and so is what was in memory of it", self.path)
            if going_on is not None and self.ordinal is not None:
                self.ordinal = max(self.ordinal, going_on)
        try:
            self._appender.send(Job(Verb.REWRITE, self, lines, number))
        except StoreError:
            log.error("the transcript %s is lost, and it is too late to write it anew", self.path)

    def tell(self, text: str) -> None:
        """Passes on what the user should know."""
        log.warning("%s", text)
        if self._notice is not None:
            self._notice(text)

    def stored(self, written: int, *, made: bool = False) -> None:
        """Items up to this number are in the file, which may have been `made` just now."""
        grown, self.written = written > self.written, written
        if (grown or made) and self._watcher is not None:
            self._watcher.stored()

    def over(self) -> None:
        """The file was given back."""
        if self._watcher is not None:
            self._watcher.over()

    def notify(self) -> None:
        """Tells the observer."""
        if self._observer is not None:
            self._observer(self.acknowledged)

    async def _ask(self, verb: Verb, *, needed: bool) -> None:
        await self._wait_for(self._send(verb) if needed else None)

    def _send(self, verb: Verb) -> Barrier:
        barrier = Barrier()
        self.used = True
        self.began = self.began or self._appender.timestamp()
        self._appender.send(Job(verb, self, barrier=barrier))
        return barrier

    @staticmethod
    async def _wait_for(barrier: Barrier | None) -> None:
        if barrier is None:
            barrier = Barrier()
            barrier.answer(None)
        await barrier.wait()
