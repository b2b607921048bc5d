"""The blocking half of the appender: takes batches of jobs, writes each file's lines in order, says what came of it.

Runs on the appender's own thread and knows no Trio. What can't be written stays, in order, and is tried again by
itself: soon at first, then less often. A lack of descriptors is no failure yet: it passes, so it is waited for.
"""

from __future__ import annotations

import errno
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, final

from engine.errors import StoreError
from engine.records import define, frozen
from engine.thread_store.rollout_file import ContentLost, RolloutFile

if TYPE_CHECKING:
    from engine.thread_store.barrier import Barrier
    from engine.thread_store.files import FileOperations
    from engine.thread_store.rollout_writer import RolloutWriter

__all__ = ["BatchWriter", "Job", "Outcome", "Patience", "Verb"]

NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


class Verb(Enum):
    """What a job asks for."""

    APPEND = auto()
    FLUSH = auto()  # try to write what is left
    PERSIST = auto()  # the same, and see to it that there is a file
    CLOSE = auto()  # persist what exists, then give the handle back if all is written
    DROP = auto()  # forget what is left
    ERASE = auto()  # drop, and remove the file if it came from here
    REWRITE = auto()  # the file is lost: `lines` are everything up to `number`, from memory


@frozen
class Job:
    """One job for one writer. `lines` with the number of the last item in them, or a barrier to answer."""

    verb: Verb
    writer: RolloutWriter
    lines: bytes = b""
    number: int = 0
    barrier: Barrier | None = None


@frozen
class Patience:
    """Seconds: between tries after a failure, at first and at most; how long a lack of descriptors is no failure."""

    first: float = 0.25
    longest: float = 5.0
    descriptors: float = 2.0
    glance: float = 0.02  # between two looks for a descriptor


@define(eq=False)
class Outcome:
    """How a writer stands after a batch. `freed` bytes left the queue; `unsynced` paths were written and not synced.

    `lost`: its file is gone and it waits to be written anew from memory. `restored`: the file was gone and is back.
    `over`: the file was given back, or removed.
    """

    writer: RolloutWriter
    exists: bool
    seen: int
    written: int
    freed: int
    error: StoreError | None
    barriers: list[Barrier]
    unsynced: list[str]
    sync_failed: bool = False
    lost: bool = False
    restored: bool = False
    over: bool = False


@define(eq=False)
class _Trouble:
    """A writer that could not do what it was asked for: when to try again, and what is still owed."""

    since: float
    again: float
    delay: float
    verbs: set[Verb]
    told: bool  # whether somebody was answered; else they all wait
    lost: bool = False


