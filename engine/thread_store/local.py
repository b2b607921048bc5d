"""Threads as rollout files below a home directory, shared with other programs (rollout.md 1-4)."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, final

from engine.errors import ConflictError, InvalidRequest
from engine.protocol.ids import ThreadId, parse_thread_id
from engine.rollout.lines import encode_rollout_line
from engine.rollout.names import parse_rollout_name, rollout_path
from engine.telemetry.handle import NO_TELEMETRY, Telemetry
from engine.thread_store.appender import Appender, Durability
from engine.thread_store.hop import Hop, in_thread
from engine.thread_store.live_thread import LiveThread
from engine.thread_store.local_threads import LocalThreads
from engine.thread_store.locks import RolloutLock, RolloutLocks
from engine.thread_store.places import places_of
from engine.thread_store.rollout_writer import RolloutWriter

if TYPE_CHECKING:
    from engine.protocol.rollout_items import RolloutItem
    from engine.rollout.policy import PersistenceMode
    from engine.thread_store.checkpoints import Checkpoints
    from engine.thread_store.files import FileOperations
    from engine.thread_store.index import ThreadIndex
    from engine.thread_store.interface import CreateThread, ForkThread, ResumedThread, ResumeThread, StoredHistory
    from engine.thread_store.rollout_bytes import RolloutBytes
    from engine.thread_store.stored_tail import StoredTail

__all__ = ["LocalThreadStore", "open_local_store"]

Thread = ThreadId | Path


@final
class LocalThreadStore(LocalThreads):
    """A `ThreadStore` over `<home>/sessions`. Writes go through `appender`, reads through `hop`.

    Creating a thread touches no disk. Resuming one is a single hop: find, read, look whether it can be written.
    With `index`, which makes one, listings are quick; it is told of every write and never waited for.
    """

    def __init__(
        self,
        home: PathLike[str] | str,
        appender: Appender,
        *,
        hop: Hop = in_thread,
        local_time: Callable[[], time.struct_time] = time.localtime,
        index: Callable[[], ThreadIndex] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.home = Path(home)
        self.locks = RolloutLocks(self.home)
        self._open_index = index
        self.opened_index = None
        self._appender = appender
        self._hop = hop
        self._local_time = local_time
        self._own_checkpoints = checkpoints
        self._live: dict[ThreadId, LiveThread | None] = {}  # `None`: being resumed right now

    async def aclose(self, grace: float = 10.0) -> None:
        """Lets go of everything the store holds; call it after the appender has ended. Idempotent."""
        self.locks.close()
        self._open_index = None  # what is told from now on is told to nobody
        if self.opened_index is not None:
            await self.opened_index.aclose(grace)

    @property
    def _checkpoints(self) -> Checkpoints | None:
        return self.index if self._own_checkpoints is None else self._own_checkpoints

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
            places=functools.partial(places_of, self.home, path),
            lock=RolloutLock(self.locks, path),
        )
        return self._register(meta.id, params.mode, writer, resumed=False)

    async def fork(self, params: ForkThread) -> LiveThread:
        """See `ThreadStore.fork`."""
        from engine.thread_store.forking import Fork

        if not params.meta.cwd:
            raise InvalidRequest("a thread needs a cwd")
        thread_id = self._reserve(params.meta.id)
        fork = Fork()
        try:
            open_source = await self._fork_source(params.source)
            path = rollout_path(str(self.home), thread_id, self._local_time())
            stamp, durable = self._appender.timestamp(), self._appender.durability == "fsync"
            write = functools.partial(fork.write, self._appender.files, durable=durable)
            await self._hop(write, self.locks, open_source, path, params, stamp)
            writer = RolloutWriter(
                self._appender,
                path,
                fork.head,
                found=fork.found,
                owns_file=True,
                places=functools.partial(places_of, self.home, path),
                lock=fork.lock,
                made=fork.made,
                ordinal=fork.ordinal,
            )
        except BaseException:
            fork.give_up()
            raise
        finally:
            del self._live[thread_id]
        live = self._register(thread_id, params.mode, writer, resumed=False)
        writer.exists = True
        if self.index is not None:
            self.index.touch(path)
        return live

    async def _fork_source(self, source: ThreadId | Path) -> Callable[[], RolloutBytes]:
        """Opens the source; blocking."""
        from engine.thread_store.finding import at_its_place
        from engine.thread_store.opening import at_live_place, current_path, place_now
        from engine.thread_store.rollout_bytes import RolloutBytes

        thread = source if isinstance(source, Path) else parse_thread_id(source)
        named = _named(thread)
        live = None if named is None else self._live.get(named)
        if live is not None:
            await live.persist()
        if isinstance(thread, Path):
            return functools.partial(at_its_place, functools.partial(place_now, self.home, thread), RolloutBytes)
        if live is None or live.rollout_path is None:
            return functools.partial(at_its_place, functools.partial(current_path, self.home, thread), RolloutBytes)
        return functools.partial(at_live_place, self.home, live.rollout_path, thread, RolloutBytes)

    def _register(
        self, thread_id: ThreadId, mode: PersistenceMode, writer: RolloutWriter, *, resumed: bool
    ) -> LiveThread:
        live = LiveThread(thread_id, mode, writer, self._release, resumed=resumed)
        if self._open_index is not None:
            writer.watch(_IndexTouch(self, writer))
        self._live[thread_id] = live
        return live

    async def resume(self, params: ResumeThread) -> ResumedThread:
        """See `ThreadStore.resume`."""
        from engine.thread_store.interface import ResumedThread, StoredHistory
        from engine.thread_store.opening import OpenedRollout

        thread = params.thread if isinstance(params.thread, Path) else parse_thread_id(params.thread)
        reserved = [self._reserve(named)] if (named := _named(thread)) is not None else []
        opened = OpenedRollout()
        try:
            await self._hop(opened.open, self.locks, thread, params.history or params.tail)
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
                places=functools.partial(places_of, self.home, path),
                lock=opened.lock,
                ordinal=opened.ordinal,
            )
        except BaseException:
            opened.abandon()
            raise
        finally:
            for thread_id in reserved:
                self._live.pop(thread_id, None)
        live = self._register(history.thread_id, params.mode, writer, resumed=True)
        return ResumedThread(live, history if isinstance(history, StoredHistory) else None)

    async def load_history(self, thread: ThreadId | Path) -> StoredHistory:
        """See `ThreadStore.load_history`."""
        from engine.thread_store.finding import at_its_place
        from engine.thread_store.opening import at_live_place, current_path, place_now
        from engine.thread_store.reading import load_rollout

        if isinstance(thread, Path):
            return await self._hop(at_its_place, functools.partial(place_now, self.home, thread), load_rollout)
        thread = parse_thread_id(thread)
        live = self._live.get(thread)
        if live is not None and live.rollout_path is not None:
            await live.flush_quietly()
            return await self._hop(at_live_place, self.home, live.rollout_path, thread, load_rollout)
        return await self._hop(at_its_place, functools.partial(current_path, self.home, thread), load_rollout)

    async def load_tail(self, thread: ThreadId | Path) -> StoredTail:
        """See `ThreadStore.load_tail`."""
        from engine.thread_store.finding import at_its_place
        from engine.thread_store.opening import TailReading, at_live_place, current_path
        from engine.thread_store.stored_tail import RolloutFileTail

        reading = TailReading()
        try:
            if not isinstance(thread, Path):
                thread = parse_thread_id(thread)
                live = self._live.get(thread)
                if live is not None and live.rollout_path is not None:
                    await live.flush_quietly()
                    look = functools.partial(at_live_place, self.home, live.rollout_path, thread, RolloutFileTail)
                    return await self._hop(reading.read, look)
            look = functools.partial(at_its_place, functools.partial(current_path, self.home, thread), RolloutFileTail)
            return await self._hop(reading.read, look)
        except BaseException:
            reading.give_up()
            raise

    async def count_generation(self, tail: StoredTail) -> int:
        """See `ThreadStore.count_generation`."""
        from engine.thread_store.stored_tail import RolloutFileTail

        if tail.generation is not None:
            return tail.generation
        if not isinstance(tail, RolloutFileTail):
            raise InvalidRequest("this tail was read from another store")
        given_up = threading.Event()
        checkpoint = None if self._checkpoints is None else await self._checkpoints.checkpoint(tail.path)
        try:
            count, counted = await self._hop(tail.count, checkpoint, lambda: not given_up.is_set())
        finally:
            given_up.set()
        if counted is not None and self._checkpoints is not None:
            self._checkpoints.note_checkpoint(tail.path, counted)
        return count

    def _reserve(self, thread_id: ThreadId) -> ThreadId:
        if thread_id in self._live:
            raise ConflictError(f"thread {thread_id} already has a live local writer")
        self._live[thread_id] = None
        return thread_id

    def _release(self, live: LiveThread) -> None:
        if self._live.get(live.thread_id) is live:
            del self._live[live.thread_id]


TOUCH_EVERY = 5.0  # seconds between two looks at a file that only grows (rollout.md 3)


@final
class _IndexTouch:
    """Has the index look at a file when something worth showing is in it, else now and then."""

    def __init__(self, store: LocalThreadStore, writer: RolloutWriter) -> None:
        self._store = store
        self._writer = writer
        self._news = True  # the file itself
        self._last = 0.0

    def appended(self, items: Sequence[RolloutItem]) -> None:
        """See `WriteWatcher`."""
        if not self._news:
            from engine.thread_store.facts import is_news

            self._news = any(map(is_news, items))

    def stored(self) -> None:
        """See `WriteWatcher`."""
        now = time.monotonic()
        if self._news or now - self._last > TOUCH_EVERY:
            self._news = False
            self._last = now
            self._touch()

    def over(self) -> None:
        """See `WriteWatcher`."""
        if self._writer.exists:
            if self._last or self._writer.owns_file:
                self._touch()
        elif (index := self._store.opened_index) is not None:
            index.untouch(self._writer.path)

    def _touch(self) -> None:
        index = self._store.index
        if index is not None:
            index.touch(self._writer.path)


@asynccontextmanager
async def open_local_store(
    home: PathLike[str] | str,
    *,
    files: FileOperations | None = None,
    durability: Durability = "os",
    grace: float = 10.0,
    index: bool = True,
    telemetry: Telemetry = NO_TELEMETRY,
) -> AsyncIterator[LocalThreadStore]:
    """A local store with appender and index for the length of a block; leaving it writes what was handed in."""
    appender = Appender(files=files, durability=durability)
    open_index = functools.partial(_open_index, Path(home), telemetry)
    store = LocalThreadStore(home, appender, index=open_index if index else None)
    try:
        yield store
    finally:
        try:
            await appender.aclose(grace)
        finally:
            await store.aclose(grace)


def _open_index(home: Path, telemetry: Telemetry) -> ThreadIndex:
    from engine.thread_store.index import ThreadIndex

    return ThreadIndex(home, telemetry)


def _named(thread: ThreadId | Path) -> ThreadId | None:
    """The thread, as far as it can be told without reading."""
    if not isinstance(thread, Path):
        return thread
    name = parse_rollout_name(thread.name)
    return None if name is None else name.thread_id
