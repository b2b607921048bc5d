"""File names of rollouts, there and back."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.ids import ThreadId
from engine.rollout.names import RolloutName, parse_rollout_name, rollout_path

moments = st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31))


@given(st.uuids(), moments)
def test_a_name_tells_what_it_was_made_of(thread: uuid.UUID, moment: datetime) -> None:
    path = rollout_path("/home", ThreadId(str(thread)), moment.timetuple())
    folder, _, name = path.rpartition("/")
    assert folder == f"/home/sessions/{moment.year}/{moment.month:02d}/{moment.day:02d}"
    assert parse_rollout_name(name) == RolloutName(ThreadId(str(thread)), moment.replace(microsecond=0, tzinfo=UTC))
    upper = name.replace(str(thread), str(thread).upper())
    assert parse_rollout_name(upper) == parse_rollout_name(name)
    assert parse_rollout_name(name.replace(str(thread), thread.hex)) == parse_rollout_name(name)


@given(st.text(max_size=100))
def test_other_names_are_nobodys(name: str) -> None:
    assert parse_rollout_name(name) is None


THREAD = ThreadId("01a2125d-4220-76bc-855f-b233a83bc21c")


@pytest.mark.parametrize(
    "name",
    [
        f"rollout-2025-02-30T00-00-00-{THREAD}.jsonl",
        f"rollout-2025-02-03T24-00-00-{THREAD}.jsonl",
        f"rollout-2025-2-3T00-00-00-{THREAD}.jsonl",
        f"rollout-2025-02-03T00-00-00-{THREAD}.jsonl.bak",
        f"rollout-2025-02-03T00-00-00-{THREAD}.jsonl\n",
        f"rollout-2025-02-03T00-00-00-x-{THREAD}.jsonl",
        f"rollout-２025-02-03T00-00-00-{THREAD}.jsonl",
        "rollout-2025-02-03T00-00-00.jsonl",
    ],
)
def test_almost_a_name_is_none(name: str) -> None:
    assert parse_rollout_name(name) is None


def test_the_stamp_is_the_local_time_given() -> None:
    local = time.struct_time((2025, 1, 2, 3, 4, 5, 3, 2, 0))
    assert rollout_path("/h", THREAD, local) == f"/h/sessions/2025/01/02/rollout-2025-01-02T03-04-05-{THREAD}.jsonl"
