"""Threads as rollout files below a home directory, shared with other programs (rollout.md 1-4)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import final

import attrs

from engine.errors import ConflictError, InvalidRequest, StoreError, ThreadNotFound
from engine.protocol.ids import ThreadId, parse_thread_id
from engine.rollout.lines import encode_rollout_line
from engine.rollout.names import parse_rollout_name, rollout_path
from engine.thread_store.appender import Appender, Durability
from engine.thread_store.files import FileOperations, FileStatus
from engine.thread_store.finding import find_archived, find_latest, find_rollout, stored_thread
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
from engine.thread_store.locks import RolloutLock, RolloutLocks
from engine.thread_store.places import other_places
from engine.thread_store.reading import load_rollout
from engine.thread_store.rollout_writer import RolloutWriter

__all__ = ["LocalThreadStore", "open_local_store"]


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
        self.locks = RolloutLocks(self.home)
        self._appender = appender
        self._hop = hop
        self._local_time = local_time
        self._live: dict[ThreadId, LiveThread | None] = {}  # `None`: being resumed right now

    async def aclose(self) -> None:
        """Lets go of everything the store holds; call it after the appender has ended. Idempotent."""
        self.locks.close()

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
        writer = RolloutWriter(
            self._appender,
            path,
            lambda stamp: encode_rollout_line(params.first_line(), stamp),
            places=other_places(self.home, path),
            lock=RolloutLock(self.locks, path),
        )
        live = LiveThread(meta.id, params.mode, writer, self._release, rollout_path=path, resumed=False)
        self._live[meta.id] = live
        return live

    async def resume(self, params: ResumeThread) -> ResumedThread:
        """See `ThreadStore.resume`."""
        thread = params.thread if isinstance(params.thread, Path) else parse_thread_id(params.thread)
        reserved = [self._reserve(named)] if (named := _named(thread)) is not None else []
        opened = _Opened()
        try:
            await self._hop(opened.open, self.locks, thread, params.history)
            history, path = opened.history, opened.path
            assert history is not None
            if history.thread_id not in reserved:
                reserved.append(self._reserve(history.thread_id))
            meta = history.meta
            writer = RolloutWriter(
                self._appender,
                path,
                lambda stamp: encode_rollout_line(meta, stamp),
                found=opened.found,
                owns_file=False,
                places=other_places(self.home, path),
                lock=opened.lock,
            )
            live = LiveThread(history.thread_id, params.mode, writer, self._release, rollout_path=path, resumed=True)
        except BaseException:
            opened.abandon()
            raise
        finally:
            for thread_id in reserved:
                self._live.pop(thread_id, None)
        self._live[live.thread_id] = live
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


@asynccontextmanager
async def open_local_store(
    home: PathLike[str] | str,
    *,
    files: FileOperations | None = None,
    durability: Durability = "os",
    grace: float = 10.0,
) -> AsyncIterator[LocalThreadStore]:
    """A local store with its appender for the length of a block; leaving it writes what was handed in."""
    appender = Appender(files=files, durability=durability)
    store = LocalThreadStore(home, appender)
    try:
        yield store
    finally:
        await appender.aclose(grace)
        await store.aclose()


# --- blocking, behind the hop ------------------------------------------------------------------


def _named(thread: ThreadId | Path) -> ThreadId | None:
    """The thread, as far as it can be told without reading."""
    if not isinstance(thread, Path):
        return thread
    name = parse_rollout_name(thread.name)
    return None if name is None else name.thread_id


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


@attrs.define(eq=False)
class _Opened:
    """A rollout that is being opened for a resume, in a worker thread that may outlive whoever waits for it."""

    history: StoredHistory | None = None
    path: str = ""
    found: FileStatus | None = None
    lock: RolloutLock | None = None
    _abandoned: bool = False
    _mutex: threading.Lock = attrs.field(factory=threading.Lock)

    def open(self, locks: RolloutLocks, thread: ThreadId | Path, history: StoredHistory | None) -> None:
        """Looks whether the file can be appended to, locks it, and loads what was not loaded before."""
        path = _path(locks.home, thread) if history is None or history.path is None else Path(history.path)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                self.found = FileStatus.of(os.fstat(handle))
            finally:
                os.close(handle)
            self.path = str(path)
            lock = locks.take(self.path)
        except FileNotFoundError as exc:
            raise ThreadNotFound(f"no rollout found at {path}", thread=str(path)) from exc
        except OSError as exc:
            raise StoreError(f"thread-store internal error: failed to resume local thread recorder: {exc}") from exc
        with self._mutex:
            self.lock = lock
            if self._abandoned:
                lock.release()
                return
        self.history = load_rollout(path) if history is None or history.path is None else history

    def abandon(self) -> None:
        """Nobody waits any more: gives the lock back, also one that is taken only later."""
        with self._mutex:
            self._abandoned = True
            if self.lock is not None:
                self.lock.release()


def _find(home: Path, thread_id: ThreadId) -> StoredThread | None:
    path = find_rollout(home, thread_id) or find_archived(home, thread_id)
    return None if path is None else stored_thread(home, str(path))
