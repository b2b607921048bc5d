"""An active thread: filters what a session hands in, numbers it, and lets go of the store's writer at the end.

rollout.md 3, CONCURRENCY 1.3. Persisted before delivered, without waiting: `append` returns a number, and events that
tell of those items may be delivered once `acknowledged` has reached it. It does so even where writing fails: the turn
goes on, `last_error` tells, the items stay queued in order and are tried again with the next append or flush.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, final

import trio

from engine.errors import StoreError, ThreadNotFound
from engine.rollout.policy import PersistenceMode, persisted_form

if TYPE_CHECKING:
    from engine.protocol.ids import ThreadId
    from engine.protocol.rollout_items import RolloutItem
    from engine.rollout.inline_images import ImagesOnce

__all__ = ["LiveThread", "ThreadWriter"]


class ThreadWriter(Protocol):
    """What a store puts behind a live thread. Numbers count items; see `RolloutWriter` for their meaning."""

    submitted: int
    acknowledged: int
    written: int
    exists: bool
    error: StoreError | None

    @property
    def path(self) -> str | None:
        """The file, if there is one."""

    def moved_to(self, path: str) -> None:
        """The file has another place."""

    def append(self, items: Sequence[RolloutItem]) -> None:
        """Queues items that are kept; never waits."""

    def observe(self, observer: Callable[[int], None]) -> None:
        """Calls `observer(acknowledged)` whenever that number grows."""

    def on_lost(self, memory: Callable[[], Sequence[RolloutItem]]) -> None:
        """`memory` gives what the thread is stored anew from if what was stored is lost."""

    def on_notice(self, notice: Callable[[str], None]) -> None:
        """Calls `notice(text)` with what the user should know about the storing."""

    async def room(self) -> None:
        """Waits while too much is queued."""

    async def flush(self) -> None:
        """Waits until what was handed in is written. Raises `StoreError`."""

    async def persist(self) -> None:
        """As `flush`, and brings the thread into being. Raises `StoreError`."""

    async def close(self) -> None:
        """As `flush`, then lets go. Raises `StoreError` and holds on."""

    async def drop(self, *, erase: bool = False) -> None:
        """Lets go without writing; with `erase` also takes back what this writer has brought into being."""

    def drop_nowait(self, *, erase: bool = False) -> object:
        """As `drop`, without waiting."""


@final
class LiveThread:
    """One running session's way to its stored thread. Made by a store; owned by a `LiveThreadGuard`.

    After `shutdown` or `discard` every call that needs the writer raises `ThreadNotFound`.
    """

    __slots__ = ("_closed", "_images", "_release", "_writer", "mode", "resumed", "thread_id")

    def __init__(
        self,
        thread_id: ThreadId,
        mode: PersistenceMode,
        writer: ThreadWriter,
        release: Callable[[LiveThread], None],
        *,
        resumed: bool,
    ) -> None:
        self.thread_id = thread_id
        self.mode: PersistenceMode = mode
        self.resumed = resumed
        self._writer = writer
        self._release = release
        self._closed = False
        self._images: ImagesOnce | None = None

    @property
    def rollout_path(self) -> str | None:
        """The file of the thread, if it has one; it follows where the thread is archived."""
        return self._writer.path

    def moved_to(self, path: str) -> None:
        """The store has given the file another place."""
        self._writer.moved_to(path)

    @property
    def closed(self) -> bool:
        """Whether the thread was shut down or discarded."""
        return self._closed

    @property
    def submitted(self) -> int:
        """The number of the last item that was kept."""
        return self._writer.submitted

    @property
    def acknowledged(self) -> int:
        """Items up to this number are dealt with: written, or failed and kept for another try."""
        return self._writer.acknowledged

    @property
    def written(self) -> int:
        """Items up to this number are stored, as durably as the store promises."""
        return self._writer.written

    @property
    def last_error(self) -> StoreError | None:
        """Why the last try to write failed; `None` if it did not."""
        return self._writer.error

    @trio.lowlevel.enable_ki_protection  # what is counted is also sent
    def append(self, items: Sequence[RolloutItem]) -> int:
        """Queues what the mode keeps of `items` and returns the number to wait for; never waits.

        The first kept item brings the thread into being. Nothing kept is no effect at all, at any time. Raises
        `ThreadNotFound` where something would be kept and the thread is closed.
        """
        mode = self.mode
        kept = [form for item in items if (form := persisted_form(item, mode)) is not None]
        if kept:
            self._need_open()
            self._writer.append([self._stored(item) for item in kept])
        return self._writer.submitted

    def on_acknowledged(self, callback: Callable[[int], None]) -> None:
        """Calls `callback(acknowledged)` whenever that number grows, between the steps of tasks.

        One callback at a time, the last one set. It must be quick and must not raise.
        """
        self._writer.observe(callback)

    def on_lost(self, memory: Callable[[], Sequence[RolloutItem]]) -> None:
        """`memory` gives all items of the thread but its meta, as of the moment it is called.

        Called between the steps of tasks when the stored thread was removed or cut by others and what was stored of it
        can't be had any more: the thread is then stored anew, its meta first, then these items, then whatever is
        appended later. Without it only the meta comes back. It must be quick and must not raise.
        """
        self._writer.on_lost(memory)

    def on_notice(self, notice: Callable[[str], None]) -> None:
        """Calls `notice(text)` between the steps of tasks with what the user should know: stored anew, saved again.

        It must be quick and must not raise.
        """
        self._writer.on_notice(notice)

    async def room(self) -> None:
        """Waits while too much is queued. Sessions call it where waiting does no harm, e.g. before a model request."""
        await self._writer.room()

    async def flush(self) -> None:
        """Waits until everything appended is stored; brings nothing into being that has no items.

        Raises `StoreError` if it can't be written now, `ThreadNotFound` if the thread is closed. Cancelling abandons
        the wait; the items are written all the same.
        """
        self._need_open()
        await self._writer.flush()

    async def flush_quietly(self) -> None:
        """As `flush`, for who wants to read what is stored: where something can't be written now, without it."""
        if not self._closed:
            try:
                await self._writer.flush()
            except StoreError:
                pass

    async def persist(self) -> None:
        """As `flush`, and brings the thread into being even without items. Idempotent."""
        self._need_open()
        await self._writer.persist()

    async def shutdown(self) -> None:
        """As `flush`, then lets go of the thread. A thread without items leaves nothing.

        Raises `StoreError` if something can't be written; the thread then stays as it was. So it does when cancelled.
        """
        self._need_open()
        await self._writer.close()
        self._let_go()

    async def discard(self) -> None:
        """Lets go without writing what is queued; what is stored stays. Effective at once, also when cancelled."""
        self._need_open()
        self._let_go()
        await self._writer.drop()

    async def abandon(self) -> None:
        """As `discard`, and takes back what this life of the thread has brought into being: a start that never was."""
        self._need_open()
        self._let_go()
        await self._writer.drop(erase=not self.resumed)

    def forget(self) -> None:
        """As `discard`, without waiting; does nothing if the thread is closed."""
        if not self._closed:
            self._let_go()
            self._writer.drop_nowait()

    def _stored(self, item: RolloutItem) -> RolloutItem:
        if self._images is None:
            from engine.rollout.inline_images import ImagesOnce  # with the first item: a start appends none

            self._images = ImagesOnce()
        return self._images.stored(item)

    def _need_open(self) -> None:
        if self._closed:
            raise ThreadNotFound(f"thread {self.thread_id} has no live writer", thread=self.thread_id)

    def _let_go(self) -> None:
        self._closed = True
        self._release(self)
