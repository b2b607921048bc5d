from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measures import Machine, anonymous_memory, percentile, summarise

samples = st.lists(st.floats(min_value=0, max_value=1e9), min_size=1, max_size=50)


@given(samples)
def test_summaries_are_ordered_and_made_of_the_samples(values: list[float]) -> None:
    found = summarise(values)
    assert found is not None
    assert found.n == len(values)
    assert found.minimum == min(values)
    assert found.maximum == max(values)
    assert found.minimum <= found.median <= found.maximum
    assert found.minimum <= found.p95 <= found.p99 <= found.maximum


@given(samples)
def test_the_middle_percentile_is_the_median(values: list[float]) -> None:
    assert percentile(values, 0.5) == pytest.approx(statistics.median(values))


def test_percentiles_are_interpolated() -> None:
    assert percentile([10, 20, 30, 40, 50], 0.95) == pytest.approx(48)


def test_no_samples_have_no_summary() -> None:
    assert summarise([]) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_grows_with_what_is_touched() -> None:
    # In a process of its own: this one may give memory back at any time.
    measured = (
        "from benchmarks.measures import anonymous_memory\n"
        "before = anonymous_memory()\n"
        "held = b'x' * (32 << 20)\n"
        "print(anonymous_memory() - before >= len(held) // 2)"
    )
    root = Path(__file__).parents[2]
    child = subprocess.run([sys.executable, "-c", measured], cwd=root, capture_output=True, text=True, check=True)
    assert child.stdout == "True\n"
    assert anonymous_memory(os.getpid()) > 0


def test_the_machine_is_timed() -> None:
    assert Machine.now().fixed_loop_ms > 0
