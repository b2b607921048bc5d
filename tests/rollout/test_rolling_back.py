"""What a rollback leaves, read from the end of a rollout and from all of it; and how little of it is read."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.protocol.items import Message, message_text
from engine.rollout.blocks import BLOCK, MemorySource
from engine.rollout.loading import load
from engine.rollout.rolling_back import RolledBack, rolled_back, rolled_back_items
from tests.rollout.test_reconstruction import POLICY
from tests.rollout.test_tail import Counted, line, more_words, rollout, rollouts


def left(text: str, turns: int) -> tuple[list[str], bool]:
    """The texts of the history after a rollback, and whether a compaction went with the turns."""
    data = rollout(text)
    made = rolled_back(MemorySource(data), turns, POLICY)
    assert made == rolled_back_items(load(data).items, turns, POLICY)
    return [message_text(item) for item in made.left.history if isinstance(item, Message)], made.restored


@pytest.mark.parametrize(
    ("text", "turns", "history", "restored"),
    [
        ("S1 M U1 A1 E1 S2 M U2 A2 E2", 1, ["U1", "A1"], False),
        ("S1 M U1 A1 E1 S2 M U2 A2 E2", 2, [], False),
        ("S1 M U1 A1 E1 S2 M U2 A2 E2", 9, [], False),
        ("S1 M U1 A1 E1 S2 M U2 A2 E2 R1 S3 M U3 E3", 1, ["U1", "A1"], False),
        ("S1 M U1 A1 E1 S2 M U2 A2 E2 R1 S3 M U3 E3", 2, [], False),
        ("S1 M U1 A1 E1 K[X] S2 M U2 A2 E2", 1, ["X"], False),
        ("S1 M U1 A1 E1 S2 M U2 K[X] A2 E2", 1, ["U1", "A1"], True),
        ("S1 M U1 A1 E1 S2 K[X] M U2 A2 E2", 1, ["U1", "A1"], True),
        ("S1 M U1 A1 E1 S2 K[X] M U2 A2 E2", 9, [], True),
        ("S1 M U1 A1 M U2 A2 E1", 1, ["U1", "A1"], False),  # the second was steered into the turn of the first
        ("A1 A2", 1, ["A1", "A2"], False),
        ("", 1, [], False),
    ],
)
def test_worked_cases(text: str, turns: int, history: list[str], restored: bool) -> None:
    assert left(text, turns) == (history, restored)


@given(rollouts, st.integers(1, 5), st.sampled_from([1, 40, 300, BLOCK]))
def test_any_bytes(data: bytes, turns: int, block: int) -> None:
    assert rolled_back(MemorySource(data), turns, POLICY, block) == rolled_back_items(load(data).items, turns, POLICY)


@given(st.lists(more_words, max_size=25), st.integers(0, 3), st.booleans(), st.integers(1, 6))
@example(["K[X]"], 1, True, 2)
def test_any_turns_in_order(inner: list[str], already: int, compacted: bool, turns: int) -> None:
    story = " ".join(f"S{n} M C{n} U{n} A{n} N E{n}" for n in range(1, 4))
    data = rollout(f"{story} {'K[X]' if compacted else ''} {' '.join(inner)} {'R1 ' * already}")
    expected = rolled_back_items(load(data).items, turns, POLICY)
    assert rolled_back(MemorySource(data), turns, POLICY, 100) == expected


def test_what_is_read_depends_on_what_is_rolled_back() -> None:
    long = b"".join(map(line, ["S1", "M", "C1", "U1", "E1"])) + line("O") * 500  # 10 MB
    end = b"".join(
        map(line, ["S9", "K[X]", "E9", "S2", "M", "C2", "U2", "A2", "E2", "S3", "M", "C3", "U3", "A3", "E3"])
    )
    source = Counted(rollout("") + long + end)
    made = rolled_back(source, 1, POLICY)
    assert isinstance(made, RolledBack)
    assert len(made.left.history) == 3
    assert source.taken < 1_000_000
    source = Counted(rollout("") + long + end)
    assert rolled_back(source, 3, POLICY).restored
    assert source.taken > 10_000_000
