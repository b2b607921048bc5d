"""Where the turns of a rollout lie, as changes to a table of byte ranges, found without decoding most lines. Pure.

The rules are those of `engine.rollout.turns`. Going on from a `RangeState` gives the same as going through everything,
so a table is brought up to date from what was appended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import attrs

from engine.errors import ProtocolError
from engine.protocol.events import TaskComplete, TaskStarted, ThreadRolledBack, TurnAborted
from engine.protocol.rollout_items import EventLine, RolloutItem
from engine.protocol.thread_items import ItemsView, ThreadTurn
from engine.records import frozen
from engine.rollout.blocks import ByteSource, TailReader, blocks
from engine.rollout.inline_images import STAND_IN
from engine.rollout.lines import decode_rollout_line
from engine.rollout.scan import (
    ALL_MARKS,
    ASSISTANT_ITEM,
    DAMAGED,
    EMPTY,
    EVENTS,
    OTHER_EVENT,
    ROLLED_BACK,
    TURN_ABORTED,
    TURN_COMPLETE,
    TURN_STARTED,
    USAGE,
    USER_EVENT,
    USER_ITEM,
    Scan,
)
from engine.rollout.turns import TurnBuilder, implicit_id, is_mail, named_turn, shows, speaks

__all__ = [
    "Began",
    "Closed",
    "RangeState",
    "RolledBack",
    "Spoke",
    "Strayed",
    "TurnChange",
    "TurnRange",
    "read_turn",
    "scan",
]

_LIFE: Final = TURN_STARTED | TURN_COMPLETE | TURN_ABORTED | ROLLED_BACK | USER_EVENT
_WANTED: Final = _LIFE | OTHER_EVENT | ASSISTANT_ITEM
_SHOWN: Final = EVENTS & ~USAGE | USER_ITEM
_TURN_ID: Final = re.compile(rb'"turn_id"\s*:\s*"([^"\\]*)"')
_IN_SUMMARY: Final = (b"agent_message", b"AgentMessage", b"UserMessage", b"error")


@frozen
class RangeState:
    """How it stands between two lines: how many turns have begun, and the one that lines belong to now, if any."""

    begun: int = 0
    inside: bool = False
    turn_id: str | None = None
    """`None` for a turn whose start was not told."""
    over: bool = False
    user: bool = False


@frozen
class Began:
    """A turn begins at an offset; `turn_id` is `None` where its start was not told."""

    number: int
    start: int
    turn_id: str | None


@frozen
class Spoke:
    """A turn has become one of its user: rollbacks count it."""

    number: int


@frozen
class Closed:
    """The lines of a turn end at an offset."""

    number: int
    end: int


@frozen
class RolledBack:
    """The last `count` user turns are gone, with all that came after them."""

    count: int


@frozen
class Strayed:
    """A line tells of the last turn with this id, if there is one, wherever it stands."""

    turn_id: str
    start: int
    end: int


TurnChange = Began | Spoke | Closed | RolledBack | Strayed


@frozen
class TurnRange:
    """Where a turn lies: its lines, and single ones elsewhere. `end` is `None` while it goes on to the end."""

    number: int
    turn_id: str | None
    start: int
    end: int | None
    strays: tuple[tuple[int, int], ...] = ()


def scan(source: ByteSource, start: int, end: int, state: RangeState) -> Iterator[tuple[RangeState, list[TurnChange]]]:
    """The changes that the lines between two offsets bring, block by block, with the state behind each block.

    `start` must be the start of a line. Raises what the source raises.
    """
    for offset, data in blocks(source, start, end):
        changes: list[TurnChange] = []
        for first, last, mark in Scan(data).marks(wanted=_WANTED):
            state = _take(data, first, last, mark, offset, state, changes)
        yield state, changes


def _take(
    data: bytes, first: int, last: int, mark: int, offset: int, state: RangeState, changes: list[TurnChange]
) -> RangeState:
    if mark == OTHER_EVENT and state.inside and not _may_matter(data, first, last, state):
        return state
    if mark == ASSISTANT_ITEM and (not state.inside or state.user or data.find(b"recipient", first, last) < 0):
        return state
    item = _decoded(data[first:last])
    at, number = offset + first, state.begun - 1
    if item is not None and is_mail(item) and state.inside:
        return _spoke(state, changes)
    if not isinstance(item, EventLine):
        return state
    msg = item.msg
    if isinstance(msg, TaskStarted):
        if state.inside and not state.over and state.turn_id == msg.turn_id:
            return state
        return _begin(state, msg.turn_id, at, changes)
    if isinstance(msg, ThreadRolledBack):
        if msg.num_turns == 0:
            return state
        if state.inside:
            changes.append(Closed(number, at))
        changes.append(RolledBack(msg.num_turns))
        return RangeState(state.begun)
    named = named_turn(msg)
    if named is not None and (not state.inside or (state.turn_id is not None and named != state.turn_id)):
        changes.append(Strayed(named, at, offset + last))
        return state
    if speaks(msg):
        if not state.inside or state.over or state.turn_id is None:
            state = _begin(state, None, at, changes)
        return _spoke(state, changes)
    if not state.inside and shows(msg):
        return _begin(state, None, at, changes)
    if state.inside and isinstance(msg, TaskComplete | TurnAborted):
        return attrs.evolve(state, over=True)
    return state


def _may_matter(data: bytes, first: int, last: int, state: RangeState) -> bool:
    """Whether an event other than those of a turn's life may belong elsewhere, or may be the user speaking."""
    if data.find(b"UserMessage", first, last) >= 0:
        return True
    if state.turn_id is None or data.find(b"turn_id", first, last) < 0:
        return False
    own = state.turn_id.encode("utf-8", "replace")
    return all(found[1] != own for found in _TURN_ID.finditer(data, first, last))


