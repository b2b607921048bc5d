"""Damaged rollouts: one bad line costs one line, and reading from the end agrees with reading everything."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.rollout_items import RolloutItem
from engine.rollout.blocks import MemorySource
from engine.rollout.loading import load
from engine.rollout.reconstruction import reconstruct
from engine.rollout.scan import DAMAGED, Scan
from engine.rollout.tail import RolloutTail
from tests.rollout.test_reconstruction import POLICY

RECORDED = Path(__file__).parent.parent / "vectors" / "rollout" / "recorded"
ROLLOUTS = {path.stem: path.read_bytes() for path in sorted(RECORDED.glob("*.jsonl"))}
names = st.sampled_from(sorted(ROLLOUTS))


def lines_of(name: str) -> list[bytes]:
    return ROLLOUTS[name].splitlines(keepends=True)


def check(data: bytes, block: int = 1 << 20) -> tuple[RolloutItem, ...]:
    """Reads `data` both ways and compares; the items."""
    items = load(data).items
    tail = RolloutTail(MemorySource(data), block)
    assert tail.reconstruct(POLICY) == reconstruct(items, POLICY)
    return items


@pytest.mark.parametrize("name", sorted(ROLLOUTS))
def test_a_flipped_bit_costs_no_other_line(name: str) -> None:
    lines = lines_of(name)
    chance = random.Random(name)
    for _ in range(60):
        hit = chance.randrange(len(lines))
        line = bytearray(lines[hit])
        at = chance.randrange(len(line) - 1)
        line[at] ^= 1 << chance.randrange(8)
        if b"\n" in line[:-1]:
            continue  # that makes two lines of it
        before, after = b"".join(lines[:hit]), b"".join(lines[hit + 1 :])
        items = check(before + line + after)
        kept = load(before).items, load(after).items
        assert items[: len(kept[0])] == kept[0]
        assert items[len(items) - len(kept[1]) :] == kept[1]
        assert len(items) - len(kept[0]) - len(kept[1]) in (0, 1)


@given(names, st.data())
def test_a_cut_costs_the_line_it_goes_through(name: str, data: st.DataObject) -> None:
    whole = ROLLOUTS[name]
    cut = data.draw(st.integers(0, len(whole)))
    items = check(whole[:cut])
    assert items == load(whole).items[: len(items)]
    assert len(items) >= whole.count(b"\n", 0, cut)


@given(names, st.data())
def test_what_was_appended_behind_a_torn_line_is_there(name: str, data: st.DataObject) -> None:
    """Writers that go on behind a torn line lose one line of theirs, as the first is part of the torn one."""
    lines = lines_of(name)
    hit = data.draw(st.integers(0, len(lines) - 2))
    torn = lines[hit][: data.draw(st.integers(1, len(lines[hit]) - 2))]
    items = check(b"".join([*lines[:hit], torn, *lines[hit + 1 :]]))
    assert items == load(b"".join(lines[:hit] + lines[hit + 2 :])).items


@given(names, st.randoms(use_true_random=False), st.sampled_from([64, 1 << 20]))
def test_lines_in_any_order_and_number(name: str, chance: random.Random, block: int) -> None:
    lines = lines_of(name)
    chosen = [chance.choice(lines) for _ in range(chance.randint(0, 2 * len(lines)))]
    items = check(b"".join(chosen), block)
    assert len(items) == len(chosen)


RUBBISH = [
    b"\x00" * 4096 + b"\n",
    b"\xff\xfe\xfd\n",
    b"\n\n\r\n \t \n",
    b"\xef\xbb\xbf\n",
    b'{"timestamp":"x","type":"world_state","payload":{"a":[1,2,{"type":"compacted"}]}}\n',
    b'{"timestamp":"x","type":"event_msg","payload":{"type":"of_a_later_version","turn_id":"1"}}\n',
    b"[" * 5000 + b"\n",
    b'{"a":' * 5000 + b"\n",
    b'{"timestamp":"x","type":"compacted","payload":{"message":"' + b"\\" * 999 + b'"}}\n',
    b'{"timestamp":"x","type":"session_meta","payload":{"id":"no"}}\n',
]


@given(names, st.lists(st.tuples(st.integers(0, 200), st.sampled_from(RUBBISH)), min_size=1, max_size=5))
def test_rubbish_between_the_lines_costs_nothing(name: str, put: list[tuple[int, bytes]]) -> None:
    lines = lines_of(name)
    for at, rubbish in put:
        lines.insert(at % (len(lines) + 1), rubbish)
    data = b"".join(lines)
    loaded = load(data)
    assert list(loaded.known_items()) == list(load(ROLLOUTS[name]).known_items())
    tail = RolloutTail(MemorySource(data), 300)
    assert tail.reconstruct(POLICY) == reconstruct(load(ROLLOUTS[name]).items, POLICY)
    assert tail.damaged <= loaded.damaged


def test_files_put_together_with_their_byte_order_marks_lose_nothing() -> None:
    parts = [b"\xef\xbb\xbf" + data for data in ROLLOUTS.values()]
    items = check(b"".join(parts), 100)
    assert items == tuple(item for data in ROLLOUTS.values() for item in load(data).items)


@pytest.mark.parametrize(
    "size", [1 << 20, pytest.param(100 << 20, marks=pytest.mark.soak)], ids=["a megabyte", "a hundred"]
)
@pytest.mark.parametrize("kind", ["output", "nothing", "torn", "not json"])
def test_one_line_of_any_length(kind: str, size: int) -> None:
    head = b'{"timestamp":"x","type":"response_item","payload":{"type":"function_call_output","call_id":"c","output":"'
    middle = {
        "output": head + b"x" * size + b'"}}\n',
        "nothing": b"\x00" * size + b"\n",
        "torn": head + b"x" * size + b"\n",
        "not json": b"{" * size + b"}\n",
    }[kind]
    first = ROLLOUTS["plain_turn"]
    data = first + middle + ROLLOUTS["compacted"]
    once, twice = load(first).items, load(ROLLOUTS["compacted"]).items
    items = check(data)
    assert len(items) == len(once) + len(twice) + (kind == "output")
    bad = [data[start:end] for start, end, _ in Scan(data).marks(wanted=DAMAGED)]
    assert bad == ([] if kind == "output" else [middle[:-1]])
    check(first + middle)
