"""Stored threads of a home: found, listed, named, changed, archived, deleted. A local store but for its writers.

What is asked of the index is answered from the files where it has no answer. What is changed is changed in files first.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from engine.errors import ConflictError, EngineError, InvalidRequest, StoreError, ThreadNotFound
from engine.protocol.ids import ThreadId, parse_thread_id
from engine.protocol.rollout_items import RolloutItem, SessionMeta
from engine.protocol.wire import JsonObject
from engine.rollout.ordinals import next_ordinal
from engine.thread_store.changes import (
    apply_patch,
    archive_file,
    check_patch,
    delete_file,
    meta_line,
    not_found,
    set_time,
    unarchive_file,
)
from engine.thread_store.facts import Facts, edge_of
from engine.thread_store.files import FileStatus
from engine.thread_store.finding import (
    MOVES,
    at_its_place,
    find_anywhere,
    find_archived,
    find_latest,
    find_rollout,
    list_files,
    rollouts,
    stored_thread,
)
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
from engine.thread_store.names import ThreadNames, append_name
from engine.thread_store.places import places_of
from engine.thread_store.rollout_bytes import RolloutBytes
from engine.thread_store.rollout_writer import RolloutWriter
from engine.thread_store.summaries import summarise
from engine.thread_store.turn_pages import turn_page, turn_page_of_file

if TYPE_CHECKING:
    from engine.thread_store.appender import Appender
    from engine.thread_store.hop import Hop
    from engine.thread_store.index import ThreadIndex
    from engine.thread_store.live_thread import LiveThread
    from engine.thread_store.locks import RolloutLock, RolloutLocks

__all__ = ["HeldFile", "LocalThreads", "stored_path"]

log = logging.getLogger(__name__)


class LocalThreads:
    """See `ThreadStore` for what the methods do. `index` may be missing: everything works without it, only slower."""

    home: Path
    locks: RolloutLocks
    index: ThreadIndex | None
    _appender: Appender
    _hop: Hop
    _live: dict[ThreadId, LiveThread | None]

    # --- finding ---------------------------------------------------------------------------------

    async def find_thread(self, thread_id: ThreadId) -> StoredThread | None:
        """See `ThreadStore.find_thread`."""
        return await self._hop(_find, self.home, parse_thread_id(thread_id))

    async def latest_thread(self, query: ThreadQuery) -> StoredThread | None:
        """See `ThreadStore.latest_thread`."""
        return await self._hop(find_latest, self.home, query)

    async def list_threads(self, query: ListThreads) -> ThreadPage:
        """See `ThreadStore.list_threads`."""
        index = self.index
        page = None if index is None else await index.page(query)
        if page is not None:
            return page
        page = await self._hop(list_files, self.home, query)
        progress = None if index is None else index.progress
        return page if progress is None or not progress.running else attrs.evolve(page, indexing=progress)

    async def list_turns(self, thread: ThreadId | Path, query: ListTurns) -> TurnPage:
        """See `ThreadStore.list_turns`."""
        if isinstance(thread, Path):
            return await turn_page(thread, query, self._hop, self.index)
        thread = parse_thread_id(thread)
        try:
            return await turn_page(await self._known_place(thread), query, self._hop, self.index)
        except ThreadNotFound:  # others may be moving it
            find = functools.partial(_anywhere, self.home, thread)
            return await self._hop(at_its_place, find, lambda path: turn_page_of_file(path, query))

    async def _known_place(self, thread_id: ThreadId) -> Path:
        """Where the writer or the index say that a thread is, else where it is. Raises `ThreadNotFound`."""
        live = self._live.get(thread_id)
        if live is not None:
            await live.flush_quietly()
            if live.rollout_path is not None:
                return Path(live.rollout_path)
        known = None if self.index is None else await self.index.place(thread_id)
        return Path(await self._hop(stored_path, self.home, thread_id) if known is None else known)

    async def dynamic_tools(self, thread_id: ThreadId) -> tuple[JsonObject, ...]:
        """See `ThreadStore.dynamic_tools`."""
        _, facts = await self._hop(_facts, self.home, parse_thread_id(thread_id))
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
        edges = None if self.index is None else await self.index.children(parents)
        if edges is None:
            edges = await self._hop(_edges_in_files, self.home, frozenset(parents))
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
        name = name.strip()
        if not name:
            raise InvalidRequest("thread name must not be empty")
        thread_id = parse_thread_id(thread_id)
        await self._hop(_name, self.home, thread_id, name, self._appender.timestamp(), thread_id in self._live)

    async def update_metadata(self, thread_id: ThreadId, patch: MetadataPatch) -> StoredThread:
        """See `ThreadStore.update_metadata`."""
        check_patch(patch)
        thread_id = parse_thread_id(thread_id)
        await self._tell(thread_id, lambda facts: apply_patch(facts, patch))
        thread = await self.find_thread(thread_id)
        if thread is None:
            raise not_found(thread_id)
        return thread

    async def set_spawn_edge(self, edge: SpawnEdge) -> None:
        """See `ThreadStore.set_spawn_edge`."""

        def changed(facts: Facts) -> SessionMeta | None:
            told = edge_of(facts) == edge
            return None if told else meta_line(facts, git=facts.git, memory_mode=facts.memory_mode, edge=edge)

        await self._tell(parse_thread_id(edge.child), changed)
        if self.index is not None:
            self.index.put_edge(edge)

    async def archive(self, thread_id: ThreadId) -> tuple[ThreadId, ...]:
        """See `ThreadStore.archive`."""
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
        old, new = await self._hop(_move, self.home, thread_id, archived)
        live = self._live.get(thread_id)
        if live is not None:
            live.moved_to(new)
        if self.index is not None:
            self.index.moved(old, new)

    async def delete(self, thread_id: ThreadId) -> None:
        """See `ThreadStore.delete`."""
        thread_id = parse_thread_id(thread_id)
        if thread_id in self._live:
            raise ConflictError(f"thread {thread_id} is running; close it before it is deleted")
        path = await self._hop(_delete, self.locks, thread_id)
        if self.index is not None:
            self.index.removed(path)

    # --- lines of stored threads -----------------------------------------------------------------

    async def _tell(self, thread_id: ThreadId, change: Callable[[Facts], SessionMeta | None]) -> None:
        """Appends what `change` makes of the facts of a thread. Raises `ThreadNotFound`, and as `_append_quietly`."""
        live = self._live.get(thread_id)
        if live is not None:
            await live.persist()
        for last in (*(False,) * MOVES, True):
            path, facts = await self._hop(_facts, self.home, thread_id)
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
                places=places_of(self.home, path),
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


@attrs.define(eq=False)
class HeldFile:
    """A rollout that is locked for writing, in a worker thread that may outlive whoever waits for it."""

    found: FileStatus | None = None
    mtime_ns: int = 0
    ordinal: int | None = None
    lock: RolloutLock | None = None
    _given_up: bool = False
    _mutex: threading.Lock = attrs.field(factory=threading.Lock)

    def take(self, locks: RolloutLocks, path: str) -> None:
        """Looks whether the file can be appended to, and locks it.

        Raises `ThreadNotFound`, `ThreadLocked`, `StoreError`.
        """
        try:
            # Not to wait for a reader where the name is that of a pipe.
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                found = os.fstat(handle)
            finally:
                os.close(handle)
            lock = locks.take(path)
        except FileNotFoundError as exc:
            raise ThreadNotFound(f"no rollout found at {path}", thread=path) from exc
        except OSError as exc:
            raise StoreError(f"thread-store internal error: failed to resume local thread recorder: {exc}") from exc
        self.found, self.mtime_ns = FileStatus.of(found), found.st_mtime_ns
        with self._mutex:
            self.lock = lock
            if self._given_up:
                lock.release()
                return
        self.ordinal = next_ordinal(RolloutBytes(Path(path)))

    def give_up(self) -> None:
        """Nobody waits any more: gives the lock back, also one that is taken only later."""
        with self._mutex:
            self._given_up = True
            if self.lock is not None:
                self.lock.release()


# --- blocking, behind the hop ------------------------------------------------------------------


def stored_path(home: Path, thread_id: ThreadId) -> str:
    """The file of a thread, archived or not. Raises `ThreadNotFound`."""
    return str(_anywhere(home, thread_id))


def _anywhere(home: Path, thread_id: ThreadId) -> Path:
    path = find_anywhere(home, thread_id)
    if path is None:
        raise not_found(thread_id)
    return path


def _find(home: Path, thread_id: ThreadId) -> StoredThread | None:
    try:
        find = functools.partial(_anywhere, home, thread_id)
        thread = at_its_place(find, lambda path: stored_thread(home, str(path)))
    except ThreadNotFound:
        return None
    if thread is None:
        return None
    names = ThreadNames(home)
    names.refresh()
    return attrs.evolve(thread, name=names.get(thread_id))


def _facts(home: Path, thread_id: ThreadId) -> tuple[str, Facts]:
    """Where a thread is stored, and what is known of it. Raises `ThreadNotFound`, `StoreError`."""
    find = functools.partial(_anywhere, home, thread_id)
    path, summary = at_its_place(find, lambda path: (path, summarise(str(path), thorough=True)))
    if summary is None:
        raise StoreError(f"{path} has no readable session_meta line, so it is no thread")
    if summary.facts.thread_id != thread_id:
        raise StoreError(f"{path} holds the thread {summary.facts.thread_id}, though its name says {thread_id}")
    return str(path), summary.facts


def _edges_in_files(home: Path, parents: frozenset[ThreadId]) -> list[SpawnEdge]:
    found: dict[ThreadId, SpawnEdge] = {}
    for archived in (True, False):
        for path, _ in rollouts(home, archived=archived):
            try:
                summary = summarise(path)
            except StoreError:
                continue
            edge = None if summary is None else edge_of(summary.facts)
            if edge is not None and edge.parent in parents:
                found[edge.child] = edge
    return [found[child] for child in sorted(found)]


def _name(home: Path, thread_id: ThreadId, name: str, timestamp: str, live: bool) -> None:
    if not live:
        stored_path(home, thread_id)
    try:
        append_name(home, thread_id, name, timestamp)
    except OSError as exc:
        raise StoreError(f"failed to name thread {thread_id}: {exc}") from exc


def _move(home: Path, thread_id: ThreadId, archived: bool) -> tuple[str, str]:
    if archived:
        path = find_rollout(home, thread_id)
        if path is None:
            raise not_found(thread_id)
        return str(path), archive_file(home, str(path), thread_id)
    path = find_archived(home, thread_id)
    if path is None:
        raise ThreadNotFound(f"no archived rollout found for thread id {thread_id}", thread=thread_id)
    return str(path), unarchive_file(home, str(path), thread_id)


def _delete(locks: RolloutLocks, thread_id: ThreadId) -> str:
    path = stored_path(locks.home, thread_id)
    try:
        lock = locks.take(path)
    except OSError as exc:
        raise StoreError(f"failed to delete {path}: {exc}") from exc
    try:
        delete_file(path, thread_id)
    finally:
        lock.release()
    return path