def _begin(state: RangeState, turn_id: str | None, at: int, changes: list[TurnChange]) -> RangeState:
    if state.inside:
        changes.append(Closed(state.begun - 1, at))
    changes.append(Began(state.begun, at, turn_id))
    return RangeState(state.begun + 1, inside=True, turn_id=turn_id)


def _spoke(state: RangeState, changes: list[TurnChange]) -> RangeState:
    if state.user:
        return state
    changes.append(Spoke(state.begun - 1))
    return attrs.evolve(state, user=True)


def read_turn(source: ByteSource, place: TurnRange, end: int, active: str | None, view: ItemsView) -> ThreadTurn:
    """The turn that lies there. Reads its lines only; all of them in `full` view, else decodes only what that shows.

    `end`: where the rollout ends, for a turn that goes on. Raises what the source raises.
    """
    explicit = place.turn_id is not None
    turn = TurnBuilder(place.turn_id or implicit_id(place.number), explicit=explicit)
    started = False
    for _, data in blocks(source, place.start, end if place.end is None else place.end):
        for first, last, mark in Scan(data).marks(wanted=_SHOWN):
            if mark == USER_ITEM and data.find(b"input_image", first, last) < 0:
                continue  # only of interest for its images
            if view != "full" and mark == OTHER_EVENT and not _in_summary(data, first, last):
                continue
            if mark == TURN_STARTED and started:
                continue  # the line is there twice
            item = _decoded(data[first:last])
            if item is None:
                continue
            turn.hear(item)
            if isinstance(item, EventLine):
                if not (started or explicit) and data.find(STAND_IN, first, last) >= 0:
                    _hear_before(turn, source, place.start)
                started = True
                turn.take(item.msg)
    for first, last in place.strays:
        item = _decoded(source.read(first, last))
        if isinstance(item, EventLine):
            turn.take(item.msg)
    return turn.build(active, view)


def _hear_before(turn: TurnBuilder, source: ByteSource, start: int) -> None:
    reader = TailReader(source)
    reader.go_to(start)
    while (found := reader.find(ALL_MARKS & ~(DAMAGED | EMPTY))) is not None:
        item = _decoded(reader.text(found[0], found[1]))
        if item is not None:
            turn.hear(item)
            return


def _in_summary(data: bytes, first: int, last: int) -> bool:
    return any(data.find(name, first, last) >= 0 for name in _IN_SUMMARY)


def _decoded(line: bytes) -> RolloutItem | None:
    try:
        return decode_rollout_line(line)
    except ProtocolError:
        return None
