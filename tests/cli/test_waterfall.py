"""The startup trace as lines and as a Chrome trace."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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
        ("ready", 40_000.0, 1, "i"),
    ]


WITH_BACKGROUND = StartupTrace(
    (Span("session", 0.0, 0.010),),
    0.010,
    (
        Span("prewarm", 0.010, 0.030),
        Span("model_catalogue", 0.011, 0.005, "failed"),
        Span("late", 0.012, 0.028, "running"),
    ),
)


def test_what_runs_in_the_background_is_shown_with_what_has_become_of_it() -> None:
    lines = waterfall(WITH_BACKGROUND).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "session",
        "prewarm (background)",
        "model_catalogue (background)",
        "late (background)",
        "ready",
    ]
    assert lines[2].endswith(" " * 10 + "█" * 30)
    assert lines[3].endswith("█  failed")
    assert lines[4].endswith("█  still running")
    events = chrome_trace(WITH_BACKGROUND)["traceEvents"]
    assert isinstance(events, list)
    assert [(event["name"], event["cat"], event["tid"]) for event in events] == [
        ("session", "startup", 1),
        ("prewarm", "background", 1),
        ("model_catalogue", "background", 2),
        ("late", "background", 3),
        ("ready", "startup", 1),
    ]


@given(
    st.lists(
        st.builds(
            Span, st.text("ab ", min_size=1), st.floats(0, 9), st.floats(0, 9), st.sampled_from(["ok", "running"])
        )
    ),
    st.floats(0, 9),
)
def test_no_two_steps_of_a_row_overlap(spans: list[Span], duration: float) -> None:
    trace = StartupTrace(tuple(spans[::2]), duration, tuple(spans[1::2]))
    events = [event for event in chrome_trace(trace)["traceEvents"] if event["ph"] == "X"]  # type: ignore[attr-defined]
    assert len(events) == len(spans)
    free: dict[int, float] = {}
    for event in events:
        assert event["ts"] >= free.get(event["tid"], 0.0) - 1e-3
        free[event["tid"]] = event["ts"] + event["dur"]
    lines = waterfall(trace).splitlines()
    assert len(lines) == len(spans) + 2
