"""One SQLite database, one thread: the only one that touches the connection.

The database is a cache that may be deleted, damaged or locked by others at any time. None of that is an error to a
caller: what can't be had now raises `DatabaseUnavailable`, which callers answer from the files, and what can't be
written is dropped and noted (`missed`), for a later sweep. The thread starts with the first job; opening never waits
for anything but this thread.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar, final

import attrs
import trio

from engine.thread_store.ending import wait_for_end

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Database", "DatabaseUnavailable"]

T = TypeVar("T")

BUSY_WAIT = 0.2  # seconds SQLite itself waits for a lock
TRIES = 3  # and how often that is tried: who waits can have it from the files instead
PAUSE = 0.02  # seconds between tries
SICK_FOR = 5.0  # seconds until a database that can't be had is tried again
GATHERED = 0.25  # seconds that writes wait for others, so that a turn is not disturbed by its own index
LARGEST_BATCH = 500  # writes in one transaction

# Primary result codes of SQLite.
_BUSY = (5, 6)
_DAMAGED = (11, 26)

log = logging.getLogger(__name__)


class DatabaseUnavailable(Exception):
    """The database can't be read or written now."""


@attrs.define(eq=False)
class _Job(Generic[T]):
    """Something to do with the connection. With `done`, somebody waits for it; else it is a write among others, which
    is left out if it is not `needed` any more when its time comes."""

    work: Callable[[sqlite3.Connection], T]
    done: Callable[[T | None, Exception | None], None] | None = None
    needed: Callable[[], bool] = lambda: True


@final
class Database:
    """A SQLite file with the tables that `prepare` makes; `prepare` returns whether they were there and filled.

    Belongs to the Trio run it is used in; `post` and `run_sync` may be called from any thread.
    """

    def __init__(
        self, path: str, prepare: Callable[[sqlite3.Connection], None], *, opened: Callable[[], None] | None = None
    ) -> None:
        self.path = path
        self.missed = False  # whether a write was dropped
        self._prepare = prepare
        self._opened = opened
        self._jobs: queue.SimpleQueue[_Job[object] | None] = queue.SimpleQueue()
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._over = threading.Event()
        # Of the thread:
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._sick_until = 0.0

    @property
    def started(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None

    def post(self, work: Callable[[sqlite3.Connection], object], needed: Callable[[], bool] = lambda: True) -> None:
        """Does a write, soon, in one transaction with others. Never waits; raises nothing."""
        self._send(_Job(work, needed=needed))

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work`, which may be done more than once if others hold the lock. Cancelling drops the result.

        Raises `DatabaseUnavailable`, and whatever `work` raises itself.
        """
        token, arrived = trio.lowlevel.current_trio_token(), trio.Event()
        results: list[tuple[T | None, Exception | None]] = []

        def done(value: T | None, error: Exception | None) -> None:
            results.append((value, error))
            try:
                token.run_sync_soon(arrived.set)
            except trio.RunFinishedError:
                pass

        self._need_open(_Job(work, done))
        await arrived.wait()
        return _result(results)

    def run_sync(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """As `run`, for threads other than Trio's."""
        arrived = threading.Event()
        results: list[tuple[T | None, Exception | None]] = []

        def done(value: T | None, error: Exception | None) -> None:
            results.append((value, error))
            arrived.set()

        self._need_open(_Job(work, done))
        arrived.wait()
        return _result(results)

    async def aclose(self, grace: float = 10.0) -> None:
        """Does what was handed in, closes the file and joins the thread; takes `grace` seconds at most. Idempotent."""
        with self._mutex:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is None:
            return
        self._jobs.put(None)
        try:
            await wait_for_end(self._over, grace)
        finally:
            if self._over.is_set():
                thread.join()
            else:
                log.error("the thread index did not close within %g s", grace)

    # --- handing over ----------------------------------------------------------------------------

    def _need_open(self, job: _Job[T]) -> None:
        if not self._send(job):
            raise DatabaseUnavailable("the index is closed")

    def _send(self, job: _Job[T]) -> bool:
        with self._mutex:
            if self._closed:
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="thread index", daemon=True)
                self._thread.start()
            self._jobs.put(job)  # type: ignore[arg-type]  # only `_Job` itself knows what its result is
        return True

    # --- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        waiting: list[_Job[object]] = []  # writes; they are done together, or before somebody's turn
        due = 0.0
        while True:
            try:
                job = self._jobs.get(timeout=max(0.0, due - time.monotonic()) if waiting else None)
            except queue.Empty:
                self._write(waiting)
                continue
            if job is None:
                break
            if job.done is not None:
                self._write(waiting)
                self._answer(job)
                continue
            if not waiting:
                due = time.monotonic() + GATHERED
            waiting.append(job)
            if len(waiting) >= LARGEST_BATCH:
                self._write(waiting)
        self._write(waiting)
        self._disconnect()
        self._over.set()

    def _write(self, waiting: list[_Job[object]]) -> None:
        jobs = [job for job in waiting if job.needed()]
        waiting.clear()
        if not jobs:
            return

        def all_of_them(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            try:
                for job in jobs:
                    job.work(connection)
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

        try:
            self._do(all_of_them)
        except DatabaseUnavailable as exc:
            self.missed = True
            log.debug("%d writes to the thread index were dropped: %s", len(jobs), exc)
        except Exception:
            self.missed = True
            log.exception("a write to the thread index failed")

    def _answer(self, job: _Job[object]) -> None:
        assert job.done is not None
        try:
            value, error = self._do(job.work), None
        except Exception as exc:
            value, error = None, exc
        job.done(value, error)

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Does it, and again while others hold the lock. Raises `DatabaseUnavailable`."""
        import sqlite3

        for number in range(TRIES):
            try:
                return work(self._connect())
            except sqlite3.Error as exc:
                code = _code(exc)
                if self._connection is not None and self._connection.in_transaction:
                    self._connection.rollback()
                if code in _DAMAGED and number < TRIES - 1:
                    self._throw_away(exc)
                elif code in _BUSY and number < TRIES - 1:
                    time.sleep(PAUSE)
                else:
                    if code not in _BUSY:
                        self._disconnect()
                        self._sick_until = time.monotonic() + SICK_FOR
                    raise DatabaseUnavailable(f"{self.path}: {exc}") from exc
        raise AssertionError("unreachable")

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._identity == _identity(self.path):
                return self._connection
            self._disconnect()  # somebody has deleted or replaced it
        if time.monotonic() < self._sick_until:
            raise DatabaseUnavailable(f"{self.path} can't be used right now")
        import sqlite3

        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=BUSY_WAIT, isolation_level=None)
        except OSError as exc:
            self._sick_until = time.monotonic() + SICK_FOR
            raise DatabaseUnavailable(f"{self.path}: {exc}") from exc
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._identity = _identity(self.path)
        if self._opened is not None:
            self._opened()
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception as exc:
                log.debug("closing the thread index: %s", exc)

    def _throw_away(self, why: Exception) -> None:
        """A damaged cache is no loss: it is made anew."""
        log.warning("the thread index %s is damaged and is built anew: %s", self.path, why)
        self._disconnect()
        for suffix in ("", "-wal", "-shm"):
            try:
                os.remove(self.path + suffix)
            except OSError as exc:
                if exc.errno != errno.ENOENT:
                    log.debug("%s: %s", self.path, exc)


def _code(error: Exception) -> int:
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else 1


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _result(results: list[tuple[T | None, Exception | None]]) -> T:
    [(value, error)] = results
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # without an error this is what `work` returned
