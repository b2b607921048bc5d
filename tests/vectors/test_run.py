"""The runner of golden cases: kinds by content, counts, exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vectors.run import Case, Skip, cases_of, main, run_one

HERE = Path(__file__).parent


def write(file: Path, content: object) -> Path:
    file.write_text(json.dumps(content))
    return file


def test_the_kind_is_told_from_the_content(tmp_path: Path) -> None:
    assert [case.reason for case in cases_of(write(tmp_path / "a.json", [{"id": "1", "op": "no-such-op"}])) or []] == [
        "the operation `no-such-op` is not built yet"
    ]
    area = {"area": "no-such-area", "cases": [{"id": "1"}, {"id": "2"}]}
    assert [case.reason for case in cases_of(write(tmp_path / "b.json", area)) or []] == [
        "`no-such-area` is not built yet"
    ] * 2
    assert cases_of(write(tmp_path / "layouts.json", {"empty": {"dirs": [], "files": {}, "symlinks": {}}})) is None
    assert [case.run for case in cases_of(write(tmp_path / "c.json", {"x": 1})) or []] == [None]
    (tmp_path / "d.json").write_text("{")
    assert [case.run for case in cases_of(tmp_path / "d.json") or []] == [None]


def test_transcripts_are_told_by_their_lines(tmp_path: Path) -> None:
    exec_run = tmp_path / "x.jsonl"
    exec_run.write_text('{"dir": "note"}\n{"dir": "argv", "argv": ["exec"], "stdin": ""}\n')
    (case,) = cases_of(exec_run) or []
    assert case.run is not None
    served = tmp_path / "y.jsonl"
    served.write_text('{"dir": "note"}\n{"dir": "c2s", "msg": {}}\n')
    (case,) = cases_of(served) or []
    assert (case.run, case.reason) == (None, "app-server transcripts: the app-server is not built yet")
    session = tmp_path / "z.jsonl"
    session.write_text('{"timestamp": "t", "type": "session_meta", "payload": {}}\n')
    assert cases_of(session) is None


def test_how_a_case_may_end() -> None:
    def skip(root: Path) -> tuple[object, object]:
        raise Skip("no namespaces")

    def unbuilt(root: Path) -> tuple[object, object]:
        raise NotImplementedError("goals")

    def broken(root: Path) -> tuple[object, object]:
        raise KeyError("x")

    assert run_one(Case("1", lambda root: (1, 1))).verdict == "passed"
    assert run_one(Case("1", lambda root: (1, 2))).verdict == "failed"
    assert run_one(Case("1", skip)).verdict == "skipped"
    assert run_one(Case("1", unbuilt)).got == "goals"
    assert run_one(Case("1", broken)).got == "KeyError: 'x'"
    assert run_one(Case("1", None, "why")).verdict == "failed"


def test_the_root_is_fresh_and_goes_away() -> None:
    roots: list[Path] = []

    def look(root: Path) -> tuple[object, object]:
        roots.append(root)
        return [], list(root.iterdir())

    assert run_one(Case("1", look)).verdict == "passed"
    assert not roots[0].exists()


def test_nothing_to_run_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith("total: 0 passed, 0 failed, 0 skipped (")
    assert main([]) == 2
    assert main([str(tmp_path / "missing")]) == 2


def test_it_runs_as_a_script_from_any_directory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "run.py"), str(HERE / "apply_patch" / "add.json")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    first, *_, last = done.stdout.splitlines()
    assert first.startswith(f"{HERE / 'apply_patch' / 'add.json'}: ")
    assert last.startswith("total: ")
    assert last.endswith(("(c)", "(python)"))
    assert done.returncode == 0
