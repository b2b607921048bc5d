"""The writer of one rollout file, as its live thread sees it: numbers what is handed in, never waits, keeps errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

from engine.rollout.lines import encode_rollout_line
from engine.thread_store.barrier import Barrier
from engine.thread_store.batches import FileState, Job, Verb

if TYPE_CHECKING:
    from engine.errors import StoreError
    from engine.protocol.rollout_items import RolloutItem
    from engine.thread_store.appender import Appender

__all__ = ["RolloutWriter"]


@final
class RolloutWriter:
    """Hands lines to the appender. Made by a store, for one life of one thread.

    `head` makes the first line of a new file, on the appender's thread, as of the moment of the first item (`began`);
    `None` goes on with an existing file.
    Numbers count items: `submitted` were handed in, up to `acknowledged` the appender has dealt with them (written, or
    failed and kept in order), up to `written` they are in the file (with durability `fsync`: on the disk). `error` is
    that of the last try, `None` after one that went well.
    """

    __slots__ = (
        "_appender",
        "_observer",
        "_state",
        "acknowledged",
        "began",
        "dropped",
        "error",
        "exists",
        "head",
        "path",
        "queued",
        "stuck",
        "submitted",
        "unsynced",
        "used",
        "written",
    )

    def __init__(self, appender: Appender, path: str, head: Callable[[str], bytes] | None) -> None:
        self._appender = appender
        self._observer: Callable[[int], None] | None = None
        self._state: FileState | None = None  # of the appender's thread
        self.path = path
        self.head = head
        self.began = ""
        self.submitted = 0
        self.acknowledged = 0
        self.written = 0
        self.error: StoreError | None = None
        self.queued = 0  # bytes
        self.exists = head is None  # whether there is a file
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
        lines = b"".join([encode_rollout_line(item, stamp) for item in items])
        self.submitted += len(items)
        self.queued += len(lines)
        self.used = True
        self._appender.send(Job(Verb.APPEND, self, lines, self.submitted), len(lines))

    async def room(self) -> None:
        """Waits while too much is queued, here or in the whole engine; a writer that can't write holds nobody up."""
        await self._appender.room(self)

    async def flush(self) -> None:
        """Waits until everything handed in is written; a file that nothing was handed in for is not made.

        Raises `StoreError` if it can't be written now; it stays queued. Cancelling abandons the wait, not the writing.
        """
        await self._ask(Verb.FLUSH, needed=self.used and not (self.exists and self.is_idle))

    async def persist(self) -> None:
        """As `flush`, and makes the file with its first line if there is none."""
        await self._ask(Verb.PERSIST, needed=not (self.exists and self.is_idle))

    async def close(self) -> None:
        """As `flush`, then gives the file back. What can't be written stays, and the writer with it."""
        await self._ask(Verb.CLOSE, needed=self.used)
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
        return self._send(Verb.ERASE if erase else Verb.DROP) if self.used else None

    def observe(self, observer: Callable[[int], None]) -> None:
        """Calls `observer(acknowledged)` on Trio's thread whenever that number grows; it must not raise."""
        self._observer = observer

    # --- for the appender ----------------------------------------------------------------------

    def file_state(self) -> FileState:
        """What the appender's thread keeps about the file; made on first use."""
        if self._state is None:
            self._state = FileState()
        return self._state

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
