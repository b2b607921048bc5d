"""The index of a home, `<home>/engine_index.sqlite`: a cache over the rollouts; makes listing cheap (rollout.md 7).

Files are the truth. Every row was read from a file and says which one in which state, so whatever another program did
is noticed: new files by the folders' times before each page, changed ones when they are about to be shown, all of them
by the sweep now and then. A row whose file has grown is brought up to date from what was appended. Deleting the index
loses nothing but time.

Everything here but the sweep runs on the database's own thread; nothing of it is on the way of a start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, final

import attrs

from engine.protocol.ids import ThreadId
from engine.protocol.wire import JsonObject
from engine.telemetry.handle import NO_TELEMETRY, Telemetry
from engine.thread_store.checkpoints import Checkpoint
from engine.thread_store.database import Database, DatabaseUnavailable
from engine.thread_store.index_files import folder_time, folders_of, put_file, read_file, rollouts_in, state_of
from engine.thread_store.index_rows import (
    IndexedThread,
    forget_file,
    known_files,
    prepare,
    put_folder,
    read_edges,
    read_page,
    read_thread,
    read_tools,
)
from engine.thread_store.interface import IndexProgress, ListThreads, SpawnEdge, StoredThread, ThreadPage
from engine.thread_store.listing import page_of
from engine.thread_store.names import ThreadNames
from engine.thread_store.sweeping import Sweep

if TYPE_CHECKING:
    import sqlite3

__all__ = ["INDEX_FILE", "ThreadIndex"]

T = TypeVar("T")

INDEX_FILE: Final = "engine_index.sqlite"
NEW_FILES: Final = 64  # that a page reads itself; more are left to the sweep
ROUNDS: Final = 3  # how often a page is taken again because a file of it has changed meanwhile
TICK_NS: Final = 50_000_000  # the clock of a file system may be this coarse
SWEEP_EVERY: Final = 60.0  # seconds, as long as somebody lists


@final
class ThreadIndex:
    """The index of one home. Methods without `async` never wait and raise nothing.

    What can't be had from it is `None`, and must then be had from the files.
    """

    def __init__(self, home: Path | str, telemetry: Telemetry = NO_TELEMETRY) -> None:
        self.home = Path(home)
        self._database = Database(f"{home}/{INDEX_FILE}", prepare, opened=self._opened)
        self._sweep = Sweep(self.home, self._database, swept=self._opened, telemetry=telemetry)
        self._touched: set[str] = set()  # paths that wait to be looked at
        self._paged: set[str] = set()  # paths whose turns were asked for
        # Of the database's thread:
        self._names = ThreadNames(home)
        self._folders: dict[str, int] = {}  # times of folders whose files are all known

    @property
    def progress(self) -> IndexProgress:
        """How far the sweep is, or was when it ended."""
        return self._sweep.progress

    async def aclose(self, grace: float = 10.0) -> None:
        """Stops the sweep, writes what was handed in, joins the threads. Idempotent."""
        try:
            await self._sweep.aclose(grace)
        finally:
            await self._database.aclose(grace)

    # --- reading ---------------------------------------------------------------------------------

    async def page(self, query: ListThreads) -> ThreadPage | None:
        """A page, or `None` as long as not every file was looked at. Raises `InvalidRequest` for a bad cursor."""
        return await self._ask(lambda connection: self._page(connection, query))

    async def thread(self, thread_id: ThreadId) -> StoredThread | None:
        """What is known of a thread, if its file is still as it was."""
        return await self._ask(lambda connection: self._thread(connection, thread_id))

    async def place(self, thread_id: ThreadId) -> str | None:
        """The rollout of a thread, if it is known and still there."""

        def read(connection: sqlite3.Connection) -> str | None:
            row = connection.execute("SELECT path FROM threads WHERE thread_id = ?", (thread_id,)).fetchone()
            return row[0] if row is not None and os.path.exists(row[0]) else None

        return await self._ask(read)

    async def children(self, parents: Sequence[ThreadId]) -> list[SpawnEdge] | None:
        """The edges to the children of some threads; `None` as long as not every file was looked at."""

        def read(connection: sqlite3.Connection) -> list[SpawnEdge] | None:
            if not self._is_complete(connection):
                return None
            with self._transaction(connection):
                if not self._look_at_folders(connection):
                    return None
                self._look_at_changed(connection)
            return [edge for parent in parents for edge in read_edges(connection, parent)]

        return await self._ask(read)

    async def tools(self, thread_id: ThreadId) -> tuple[JsonObject, ...] | None:
        """The dynamic tools of a thread that is known."""

        def read(connection: sqlite3.Connection) -> tuple[JsonObject, ...] | None:
            return None if self._thread(connection, thread_id) is None else read_tools(connection, thread_id)

        return await self._ask(read)

    async def checkpoint(self, path: str) -> Checkpoint | None:
        """See `Checkpoints.checkpoint`."""

        def read(connection: sqlite3.Connection) -> Checkpoint | None:
            row = connection.execute(
                "SELECT device, inode, offset, count, mark FROM checkpoints WHERE path = ?", (path,)
            ).fetchone()
            return None if row is None else Checkpoint(*row)

        return await self._ask(read)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """The result of `work` on the connection; `None` if it can't be had now."""
        return await self._ask(work)

    async def run_on_turns(self, path: str, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """As `run`, for work on the turns of a rollout."""
        self._paged.add(path)
        return await self._ask(work)

    async def sweep(self) -> IndexProgress:
        """Looks at every file that has changed since it was looked at; waits for the end. Cancelling stops waiting."""
        await self._ask(lambda _: None)  # opens it
        return await self._sweep.run()

    # --- writing ---------------------------------------------------------------------------------

    def touch(self, path: str) -> None:
        """A rollout has changed: its row is brought up to date, soon. Costs no more if it is told often."""
        if path not in self._touched:
            self._touched.add(path)

            def look(connection: sqlite3.Connection) -> None:
                self._touched.discard(path)
                self._look_at(connection, path)

            self._database.post(look, needed=lambda: path in self._touched)

    def untouch(self, path: str) -> None:
        """A rollout was taken back as if it had never been."""
        if path in self._touched and path not in self._paged:
            self._touched.discard(path)
        elif self._database.started:
            self._touched.discard(path)
            self.removed(path)

    def moved(self, old: str, new: str) -> None:
        """A rollout has another place."""

        def move(connection: sqlite3.Connection) -> None:
            self._look_at(connection, old)  # somebody may have brought it back by now
            self._look_at(connection, new)

        self._database.post(move)

    def removed(self, path: str) -> None:
        """A rollout is gone."""
        self._database.post(lambda connection: self._look_at(connection, path))

    def edge_changed(self, child: ThreadId) -> None:
        """How a thread stands to the one that spawned it is another now: its rollout says so."""

        def look(connection: sqlite3.Connection) -> None:
            known = read_thread(connection, thread_id=child)
            if known is not None and known.thread.path is not None:
                self._look_at(connection, known.thread.path)  # not what was told: others may have changed it since

        self._database.post(look)

    def note_checkpoint(self, path: str, checkpoint: Checkpoint) -> None:
        """See `Checkpoints.note_checkpoint`."""
        values = (path, *attrs.astuple(checkpoint))
        self._database.post(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?, ?)", values
            )
        )

    def post(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Does a write, soon."""
        self._database.post(work)

    # --- on the database's thread ----------------------------------------------------------------

    async def _ask(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        try:
            return await self._database.run(work)
        except DatabaseUnavailable:
            return None

    def _opened(self) -> None:
        self._folders.clear()

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        """What is done inside is done together or not at all."""
        connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._folders.clear()  # what was learnt of them is not in the rows
            connection.rollback()
            raise
        connection.commit()

    def _is_complete(self, connection: sqlite3.Connection) -> bool:
        """Whether every file was looked at once; sees to it that it will be, and is again now and then."""
        state = dict(
            connection.execute("SELECT key, value FROM state WHERE key IN ('complete', 'swept_at')").fetchall()
        )
        due = time.time() - float(state.get("swept_at", 0.0)) > SWEEP_EVERY
        if "complete" not in state or due or self._database.missed:
            self._database.missed = False
            self._sweep.start()
        return "complete" in state

    def _page(self, connection: sqlite3.Connection, query: ListThreads) -> ThreadPage | None:
        if not self._is_complete(connection):
            return None
        with self._transaction(connection):
            if not self._look_at_folders(connection):
                return None
            self._refresh_names(connection)
            for _ in range(ROUNDS):
                found = read_page(connection, query)
                if not self._correct(connection, found):
                    break
        progress = self.progress
        return page_of([indexed.thread for indexed in found], query, progress if progress.running else None)

    def _thread(self, connection: sqlite3.Connection, thread_id: ThreadId) -> StoredThread | None:
        found = read_thread(connection, thread_id=thread_id)
        if found is None:
            return None
        with self._transaction(connection):
            self._refresh_names(connection)
            self._correct(connection, [found])
            found = read_thread(connection, thread_id=thread_id)
        return None if found is None else found.thread

    def _correct(self, connection: sqlite3.Connection, found: Sequence[IndexedThread]) -> bool:
        """Looks again at files that are not as they were; whether there were any."""
        changed = False
        for indexed in found:
            path = indexed.thread.path
            assert path is not None
            if state_of(path) != indexed.state:
                self._look_at(connection, path)
                changed = True
        return changed

    def _refresh_names(self, connection: sqlite3.Connection) -> None:
        for thread_id in self._names.refresh():
            connection.execute(
                "UPDATE threads SET name = ? WHERE thread_id = ?", (self._names.get(thread_id), thread_id)
            )

    def _look_at(self, connection: sqlite3.Connection, path: str) -> None:
        """Brings the row of a file up to date; of one that is not there, nothing stays."""
        put_file(connection, self.home, read_file(path, read_thread(connection, path=path)), self._names.get)

    def _look_at_changed(self, connection: sqlite3.Connection) -> None:
        """Looks again at every file that is not as it was: a line with an edge may be in any of them, and whoever wrote
        it may have died before the index was told."""
        for path, (state, _) in known_files(connection).items():
            if state_of(path) != state:
                self._look_at(connection, path)

    def _look_at_folders(self, connection: sqlite3.Connection) -> bool:
        """Looks at files that came or went since; false if there are too many new ones to do that now."""
        if not self._folders:
            self._folders = dict(connection.execute("SELECT path, mtime_ns FROM folders").fetchall())
        budget = NEW_FILES
        for folder in self._changed_folders():
            mtime_ns = folder_time(folder)
            there = set(rollouts_in(folder))
            known = known_files(connection, folder)
            for path in known.keys() - there:
                if not os.path.exists(path):
                    forget_file(connection, path)
            new = there - known.keys()
            budget -= len(new)
            if budget < 0:
                self._sweep.start()
                return False
            for path in new:
                self._look_at(connection, path)
            if mtime_ns is not None and time.time_ns() - mtime_ns > TICK_NS:
                self._folders[folder] = mtime_ns
                put_folder(connection, folder, mtime_ns)
        return True

    def _changed_folders(self) -> Iterator[str]:
        """The folders with rollouts in them whose time is not what it was."""
        for folder in folders_of(self.home):
            if folder_time(folder) != self._folders.get(folder):
                yield folder
