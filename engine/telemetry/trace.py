"""The startup trace: which step of a start ran when, for how long, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from engine.records import frozen

__all__ = ["Span", "StartupTrace", "TraceRecorder"]

Status = Literal["ok", "failed", "cancelled", "running"]


@frozen
class Span:
    """One step: seconds since the start of the trace, seconds it took (so far, if it runs), and how it ended."""

    name: str
    start: float
    duration: float
    status: Status = "ok"


@frozen
class StartupTrace:
    """The spans of one start in the order they began; `duration` is seconds until the session was ready.

    `background` are steps that hold nobody up, as far as they got; `origin` is the `time.perf_counter()` of second 0.
    """

    spans: tuple[Span, ...]
    duration: float
    background: tuple[Span, ...] = ()
    origin: float = 0.0


class TraceRecorder:
    """Collects spans; a span costs two clock reads and one append. `origin` is when the trace began (default: now)."""

    __slots__ = ("_background", "_duration", "_origin", "_running", "_spans")

    def __init__(self, origin: float | None = None) -> None:
        self._origin = time.perf_counter() if origin is None else origin
        self._spans: list[Span] = []
        self._duration: float | None = None
        self._background: list[Span] | None = None  # made with the first: most sessions have none
        self._running: dict[str, float] | None = None

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Times the block. An `Exception` makes the span `failed`, anything else `cancelled`."""
        began = time.perf_counter()
        status: Status = "ok"
        try:
            yield
        except Exception:
            status = "failed"
            raise
        except BaseException:
            status = "cancelled"
            raise
        finally:
            self.add(name, began, time.perf_counter(), status)

    def add(self, name: str, began: float, ended: float, status: Status = "ok") -> None:
        """Adds a span measured elsewhere by `time.perf_counter()`."""
        span = Span(name, began - self._origin, ended - began, status)
        if self._running is not None and self._running.pop(name, None) is not None:
            assert self._background is not None
            self._background.append(span)
        else:
            self._spans.append(span)

    def begin_background(self, name: str) -> None:
        """A step that holds nobody up begins; the span that is added under its name is its end."""
        if self._running is None or self._background is None:
            self._running, self._background = {}, []
        self._running[name] = time.perf_counter()

    def include(self, trace: StartupTrace) -> None:
        """Adds the spans of a trace that was recorded meanwhile, indented."""
        at = trace.origin - self._origin
        self._spans += [Span(f"  {span.name}", at + span.start, span.duration, span.status) for span in trace.spans]
        if trace.background:
            shown = [Span(f"  {span.name}", at + span.start, span.duration, span.status) for span in trace.background]
            self._background = [*(self._background or ()), *shown]

    def finish(self) -> None:
        """All is ready now."""
        self._duration = time.perf_counter() - self._origin

    def trace(self) -> StartupTrace:
        """What was recorded so far, with what runs in the background."""
        now = time.perf_counter()
        background = list(self._background or ())
        for name, began in (self._running or {}).items():
            background.append(Span(name, began - self._origin, now - began, "running"))
        return StartupTrace(
            tuple(sorted(self._spans, key=_start)),
            now - self._origin if self._duration is None else self._duration,
            tuple(sorted(background, key=_start)),
            self._origin,
        )


def _start(span: Span) -> float:
    return span.start
