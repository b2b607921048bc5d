"""The benchmarks themselves, small: that every scenario runs, not how fast."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import plan, startup
from benchmarks.results import Budget

SIZES = {
    "warm_rows": 1,
    "burst_rounds": 1,
    "burst_starts": 3,
    "turns": 1,
    "cold_starts": 1,
    "memory_rounds": 1,
    "memory_sessions": 5,
    "memory_turn_sessions": 3,
    "memory_peer_threads": 1,
    "idle_rounds": 1,
    "idle_sessions": 5,
    "loop_sessions": 10,
    "imports": 1,
    "scans": 1,
    "scan_mb": 1,
    "permission_rounds": 1,
    "sandboxed_commands": 1,
    "resumes": 1,
    "resume_thread_mb": 1,
    "resume_small_mb": 1,
    "resume_large_mb": 2,
    "threads": 60,
    "thread_rounds": 1,
    "thread_writers": 5,
}
FIGURES = {
    "warm": {"warm.persistent", "warm.persistent.p95", "warm.ephemeral", "step.session", "burst.persistent"},
    "turns": {
        "turn.answer",
        "turn.shell",
        "turn.shell.tool",
        "turn.sandboxed",
        "turn.answer.scripted",
        "turn.shell.scripted",
    },
    "cold": {"cold.exec.module", "cold.turn.module", "cold.help.module", "cold.python"},
    "memory": {"memory.session", "memory.after_turn"},
    "idle": {"idle.cpu", "loop.memory", "loop.fds", "loop.threads"},
    "resume": {"resume.compacted", "resume.uncompacted.turn", "resume.growth", "resume.memory.growth"},
    "imports": {"import.trio", "import.engine", "import.used"},
    "scanner": {"scan.forward.pure", "scan.backward.pure", "scan.count.pure", "scan.marks.pure"},
    "sandbox": {"sandbox.true", "sandbox.bare", "sandbox.over_bare", "sandbox.plain", "sandbox.nested"},
    "threads": {"threads.page", "threads.rebuild", "threads.turns.last", "threads.append.os", "threads.append.fsync"},
    "permissions": {"permissions.query.pure", "permissions.apply.default", "permissions.apply.many"},
}


def _limit(monkeypatch: pytest.MonkeyPatch, **budgets: object) -> None:
    made = {name.replace("__", "."): Budget("at_most", float(str(limit)), False) for name, limit in budgets.items()}
    monkeypatch.setattr(plan.Plan, "load", lambda quick: plan.Plan(SIZES, made))


def test_the_sizes_here_are_those_of_bench_toml() -> None:
    assert SIZES.keys() == plan.Plan.load(quick=True).sizes.keys()


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory through /proc")
@pytest.mark.parametrize("name", startup.SCENARIOS)
def test_every_scenario_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _limit(monkeypatch)
    target = tmp_path / "out" / "results.json"
    before = dict(os.environ)
    code = startup.main(["--no-peer", "--only", name, "--json", str(target), "--scratch", str(tmp_path)])
    assert code == 0, capsys.readouterr().err
    assert dict(os.environ) == before
    figures = {figure["key"]: figure for figure in json.loads(target.read_text())["figures"]}
    assert figures.keys() >= FIGURES[name]
    assert all(figure["ours"]["n"] >= 1 for figure in figures.values())
    assert next(iter(figures)) in capsys.readouterr().out


@pytest.mark.parametrize(("limit", "check", "code"), [(1e-9, True, 1), (1e-9, False, 0), (1e9, True, 0)])
def test_a_missed_budget_is_told_and_fails_a_check(
    limit: float,
    check: bool,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _limit(monkeypatch, scan__forward__pure=limit)
    words = [
        "--no-peer",
        "--only",
        "scanner",
        "--json",
        str(tmp_path / "results.json"),
        *(["--check"] if check else []),
    ]
    assert startup.main(words) == code
    assert ("budgets missed: scan.forward.pure" in capsys.readouterr().err) == (limit < 1)


def test_a_peer_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert startup.main(["--peer", str(tmp_path / "nothing"), "--only", "scanner"]) == 1
    assert "no binary" in capsys.readouterr().err


def test_unknown_scenarios_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        startup.main(["--only", "nonsense"])
    assert end.value.code == 2
    assert "no such scenario: nonsense" in capsys.readouterr().err
