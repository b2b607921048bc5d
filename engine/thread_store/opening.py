"""Opening a stored thread, to read it or to go on with it; all of it blocking."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import attrs

from engine.errors import StoreError, ThreadNotFound
from engine.protocol.ids import ThreadId
from engine.rollout.ordinals import next_ordinal
from engine.thread_store.changes import archived_thread, not_found
from engine.thread_store.files import FileStatus
from engine.thread_store.finding import at_its_place, find_archived, find_rollout, looks
from engine.thread_store.interface import StoredHistory
from engine.thread_store.locks import RolloutLock, RolloutLocks
from engine.thread_store.places import places_of
from engine.thread_store.reading import load_rollout
from engine.thread_store.rollout_bytes import RolloutBytes
from engine.thread_store.stored_files import anywhere
from engine.thread_store.stored_tail import RolloutFileTail, StoredTail

__all__ = ["OpenedRollout", "TailReading", "at_live_place", "current_path", "place_now"]

T = TypeVar("T")


def current_path(home: Path, thread: ThreadId | Path) -> Path:
    """Where a thread is stored. Raises `ThreadNotFound`, `InvalidRequest` if it is archived."""
    if isinstance(thread, Path):
        return thread.absolute()
    for _ in looks(home):
        path = find_rollout(home, thread)
        if path is not None:
            return path
        if find_archived(home, thread) is not None:
            raise archived_thread(thread)
    raise not_found(thread)


def place_now(home: Path, path: Path) -> Path:
    """Where the rollout is that stood at `path`: below the home others may have archived it, or brought it back."""
    path = path.absolute()
    if path.is_relative_to(home):
        for _ in looks(home):
            for place in places_of(home, str(path)):
                if os.path.exists(place):
                    return Path(place)
    return path


def at_live_place(home: Path, path: str, thread_id: ThreadId, act: Callable[[Path], T]) -> T:
    """What `act` does with the file of a live thread, whose writer may not know yet that others have moved it.

    Raises `ThreadNotFound`, and what `act` raises.
    """
    try:
        return act(Path(path))
    except ThreadNotFound:
        return at_its_place(functools.partial(anywhere, home, thread_id), act)


@attrs.define(eq=False)
class TailReading:
    """A tail that is being read, in a worker thread that may outlive whoever waits for it, and the Trio run with it."""

    tail: RolloutFileTail | None = None
    _given_up: bool = False
    _mutex: threading.Lock = attrs.field(factory=threading.Lock)

    def read(self, read: Callable[[], RolloutFileTail]) -> RolloutFileTail:
        """What `read` gives. Raises what it raises."""
        tail = read()
        with self._mutex:
            self.tail = tail
            if self._given_up:
                tail.close()
        return tail

    def give_up(self) -> None:
        """Nobody waits any more: closes the tail, also one that is read only later."""
        with self._mutex:
            self._given_up = True
            if self.tail is not None:
                self.tail.close()


@attrs.define(eq=False)
class OpenedRollout:
    """A rollout that is being opened for a resume, in a worker thread that may outlive whoever waits for it."""

    history: StoredHistory | StoredTail | None = None
    path: str = ""
    found: FileStatus | None = None
    ordinal: int | None = None
    lock: RolloutLock | None = None
    _abandoned: bool = False
    _mutex: threading.Lock = attrs.field(factory=threading.Lock)

    def open(self, locks: RolloutLocks, thread: ThreadId | Path, history: StoredHistory | StoredTail | None) -> None:
        """Looks whether the file can be appended to, locks it, and loads what was not loaded before."""
        if history is None or history.path is None:
            find = functools.partial(current_path, locks.home, thread)
            at_its_place(find, lambda path: self._open(locks, path, None))
            return
        try:
            self._open(locks, Path(history.path), history)
        except ThreadNotFound as missing:
            if not Path(history.path).is_relative_to(locks.home.absolute()):
                raise
            find = functools.partial(current_path, locks.home, history.thread_id)
            try:  # others may have moved it since it was read
                at_its_place(find, lambda path: self._open(locks, path, history))
            except ThreadNotFound:
                raise missing from None

    def _open(self, locks: RolloutLocks, path: Path, history: StoredHistory | StoredTail | None) -> None:
        try:
            # Not to wait for a reader where the name is that of a pipe.
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK)
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
        try:
            self.ordinal = next_ordinal(RolloutBytes(path))
            self.history = load_rollout(path) if history is None else history
        except ThreadNotFound:
            lock.release()
            raise

    def abandon(self) -> None:
        """Nobody waits any more: gives the lock back, also one that is taken only later."""
        with self._mutex:
            self._abandoned = True
            if self.lock is not None:
                self.lock.release()
