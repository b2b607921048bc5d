"""Stored threads in memory: found, listed, named, changed, archived, deleted. A memory store but for its writers."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import trio

from engine.errors import ConflictError, InvalidRequest, StoreError, ThreadNotFound
from engine.protocol.ids import ThreadId, parse_thread_id
from engine.protocol.rollout_items import RolloutItem, SessionMeta
from engine.protocol.wire import JsonObject
from engine.records import define
from engine.thread_store.changes import apply_patch, check_patch, meta_line, not_found
from engine.thread_store.facts import Facts, edge_of
from engine.thread_store.interface import (
    IndexProgress,
    ListThreads,
    ListTurns,
    MetadataPatch,
    SpawnEdge,
    StoredThread,
    ThreadPage,
    ThreadQuery,
    TurnPage,
)
from engine.thread_store.listing import select
from engine.thread_store.live_thread import LiveThread
from engine.thread_store.turn_pages import page_of_items

__all__ = ["MemoryThreads", "ThreadInMemory"]


@define(eq=False)
class ThreadInMemory:
    """What is stored of one thread."""

    items: list[RolloutItem]
    updated_at: float
    archived: bool = False


class MemoryThreads:
    """See `ThreadStore` for what the methods do."""

    calls: Counter[str]
    failure: StoreError | None
    names: dict[ThreadId, str]
    _threads: dict[ThreadId, ThreadInMemory]
    _live: dict[ThreadId, LiveThread]

    async def find_thread(self, thread_id: ThreadId) -> StoredThread | None:
        """See `ThreadStore.find_thread`."""
        await self._count("find_thread")
        thread_id = parse_thread_id(thread_id)
        return self._summary(thread_id) if thread_id in self._threads else None

    async def latest_thread(self, query: ThreadQuery) -> StoredThread | None:
        """See `ThreadStore.latest_thread`."""
        await self._count("latest_thread")
        found = [self._summary(thread_id) for thread_id in self._threads]
        fitting = [thread for thread in found if self._fits(thread, query)]
        return max(fitting, key=lambda thread: thread.updated_at, default=None)

    async def list_threads(self, query: ListThreads) -> ThreadPage:
        """See `ThreadStore.list_threads`."""
        await self._count("list_threads")
        return select(map(self._summary, self._threads), query)

    async def set_name(self, thread_id: ThreadId, name: str) -> None:
        """See `ThreadStore.set_name`."""
        await self._count("set_name")
        name = name.strip()
        if not name:
            raise InvalidRequest("thread name must not be empty")
        thread_id = parse_thread_id(thread_id)
        if thread_id not in self._live and thread_id not in self._threads:
            raise not_found(thread_id)
        self.names[thread_id] = name

    async def update_metadata(self, thread_id: ThreadId, patch: MetadataPatch) -> StoredThread:
        """See `ThreadStore.update_metadata`."""
        await self._count("update_metadata")
        check_patch(patch)
        facts = await self._stored_facts(thread_id)
        await self._append_quietly(facts.thread_id, apply_patch(facts, patch))
        return self._summary(facts.thread_id)

    async def set_spawn_edge(self, edge: SpawnEdge) -> None:
        """See `ThreadStore.set_spawn_edge`."""
        await self._count("set_spawn_edge")
        facts = await self._stored_facts(edge.child)
        if edge_of(facts) != edge:
            line = meta_line(facts, git=facts.git, memory_mode=facts.memory_mode, edge=edge)
            await self._append_quietly(facts.thread_id, line)

    async def spawned(self, parent: ThreadId) -> tuple[SpawnEdge, ...]:
        """See `ThreadStore.spawned`."""
        await self._count("spawned")
        return self._children(parse_thread_id(parent))

    async def list_turns(self, thread: ThreadId | Path, query: ListTurns) -> TurnPage:
        """See `ThreadStore.list_turns`."""
        await self._count("list_turns")
        if isinstance(thread, Path):
            raise ThreadNotFound("threads in memory have no paths", thread=str(thread))
        live = self._live.get(parse_thread_id(thread))
        if live is not None:
            await live.flush_quietly()
        stored = self._threads.get(parse_thread_id(thread))
        if stored is None:
            raise not_found(parse_thread_id(thread))
        return page_of_items(stored.items, query)

    async def dynamic_tools(self, thread_id: ThreadId) -> tuple[JsonObject, ...]:
        """See `ThreadStore.dynamic_tools`."""
        await self._count("dynamic_tools")
        return self._facts(parse_thread_id(thread_id)).dynamic_tools

    async def archive(self, thread_id: ThreadId) -> tuple[ThreadId, ...]:
        """See `ThreadStore.archive`."""
        await self._count("archive")
        thread_id = parse_thread_id(thread_id)
        thread = self._threads.get(thread_id)
        if thread is None and thread_id in self._live:
            return ()
        if thread is None or thread.archived:
            raise not_found(thread_id)
        return self._set_archived(thread_id, archived=True)

    async def unarchive(self, thread_id: ThreadId) -> StoredThread:
        """See `ThreadStore.unarchive`."""
        await self._count("unarchive")
        thread_id = parse_thread_id(thread_id)
        thread = self._threads.get(thread_id)
        if thread is None or not thread.archived:
            raise ThreadNotFound(f"no archived rollout found for thread id {thread_id}", thread=thread_id)
        for moved in self._set_archived(thread_id, archived=False):
            self._threads[moved].updated_at = time.time()
        return self._summary(thread_id)

    async def delete(self, thread_id: ThreadId) -> None:
        """See `ThreadStore.delete`."""
        await self._count("delete")
        thread_id = parse_thread_id(thread_id)
        if thread_id in self._live:
            raise ConflictError(f"thread {thread_id} is running; close it before it is deleted")
        if self._threads.pop(thread_id, None) is None:
            raise not_found(thread_id)

    @property
    def indexing(self) -> IndexProgress | None:
        """See `ThreadStore.indexing`."""
        return None

    async def reindex(self) -> IndexProgress | None:
        """See `ThreadStore.reindex`."""
        await self._count("reindex")
        return None

    # --- inside ------------------------------------------------------------------------------------

    async def _count(self, name: str) -> None:
        self.calls[name] += 1
        await trio.lowlevel.checkpoint()

    def _set_archived(self, thread_id: ThreadId, *, archived: bool) -> tuple[ThreadId, ...]:
        found, latest = [thread_id], [thread_id]
        while latest:
            latest = [edge.child for each in latest for edge in self._children(each) if edge.child not in found]
            found.extend(latest)
        moved = [each for each in found if self._threads[each].archived is not archived]
        for each in moved:
            self._threads[each].archived = archived
        return tuple(moved)

    def _children(self, parent: ThreadId) -> tuple[SpawnEdge, ...]:
        edges = [edge_of(self._facts(thread_id)) for thread_id in sorted(self._threads)]
        return tuple(edge for edge in edges if edge is not None and edge.parent == parent)

    def _facts(self, thread_id: ThreadId) -> Facts:
        thread = self._threads.get(thread_id)
        if thread is None:
            raise not_found(thread_id)
        first = thread.items[0]
        assert isinstance(first, SessionMeta)
        facts = Facts.begin(first)
        for item in thread.items[1:]:
            facts.take(item)
        return facts

    def _summary(self, thread_id: ThreadId) -> StoredThread:
        facts, thread = self._facts(thread_id), self._threads[thread_id]
        return facts.stored(
            path=None, archived=thread.archived, updated_at=thread.updated_at, name=self.names.get(thread_id)
        )

    def _fits(self, thread: StoredThread, query: ThreadQuery) -> bool:
        return (
            thread.preview is not None
            and not thread.archived
            and query.name in (None, thread.name)
            and query.cwd in (None, thread.latest_cwd)
            and (query.model_provider is None or thread.model_provider in (None, query.model_provider))
        )

    async def _stored_facts(self, thread_id: ThreadId) -> Facts:
        thread_id = parse_thread_id(thread_id)
        live = self._live.get(thread_id)
        if live is not None:
            await live.persist()
        return self._facts(thread_id)

    async def _append_quietly(self, thread_id: ThreadId, line: SessionMeta) -> None:
        live = self._live.get(thread_id)
        if live is not None:
            live.append([line])
            await live.flush()
        elif self.failure is not None:
            raise StoreError(str(self.failure)) from self.failure
        else:
            self._threads[thread_id].items.append(line)
