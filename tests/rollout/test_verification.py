"""Verifying rollouts: every line that is lost is named, with its place and its reason; nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from engine.rollout import verification
from engine.rollout.blocks import MemorySource
from engine.rollout.loading import load
from engine.rollout.scan import COMPACTED, Scan
from engine.rollout.verification import verify
from tests.rollout.test_tail import RECORDED, rollout, rollouts


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.jsonl")), ids=lambda path: path.stem)
def test_recorded_rollouts_are_clean(path: Path) -> None:
    data = path.read_bytes()
    report = verify(MemorySource(data))
    assert report.clean
    assert (report.problems, report.torn) == ((), False)
    assert report.lines == data.count(b"\n")
    assert report.generation == load(data).generation


@given(rollouts)
def test_it_counts_what_loading_counts(data: bytes) -> None:
    report, loaded = verify(MemorySource(data)), load(data)
    assert (report.damaged, report.foreign, report.thread_id) == (loaded.damaged, loaded.foreign, loaded.thread_id)
    assert report.damaged == len(report.problems)
    assert report.generation == Scan(data).count(COMPACTED)
    for problem in report.problems:
        assert load(data[problem.start : problem.end]).damaged == 1


def test_a_damaged_line_is_named_with_its_place_and_reason() -> None:
    first = rollout("S1 M")
    data = first + b"\n{\n" + rollout("U1") + b'{"timestamp":"x","type":"turn_context","payload":{}}\n'
    report = verify(MemorySource(data))
    one, other = report.problems
    assert (one.number, data[one.start : one.end]) == (5, b"{")
    assert "not JSON" in one.text
    assert (other.number, data[other.start : other.end].startswith(b'{"timestamp":"x","type":"turn')) == (8, True)
    assert "is missing" in other.text
    assert (report.lines, report.damaged, report.torn, report.clean) == (7, 2, False, False)


@pytest.mark.parametrize(
    ("end", "torn"), [(b'{"timestamp":"x","ty', True), (b"{}", False), (b"{\n", False), (b" ", False)]
)
def test_a_torn_end_is_told_apart(end: bytes, torn: bool) -> None:
    report = verify(MemorySource(rollout("S1") + end))
    assert report.torn == torn
    assert any("torn" in problem.text for problem in report.problems) == torn


def test_what_is_no_thread_is_not_clean() -> None:
    assert not verify(MemorySource(b"")).clean
    assert not verify(MemorySource(rollout("S1 M").partition(b"\n")[2])).clean


def test_the_report_of_a_file_full_of_rubbish_is_short_and_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "PROBLEMS_KEPT", 3)
    told: list[int] = []
    data = b"rubbish\n" * 300_000
    report = verify(MemorySource(data), told.append)
    assert (report.damaged, len(report.problems)) == (300_000, 3)
    assert told == sorted(told)
    assert told[-1] == len(data)
    assert len(told) >= 2
