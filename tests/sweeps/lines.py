"""Points between the lines of our own code: where Ctrl-C comes while a task runs, not while all wait (CONCURRENCY 1.1).

Python hands a signal to its handler between two instructions; lines are where it makes a difference that people can
follow. Two kinds of lines are no points, because no signal is looked at there: those without an instruction of their
own (`try:`), and the first line of a `with` block when it is passed again, before `__exit__` is called.
"""

from __future__ import annotations

import dis
import functools
import os
import sys
import threading
import traceback
from collections.abc import Callable
from types import CodeType, FrameType
from typing import final

import trio

import engine
from tests.sweeps.points import Point

__all__ = ["Lines"]

OURS = os.path.dirname(engine.__file__) + os.sep


@final
class Lines:
    """As `Points`, for the lines that Trio's thread runs between `arm` and `disarm`; with `threads`, those of threads
    that begin meanwhile, too."""

    def __init__(self, target: Point | None = None, *, threads: bool = False) -> None:
        self.target = target
        self._threads = threads
        self.seen: set[Point] = set()
        self.hit = False
        self.error: str | None = None
        self._action: Callable[[], object] | None = None
        self._before: object = None

    def arm(self, action: Callable[[], object], root: trio.lowlevel.Task | None = None) -> None:
        """From now on, in every task."""
        self._action = action
        self._before = sys.gettrace()
        if self._threads:
            threading.settrace(self._enter)  # type: ignore[arg-type]
        sys.settrace(self._enter)  # type: ignore[arg-type]

    def disarm(self) -> None:
        """What follows has no points. Idempotent."""
        if self._action is not None:
            self._action = None
            if self._threads:
                threading.settrace(None)
            sys.settrace(self._before)  # type: ignore[arg-type]

    def _enter(self, frame: FrameType, event: str, argument: object) -> object:
        return self._line if frame.f_code.co_filename.startswith(OURS) else None

    def _line(self, frame: FrameType, event: str, argument: object) -> object:
        if event != "line" or self._action is None or frame.f_lasti in _deaf(frame.f_code):
            return self._line
        name = frame.f_code.co_filename.removeprefix(OURS)
        point = Point((name, f"line {frame.f_lineno}"), 0, "before")
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
def _deaf(code: CodeType) -> frozenset[int]:
    """Where lines begin at which no signal is looked at: nothing is done, or `__exit__(None, None, None)` is called."""
    steps = list(dis.get_instructions(code))
    loads_none = [step.opname.startswith("LOAD_CONST") and step.argval is None for step in steps]
    return frozenset(
        step.offset for at, step in enumerate(steps) if step.opname == "NOP" or all(loads_none[at : at + 3])
    )
