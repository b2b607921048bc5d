"""Points between the lines of our own code: where Ctrl-C comes while a task runs, not while all wait (CONCURRENCY 1.1).

Python hands a signal to its handler between two instructions; lines are where it makes a difference that people can
follow. A line that is passed again counts as another point, up to a few times. The end of a `with` block passes its
first line again, before `__exit__` is called: no signal is looked at there, so that is no point.
"""

from __future__ import annotations

import dis
import functools
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from types import CodeType, FrameType
from typing import final

import trio

import engine
from tests.sweeps.points import Point

__all__ = ["Lines"]

OURS = os.path.dirname(engine.__file__) + os.sep
PASSES = 2  # of one line


@final
class Lines:
    """As `Points`, for the lines that Trio's thread runs between `arm` and `disarm`."""

    def __init__(self, target: Point | None = None) -> None:
        self.target = target
        self.seen: set[Point] = set()
        self.hit = False
        self.error: str | None = None
        self._passes: Counter[tuple[str, int]] = Counter()
        self._action: Callable[[], object] | None = None
        self._before: object = None

    def arm(self, action: Callable[[], object], root: trio.lowlevel.Task | None = None) -> None:
        """From now on, in every task."""
        self._action = action
        self._before = sys.gettrace()
        sys.settrace(self._enter)  # type: ignore[arg-type]

    def disarm(self) -> None:
        """What follows has no points. Idempotent."""
        if self._action is not None:
            self._action = None
            sys.settrace(self._before)  # type: ignore[arg-type]

    def _enter(self, frame: FrameType, event: str, argument: object) -> object:
        return self._line if frame.f_code.co_filename.startswith(OURS) else None

    def _line(self, frame: FrameType, event: str, argument: object) -> object:
        if event != "line" or self._action is None or frame.f_lasti in _with_exits(frame.f_code):
            return self._line
        name = frame.f_code.co_filename.removeprefix(OURS)
        place = (name, frame.f_lineno)
        self._passes[place] += 1
        if self._passes[place] > PASSES:
            return self._line
        point = Point((name, f"line {frame.f_lineno}"), self._passes[place], "before")
        self.seen.add(point)
        if point == self.target and not self.hit:
            self.hit = True
            try:
                self._action()
            except KeyboardInterrupt:
                raise  # into the code that runs: it is not protected
            except BaseException:
                self.error = traceback.format_exc()
        return self._line


@functools.cache
def _with_exits(code: CodeType) -> frozenset[int]:
    """Where `__exit__(None, None, None)` begins to be called."""
    steps = list(dis.get_instructions(code))
    loads_none = [step.opname.startswith("LOAD_CONST") and step.argval is None for step in steps]
    return frozenset(step.offset for at, step in enumerate(steps) if all(loads_none[at : at + 3]))
