"""All golden cases of the algebra, on the real disk and on a described one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.vectors.permission_cases import DESCRIBED, run_described
from tests.vectors.run import cases_of, run_one

CASES = Path(__file__).parents[1] / "vectors" / "permissions"
# Needs the sandbox; `tests/vectors/run.py` runs it.
LATER = {"layouts.json", "sandbox_probe.json"}
FILES = [file for file in sorted(CASES.glob("*.json")) if file.name not in LATER]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_cases_on_the_disk(file: Path) -> None:
    outcomes = [run_one(case) for case in cases_of(file) or []]
    assert outcomes
    assert [outcome for outcome in outcomes if outcome.verdict != "passed"] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_cases_on_a_described_disk(file: Path) -> None:
    cases: list[dict[str, Any]] = json.loads(file.read_text())
    for case in cases:
        if case["op"] in DESCRIBED:
            expected, got = run_described(case, file)
            assert got == expected, case["id"]
