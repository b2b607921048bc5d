"""Every golden case of the patch tool; the file cases on disk, in memory and through the standalone tool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.tools.apply_patch import MemoryFileSystem, run_standalone
from tests.vectors.apply_patch_cases import JsonObject, lay_out, run_case

VECTORS = Path(__file__).parents[2] / "vectors" / "apply_patch"


def _cases() -> Iterator[tuple[JsonObject, JsonObject]]:
    for path in sorted(VECTORS.glob("*.json")):
        area = json.loads(path.read_text(encoding="utf-8"))
        for case in area["cases"]:
            yield area, case


CASES = list(_cases())
FILE_CASES = [case for _, case in CASES if "argv" not in case]


def _id(value: object) -> str:
    return str(value["id"]) if isinstance(value, dict) and "id" in value else ""


@pytest.mark.parametrize(("area", "case"), CASES, ids=_id)
def test_case_gives_what_it_expects(area: JsonObject, case: JsonObject, tmp_path: Path) -> None:
    expected, got = run_case(case, area, tmp_path)
    assert got == expected


@pytest.mark.parametrize("case", FILE_CASES, ids=_id)
def test_standalone_tool_prints_the_same(case: JsonObject, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    expected, _ = run_case(case, {}, one)
    lay_out(case, other)
    patch = str(case["patch"])
    code, stdout, stderr = run_standalone(["apply_patch"], patch.encode, other)
    texts = [text.replace(str(other), "{root}") for text in (stdout, stderr)]
    assert [code, *texts] == [expected["exit_code"], expected["stdout"], expected["stderr"]]


@pytest.mark.parametrize("case", FILE_CASES, ids=_id)
def test_memory_gives_the_same_files_and_texts(case: JsonObject, tmp_path: Path) -> None:
    lay_out(case, tmp_path)
    fs = MemoryFileSystem({str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()})
    fs.make_parents(str(tmp_path / "x"))
    for path in tmp_path.rglob("*"):
        if path.is_dir():
            fs.make_parents(str(path / "x"))
    expected = case.get("expect_release_0_163_0", case["expect"])
    assert isinstance(expected, dict)
    code, stdout, stderr = run_standalone(["apply_patch", str(case["patch"])], lambda: b"", tmp_path, fs)
    assert (code, stdout) == (expected["exit_code"], expected["stdout"])
    assert stderr.replace(str(tmp_path), "{root}") == expected["stderr"]
    files = {str(Path(name).relative_to(tmp_path)): data.decode() for name, data in fs.files.items()}
    assert files == expected["files"]
