from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.plan import Plan
from engine.session.steps import GRAPH


def test_bench_toml_gives_every_startup_step_the_budget_of_the_graph() -> None:
    budgets = Plan.load(quick=False).budgets
    steps = {name.removeprefix("step."): budget.limit for name, budget in budgets.items() if name.startswith("step.")}
    assert steps == {step.name: step.budget_ms for step in GRAPH if step.when == "before_ready"}


def test_bench_toml_holds_what_was_promised() -> None:
    budgets = Plan.load(quick=True).budgets
    promised = {
        "cold.exec": "<= 2.2x peer",
        "warm.persistent": "<= 1/20 peer",
        "warm.persistent.p95": "<= 3 ms",
        "burst.persistent": ">= 30x peer",
        "turn.answer": "<= 1/10 peer",
        "turn.shell": "<= 1/5 peer",
        "turn.sandboxed": "<= 1/4 peer",
        "memory.session": "<= 40 KiB",
        "idle.cpu": "<= 0.5 %",
        "loop.memory": "<= 2 MB",
        "import.engine": "<= 10 ms",
    }
    units = {"memory.session": "KiB", "idle.cpu": "%", "loop.memory": "MB"}
    assert {name: budgets[name].text(units.get(name, "ms")) for name in promised} == promised


def test_quick_is_never_more_than_full() -> None:
    full, quick = Plan.load(quick=False).sizes, Plan.load(quick=True).sizes
    assert full.keys() == quick.keys()
    assert all(quick[name] <= full[name] for name in full)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[scenarios]\n",
        "[scenarios]\nturns = 3\n[budgets]\n",
        "[scenarios]\nturns = { full = 3 }\n[budgets]\n",
        "[scenarios]\nturns = { full = 0, quick = 1 }\n[budgets]\n",
        "[scenarios]\n[budgets]\nx = { fast = 1 }\n",
        "[scenarios",
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(text)
    with pytest.raises(ValueError):
        Plan.load(quick=False, path=path)
