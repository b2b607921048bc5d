"""The startup trace as lines and as a Chrome trace."""

from __future__ import annotations

from engine.cli.terminal import Palette
from engine.cli.waterfall import BAR_WIDTH, chrome_trace, waterfall
from engine.telemetry.trace import Span, StartupTrace

TRACE = StartupTrace(
    (Span("config", 0.0, 0.010), Span("thread_store", 0.010, 0.030), Span("shell", 0.010, 0.0001, "failed")), 0.040
)


def test_one_line_per_step_with_name_start_duration_and_bar() -> None:
    lines = waterfall(TRACE).splitlines()
    assert lines == [
        "startup           start       took",
        "config          0.00 ms   10.00 ms  " + "█" * 10,
        "thread_store   10.00 ms   30.00 ms  " + " " * 10 + "█" * 30,
        "shell          10.00 ms    0.10 ms  " + " " * 10 + "▏  failed",
        "ready          40.00 ms",
    ]


def test_bars_are_coloured_only_on_request() -> None:
    assert "\x1b" not in waterfall(TRACE)
    assert "\x1b[36m" + "█" * 10 in waterfall(TRACE, Palette(True))


def test_an_empty_or_instant_trace_is_fine() -> None:
    assert waterfall(StartupTrace((), 0.0)).splitlines()[-1].startswith("ready")
    assert "▏" in waterfall(StartupTrace((Span("x", 0.0, 0.0),), 0.0))
    late = waterfall(StartupTrace((Span("x", 1.0, 0.0),), 1.0)).splitlines()[1]
    assert late.endswith(" " * (BAR_WIDTH - 1) + "▏")


def test_overlapping_steps_get_rows_of_their_own() -> None:
    events = chrome_trace(TRACE)["traceEvents"]
    assert isinstance(events, list)
    assert [(event["name"], event["ts"], event["tid"], event["ph"]) for event in events] == [
        ("config", 0.0, 1, "X"),
        ("thread_store", 10_000.0, 1, "X"),
        ("shell", 10_000.0, 2, "X"),
    ]