@final
class BatchWriter:
    """Writes batches with `files`. At most `open_files` handles stay open, those used last.

    `sync` says whether outcomes name what has to be synced.
    """

    def __init__(
        self,
        files: FileOperations,
        *,
        open_files: int,
        sync: bool = False,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._sync = sync
        self._open_files = open_files
        self._patience = patience
        self._clock = clock
        self._open: OrderedDict[RolloutFile, None] = OrderedDict()
        self._trouble: dict[RolloutWriter, _Trouble] = {}

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Does a batch, in order per writer. Raises nothing: errors are in the outcomes.

        A writer that waits for descriptors, or for its content from memory, has no outcome yet.
        """
        touched: dict[RolloutWriter, list[Job]] = {}
        for job in jobs:
            touched.setdefault(job.writer, []).append(job)
        return self._outcomes(touched)

    def retry(self, *, now: bool = False) -> list[Outcome]:
        """Tries again what failed and is due; with `now`, everything."""
        moment = self._clock()
        due = [writer for writer, trouble in self._trouble.items() if now or trouble.again <= moment]
        return self._outcomes({writer: [] for writer in due if not self._trouble[writer].lost})

    def next_retry(self) -> float | None:
        """Seconds until something is due, `None` if nothing will be."""
        times = [trouble.again for trouble in self._trouble.values() if not trouble.lost]
        return max(0.0, min(times) - self._clock()) if times else None

    def give_up(self) -> list[Outcome]:
        """The end: whoever still waits for what can't be written is told so, instead of waiting for ever."""
        found: list[Outcome] = []
        for writer in self._trouble:
            file = writer.file(self._files)
            if file.barriers or file.answered != file.seen:
                barriers, file.barriers = file.barriers, []
                file.answered = file.seen
                error = StoreError(f"failed to write {writer.path}: it could not be written before the end")
                found.append(self._outcome(file, barriers, file.seen, error))
        return found

    def close_handles(self) -> None:
        """Gives back every handle, but for those that alone lead to what was written."""
        for file in list(self._open):
            self._close_if_safe(file)

    def _outcomes(self, touched: dict[RolloutWriter, list[Job]]) -> list[Outcome]:
        outcomes = [self._serve(writer, jobs) for writer, jobs in touched.items()]
        return [outcome for outcome in outcomes if outcome is not None]

    def _serve(self, writer: RolloutWriter, jobs: list[Job]) -> Outcome | None:
        file = writer.file(self._files)
        trouble = self._trouble.get(writer)
        verbs = {job.verb for job in jobs} | (trouble.verbs if trouble is not None else set())
        for job in jobs:
            if job.verb is Verb.APPEND:
                file.add(job.lines, job.number)
            elif job.verb is Verb.REWRITE:
                file.rewrite(job.lines, job.number)
                if trouble is not None:
                    trouble.lost = False
            if job.barrier is not None:
                file.barriers.append(job.barrier)
        if trouble is not None and trouble.lost and not writer.dropped:
            trouble.verbs = verbs
            return None
        error: StoreError | None = None
        lost = False
        try:
            self._do(writer, file, verbs)
        except ContentLost:
            lost = True
        except Exception as exc:  # a bug must not end the thread that all sessions share
            error = _as_error(writer, exc)
        if lost or error is not None:
            if self._waits(writer, trouble, verbs, error, lost):
                return self._outcome(file, [], file.answered, None, lost=True) if lost else None
        else:
            self._trouble.pop(writer, None)
            if Verb.CLOSE in verbs:
                self._close(file)
                writer.release_lock()
        barriers, file.barriers = file.barriers, []
        file.answered = file.seen
        outcome = self._outcome(file, barriers, file.seen, error)
        outcome.over = error is None and (writer.dropped or Verb.CLOSE in verbs)
        return outcome

    def _outcome(
        self, file: RolloutFile, barriers: list[Barrier], seen: int, error: StoreError | None, *, lost: bool = False
    ) -> Outcome:
        freed, file.freed = file.freed, 0
        restored, file.restored = file.restored, False
        unsynced = file.take_unsynced() if self._sync else []
        return Outcome(
            file.writer,
            file.exists,
            seen,
            file.written,
            freed,
            error,
            barriers,
            unsynced,
            lost=lost,
            restored=restored,
        )

    def _do(self, writer: RolloutWriter, file: RolloutFile, verbs: set[Verb]) -> None:
        if writer.dropped:
            self._open.pop(file, None)
            file.forget(erase=Verb.ERASE in verbs)
        elif file.left or Verb.REWRITE in verbs or Verb.PERSIST in verbs or (Verb.CLOSE in verbs and file.exists):
            self._drain(file)

    def _drain(self, file: RolloutFile) -> None:
        """Writes all that is left; after an error once more with a fresh handle. Raises the error of the second try."""
        for last_try in (False, True):
            self._make_room(file)
            try:
                file.write()
                return
            except OSError as exc:
                self._close_if_safe(file)
                if exc.errno in NO_DESCRIPTORS:
                    self.close_handles()
                if last_try:
                    raise
            finally:
                if file.handle is not None:
                    self._open[file] = None
                    self._open.move_to_end(file)

    def _make_room(self, wanted: RolloutFile) -> None:
        """Sees to it that one more handle may be opened."""
        if wanted.handle is not None:
            return
        for file in list(self._open):
            if len(self._open) < self._open_files:
                return
            self._close_if_safe(file)

    def _close_if_safe(self, file: RolloutFile) -> None:
        if file.may_close():
            self._close(file)

    def _close(self, file: RolloutFile) -> None:
        self._open.pop(file, None)
        file.close()

    def _waits(
        self, writer: RolloutWriter, trouble: _Trouble | None, verbs: set[Verb], error: StoreError | None, lost: bool
    ) -> bool:
        """Notes the trouble; whether those who asked go on waiting instead of being told."""
        patience, now = self._patience, self._clock()
        if trouble is None:
            trouble = self._trouble[writer] = _Trouble(now, now, patience.first, set(), told=False)
        if lost:
            trouble.lost = True
            trouble.verbs = verbs
            return True
        cause = None if error is None else error.__cause__
        scarce = isinstance(cause, OSError) and cause.errno in NO_DESCRIPTORS
        if scarce and not trouble.told and now - trouble.since < patience.descriptors:
            trouble.again = now + patience.glance
            trouble.verbs = verbs
            return True
        # What was asked for is answered by the error; what is left is tried again.
        trouble.told = True
        trouble.verbs = {Verb.REWRITE} & verbs
        trouble.again = now + trouble.delay
        trouble.delay = min(2 * trouble.delay, patience.longest)
        if not writer.file(self._files).left and not trouble.verbs:
            del self._trouble[writer]
        return False


def _as_error(writer: RolloutWriter, cause: Exception) -> StoreError:
    told = str(cause) if isinstance(cause, OSError) else repr(cause)
    doing = "remove" if writer.dropped else "write"
    error = StoreError(f"failed to {doing} {writer.path}: {told}")
    error.__cause__ = cause
    return error
