"""A session on a fork of a stored thread: the start path "Forked" (session.md 2.7, rollout.md 6).

The store copies lines, so whatever nobody here can read comes along; then the session goes on with the new thread as
with any stored one, but for its context window, which is numbered from 0, and the warning of another model. A fork that
is not to be stored is cut in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from engine.protocol.settings import GitInfo
from engine.session.context import interruption_marker
from engine.thread_store.forking import forked_items
from engine.thread_store.interface import ForkThread, Interrupted, Snapshot
from engine.thread_store.stored_tail import LoadedTail

if TYPE_CHECKING:
    from engine.protocol.ids import ThreadId
    from engine.protocol.rollout_items import SessionMeta
    from engine.rollout.policy import PersistenceMode
    from engine.session.startup import Start
    from engine.thread_store.stored_tail import StoredTail

__all__ = ["fork_in_memory", "fork_stored", "stored_at"]


async def fork_stored(
    start: Start, meta: SessionMeta, mode: PersistenceMode, git: Callable[[], GitInfo | None]
) -> None:
    """Stores the fork of `start.tail` and goes on with it. Raises as `ThreadStore.fork`; then nothing is stored."""
    source = start.tail
    assert source is not None
    params = ForkThread(
        source=stored_at(source),
        meta=attrs.evolve(meta, dynamic_tools=source.meta.dynamic_tools),
        snapshot=_snapshot(start),
        mode=mode,
        git=git,
    )
    start.live = await start.guard.fork(params)
    tail = await start.services.store.load_tail(meta.id)
    source.close()
    tail.count_from(0)
    start.tail = tail


async def fork_in_memory(start: Start, thread_id: ThreadId, mode: PersistenceMode) -> None:
    """Goes on with a fork of `start.tail` that is stored nowhere. Raises as `ThreadStore.load_history`."""
    source = start.tail
    assert source is not None
    snapshot = _snapshot(start)
    history = await start.services.store.load_history(stored_at(source))
    items = await trio.to_thread.run_sync(forked_items, history.items, snapshot, mode, abandon_on_cancel=True)
    meta = attrs.evolve(source.meta, id=thread_id, forked_from_id=source.thread_id)
    source.close()
    start.tail = LoadedTail(
        attrs.evolve(history, thread_id=thread_id, path=None, meta=meta, items=tuple(items), generation=0)
    )


def stored_at(tail: StoredTail) -> ThreadId | Path:
    """Where a store finds the thread of a tail again, archived or not."""
    return tail.thread_id if tail.path is None else Path(tail.path)


def _snapshot(start: Start) -> Snapshot:
    snapshot = start.request.snapshot
    assert snapshot is not None
    assert start.configuration is not None
    if isinstance(snapshot, Interrupted) and snapshot.marker is None and start.configuration.config.interrupt_message:
        return Interrupted(interruption_marker())
    return snapshot
