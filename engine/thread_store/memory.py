"""Threads in memory: for hosts that keep nothing, and for tests, which can look at calls and make writing fail."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import attrs
import trio

from engine.errors import ConflictError, InvalidRequest, StoreError, ThreadNotFound
from engine.protocol.ids import ThreadId, parse_thread_id
from engine.protocol.rollout_items import Compacted, RolloutItem, SessionMeta
from engine.rollout.policy import is_known
from engine.thread_store.changes import archived_thread, not_found
from engine.thread_store.forking import forked_items
from engine.thread_store.interface import (
    CreateThread,
    ForkThread,
    ResumedThread,
    ResumeThread,
    StoredHistory,
)
from engine.thread_store.live_thread import LiveThread
from engine.thread_store.memory_threads import MemoryThreads, ThreadInMemory
from engine.thread_store.stored_tail import LoadedTail, StoredTail

__all__ = ["InMemoryThreadStore"]


@final
class InMemoryThreadStore(MemoryThreads):
    """A `ThreadStore` that keeps everything until it is dropped.

    - `calls` counts calls per method, those of live threads (`append`, `flush`, `persist`, `shutdown`, `discard`)
      included; an `append` counts if something was kept of it
    - while `failure` is set, nothing can be written: items queue up, as with a full disk
    - `names` gives threads names
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.failure: StoreError | None = None
        self.names: dict[ThreadId, str] = {}
        self._threads: dict[ThreadId, ThreadInMemory] = {}
        self._live: dict[ThreadId, LiveThread] = {}

    def crash(self) -> InMemoryThreadStore:
        """What the next process would find: another store with what is stored, and nothing live. For tests."""
        survivor = InMemoryThreadStore()
        survivor._threads = {
            key: attrs.evolve(thread, items=list(thread.items)) for key, thread in self._threads.items()
        }
        survivor.names = dict(self.names)
        return survivor

    def live_threads(self) -> tuple[ThreadId, ...]:
        """The threads that have a live writer."""
        return tuple(self._live)

    def items(self, thread_id: ThreadId) -> tuple[RolloutItem, ...]:
        """What is stored of a thread; nothing if there is none."""
        thread = self._threads.get(thread_id)
        return () if thread is None else tuple(thread.items)

    def create(self, params: CreateThread) -> LiveThread:
        """See `ThreadStore.create`."""
        self.calls["create"] += 1
        meta = params.meta
        if not meta.cwd:
            raise InvalidRequest("a thread needs a cwd")
        self._need_free(meta.id)
        return self._register(meta.id, params, params.first_line)

    async def fork(self, params: ForkThread) -> LiveThread:
        """See `ThreadStore.fork`."""
        await self._count("fork")
        meta = params.meta
        if not meta.cwd:
            raise InvalidRequest("a thread needs a cwd")
        self._need_free(meta.id)
        if isinstance(params.source, Path):
            raise ThreadNotFound("threads in memory have no paths", thread=str(params.source))
        source = parse_thread_id(params.source)
        live = self._live.get(source)
        if live is not None:
            await live.persist()
            self._need_free(meta.id)
        history = self._history(source)
        copied = forked_items(history.items, params.snapshot, params.mode)
        if self.failure is not None:
            raise StoreError(str(self.failure)) from self.failure
        create = CreateThread(
            meta=attrs.evolve(meta, forked_from_id=history.thread_id), mode=params.mode, git=params.git
        )
        self._store(meta.id, [create.first_line(), *copied])
        return self._register(meta.id, create, create.first_line, exists=True)

    async def resume(self, params: ResumeThread) -> ResumedThread:
        """See `ThreadStore.resume`."""
        self.calls["resume"] += 1
        await trio.lowlevel.checkpoint()
        if isinstance(params.thread, Path):
            raise InvalidRequest("threads in memory have no paths")
        thread_id = parse_thread_id(params.thread)
        self._need_free(thread_id)
        history = self._history(thread_id)
        loaded = params.history or (history if params.tail is None else None)
        return ResumedThread(self._register(thread_id, params, None), loaded)

    async def load_history(self, thread: ThreadId | Path) -> StoredHistory:
        """See `ThreadStore.load_history`."""
        self.calls["load_history"] += 1
        await trio.lowlevel.checkpoint()
        if isinstance(thread, Path):
            raise ThreadNotFound("threads in memory have no paths", thread=str(thread))
        thread_id = parse_thread_id(thread)
        if thread_id in self._live:
            await self._live[thread_id].flush_quietly()
        return self._history(thread_id)

    async def load_tail(self, thread: ThreadId | Path) -> StoredTail:
        """See `ThreadStore.load_tail`."""
        return LoadedTail(await self.load_history(thread))

    async def count_generation(self, tail: StoredTail) -> int:
        """See `ThreadStore.count_generation`."""
        await trio.lowlevel.checkpoint()
        assert tail.generation is not None, "a loaded tail has counted"
        return tail.generation

    def _need_free(self, thread_id: ThreadId) -> None:
        if thread_id in self._live:
            raise ConflictError(f"thread {thread_id} already has a live local writer")

    def _register(
        self,
        thread_id: ThreadId,
        params: CreateThread | ResumeThread,
        head: Callable[[], SessionMeta] | None,
        *,
        exists: bool = False,
    ) -> LiveThread:
        writer = _MemoryWriter(self, thread_id, head)
        writer.exists = writer.exists or exists
        live = LiveThread(thread_id, params.mode, writer, self._release, resumed=head is None)
        self._live[thread_id] = live
        return live

    def _release(self, live: LiveThread) -> None:
        if self._live.get(live.thread_id) is live:
            del self._live[live.thread_id]

    def _history(self, thread_id: ThreadId) -> StoredHistory:
        items = self.items(thread_id)
        if not items:
            raise not_found(thread_id)
        if self._threads[thread_id].archived and thread_id not in self._live:
            raise archived_thread(thread_id)
        return StoredHistory(
            thread_id=thread_id,
            path=None,
            meta=_meta(items),
            items=items,
            damaged=0,
            foreign=sum(not is_known(item) for item in items),
            generation=sum(isinstance(item, Compacted) for item in items),
        )

    def _store(self, thread_id: ThreadId, items: Sequence[RolloutItem]) -> None:
        thread = self._threads.setdefault(thread_id, ThreadInMemory([], 0.0))
        thread.items.extend(items)
        thread.updated_at = time.time()

    def _erase(self, thread_id: ThreadId) -> None:
        self._threads.pop(thread_id, None)


