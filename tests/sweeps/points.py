"""Points of a run, by names that stay the same, and doing something at exactly one of them (CONCURRENCY 1.2).

A point is a task, by its path from the task of the case, one of its steps, and a side: before the step (something
happens, the task runs on) or after it (the task is parked at exactly that await). A global count would be no stable
name: with threads about, runs differ in length and order.
"""

from __future__ import annotations

import logging
import re
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, final

import attrs
import trio
import trio._core._run as trio_scheduler  # private: the switch below; see `scheduled`

__all__ = ["Point", "Points", "interrupt", "scheduled"]

logger = logging.getLogger(__name__)

Side = Literal["before", "after"]
_Place = tuple[tuple[object, int], ...]

READS = 1  # how often a task reads in one place before that is nothing new: writers decide how much comes at once
_WAITS = ("wait_readable", "wait_writable")

_FRESH = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]+|0x[0-9a-f]+|call_[A-Za-z0-9_-]+")


@attrs.frozen(order=True)
class Point:
    """One place in a run: step `count` of the task at `path`, or the await at the end of that step."""

    path: tuple[str, ...]
    count: int
    side: Side

    def __str__(self) -> str:
        return f"{self.side} step {self.count} of {' / '.join(self.path) or 'the case'}"


@final
class Points(trio.abc.Instrument):
    """Sees the points of a run between `arm` and `disarm`; at `target` it calls what it was armed with.

    The action runs between steps of tasks: it must be synchronous, like `CancelScope.cancel` or `interrupt`.
    """

    def __init__(self, target: Point | None = None) -> None:
        self.target = target
        self.seen: set[Point] = set()
        self.hit = False
        self.error: str | None = None
        self._paths: dict[trio.lowlevel.Task, tuple[str, ...]] = {}
        self._steps: Counter[trio.lowlevel.Task] = Counter()
        self._siblings: Counter[tuple[str, ...]] = Counter()
        self._visits: Counter[tuple[trio.lowlevel.Task, _Place]] = Counter()
        self._reading: set[trio.lowlevel.Task] = set()
        self._action: Callable[[], object] | None = None

    def arm(self, action: Callable[[], object], root: trio.lowlevel.Task | None = None) -> None:
        """From now on, for `root` (the current task) and all below it, what it has running already included."""
        self._action = action
        self._adopt(root or trio.lowlevel.current_task(), ())
        trio.lowlevel.add_instrument(self)

    def disarm(self) -> None:
        """What follows has no points. Idempotent."""
        if self._action is not None:
            self._action = None
            trio.lowlevel.remove_instrument(self)

    def _adopt(self, task: trio.lowlevel.Task, path: tuple[str, ...]) -> None:
        self._paths[task] = path
        for nursery in task.child_nurseries:
            for child in sorted(nursery.child_tasks, key=lambda child: (child.name, child._counter)):
                self._adopt(child, self._name(path, child))

    def _name(self, path: tuple[str, ...], task: trio.lowlevel.Task) -> tuple[str, ...]:
        name = _FRESH.sub("*", task.name.rpartition(".")[2] if "." in task.name else task.name)
        number = self._siblings[(*path, name)]
        self._siblings[(*path, name)] += 1
        return (*path, f"{name}#{number}" if number else name)

    # --- what Trio tells ---------------------------------------------------------------------------

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        parent = None if task.parent_nursery is None else task.parent_nursery.parent_task
        if parent in self._paths:
            self._paths[task] = self._name(self._paths[parent], task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._pass(task, "before")

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task in self._paths and task.coro.cr_frame is not None:  # else it has ended
            self._pass(task, "after")
            if not self._reads_on(task):
                self._steps[task] += 1

    def _reads_on(self, task: trio.lowlevel.Task) -> bool:
        """Whether the step belongs to a loop of reads that went on for `READS` rounds: it is no new point."""
        place, waits = _place_of(task)
        self._visits[task, place] += 1
        known = self._visits[task, place] > READS
        if known and waits:
            self._reading.add(task)
        elif not known:
            self._reading.discard(task)
        return known and task in self._reading

    def _pass(self, task: trio.lowlevel.Task, side: Side) -> None:
        path = self._paths.get(task)
        if path is None:
            return
        point = Point(path, self._steps[task], side)
        self.seen.add(point)
        if point == self.target and not self.hit and self._action is not None:
            self.hit = True
            try:
                self._action()
            except BaseException:  # Trio would drop the instrument and go on
                self.error = traceback.format_exc()


def _place_of(task: trio.lowlevel.Task) -> tuple[_Place, bool]:
    """Where a task is parked, and whether it waits there for a descriptor."""
    place: list[tuple[object, int]] = []
    names: set[str] = set()
    waiting: Any = task.coro
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            place.append((frame.f_code, frame.f_lasti))
            names.add(frame.f_code.co_name)
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return tuple(place), not names.isdisjoint(_WAITS)


def interrupt() -> None:
    """Ctrl-C. Between two steps Trio's own handler takes note of it and gives it to the main task."""
    signal.raise_signal(signal.SIGINT)


@contextmanager
def scheduled(seed: int) -> Iterator[None]:
    """Trio's scheduler shuffles ready tasks in an order that `seed` decides.

    The switch is private; pytest-trio sets the same one for hypothesis.
    """
    before = trio_scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    state = trio_scheduler._r.getstate()
    trio_scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_scheduler._r.seed(seed)
    try:
        yield
    finally:
        trio_scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        trio_scheduler._r.setstate(state)
