"""The startup trace: what was recorded, what runs meanwhile, and traces within traces."""

from __future__ import annotations

import time

import pytest

from engine.telemetry.trace import TraceRecorder


def test_spans_end_as_their_blocks_do() -> None:
    recorder = TraceRecorder()
    with recorder.span("good"):
        pass
    with pytest.raises(ValueError, match="x"), recorder.span("bad"):
        raise ValueError("x")
    with pytest.raises(KeyboardInterrupt), recorder.span("stopped"):
        raise KeyboardInterrupt
    recorder.finish()
    trace = recorder.trace()
    assert [(span.name, span.status) for span in trace.spans] == [
        ("good", "ok"),
        ("bad", "failed"),
        ("stopped", "cancelled"),
    ]
    assert trace.duration >= sum(span.duration for span in trace.spans)
    assert trace.background == ()


def test_the_background_is_told_as_far_as_it_has_got() -> None:
    recorder = TraceRecorder()
    recorder.add("step", time.perf_counter(), time.perf_counter())
    recorder.finish()
    ready = recorder.trace().duration
    recorder.begin_background("slow")
    recorder.begin_background("quick")
    recorder.add("quick", time.perf_counter(), time.perf_counter(), "failed")
    trace = recorder.trace()
    assert [span.name for span in trace.spans] == ["step"]
    assert [(span.name, span.status) for span in trace.background] == [("slow", "running"), ("quick", "failed")]
    assert trace.duration == ready
    recorder.add("slow", time.perf_counter(), time.perf_counter())
    assert {span.name: span.status for span in recorder.trace().background} == {"slow": "ok", "quick": "failed"}


def test_a_trace_within_a_trace_stands_where_it_was() -> None:
    inner = TraceRecorder(origin=105.0)
    inner.add("step", 105.5, 106.0)
    inner.begin_background("later")
    inner.add("later", 106.0, 107.0)
    outer = TraceRecorder(origin=100.0)
    outer.add("start", 105.0, 106.5)
    outer.include(inner.trace())
    trace = outer.trace()
    assert [(span.name, span.start, span.duration) for span in trace.spans] == [
        ("start", 5.0, 1.5),
        ("  step", 5.5, 0.5),
    ]
    assert [(span.name, span.start, span.duration) for span in trace.background] == [("  later", 6.0, 1.0)]
