"""The appender: one thread that writes the rollouts of all sessions of an engine (CONCURRENCY 1.3).

Handing in costs well under a microsecond and never waits; what was handed in while the thread was busy becomes one
batch, with one write per file and one answer to Trio. With durability `fsync` a second thread syncs batches before
they are answered, so a slow disk never delays plain writes.

`InlineAppender` is its synchronous twin: it does each job on the spot. For tests under a mock clock, where a thread's
work would take no time at all.
"""

from __future__ import annotations

import logging
import queue
import resource
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, TypeVar

import attrs
import trio

from engine.errors import StoreError
from engine.rollout.lines import format_timestamp
from engine.thread_store.batches import BatchWriter, Job, Outcome, Patience
from engine.thread_store.files import FileOperations, RealFiles
from engine.thread_store.syncing import sync_outcomes

if TYPE_CHECKING:
    from engine.thread_store.rollout_writer import RolloutWriter

__all__ = ["Appender", "Durability", "InlineAppender", "Limits", "open_appender"]

Durability = Literal["os", "fsync"]

T = TypeVar("T")

log = logging.getLogger(__name__)

PATIENCE = Patience()
AT_ONCE = Patience(descriptors=0.0)  # on the thread of Trio nobody can wait for a descriptor
RECOVERED = "The transcript {path} can be written again; everything that waited is saved."
RESTORED = (
    "The transcript {path} was removed, replaced or cut by another program while its thread was running. "
    "It was written anew from memory; what stood in its place, if anything, is kept beside it."
)


@attrs.frozen
class Limits:
    """How many bytes may wait to be written before `room()` makes callers wait: per writer, and in the whole engine."""

    writer: int = 4 << 20
    engine: int = 64 << 20


