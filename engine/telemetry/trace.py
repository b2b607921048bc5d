"""The startup trace: which step of a start ran when, for how long, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from engine.records import frozen

__all__ = ["Span", "StartupTrace", "TraceRecorder"]


@frozen
class Span:
    """One step: seconds since the start of the trace, seconds it took, and how it ended."""

    name: str
    start: float
    duration: float
    status: Literal["ok", "failed", "cancelled"] = "ok"


@frozen
class StartupTrace:
    """The spans of one start in the order they began; `duration` is seconds until the session was ready."""

    spans: tuple[Span, ...]
    duration: float


class TraceRecorder:
    """Collects spans; a span costs two clock reads and one append. `origin` is when the trace began (default: now)."""

    __slots__ = ("_origin", "_spans")

    def __init__(self, origin: float | None = None) -> None:
        self._origin = time.perf_counter() if origin is None else origin
        self._spans: list[Span] = []

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Times the block. An `Exception` makes the span `failed`, anything else `cancelled`."""
        began = time.perf_counter()
        status: Literal["ok", "failed", "cancelled"] = "ok"
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

    def add(self, name: str, began: float, ended: float, status: Literal["ok", "failed", "cancelled"] = "ok") -> None:
        """Adds a span measured elsewhere by `time.perf_counter()`."""
        self._spans.append(Span(name, began - self._origin, ended - began, status))

    def finish(self) -> StartupTrace:
        """What was recorded so far."""
        return StartupTrace(tuple(sorted(self._spans, key=_start)), time.perf_counter() - self._origin)


def _start(span: Span) -> float:
    return span.start
