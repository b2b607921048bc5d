"""What is done with the files of stored threads, all of it blocking: found, read, named, moved, deleted, held."""

from __future__ import annotations

import functools
import os
import threading
from pathlib import Path

import attrs

from engine.errors import StoreError, ThreadNotFound
from engine.protocol.ids import ThreadId
from engine.rollout.ordinals import next_ordinal
from engine.thread_store.changes import archive_file, delete_file, not_found, unarchive_file
from engine.thread_store.facts import Facts, edge_of
from engine.thread_store.files import FileStatus
from engine.thread_store.finding import (
    at_its_place,
    find_anywhere,
    find_archived,
    find_rollout,
    rollouts,
    stored_thread,
)
from engine.thread_store.interface import SpawnEdge, StoredThread
from engine.thread_store.locks import RolloutLock, RolloutLocks
from engine.thread_store.names import ThreadNames, append_name
from engine.thread_store.rollout_bytes import RolloutBytes
from engine.thread_store.summaries import summarise

__all__ = [
    "HeldFile",
    "anywhere",
    "delete_stored",
    "edges_in_files",
    "facts_of",
    "find_stored",
    "move_stored",
    "name_stored",
    "stored_path",
]


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


def stored_path(home: Path, thread_id: ThreadId) -> str:
    """The file of a thread, archived or not. Raises `ThreadNotFound`."""
    return str(anywhere(home, thread_id))


def anywhere(home: Path, thread_id: ThreadId) -> Path:
    path = find_anywhere(home, thread_id)
    if path is None:
        raise not_found(thread_id)
    return path


def find_stored(home: Path, thread_id: ThreadId) -> StoredThread | None:
    try:
        find = functools.partial(anywhere, home, thread_id)
        thread = at_its_place(find, lambda path: stored_thread(home, str(path)))
    except ThreadNotFound:
        return None
    if thread is None:
        return None
    names = ThreadNames(home)
    names.refresh()
    return attrs.evolve(thread, name=names.get(thread_id))


def facts_of(home: Path, thread_id: ThreadId) -> tuple[str, Facts]:
    """Where a thread is stored, and what is known of it. Raises `ThreadNotFound`, `StoreError`."""
    find = functools.partial(anywhere, home, thread_id)
    path, summary = at_its_place(find, lambda path: (path, summarise(str(path), thorough=True)))
    if summary is None:
        raise StoreError(f"{path} has no readable session_meta line, so it is no thread")
    if summary.facts.thread_id != thread_id:
        raise StoreError(f"{path} holds the thread {summary.facts.thread_id}, though its name says {thread_id}")
    return str(path), summary.facts


def edges_in_files(home: Path, parents: frozenset[ThreadId]) -> list[SpawnEdge]:
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


def name_stored(home: Path, thread_id: ThreadId, name: str, timestamp: str, live: bool) -> None:
    if not live:
        stored_path(home, thread_id)
    try:
        append_name(home, thread_id, name, timestamp)
    except OSError as exc:
        raise StoreError(f"failed to name thread {thread_id}: {exc}") from exc


def move_stored(home: Path, thread_id: ThreadId, archived: bool) -> tuple[str, str]:
    if archived:
        path = find_rollout(home, thread_id)
        if path is None:
            raise not_found(thread_id)
        return str(path), archive_file(home, str(path), thread_id)
    path = find_archived(home, thread_id)
    if path is None:
        raise ThreadNotFound(f"no archived rollout found for thread id {thread_id}", thread=thread_id)
    return str(path), unarchive_file(home, str(path), thread_id)


def delete_stored(locks: RolloutLocks, thread_id: ThreadId) -> str:
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