def _meta(items: Sequence[RolloutItem]) -> SessionMeta:
    first = items[0]
    assert isinstance(first, SessionMeta)
    return first


@final
class _MemoryWriter:
    """The `ThreadWriter` of a thread in memory."""

    def __init__(self, store: InMemoryThreadStore, thread_id: ThreadId, head: Callable[[], SessionMeta] | None) -> None:
        self._store = store
        self._thread_id = thread_id
        self._head = head
        self._left: list[RolloutItem] = []
        self.path = None
        self._observer: Callable[[int], None] | None = None
        self.submitted = 0
        self.acknowledged = 0
        self.written = 0
        self.exists = head is None
        self.error: StoreError | None = None

    def append(self, items: Sequence[RolloutItem]) -> None:
        self._store.calls["append"] += 1
        self._left.extend(items)
        self.submitted += len(items)
        self._write()
        self.acknowledged = self.submitted
        if self._observer is not None:
            self._observer(self.acknowledged)

    def observe(self, observer: Callable[[int], None]) -> None:
        self._observer = observer

    def moved_to(self, path: str) -> None:
        pass  # there is none

    def on_lost(self, memory: Callable[[], Sequence[RolloutItem]]) -> None:
        pass  # nobody else reaches it

    def on_notice(self, notice: Callable[[str], None]) -> None:
        pass

    async def room(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()

    async def flush(self) -> None:
        await self._flush("flush", needed=bool(self._left))

    async def persist(self) -> None:
        await self._flush("persist", needed=bool(self._left) or not self.exists)

    async def close(self) -> None:
        await self._flush("shutdown", needed=bool(self._left))

    async def drop(self, *, erase: bool = False) -> None:
        self.drop_nowait(erase=erase)
        await trio.lowlevel.checkpoint()

    def drop_nowait(self, *, erase: bool = False) -> None:
        self._store.calls["discard"] += 1
        self._left.clear()
        self.error = None  # nothing is left to write
        if erase and self._head is not None:
            self._store._erase(self._thread_id)

    async def _flush(self, verb: str, *, needed: bool) -> None:
        self._store.calls[verb] += 1
        if needed:
            self._write()
        else:
            self.error = None  # of a try to bring it into being: nothing is left to write
        await trio.lowlevel.checkpoint()
        if needed and self.error is not None:
            raise StoreError(str(self.error)) from self.error

    def _write(self) -> None:
        self.error = self._store.failure
        if self.error is not None:
            return
        first: list[RolloutItem] = [] if self.exists or self._head is None else [self._head()]
        self.exists = True
        if first or self._left:
            self._store._store(self._thread_id, [*first, *self._left])
        self._left.clear()
        self.written = self.submitted
