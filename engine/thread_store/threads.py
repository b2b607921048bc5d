"""Stored threads for people and programs: what `Engine.threads` and `open_threads` give, over any `ThreadStore`.

Everything here works beside running sessions: what one of them writes is seen as far as it is stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

import attrs
import trio

from engine import __version__
from engine.protocol.ids import ThreadId, new_thread_id, parse_thread_id
from engine.rollout.inline_images import items_with_images
from engine.rollout.lines import format_timestamp
from engine.thread_store.changes import not_found
from engine.thread_store.interface import (
    BeforeUserMessage,
    ForkThread,
    Interrupted,
    ListThreads,
    ListTurns,
    MetadataPatch,
    Snapshot,
    StoredThread,
    ThreadPage,
    ThreadQuery,
    ThroughTurn,
    TurnPage,
)
from engine.thread_store.item_pages import ItemPage, ListItems, item_page

if TYPE_CHECKING:
    from engine.protocol.rollout_items import RolloutItem
    from engine.protocol.wire import JsonObject
    from engine.thread_store.interface import IndexProgress, SpawnEdge, StoredHistory, ThreadStore

__all__ = ["Threads", "snapshot_of"]

Thread = ThreadId | str

GRACE = 5.0  # seconds that taking a fork back may take


def snapshot_of(before: int | Literal["interrupted"], through: str | None) -> Snapshot:
    """What a fork copies: see `Engine.fork_session`."""
    if through is not None:
        return ThroughTurn(through)
    return Interrupted() if before == "interrupted" else BeforeUserMessage(before)


def _shown(items: Sequence[RolloutItem]) -> tuple[RolloutItem, ...]:
    return tuple(items_with_images(items))


@final
class Threads:
    """The threads of a store. `Engine.threads` has those of an engine; `open_threads` opens a home without one.

    Threads are named by id. Methods raise `ThreadNotFound` for an unknown one, `InvalidRequest` for what is no id, and
    `StoreError` where reading or writing fails. They may be cancelled at any time and leave nothing half done.
    """

    def __init__(self) -> None:
        raise TypeError("use `Engine.threads` or `open_threads()` to get at threads")

    _store: ThreadStore
    _active_turn: Callable[[ThreadId], str | None]

    @classmethod
    def _of(cls, store: ThreadStore, active_turn: Callable[[ThreadId], str | None] = lambda thread_id: None) -> Threads:
        """`active_turn` tells the turn that a thread runs now."""
        threads: Threads = object.__new__(cls)
        threads._store = store
        threads._active_turn = active_turn
        return threads

    async def list(self, query: ListThreads | None = None) -> ThreadPage:
        """A page of the threads that somebody has said something in, newest first by default (app_server.md 3.1)."""
        return await self._store.list_threads(query or ListThreads())

    async def find(self, thread: Thread) -> StoredThread | None:
        """What is known of a thread, archived or not; `None` if there is none."""
        return await self._store.find_thread(parse_thread_id(thread))

    async def read(self, thread: Thread) -> StoredThread:
        """As `find`, for a thread that must be there."""
        thread_id = parse_thread_id(thread)
        found = await self._store.find_thread(thread_id)
        if found is None:
            raise not_found(thread_id)
        return found

    async def latest(self, query: ThreadQuery | None = None) -> StoredThread | None:
        """The most recently updated thread that fits."""
        return await self._store.latest_thread(query or ThreadQuery())

    async def history(self, thread: Thread | PathLike[str]) -> StoredHistory:
        """Everything that is stored of a thread, archived or not, by id or by the path of its rollout.

        The whole file is decoded: for turns, page them.
        """
        place: ThreadId | Path
        if isinstance(thread, str):
            found = await self.read(thread)
            place = found.thread_id if found.path is None else Path(found.path)
        else:
            place = Path(thread)
        stored = await self._store.load_history(place)
        shown = await trio.to_thread.run_sync(_shown, stored.items, abandon_on_cancel=True)
        return attrs.evolve(stored, items=shown)

    async def turns(self, thread: Thread, query: ListTurns | None = None) -> TurnPage:
        """A page of the turns of a thread, archived or not, the last ones first by default; only their lines are read.

        Turns that were rolled back are gone. The turn a thread runs in this engine is `inProgress`, as far as it is
        stored. Raises `InvalidRequest` for a bad cursor.
        """
        thread_id = parse_thread_id(thread)
        asked = query or ListTurns()
        if asked.active is None:
            asked = attrs.evolve(asked, active=self._active_turn(thread_id))
        return await self._store.list_turns(thread_id, asked)

    async def items(self, thread: Thread, query: ListItems | None = None) -> ItemPage:
        """A page of the items of a thread across its turns, or of one turn; the first ones first by default."""
        thread_id = parse_thread_id(thread)
        asked = query or ListItems()
        if asked.active is None:
            asked = attrs.evolve(asked, active=self._active_turn(thread_id))
        return await item_page(self._store, thread_id, asked)

    async def rename(self, thread: Thread, name: str) -> None:
        """Gives a thread a name. Raises `InvalidRequest` for a blank one."""
        await self._store.set_name(parse_thread_id(thread), name)

    async def archive(self, thread: Thread) -> tuple[ThreadId, ...]:
        """Puts a thread out of the way, with those it spawned as far as possible; which ones, itself first.

        A running one goes on being written where it is then.
        """
        return await self._store.archive(parse_thread_id(thread))

    async def unarchive(self, thread: Thread) -> StoredThread:
        """Brings a thread back, with those it spawned as far as possible."""
        return await self._store.unarchive(parse_thread_id(thread))

    async def delete(self, thread: Thread) -> None:
        """Removes a thread for good. Raises `ConflictError` while it runs, here or in another process."""
        await self._store.delete(parse_thread_id(thread))

    async def update(self, thread: Thread, patch: MetadataPatch) -> StoredThread:
        """Changes git facts or the memory mode. Raises `ConflictError` if another process writes the thread."""
        return await self._store.update_metadata(parse_thread_id(thread), patch)

    async def spawned(self, thread: Thread) -> tuple[SpawnEdge, ...]:
        """The edges to the threads that a thread spawned itself."""
        return await self._store.spawned(parse_thread_id(thread))

    async def dynamic_tools(self, thread: Thread) -> tuple[JsonObject, ...]:
        """The tools its host gave a thread when it was created."""
        return await self._store.dynamic_tools(parse_thread_id(thread))

    async def fork(
        self,
        thread: Thread | PathLike[str],
        *,
        before: int | Literal["interrupted"] = "interrupted",
        through: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> StoredThread:
        """Stores a copy of a thread as a new one, without running it; by default all of it.

        `before` and `through` as for `Engine.fork_session`. Where a file is copied, `progress` is told how many bytes
        of how many are done, now and then, from a worker thread; it must be quick.

        Raises `InvalidRequest` for an archived thread (give the path of its rollout instead), or a turn that is not
        there.
        """
        source = parse_thread_id(thread) if isinstance(thread, str) else Path(thread)
        tail = await self._store.load_tail(source)
        try:
            meta = attrs.evolve(
                tail.meta,
                id=new_thread_id(),
                timestamp=format_timestamp(time.time_ns()),
                cwd=tail.cwd,
                cli_version=__version__,
            )
        finally:
            tail.close()
        snapshot = snapshot_of(before, through)
        live = await self._store.fork(ForkThread(source=source, meta=meta, snapshot=snapshot, progress=progress))
        try:
            await live.shutdown()
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE):
                await live.abandon()
            raise
        return await self.read(meta.id)

    @property
    def indexing(self) -> IndexProgress | None:
        """How far the index of the store is with its threads; `None` where there is no index."""
        return self._store.indexing

    async def reindex(self) -> IndexProgress | None:
        """Has the index look at every thread that has changed, and waits for it. Cancelling stops the waiting only."""
        return await self._store.reindex()
