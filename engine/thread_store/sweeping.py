"""The sweep: looks at every rollout of a home that is not as the index knows it, in the background, with progress.

In a thread of its own that yields after every file, so that a rebuild over ten thousand threads holds nobody up. Of
several processes on one home, one sweeps at a time.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs
import trio

from engine.telemetry.handle import NO_TELEMETRY, Telemetry
from engine.thread_store.database import Database, DatabaseUnavailable
from engine.thread_store.ending import wait_for_end
from engine.thread_store.index_files import (
    FileRead,
    folder_time,
    folders_of,
    put_file,
    read_file,
    rollouts_in,
    state_of,
)
from engine.thread_store.index_rows import forget_file, known_files, put_folder
from engine.thread_store.interface import IndexProgress
from engine.thread_store.names import ThreadNames

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Sweep"]

BATCH = 50  # files put at once
BREATH = 0.0005  # seconds given to others after each file
CLAIM = 10.0  # seconds one process has for a batch before others may take over
TICK_NS = 50_000_000  # the clock of a file system may be this coarse

log = logging.getLogger(__name__)


class _Stopped(Exception):
    """The store is closing."""


@final
class Sweep:
    """The sweeps of one index, one at a time. `swept` is called on the database's thread at the end of each."""

    def __init__(
        self, home: Path, database: Database, *, swept: Callable[[], None], telemetry: Telemetry = NO_TELEMETRY
    ) -> None:
        self._home = home
        self._database = database
        self._swept = swept
        self._telemetry = telemetry
        self._owner = secrets.token_hex(8)
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._stop = False
        self.progress = IndexProgress(done=0, total=0, running=False)

    def start(self) -> None:
        """Begins a sweep unless one runs. Never waits."""
        with self._mutex:
            if self._stop or (self._thread is not None and not self._over.is_set()):
                return
            self._over.clear()
            self.progress = IndexProgress(done=0, total=0, running=True)
            self._thread = threading.Thread(target=self._run, name="thread index sweep", daemon=True)
            self._thread.start()

    async def run(self) -> IndexProgress:
        """A whole sweep that begins now. Cancelling stops the waiting, not the sweep."""
        await self._wait()
        self.start()
        await self._wait()
        return self.progress

    async def aclose(self, grace: float = 10.0) -> None:
        """Stops a sweep after the file it is at, and joins its thread."""
        self._stop = True
        with self._mutex:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            await wait_for_end(self._over, grace)
        finally:
            if self._over.is_set():
                thread.join()

    async def _wait(self) -> None:
        if self._thread is not None:
            await trio.to_thread.run_sync(self._over.wait, abandon_on_cancel=True)

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        began, status = time.perf_counter(), "failed"
        try:
            if self._database.run_sync(self._claim):
                self._sweep()
                status = "success"
            else:
                status = "skipped"  # somebody else sweeps
        except _Stopped:
            status = "stopped"  # what was put stays; the rest is for the next one
        except DatabaseUnavailable:
            self._telemetry.count("codex.db.error", tags={"stage": "backfill"})
        except Exception:
            self._telemetry.count("codex.db.error", tags={"stage": "backfill"})
            log.exception("the sweep of the thread index failed")
        finally:
            took = int((time.perf_counter() - began) * 1000)
            self._telemetry.measure("codex.db.backfill.duration_ms", took, {"status": status})
            self.progress = attrs.evolve(self.progress, running=False)
            self._over.set()

    def _sweep(self) -> None:
        known = self._database.run_sync(known_files)
        folders: list[tuple[str, int]] = []
        todo: list[str] = []
        there: set[str] = set()
        for folder in folders_of(self._home):
            mtime_ns = folder_time(folder)
            if mtime_ns is None:
                continue
            if time.time_ns() - mtime_ns > TICK_NS:
                folders.append((folder, mtime_ns))
            for path in rollouts_in(folder):
                there.add(path)
                state, thorough = known.get(path, (None, False))
                if state is None or not thorough or state != state_of(path):
                    todo.append(path)
            self._breathe()
        todo.sort(key=os.path.basename, reverse=True)  # the newest are asked for first
        self.progress = IndexProgress(done=0, total=len(todo), running=True)
        names = ThreadNames(self._home)
        names.refresh()
        batch: list[FileRead] = []
        for number, path in enumerate(todo, 1):
            batch.append(read_file(path, None, thorough=True, pause=self._breathe))
            if len(batch) >= BATCH:
                self._put(batch, names)
                batch = []
                self.progress = IndexProgress(done=number, total=len(todo), running=True)
            self._breathe()
        self._put(batch, names)
        gone = [path for path in known if path not in there]
        self._database.run_sync(lambda connection: self._finish(connection, gone, folders))
        self.progress = IndexProgress(done=len(todo), total=len(todo), running=True)

    def _breathe(self) -> None:
        if self._stop:
            raise _Stopped
        time.sleep(BREATH)

    def _claim(self, connection: sqlite3.Connection) -> bool:
        """Whether nobody else sweeps; then for a while nobody else may."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            row = connection.execute("SELECT value FROM state WHERE key = 'sweeping'").fetchone()
            until, _, owner = ("0 -" if row is None else str(row[0])).partition(" ")
            free = owner == self._owner or not 0 < float(until) - time.time() < 2 * CLAIM
            if free:
                self._set(connection, "sweeping", f"{time.time() + CLAIM} {self._owner}")
        finally:
            connection.commit()
        return free

    def _put(self, batch: list[FileRead], names: ThreadNames) -> None:
        def put(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            try:
                for read in batch:
                    put_file(connection, self._home, read, names.get)
                self._set(connection, "sweeping", f"{time.time() + CLAIM} {self._owner}")
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

        self._database.run_sync(put)
        if batch:
            self._telemetry.count("codex.db.backfill", len(batch), {"status": "upserted"})

    def _finish(self, connection: sqlite3.Connection, gone: list[str], folders: list[tuple[str, int]]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for path in gone:
                if not os.path.exists(path):
                    forget_file(connection, path)
            for folder, mtime_ns in folders:
                put_folder(connection, folder, mtime_ns)
            self._set(connection, "complete", 1)
            self._set(connection, "swept_at", time.time())
            connection.execute("DELETE FROM state WHERE key = 'sweeping'")
        except BaseException:
            connection.rollback()
            raise
        connection.commit()
        self._swept()

    @staticmethod
    def _set(connection: sqlite3.Connection, key: str, value: object) -> None:
        connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))
