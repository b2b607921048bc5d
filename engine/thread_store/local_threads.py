"""Stored threads of a home: found, listed, named, changed, archived, deleted. A local store but for its writers.

What is asked of the index is answered from the files where it has no answer. What is changed is changed in files first.
A store that only starts threads imports nothing of what does it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from engine.errors import ConflictError, EngineError, InvalidRequest, ThreadNotFound
from engine.protocol.ids import ThreadId, parse_thread_id
from engine.thread_store.places import places_of
from engine.thread_store.rollout_writer import RolloutWriter

if TYPE_CHECKING:
    from engine.protocol.rollout_items import RolloutItem, SessionMeta
    from engine.protocol.wire import JsonObject
    from engine.thread_store.appender import Appender
    from engine.thread_store.facts import Facts
    from engine.thread_store.hop import Hop
    from engine.thread_store.index import ThreadIndex
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
    from engine.thread_store.live_thread import LiveThread
    from engine.thread_store.locks import RolloutLocks

__all__ = ["LocalThreads"]

log = logging.getLogger(__name__)


class LocalThreads:
    """See `ThreadStore` for what the methods do. `index` may be missing: everything works without it, only slower."""

    home: Path
    locks: RolloutLocks
    opened_index: ThreadIndex | None
    _open_index: Callable[[], ThreadIndex] | None
    _appender: Appender
    _hop: Hop
    _live: dict[ThreadId, LiveThread | None]

    @property
    def index(self) -> ThreadIndex | None:
        """Made when it is first told or asked something; `None` where the store has none."""
        if self.opened_index is None and self._open_index is not None:
            self.opened_index = self._open_index()
        return self.opened_index

    # --- finding ---------------------------------------------------------------------------------

    async def find_thread(self, thread_id: ThreadId) -> StoredThread | None:
        """See `ThreadStore.find_thread`."""
        from engine.thread_store.stored_files import find_stored

        return await self._hop(find_stored, self.home, parse_thread_id(thread_id))

    async def latest_thread(self, query: ThreadQuery) -> StoredThread | None:
        """See `ThreadStore.latest_thread`."""
        from engine.thread_store.finding import find_latest

        return await self._hop(find_latest, self.home, query)

    async def list_threads(self, query: ListThreads) -> ThreadPage:
        """See `ThreadStore.list_threads`."""
        from engine.thread_store.finding import list_files

        index = self.index
        page = None if index is None else await index.page(query)
        if page is not None:
            return page
        page = await self._hop(list_files, self.home, query)
        progress = None if index is None else index.progress
        return page if progress is None or not progress.running else attrs.evolve(page, indexing=progress)

    async def list_turns(self, thread: ThreadId | Path, query: ListTurns) -> TurnPage:
        """See `ThreadStore.list_turns`."""
        from engine.thread_store.finding import at_its_place
        from engine.thread_store.stored_files import anywhere
        from engine.thread_store.turn_pages import turn_page, turn_page_of_file

        if isinstance(thread, Path):
            return await turn_page(thread, query, self._hop, self.index)
        thread = parse_thread_id(thread)
        try:
            return await turn_page(await self._known_place(thread), query, self._hop, self.index)
        except ThreadNotFound:  # others may be moving it
            find = functools.partial(anywhere, self.home, thread)
            return await self._hop(at_its_place, find, lambda path: turn_page_of_file(path, query))

    async def _known_place(self, thread_id: ThreadId) -> Path:
        """Where the writer or the index say that a thread is, else where it is. Raises `ThreadNotFound`."""
        from engine.thread_store.stored_files import stored_path

        live = self._live.get(thread_id)
        if live is not None:
            await live.flush_quietly()
            if live.rollout_path is not None:
                return Path(live.rollout_path)
        known = None if self.index is None else await self.index.place(thread_id)
        return Path(await self._hop(stored_path, self.home, thread_id) if known is None else known)

    async def dynamic_tools(self, thread_id: ThreadId) -> tuple[JsonObject, ...]:
        """See `ThreadStore.dynamic_tools`."""
        from engine.thread_store.stored_files import facts_of

        _, facts = await self._hop(facts_of, self.home, parse_thread_id(thread_id))
        return facts.dynamic_tools

    async def spawned(self, parent: ThreadId) -> tuple[SpawnEdge, ...]:
        """See `ThreadStore.spawned`."""
        return tuple(await self._children([parse_thread_id(parent)]))

    @property
    def indexing(self) -> IndexProgress | None:
        """See `ThreadStore.indexing`."""
        return None if self.index is None else self.index.progress

    async def reindex(self) -> IndexProgress | None:
        """See `ThreadStore.reindex`."""
        return None if self.index is None else await self.index.sweep()

    async def _children(self, parents: Sequence[ThreadId]) -> list[SpawnEdge]:
        from engine.thread_store.stored_files import edges_in_files

        edges = None if self.index is None else await self.index.children(parents)
        if edges is None:
            edges = await self._hop(edges_in_files, self.home, frozenset(parents))
        return edges

    async def _with_descendants(self, thread_id: ThreadId) -> list[ThreadId]:
        found, latest = [thread_id], [thread_id]
        while latest:
            latest = [edge.child for edge in await self._children(latest) if edge.child not in found]
            found.extend(latest)
        return found

    # --- changing --------------------------------------------------------------------------------

    async def set_name(self, thread_id: ThreadId, name: str) -> None:
        """See `ThreadStore.set_name`."""
        from engine.thread_store.stored_files import name_stored

        name = name.strip()
        if not name:
            raise InvalidRequest("thread name must not be empty")
        thread_id = parse_thread_id(thread_id)
        await self._hop(name_stored, self.home, thread_id, name, self._appender.timestamp(), thread_id in self._live)

    async def update_metadata(self, thread_id: ThreadId, patch: MetadataPatch) -> StoredThread:
        """See `ThreadStore.update_metadata`."""
        from engine.thread_store.changes import apply_patch, check_patch, not_found

        check_patch(patch)
        thread_id = parse_thread_id(thread_id)
        await self._tell(thread_id, lambda facts: apply_patch(facts, patch))
        thread = await self.find_thread(thread_id)
        if thread is None:
            raise not_found(thread_id)
        return thread

    async def set_spawn_edge(self, edge: SpawnEdge) -> None:
        """See `ThreadStore.set_spawn_edge`."""
        from engine.thread_store.changes import meta_line
        from engine.thread_store.facts import edge_of

        def changed(facts: Facts) -> SessionMeta | None:
            told = edge_of(facts) == edge
            return None if told else meta_line(facts, git=facts.git, memory_mode=facts.memory_mode, edge=edge)

        await self._tell(parse_thread_id(edge.child), changed)
        if self.index is not None:
            self.index.edge_changed(parse_thread_id(edge.child))

    async def archive(self, thread_id: ThreadId) -> tuple[ThreadId, ...]:
        """See `ThreadStore.archive`."""
        from engine.thread_store.changes import not_found
        from engine.thread_store.finding import find_archived, find_rollout

        thread_id = parse_thread_id(thread_id)
        if await self._hop(find_rollout, self.home, thread_id) is None:
            archived = await self._hop(find_archived, self.home, thread_id)
            if archived is not None or self._live.get(thread_id) is None:
                raise not_found(thread_id)
            return ()  # nothing is stored of it yet
        moved: list[ThreadId] = []
        for each in await self._with_descendants(thread_id):
            try:
                await self._move(each, archived=True)
            except EngineError as exc:
                if each == thread_id:
                    raise
                log.info("a thread spawned by %s stays where it is: %s", thread_id, exc)
            else:
                moved.append(each)
        return tuple(moved)

    async def unarchive(self, thread_id: ThreadId) -> StoredThread:
        """See `ThreadStore.unarchive`."""
        from engine.thread_store.changes import not_found

        thread_id = parse_thread_id(thread_id)
        await self._move(thread_id, archived=False)
        for each in (await self._with_descendants(thread_id))[1:]:
            try:
                await self._move(each, archived=False)
            except EngineError as exc:
                log.info("a thread spawned by %s stays where it is: %s", thread_id, exc)
        thread = await self.find_thread(thread_id)
        if thread is None:
            raise not_found(thread_id)
        return thread

    async def _move(self, thread_id: ThreadId, *, archived: bool) -> None:
        from engine.thread_store.stored_files import move_stored

        old, new = await self._hop(move_stored, self.home, thread_id, archived)
        live = self._live.get(thread_id)
        if live is not None:
            live.moved_to(new)
        if self.index is not None:
            self.index.moved(old, new)

    async def delete(self, thread_id: ThreadId) -> None:
        """See `ThreadStore.delete`."""
        from engine.thread_store.stored_files import delete_stored

        thread_id = parse_thread_id(thread_id)
        if thread_id in self._live:
            raise ConflictError(f"thread {thread_id} is running; close it before it is deleted")
        path = await self._hop(delete_stored, self.locks, thread_id)
        if self.index is not None:
            self.index.removed(path)

    # --- lines of stored threads -----------------------------------------------------------------

    async def _tell(self, thread_id: ThreadId, change: Callable[[Facts], SessionMeta | None]) -> None:
        """Appends what `change` makes of the facts of a thread. Raises `ThreadNotFound`, and as `_append_quietly`."""
        from engine.thread_store.finding import MOVES
        from engine.thread_store.stored_files import facts_of

        live = self._live.get(thread_id)
        if live is not None:
            await live.persist()
        for last in (*(False,) * MOVES, True):
            path, facts = await self._hop(facts_of, self.home, thread_id)
            line = change(facts)
            try:
                if line is not None:
                    await self._append_quietly(thread_id, path, [line])
                return
            except ThreadNotFound:  # it was moved before it was held
                if last:
                    raise

    async def _append_quietly(self, thread_id: ThreadId, path: str, items: Sequence[RolloutItem]) -> None:
        """Appends what is no activity of a thread. Raises `StoreError`, `ConflictError` if others write it."""
        from engine.thread_store.changes import set_time
        from engine.thread_store.stored_files import HeldFile

        live = self._live.get(thread_id)
        if live is not None:
            live.append(items)
            await live.flush()
            return
        if thread_id in self._live:
            raise ConflictError(f"thread {thread_id} is being resumed right now")
        self._live[thread_id] = None
        held = HeldFile()
        try:
            await self._hop(held.take, self.locks, path)
            writer = RolloutWriter(
                self._appender,
                path,
                None,
                found=held.found,
                owns_file=False,
                places=functools.partial(places_of, self.home, path),
                lock=held.lock,
                ordinal=held.ordinal,
            )
            try:
                writer.append(items)
                await writer.close()
            finally:
                writer.drop_nowait()
            await self._hop(set_time, path, held.mtime_ns)
        except BaseException:
            held.give_up()
            raise
        finally:
            del self._live[thread_id]
        if self.index is not None:
            self.index.touch(path)
