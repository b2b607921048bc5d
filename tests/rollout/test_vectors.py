"""The golden vectors of rollouts, and the recordings of a real program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.vectors.rollout_cases import JsonObject, run_case, run_recording

FOLDER = Path(__file__).parent.parent / "vectors" / "rollout"
CASES: list[JsonObject] = [
    case for name in ("reconstruct.json", "misc.json") for case in json.loads((FOLDER / name).read_text())
]
RECORDINGS: list[JsonObject] = [
    entry
    for entry in json.loads((FOLDER / "recorded" / "index.json").read_text())["recordings"]
    if entry.get("expected") is not None
]


@pytest.mark.parametrize("case", [pytest.param(case, id=str(case["id"])) for case in CASES])
def test_case(case: JsonObject, tmp_path: Path) -> None:
    expected, got = run_case(case, CASES, tmp_path)
    assert got == expected


@pytest.mark.parametrize("entry", [pytest.param(entry, id=str(entry["file"])) for entry in RECORDINGS])
def test_recording(entry: JsonObject, tmp_path: Path) -> None:
    expected, got = run_recording(entry, FOLDER / "recorded", tmp_path)
    assert got == expected