class Appender:
    """Takes jobs of writers; `open_appender` makes one. Belongs to the Trio run it was opened in.

    At most `open_files` handles stay open; by default a quarter of what the process may have, and never more than 1024.
    The thread starts with the first job. It is a daemon, so that a crashed host can exit, and joined by `aclose`.
    """

    def __init__(
        self,
        *,
        files: FileOperations | None = None,
        durability: Durability = "os",
        limits: Limits = Limits(),
        open_files: int | None = None,
        patience: Patience = PATIENCE,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.durability: Durability = durability
        self.files: FileOperations = files or RealFiles()
        self._limits = limits
        self._clock = clock
        self._batches = BatchWriter(
            self.files,
            open_files=_handle_limit() if open_files is None else open_files,
            sync=durability == "fsync",
            patience=patience,
        )
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._written: queue.SimpleQueue[list[Outcome] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._token: trio.lowlevel.TrioToken | None = None
        self._queued = 0
        self._waiting = trio.lowlevel.ParkingLot()
        self._over = trio.Event()
        self._closed = False

    def timestamp(self) -> str:
        """The moment of writing, as lines carry it."""
        return format_timestamp(self._clock())

    @property
    def queued(self) -> int:
        """Bytes that wait to be written, not counting files that can't be written now."""
        return self._queued

    @trio.lowlevel.enable_ki_protection  # what is counted is also sent, and a thread that is noted is started
    def send(self, job: Job, size: int = 0) -> None:
        """Queues a job whose lines are `size` bytes; never waits. Raises `StoreError` once the appender is closed."""
        if self._closed:
            raise StoreError("the rollout writer is closed; nothing more is saved")
        if size and not job.writer.stuck:
            self._queued += size
        self._hand_over(job)

    async def room(self, writer: RolloutWriter) -> None:
        """Waits until less is queued than the limits say; with room, only a point of cancellation."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not writer.stuck and (writer.queued > self._limits.writer or self._queued > self._limits.engine):
            await self._waiting.park()

    async def aclose(self, grace: float = 10.0) -> None:
        """Writes what was handed in, then ends and joins the threads; takes `grace` seconds at most.

        Shielded from cancellation. Idempotent. What is not written by then is reported to the log.
        """
        if self._closed:
            return
        self._closed = True
        if not self._threads:
            return
        self._jobs.put(None)
        try:
            async with trio.open_nursery() as nursery:
                # By a task of its own: Ctrl-C ends whatever the main task waits for, shielded or not.
                nursery.start_soon(self._wait_until_over, grace)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # Ctrl-C, after all
        finally:
            if self._over.is_set():
                for thread in self._threads:
                    thread.join()
            else:
                log.error("the rollout writer did not finish within %g s; %d bytes may be lost", grace, self._queued)

    async def _wait_until_over(self, grace: float) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + grace):
            await self._over.wait()

    # --- the hop -------------------------------------------------------------------------------

    def _hand_over(self, job: Job) -> None:
        if not self._threads:
            self._start()
        self._jobs.put(job)

    def _start(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        targets: list[tuple[str, Callable[[], None]]] = [("rollout writer", self._write)]
        if self.durability == "fsync":
            targets.append(("rollout sync", self._sync))
        self._threads = [threading.Thread(target=target, name=name, daemon=True) for name, target in targets]
        for thread in self._threads:
            thread.start()

    def _write(self) -> None:
        """The writing thread."""
        going_on = True
        while going_on:
            jobs = _drain_queue(self._jobs, self._batches.next_retry())
            if jobs and jobs[-1] is None:
                going_on = False
            outcomes = self._batches.run([job for job in jobs if job is not None])
            outcomes += self._batches.retry(now=not going_on)
            if not going_on:
                outcomes += self._batches.give_up()
            if self.durability == "fsync":
                self._written.put(outcomes)
            else:
                self._answer(outcomes)
        self._batches.close_handles()
        if self.durability == "fsync":
            self._written.put(None)
        else:
            self._tell(self._over.set)

    def _sync(self) -> None:
        """The syncing thread."""
        going_on = True
        while going_on:
            batches = _drain_queue(self._written)
            if batches[-1] is None:
                going_on = False
            outcomes = [outcome for batch in batches if batch is not None for outcome in batch]
            sync_outcomes(self.files, outcomes)
            self._answer(outcomes)
        self._tell(self._over.set)

    def _answer(self, outcomes: list[Outcome]) -> None:
        if outcomes:
            self._tell(self._acknowledge, outcomes)

    def _tell(self, function: Callable[..., object], *args: object) -> None:
        assert self._token is not None
        try:
            self._token.run_sync_soon(function, *args)
        except trio.RunFinishedError:
            pass  # the host's run ended without closing us; the lines are written, nobody is left to tell

    # --- on Trio's thread ----------------------------------------------------------------------

    def _acknowledge(self, outcomes: list[Outcome]) -> None:
        """Takes over what a batch came to. An exception in here would end the host's run, so none gets out."""
        for outcome in outcomes:
            try:
                self._settle(outcome)
            except Exception:
                log.exception("an observer of acknowledged items failed")
        if self._waiting:
            self._waiting.unpark_all()

    def _settle(self, outcome: Outcome) -> None:
        writer = outcome.writer
        writer.queued -= outcome.freed
        if not writer.stuck:
            self._queued -= outcome.freed
        if outcome.lost:
            writer.restore()
            return
        error = outcome.error or writer.unsynced
        failed = error is not None
        recovered = writer.stuck and not failed
        if failed != writer.stuck:
            # What can't be written now holds nobody up.
            writer.stuck = failed
            self._queued += -writer.queued if failed else writer.queued
        if outcome.sync_failed and writer.unsynced is None:
            writer.unsynced = outcome.error
        made = outcome.exists and not writer.exists
        writer.exists = outcome.exists
        writer.error = error
        if writer.unsynced is None:
            writer.stored(outcome.written, made=made)
        grown = outcome.seen > writer.acknowledged
        writer.acknowledged = outcome.seen
        try:
            if outcome.restored:
                writer.tell(RESTORED.format(path=writer.path))
            if recovered and not writer.dropped:
                writer.tell(RECOVERED.format(path=writer.path))
            if outcome.over:
                writer.over()
            if grown:
                writer.notify()
        finally:
            for barrier in outcome.barriers:
                barrier.answer(error)


class InlineAppender(Appender):
    """Does each job on the spot, on Trio's thread. What failed is tried again with a later job, not by itself."""

    def __init__(
        self,
        *,
        files: FileOperations | None = None,
        durability: Durability = "os",
        patience: Patience = AT_ONCE,
    ) -> None:
        super().__init__(files=files, durability=durability, patience=patience)

    def _hand_over(self, job: Job) -> None:
        outcomes = self._batches.retry() + self._batches.run([job])
        sync_outcomes(self.files, outcomes, patience=0.0)
        self._acknowledge(outcomes)

    async def aclose(self, grace: float = 10.0) -> None:
        """Gives back the handles."""
        self._closed = True
        self._acknowledge(self._batches.give_up())
        self._batches.close_handles()


@asynccontextmanager
async def open_appender(
    *,
    files: FileOperations | None = None,
    durability: Durability = "os",
    limits: Limits = Limits(),
    grace: float = 10.0,
) -> AsyncIterator[Appender]:
    """An appender for the length of a block; leaving it writes what was handed in."""
    appender = Appender(files=files, durability=durability, limits=limits)
    try:
        yield appender
    finally:
        await appender.aclose(grace)


def _handle_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1024 if soft == resource.RLIM_INFINITY else max(8, min(1024, soft // 4))


def _drain_queue(source: queue.SimpleQueue[T], patience: float | None = None) -> list[T]:
    """At least one entry, and all that are there already; nothing if none comes within `patience` seconds."""
    try:
        found = [source.get(timeout=patience)]
    except queue.Empty:
        return []
    try:
        while True:
            found.append(source.get_nowait())
    except queue.Empty:
        return found
