"""The recorded `exec` runs that this version has to reproduce."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vectors.exec_transcripts import earlier_usage, read_transcript, replay

FOLDER = Path(__file__).parent / "app_server"
LATER = {"77_exec_mcp"}
RECORDED = sorted(file for file in FOLDER.glob("[67]*_exec_*.jsonl") if file.name.partition(".")[0] not in LATER)


def test_all_of_them_are_there() -> None:
    assert len(RECORDED) == 22


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_a_recorded_run(file: Path, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    root.mkdir()
    expected, got = replay(file, root)
    assert got == expected


def test_what_a_resumed_thread_had_before_follows_from_its_running_total(tmp_path: Path) -> None:
    transcript = read_transcript(FOLDER / "62_exec_resume_last.jsonl", tmp_path)
    assert earlier_usage(transcript, transcript.runs[0]) == {
        "input_tokens": 300,
        "cached_input_tokens": 30,
        "output_tokens": 60,
        "reasoning_output_tokens": 15,
    }
    fresh = read_transcript(FOLDER / "71b_exec_resume_last_none.jsonl", tmp_path)
    assert not any(earlier_usage(fresh, fresh.runs[0]).values())


def test_the_workspace_is_put_where_the_run_happens(tmp_path: Path) -> None:
    transcript = read_transcript(FOLDER / "69_exec_bad_schema.jsonl", tmp_path)
    assert f"{tmp_path}/tools/bad.json" in transcript.runs[0].argv
    assert f"{tmp_path}/tools/bad.json" in transcript.runs[0].stderr
