"""Threads as rollout files below a home directory, shared with other programs (rollout.md 1-4)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import final

from engine.errors import ConflictError, InvalidRequest, StoreError, ThreadNotFound
from engine.protocol.ids import ThreadId, parse_thread_id
from engine.rollout.lines import encode_rollout_line
from engine.rollout.names import rollout_path
from engine.thread_store.appender import Appender
from engine.thread_store.hop import Hop, in_thread
from engine.thread_store.interface import (
    CreateThread,
    ResumedThread,
    ResumeThread,
    StoredHistory,
    StoredThread,
    ThreadQuery,
)
from engine.thread_store.live_thread import LiveThread
from engine.thread_store.reading import find_latest, find_rollout, load_rollout, summarise
from engine.thread_store.rollout_writer import RolloutWriter

__all__ = ["LocalThreadStore"]


@final
class LocalThreadStore:
    """A `ThreadStore` over `<home>/sessions`. Writes go through `appender`, reads through `hop`.

    Creating a thread touches no disk. Resuming one is a single hop: find, read, look whether it can be written.
    """

    def __init__(
        self,
        home: PathLike[str] | str,
        appender: Appender,
        *,
        hop: Hop = in_thread,
        local_time: Callable[[], time.struct_time] = time.localtime,
    ) -> None:
        self.home = Path(home)
        self._appender = appender
        self._hop = hop
        self._local_time = local_time
        self._live: dict[ThreadId, LiveThread | None] = {}  # `None`: being resumed right now

    def live_threads(self) -> tuple[ThreadId, ...]:
        """The threads that have a live writer; for tests and diagnosis."""
        return tuple(self._live)

    def create(self, params: CreateThread) -> LiveThread:
        """See `ThreadStore.create`."""
        meta = params.meta
        if not meta.cwd:
            raise InvalidRequest("a thread needs a cwd")
        self._reserve(meta.id)
        path = rollout_path(str(self.home), meta.id, self._local_time())
        writer = RolloutWriter(self._appender, path, lambda stamp: encode_rollout_line(params.first_line(), stamp))
        live = LiveThread(meta.id, params.mode, writer, self._release, rollout_path=path, resumed=False)
        self._live[meta.id] = live
        return live

    async def resume(self, params: ResumeThread) -> ResumedThread:
        """See `ThreadStore.resume`."""
        reserved: ThreadId | None = None
        try:
            if not isinstance(params.thread, Path):
                reserved = self._reserve(parse_thread_id(params.thread))
            history = await self._hop(_open, self.home, reserved or params.thread, params.history)
            if reserved is None:
                reserved = self._reserve(history.thread_id)
            assert history.path is not None
            writer = RolloutWriter(self._appender, history.path, None)
            live = LiveThread(reserved, params.mode, writer, self._release, rollout_path=history.path, resumed=True)
        except BaseException:
            if reserved is not None:
                self._live.pop(reserved, None)
            raise
        self._live[reserved] = live
        return ResumedThread(live, history)

    async def load_history(self, thread: ThreadId | Path) -> StoredHistory:
        """See `ThreadStore.load_history`."""
        if not isinstance(thread, Path):
            thread = parse_thread_id(thread)
            live = self._live.get(thread)
            if live is not None and live.rollout_path is not None:
                return await self._hop(_load_live, Path(live.rollout_path), thread)
        return await self._hop(_load, self.home, thread)

    async def find_thread(self, thread_id: ThreadId) -> StoredThread | None:
        """See `ThreadStore.find_thread`."""
        return await self._hop(_find, self.home, parse_thread_id(thread_id))

    async def latest_thread(self, query: ThreadQuery) -> StoredThread | None:
        """See `ThreadStore.latest_thread`."""
        return await self._hop(find_latest, self.home, query)

    def _reserve(self, thread_id: ThreadId) -> ThreadId:
        if thread_id in self._live:
            raise ConflictError(f"thread {thread_id} already has a live local writer")
        self._live[thread_id] = None
        return thread_id

    def _release(self, live: LiveThread) -> None:
        if self._live.get(live.thread_id) is live:
            del self._live[live.thread_id]


# --- blocking, behind the hop ------------------------------------------------------------------


def _path(home: Path, thread: ThreadId | Path) -> Path:
    """Where a thread is stored. Raises `ThreadNotFound`."""
    path = thread.absolute() if isinstance(thread, Path) else find_rollout(home, thread)
    if path is None:
        raise ThreadNotFound(f"no rollout found for thread id {thread}", thread=str(thread))
    return path


def _load(home: Path, thread: ThreadId | Path) -> StoredHistory:
    return load_rollout(_path(home, thread))


def _load_live(path: Path, thread_id: ThreadId) -> StoredHistory:
    try:
        return load_rollout(path)
    except ThreadNotFound as exc:
        raise ThreadNotFound(f"no rollout found for thread id {thread_id}", thread=thread_id) from exc


def _open(home: Path, thread: ThreadId | Path, history: StoredHistory | None) -> StoredHistory:
    """Looks whether the file can be appended to, and loads what was not loaded before."""
    path = _path(home, thread) if history is None or history.path is None else Path(history.path)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
    except FileNotFoundError as exc:
        raise ThreadNotFound(f"no rollout found at {path}", thread=str(path)) from exc
    except OSError as exc:
        raise StoreError(f"thread-store internal error: failed to resume local thread recorder: {exc}") from exc
    return load_rollout(path) if history is None or history.path is None else history


def _find(home: Path, thread_id: ThreadId) -> StoredThread | None:
    path = find_rollout(home, thread_id)
    return None if path is None else summarise(str(path))
