from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from benchmarks.measures import summarise
from benchmarks.results import Budget, Results


@pytest.mark.parametrize(
    ("table", "ours", "peer", "verdict"),
    [
        ({"at_most_times_peer": 0.1}, [1.0], [10.0], "ok"),
        ({"at_most_times_peer": 0.1}, [1.1], [10.0], "MISSED"),
        ({"at_most_times_peer": 0.1}, [1.0], [], "not measured"),
        ({"at_least_times_peer": 20}, [1000.0], [50.0], "ok"),
        ({"at_least_times_peer": 20}, [999.0], [50.0], "MISSED"),
        ({"at_most": 50}, [50.0], [], "ok"),
        ({"at_most": 50}, [51.0], [1000.0], "MISSED"),
        ({"at_most": 50}, [], [1.0], "not measured"),
        ({"at_most": 50}, [1.0, 2.0, 900.0], [], "ok"),
    ],
)
def test_budgets_hold_for_the_median(
    table: dict[str, object], ours: list[float], peer: list[float], verdict: str
) -> None:
    assert Budget.parse("x", table).judge(summarise(ours), summarise(peer)) == verdict


@pytest.mark.parametrize("table", [{}, {"at_most": 0}, {"at_most": "1"}, {"below": 3}, {"at_most": 1, "at_least": 2}])
def test_a_budget_that_makes_no_sense_is_named(table: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="budget 'x'"):
        Budget.parse("x", table)


def _results() -> Results:
    results = Results({"a": Budget.parse("a", {"at_most_times_peer": 0.1}), "b": Budget.parse("b", {"at_most": 50})})
    slow = results.figure("a", "something slow")
    slow.ours.extend([2.0, 2.2, 2.1])
    slow.peer.extend([10.0, 11.0])
    results.figure("b", "something light", "KiB").ours.append(18.0)
    results.figure("c", "something without a budget").ours.append(0.5)
    return results


def test_the_table_shows_both_sides_the_ratio_and_the_verdict() -> None:
    text = io.StringIO()
    _results().show(Console(file=text, width=200))
    rows = {line.split()[0]: line for line in text.getvalue().splitlines() if line.strip()}
    for part in ("2.10 ms", "2.00 / 2.19 / 2.20 / 2.20; 3", "10.5 ms", "0.200", "<= 1/10 peer", "MISSED"):
        assert part in rows["a"]
    assert "<= 50 KiB" in rows["b"]
    assert "ok" in rows["b"]
    assert "MISSED" not in rows["c"]


def test_only_measured_budgets_can_be_missed() -> None:
    results = _results()
    assert [figure.key for figure in results.missed()] == ["a"]
    results.figures["a"].peer.clear()
    assert results.missed() == []


def test_the_json_holds_summaries_and_samples() -> None:
    results = _results()
    results.note_machine("here")
    found = json.loads(json.dumps(results.as_json()))
    first = found["figures"][0]
    assert first["key"] == "a"
    assert first["ours"]["median"] == 2.1
    assert first["ratio"] == pytest.approx(0.2)
    assert first["verdict"] == "MISSED"
    assert first["samples"] == {"ours": [2.0, 2.2, 2.1], "peer": [10.0, 11.0]}
    assert found["machine"]["here"]["fixed_loop_ms"] > 0
