"""The golden cases of configuration: layers, AGENTS.md, writing, the environment of commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vectors.run import cases_of, run_one

CASES = Path(__file__).parents[1] / "vectors" / "config_merge"


@pytest.mark.parametrize(
    ("name", "least"), [("agents_md", 15), ("config_layers", 48), ("config_write", 9), ("shell_env", 5)]
)
def test_golden_cases_pass_or_wait_for_what_is_not_built(name: str, least: int) -> None:
    outcomes = [run_one(case) for case in cases_of(CASES / f"{name}.json") or []]
    failed = [outcome for outcome in outcomes if outcome.verdict != "passed"]
    assert [outcome for outcome in failed if not str(outcome.got).endswith("not built yet")] == []
    assert len(outcomes) - len(failed) >= least
