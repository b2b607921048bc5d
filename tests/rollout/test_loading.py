"""Loading whole rollouts: any bytes give items and counts, never an exception."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.events import AgentMessage
from engine.protocol.ids import ThreadId
from engine.protocol.rollout_items import Compacted, EventLine, RolloutItem, SessionMeta, UnknownLine
from engine.rollout.lines import encode_rollout_line
from engine.rollout.loading import load
from tests.protocol.test_codec import LINES
from tests.rollout.test_scan import RECORDED, anything

STAMP = "2025-01-02T03:04:05.678Z"


def meta(thread: str) -> SessionMeta:
    return SessionMeta(id=ThreadId(thread), timestamp=STAMP, cwd="/", originator="o", cli_version="0")


def lines(*items: RolloutItem) -> bytes:
    return b"".join(encode_rollout_line(item, STAMP) for item in items)


def test_nothing_holds_nothing() -> None:
    loaded = load(b"")
    assert (loaded.items, loaded.meta, loaded.thread_id, loaded.skipped, loaded.generation) == ((), None, None, 0, 0)


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.jsonl")), ids=lambda path: path.name)
def test_recordings_load_whole(path: Path) -> None:
    data = path.read_bytes()
    loaded = load(data)
    assert len(loaded.items) == data.count(b"\n")
    assert loaded.skipped == 0
    assert b"".join(encode_rollout_line(item, STAMP) for item in loaded.items).count(b"\n") == len(loaded.items)


def test_the_first_meta_names_the_thread_and_compactions_are_counted() -> None:
    loaded = load(lines(Compacted("a"), meta("one"), meta("two"), Compacted("b", ())))
    assert loaded.thread_id == "one"
    assert loaded.generation == 2
    assert len(loaded.items) == 4


def test_foreign_lines_are_kept_and_counted_apart_from_damaged_ones() -> None:
    told = EventLine(AgentMessage("x"))
    data = lines(meta("t"), UnknownLine("world_state", {"a": 1}), told)
    loaded = load(data + b"{}\n" + lines(told).replace(b"agent_message", b"later_event") + lines(told)[:-3])
    assert (loaded.damaged, loaded.foreign, loaded.skipped) == (2, 2, 4)
    assert len(loaded.items) == 4
    assert loaded.known_items() == (meta("t"), told)
    whole = load(lines(told))
    assert whole.known_items() is whole.items


@given(anything)
def test_any_bytes_load(data: bytes) -> None:
    loaded = load(data)
    assert 0 <= loaded.skipped <= data.count(b"\n") + 1
    for item in loaded.items:
        encode_rollout_line(item, STAMP)


@given(st.lists(st.sampled_from(LINES), max_size=8), st.integers(0, 400))
def test_a_cut_costs_one_line(whole: list[bytes], cut: int) -> None:
    data = b"\n".join(whole)
    loaded = load(data[: max(0, len(data) - cut)])
    assert loaded.damaged <= 1
    complete = load(data)
    assert loaded.items == complete.items[: len(loaded.items)]


@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=8), st.data())
def test_one_bad_line_costs_one_line(whole: list[bytes], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(whole) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=20).filter(lambda noise: b"\n" not in noise))
    damaged = [*whole]
    damaged[position] = damaged[position][:1] + b'"' + noise
    loaded = load(b"\n".join(damaged))
    complete = load(b"\n".join(whole))
    assert loaded.items == complete.items[:position] + complete.items[position + 1 :]
    assert loaded.damaged == 1


@pytest.mark.parametrize("wrap", [bytearray, memoryview])
def test_any_buffer_will_do(wrap: type[bytearray | memoryview]) -> None:
    data = lines(meta("t"), EventLine(AgentMessage("x")))
    assert load(wrap(data)) == load(data)
