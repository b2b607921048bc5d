"""What is measured with: summaries of samples, memory of a process, and how noisy the machine is right now."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence

import attrs

__all__ = ["Machine", "Summary", "anonymous_memory", "percentile", "summarise"]

FIXED_LOOP = 200_000  # rounds; a few milliseconds of pure arithmetic


@attrs.frozen
class Summary:
    """Samples in six numbers. The median is the one to quote; the minimum is the best view of an idle machine."""

    n: int
    minimum: float
    median: float
    p95: float
    p99: float
    maximum: float


def percentile(samples: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the samples lie, interpolated between neighbours."""
    ordered = sorted(samples)
    at = (len(ordered) - 1) * share
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def summarise(samples: Sequence[float]) -> Summary | None:
    """`None` where there are no samples."""
    if not samples:
        return None
    return Summary(
        n=len(samples),
        minimum=min(samples),
        median=statistics.median(samples),
        p95=percentile(samples, 0.95),
        p99=percentile(samples, 0.99),
        maximum=max(samples),
    )


def anonymous_memory(process: int | None = None) -> int:
    """Bytes of anonymous resident memory of a process (default: this one): what it alone needs and can't drop.

    Linux only; raises `OSError` elsewhere.
    """
    with open(f"/proc/{'self' if process is None else process}/smaps_rollup", "rb") as found:
        for line in found:
            if line.startswith(b"Anonymous:"):
                return int(line.split()[1]) * 1024
    raise OSError("smaps_rollup has no line `Anonymous`")


@attrs.frozen
class Machine:
    """How busy the machine was at one moment: the load of the last minute, and what a fixed loop took (ms)."""

    load: float
    fixed_loop_ms: float

    @classmethod
    def now(cls) -> Machine:
        """Takes about 50 ms."""
        return cls(load=os.getloadavg()[0], fixed_loop_ms=min(_fixed_loop() for _ in range(5)))


def _fixed_loop() -> float:
    began = time.perf_counter()
    total = 0
    for number in range(FIXED_LOOP):
        total += number * number
    return (time.perf_counter() - began) * 1000
