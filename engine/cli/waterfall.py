"""The startup trace for people (one line with a bar per step) and for trace viewers (Chrome trace format)."""

from __future__ import annotations

from engine.cli.terminal import Palette
from engine.protocol.wire import JsonObject
from engine.telemetry.trace import Span, StartupTrace

__all__ = ["chrome_trace", "waterfall"]

BAR_WIDTH = 40
_STATUS_MARK = {"ok": "", "failed": "  failed", "cancelled": "  cancelled"}


def waterfall(trace: StartupTrace, palette: Palette | None = None) -> str:
    """One line per step: name, start, duration (both in milliseconds), bar. Ends with the total."""
    palette = palette or Palette(False)
    width = max([len("startup"), *(len(span.name) for span in trace.spans)])
    total = max([trace.duration, *(span.start + span.duration for span in trace.spans)])
    lines = [palette.bold(f"{'startup':<{width}}  {'start':>9}  {'took':>9}")]
    for span in trace.spans:
        bar = palette.cyan(_bar(span, total))
        lines.append(f"{span.name:<{width}}  {_ms(span.start)}  {_ms(span.duration)}  {bar}{_STATUS_MARK[span.status]}")
    lines.append(palette.dim(f"{'ready':<{width}}  {_ms(trace.duration)}"))
    return "\n".join(lines) + "\n"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:6.2f} ms"


def _bar(span: Span, total: float) -> str:
    if total <= 0:
        return "▏"
    begin = min(BAR_WIDTH - 1, round(span.start / total * BAR_WIDTH))
    length = round(span.duration / total * BAR_WIDTH)
    return " " * begin + ("█" * min(length, BAR_WIDTH - begin) if length else "▏")


def chrome_trace(trace: StartupTrace) -> JsonObject:
    """The trace as a Chrome trace document; times are microseconds. Overlapping steps get rows of their own."""
    rows: list[float] = []  # when each row is free again
    events: list[JsonObject] = []
    for span in trace.spans:
        end = span.start + span.duration
        row = next((at for at, free in enumerate(rows) if free <= span.start), len(rows))
        rows[row : row + 1] = [end]
        events.append(
            {
                "name": span.name,
                "cat": "startup",
                "ph": "X",
                "ts": span.start * 1e6,
                "dur": span.duration * 1e6,
                "pid": 1,
                "tid": row + 1,
                "args": {"status": span.status},
            }
        )
    return {"traceEvents": events, "displayTimeUnit": "ms"}
