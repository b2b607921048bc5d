"""Every golden case of command safety and exec policy (tests/vectors)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vectors.run import Case, cases_of

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
FILES = [file for area in ("command_safety", "exec_policy") for file in sorted((VECTORS / area).glob("*.json"))]
CASES = [case for file in FILES for case in cases_of(file) or ()]


def test_there_are_cases() -> None:
    assert len(FILES) == 4
    assert len(CASES) >= 189


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.id))
def test_case(case: Case, tmp_path: Path) -> None:
    assert case.run is not None, case.reason
    expected, got = case.run(tmp_path)
    assert got == expected
