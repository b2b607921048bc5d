"""Stored threads, as `engine.Threads`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, final

import engine
from engine.aio.host import Host

if TYPE_CHECKING:
    from engine import (
        ItemPage,
        ListItems,
        ListThreads,
        ListTurns,
        MetadataPatch,
        SpawnEdge,
        StoredHistory,
        StoredThread,
        ThreadId,
        ThreadPage,
        ThreadQuery,
        TurnPage,
    )
    from engine.protocol.wire import JsonObject
    from engine.thread_store.interface import IndexProgress

__all__ = ["Threads"]


@final
class Threads:
    """The threads of a store; `Engine.threads` and `open_threads` give it."""

    def __init__(self, host: Host[Any], inner: engine.Threads) -> None:
        self._host = host
        self._inner = inner

    async def list(self, query: ListThreads | None = None) -> ThreadPage:
        """A page of the threads that somebody has said something in, newest first by default."""
        return await self._host.call(self._inner.list, query)

    async def find(self, thread: ThreadId | str) -> StoredThread | None:
        """What is known of a thread, archived or not; `None` if there is none."""
        return await self._host.call(self._inner.find, thread)

    async def read(self, thread: ThreadId | str) -> StoredThread:
        """As `find`, for a thread that must be there."""
        return await self._host.call(self._inner.read, thread)

    async def latest(self, query: ThreadQuery | None = None) -> StoredThread | None:
        """The most recently updated thread that fits."""
        return await self._host.call(self._inner.latest, query)

    async def history(self, thread: ThreadId | str | PathLike[str]) -> StoredHistory:
        """Everything that is stored of a thread, by id or by the path of its rollout."""
        return await self._host.call(self._inner.history, thread)

    async def turns(self, thread: ThreadId | str, query: ListTurns | None = None) -> TurnPage:
        """A page of the turns of a thread, the last ones first by default."""
        return await self._host.call(self._inner.turns, thread, query)

    async def items(self, thread: ThreadId | str, query: ListItems | None = None) -> ItemPage:
        """A page of the items of a thread across its turns, the first ones first by default."""
        return await self._host.call(self._inner.items, thread, query)

    async def rename(self, thread: ThreadId | str, name: str) -> None:
        """Gives a thread a name."""
        await self._host.call(self._inner.rename, thread, name)

    async def archive(self, thread: ThreadId | str) -> tuple[ThreadId, ...]:
        """Puts a thread out of the way, with those it spawned; which ones, itself first."""
        return await self._host.call(self._inner.archive, thread)

    async def unarchive(self, thread: ThreadId | str) -> StoredThread:
        """Brings a thread back, with those it spawned."""
        return await self._host.call(self._inner.unarchive, thread)

    async def delete(self, thread: ThreadId | str) -> None:
        """Removes a thread for good. Raises `ConflictError` while it runs."""
        await self._host.call(self._inner.delete, thread)

    async def update(self, thread: ThreadId | str, patch: MetadataPatch) -> StoredThread:
        """Changes git facts or the memory mode."""
        return await self._host.call(self._inner.update, thread, patch)

    async def spawned(self, thread: ThreadId | str) -> tuple[SpawnEdge, ...]:
        """The edges to the threads that a thread spawned itself."""
        return await self._host.call(self._inner.spawned, thread)

    async def dynamic_tools(self, thread: ThreadId | str) -> tuple[JsonObject, ...]:
        """The tools its host gave a thread when it was created."""
        return await self._host.call(self._inner.dynamic_tools, thread)

    async def fork(
        self,
        thread: ThreadId | str | PathLike[str],
        *,
        before: int | Literal["interrupted"] = "interrupted",
        through: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> StoredThread:
        """Stores a copy of a thread as a new one, without running it; by default all of it.

        `progress` is called in a worker thread, not on the host's loop.
        """
        fork = functools.partial(self._inner.fork, thread, before=before, through=through, progress=progress)
        return await self._host.call(fork)

    @property
    def indexing(self) -> IndexProgress | None:
        """How far the index of the store is with its threads; `None` where there is no index."""
        return self._inner.indexing

    async def reindex(self) -> IndexProgress | None:
        """Has the index look at every thread that has changed, and waits for it."""
        return await self._host.call(self._inner.reindex)
