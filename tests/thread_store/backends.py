"""The store backends that `test_store_machine` compares with the one in memory, and `test_stores` says plainly of.

A further backend plugs in here and nowhere else: a class with the methods of `Backend` (open a store, break and mend
what it writes to, crash it and open the next one on what is left), and an entry of `BACKENDS` that opens it on an empty
folder. Everything else is the interface of a thread store.
"""

from __future__ import annotations

import errno
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import trio

from engine.errors import StoreError
from engine.protocol.ids import ThreadId
from engine.thread_store.appender import Appender, InlineAppender
from engine.thread_store.batches import Patience
from engine.thread_store.index import ThreadIndex
from engine.thread_store.interface import ThreadStore
from engine.thread_store.local import LocalThreadStore
from engine.thread_store.memory import InMemoryThreadStore
from tests.thread_store.faults import FaultyFiles

__all__ = ["BACKENDS", "Backend", "LocalBackend", "MemoryBackend"]


CREATED = time.struct_time((2025, 1, 2, 3, 4, 5, 0, 0, -1))  # as the threads of the model say
CALM = Patience(
    first=3600.0, longest=3600.0, descriptors=0.0
)  # the reference tries nothing again by itself, however slow the machine


class Backend(Protocol):
    """One place where threads are stored, over several lives of the program."""

    @property
    def store(self) -> ThreadStore:
        """The store of the life that runs now."""

    def live_threads(self) -> Sequence[ThreadId]:
        """The threads that have a live writer."""

    def break_down(self) -> None:
        """From now on nothing can be written."""

    def mend(self) -> None:
        """It can be written again."""

    async def crash(self) -> None:
        """The program is killed and started again: live threads are gone, what was written is there."""

    async def aclose(self) -> None:
        """The end, in good order; nothing may be left open."""


class MemoryBackend:
    """The reference."""

    def __init__(self) -> None:
        self.store = InMemoryThreadStore()

    def live_threads(self) -> Sequence[ThreadId]:
        return self.store.live_threads()

    def break_down(self) -> None:
        self.store.failure = StoreError("full")

    def mend(self) -> None:
        self.store.failure = None

    async def crash(self) -> None:
        broken = self.store.failure
        self.store = self.store.crash()
        self.store.failure = broken

    async def aclose(self) -> None:
        pass


class LocalBackend:
    """Files below a home. What the next life finds is what the appender has written when the crash comes."""

    def __init__(self, home: Path, *, inline: bool, indexed: bool) -> None:
        self._home = home
        self._inline = inline
        self._indexed = indexed
        self._files = FaultyFiles()
        self._dead: list[LocalThreadStore] = []
        self._open()

    def _open(self) -> None:
        made = InlineAppender if self._inline else Appender
        self._appender = made(files=self._files, patience=CALM)
        index = functools.partial(ThreadIndex, self._home) if self._indexed else None
        self.store = LocalThreadStore(self._home, self._appender, index=index, local_time=lambda: CREATED)

    def live_threads(self) -> Sequence[ThreadId]:
        return self.store.live_threads()

    def break_down(self) -> None:
        self._files.broken = errno.ENOSPC

    def mend(self) -> None:
        self._files.broken = 0

    async def crash(self) -> None:
        self.store.locks.abandon()  # as the system does it: the links of the locks stay
        for live in list(self.store._live.values()):
            if live is not None:
                live.forget()
        await self._appender.aclose()
        self._dead.append(self.store)
        self._open()
        if self.store.index is not None:
            await self.store.index.sweep()  # what the index was not told any more is listed once the repair has passed

    async def aclose(self) -> None:
        self.mend()
        await self._appender.aclose()
        for store in (*self._dead, self.store):
            await store.aclose()
        assert self._files.open_handles == set()


async def _files(home: Path, *, inline: bool, indexed: bool) -> Backend:
    await trio.lowlevel.checkpoint()
    return LocalBackend(home, inline=inline, indexed=indexed)


BACKENDS: dict[str, Callable[[Path], Awaitable[Backend]]] = {
    "files, at once": functools.partial(_files, inline=True, indexed=False),
    "files, at once, indexed": functools.partial(_files, inline=True, indexed=True),
    "files, by the appender": functools.partial(_files, inline=False, indexed=True),
}
