"""The startup trace for people (one line with a bar per step) and for trace viewers (Chrome trace format)."""

from __future__ import annotations

from engine.cli.terminal import Palette
from engine.protocol.wire import JsonObject
from engine.telemetry.trace import Span, StartupTrace

__all__ = ["chrome_trace", "waterfall"]

BAR_WIDTH = 40
_STATUS_MARK = {"ok": "", "failed": "  failed", "cancelled": "  cancelled", "running": "  still running"}


def waterfall(trace: StartupTrace, palette: Palette | None = None) -> str:
    """One line per step: name, start, duration (both in milliseconds), bar. Ends with the moment all was ready.

    Steps in the background may begin before that moment and end after it.
    """
    palette = palette or Palette(False)
    steps = _steps(trace)
    names = [span.name + (" (background)" if background else "") for span, background in steps]
    width = max([len("startup"), *map(len, names)])
    total = max([trace.duration, *(span.start + span.duration for span, _ in steps)])
    lines = [palette.bold(f"{'startup':<{width}}  {'start':>9}  {'took':>9}")]
    for name, (span, _) in zip(names, steps, strict=True):
        bar = palette.cyan(_bar(span, total))
        lines.append(f"{name:<{width}}  {_ms(span.start)}  {_ms(span.duration)}  {bar}{_STATUS_MARK[span.status]}")
    lines.append(palette.dim(f"{'ready':<{width}}  {_ms(trace.duration)}"))
    return "\n".join(lines) + "\n"


def _steps(trace: StartupTrace) -> list[tuple[Span, bool]]:
    """All spans with whether they are in the background, in the order they began."""
    steps = [(span, False) for span in trace.spans] + [(span, True) for span in trace.background]
    return sorted(steps, key=lambda step: step[0].start)


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
    for span, background in _steps(trace):
        end = span.start + span.duration
        row = next((at for at, free in enumerate(rows) if free <= span.start), len(rows))
        rows[row : row + 1] = [end]
        events.append(
            {
                "name": span.name.strip(),
                "cat": "background" if background else "startup",
                "ph": "X",
                "ts": span.start * 1e6,
                "dur": span.duration * 1e6,
                "pid": 1,
                "tid": row + 1,
                "args": {"status": span.status},
            }
        )
    ready: JsonObject = {"name": "ready", "cat": "startup", "ph": "i", "ts": trace.duration * 1e6, "pid": 1, "tid": 1}
    return {"traceEvents": [*events, {**ready, "s": "p"}], "displayTimeUnit": "ms"}
