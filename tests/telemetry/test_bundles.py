"""Bundles on disk: numbers without gaps, payloads before the events that name them, an end where it can't go on."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.telemetry import bundles as bundles_module
from engine.telemetry.bundles import Bundles, Payload
from engine.telemetry.opening import open_bundles

THREAD = "01a21267-b6de-7841-bd2e-e6e3c4074a57"


def only_bundle(root: Path) -> Path:
    (path,) = root.iterdir()
    return path


def events(bundle: Path) -> list[Any]:
    return [json.loads(line) for line in (bundle / "trace.jsonl").read_text().splitlines()]


async def test_a_bundle_has_a_manifest_events_and_payloads(tmp_path: Path) -> None:
    bundles = Bundles(str(tmp_path / "root"))
    bundle = bundles.begin(THREAD)
    bundle.tell("one", {"a": 1, "seen": Payload("protocol_event", lambda: {"x": "é"})}, thread=THREAD, turn="t")
    bundle.tell("two", {"nothing": None})
    bundle.tell("rollout_ended", {"status": "completed"})
    await bundles.aclose()
    path = only_bundle(tmp_path / "root")
    assert str(path) == bundle.path
    manifest = json.loads((path / "manifest.json").read_text())
    assert path.name == f"trace-{manifest['trace_id']}-{THREAD}"
    assert manifest == {
        "schema_version": 1,
        "trace_id": manifest["trace_id"],
        "rollout_id": THREAD,
        "root_thread_id": THREAD,
        "started_at_unix_ms": manifest["started_at_unix_ms"],
        "raw_event_log": "trace.jsonl",
        "payloads_dir": "payloads",
    }
    first, one, two, last = events(path)
    assert [line["seq"] for line in (first, one, two, last)] == [1, 2, 3, 4]
    assert first["payload"] == {
        "type": "rollout_started",
        "trace_id": manifest["trace_id"],
        "root_thread_id": THREAD,
    }
    reference = {"raw_payload_id": "raw_payload:1", "kind": {"type": "protocol_event"}, "path": "payloads/1.json"}
    assert one["payload"] == {"type": "one", "a": 1, "seen": reference}
    assert (one["thread_id"], one["codex_turn_id"], one["rollout_id"]) == (THREAD, "t", THREAD)
    assert (two["thread_id"], two["codex_turn_id"], two["payload"]) == (None, None, {"type": "two", "nothing": None})
    assert json.loads((path / "payloads/1.json").read_text()) == {"x": "é"}


async def test_only_the_user_can_look_into_it(tmp_path: Path) -> None:
    bundles = Bundles(str(tmp_path / "root"))
    bundles.begin(THREAD).tell("one", {"seen": Payload("protocol_event", dict)})
    await bundles.aclose()
    path = only_bundle(tmp_path / "root")
    for found in (path, *path.rglob("*")):
        assert stat.S_IMODE(found.stat().st_mode) & 0o077 == 0


async def test_a_root_that_can_not_be_written_ends_the_bundle_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    bundles = Bundles(str(tmp_path / "file" / "root"))
    bundle = bundles.begin(THREAD)
    bundle.tell("one", {})
    await bundles.aclose()
    assert bundle.over
    (record,) = (record for record in caplog.records if record.name == "engine.telemetry")
    assert record.levelno == logging.WARNING
    assert "NotADirectoryError" in record.getMessage()
    bundle.tell("two", {})  # says nothing, does nothing


async def test_a_payload_that_can_not_be_written_leaves_no_event_and_no_gap(tmp_path: Path) -> None:
    def broken() -> object:
        raise ValueError("no form for this")

    bundles = Bundles(str(tmp_path / "root"))
    bundle = bundles.begin(THREAD)
    bundle.tell("one", {"seen": Payload("protocol_event", broken)})
    bundle.tell("two", {})
    await bundles.aclose()
    assert [line["payload"]["type"] for line in events(only_bundle(tmp_path / "root"))] == ["rollout_started"]
    assert bundle.over


async def test_a_disk_that_is_too_slow_ends_the_bundle_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bundles_module, "MOST_WAITING", 8)
    go_on = threading.Event()
    bundles = Bundles(str(tmp_path / "root"))
    bundle = bundles.begin(THREAD)
    bundle.tell("slow", {"seen": Payload("protocol_event", lambda: go_on.wait(30))})
    told = 0
    while not bundle.over:
        bundle.tell("more", {"number": told})
        told += 1
        assert told < 100
    go_on.set()
    await bundles.aclose()
    lines = events(only_bundle(tmp_path / "root"))
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    numbers = [line["payload"]["number"] for line in lines if line["payload"]["type"] == "more"]
    assert numbers == list(range(len(numbers)))
    assert "wait for the disk" in caplog.text


async def test_an_end_does_not_wait_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bundles_module, "FINISH_BOUND", 0.1)
    go_on = threading.Event()
    bundles = Bundles(str(tmp_path / "root"))
    bundles.begin(THREAD).tell("slow", {"seen": Payload("protocol_event", lambda: go_on.wait(30))})
    with trio.CancelScope() as scope:
        scope.cancel()
        await bundles.aclose()
    assert "were not written whole" in caplog.text
    go_on.set()
    assert bundles._thread is not None
    bundles._thread.join()


async def test_nothing_is_left_open_and_no_thread_runs_on(tmp_path: Path) -> None:
    def handles() -> int:
        return len(os.listdir("/proc/self/fd"))

    before, threads = handles(), threading.active_count()
    bundles = Bundles(str(tmp_path / "root"))
    for ends in (True, False):
        bundle = bundles.begin(THREAD)
        if ends:
            bundle.tell("rollout_ended", {"status": "completed"})
    await bundles.aclose()
    await bundles.aclose()
    assert (handles(), threading.active_count()) == (before, threads)
    assert len(list((tmp_path / "root").iterdir())) == 2


async def test_there_are_no_bundles_and_no_thread_where_nobody_wants_them(tmp_path: Path) -> None:
    async with open_bundles({}) as bundles:
        assert bundles is None
    async with open_bundles({"CODEX_ROLLOUT_TRACE_ROOT": str(tmp_path / "root")}) as bundles:
        assert bundles is not None
        assert bundles._thread is None
    assert not (tmp_path / "root").exists()
