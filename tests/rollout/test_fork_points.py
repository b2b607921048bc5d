"""Fork points beyond what the vectors say: unfinished turns, and bounds that always hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.events import TurnAborted
from engine.protocol.rollout_items import EventLine, RolloutItem
from engine.rollout.fork_points import (
    UnfinishedTurn,
    cut_before_user_message,
    fork_turn_positions,
    last_turns_start,
    unfinished_turn,
    user_message_positions,
)
from tests.rollout.test_reconstruction import word, words


def items(story: str) -> list[RolloutItem]:
    return [EventLine(TurnAborted(item[1:] or None)) if item[0] == "T" else word(item) for item in story.split()]


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        ("", None),
        ("S1 U1 A1 E1", None),
        ("S1 U1 A1", UnfinishedTurn(0, "1")),
        ("S1 U1 A1 T1", None),
        ("S1 U1 A1 T", None),
        ("S1 U1 E1 S2 U2", UnfinishedTurn(3, "2")),
        ("S1 U1 E2", UnfinishedTurn(0, "1")),
        ("U1 A1", UnfinishedTurn(0, None)),
        ("U1 A1 U2", UnfinishedTurn(2, None)),
        ("U1 A1 E1", None),
        ("A1", None),
    ],
)
def test_a_turn_is_unfinished_until_it_ends(story: str, expected: UnfinishedTurn | None) -> None:
    assert unfinished_turn(items(story)) == expected


def test_a_cut_beyond_the_last_message_leaves_out_the_unfinished_turn() -> None:
    story = items("S1 U1 A1 E1 S2 U2 A2")
    unfinished = unfinished_turn(story)
    assert cut_before_user_message(story, 0, unfinished) == 1
    assert cut_before_user_message(story, 1, unfinished) == 5
    assert cut_before_user_message(story, 2, unfinished) == 4
    assert cut_before_user_message(story, 2) == len(story)


@given(st.lists(words, max_size=20), st.integers(0, 6))
def test_cuts_are_inside_the_rollout(story: list[str], n: int) -> None:
    rollout = [word(item) for item in story]
    users, turns = user_message_positions(rollout), fork_turn_positions(rollout)
    assert users == sorted(set(users))
    assert turns == sorted(set(turns))
    assert 0 <= cut_before_user_message(rollout, n, unfinished_turn(rollout)) <= len(rollout)
    start = last_turns_start(rollout, n)
    assert start is None if n == 0 else start in (0, *turns)
