"""All golden cases of enforcement, in the real sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vectors.run import Case, cases_of, run_one

FILE = Path(__file__).parents[2] / "vectors" / "permissions" / "sandbox_probe.json"


@pytest.mark.parametrize("case", cases_of(FILE) or [], ids=lambda case: case.id)
def test_cases(case: Case) -> None:
    outcome = run_one(case)
    if outcome.verdict == "skipped":
        pytest.skip(str(outcome.got))
    assert (outcome.verdict, outcome.got) == ("passed", outcome.expected)
