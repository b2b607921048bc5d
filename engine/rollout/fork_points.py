"""Where a fork cuts its source (rollout.md 6). Positions count the items that a reader decodes."""

from __future__ import annotations

from collections.abc import Sequence

from engine.protocol.events import TaskComplete, TaskStarted, ThreadRolledBack, TurnAborted
from engine.protocol.items import Message
from engine.protocol.rollout_items import EventLine, ResponseLine, RolloutItem
from engine.records import frozen
from engine.rollout.boundaries import is_envelope, is_user_turn_boundary

__all__ = [
    "UnfinishedTurn",
    "cut_before_user_message",
    "fork_turn_positions",
    "last_turns_start",
    "unfinished_turn",
    "user_message_positions",
]


@frozen
class UnfinishedTurn:
    """A turn that had begun and not ended when the rollout was read; `start` is its first position."""

    start: int
    turn_id: str | None


def _response(item: RolloutItem) -> Message | None:
    return item.item if isinstance(item, ResponseLine) and isinstance(item.item, Message) else None


def is_real_user_message(item: RolloutItem) -> bool:
    message = _response(item)
    return message is not None and message.role == "user" and is_user_turn_boundary(message)


def user_message_positions(items: Sequence[RolloutItem]) -> list[int]:
    """Positions of the real user messages that rollback markers left over."""
    positions: list[int] = []
    for position, item in enumerate(items):
        if is_real_user_message(item):
            positions.append(position)
        elif isinstance(item, EventLine) and isinstance(item.msg, ThreadRolledBack):
            del positions[max(0, len(positions) - item.msg.num_turns) :]
    return positions


def fork_turn_positions(items: Sequence[RolloutItem]) -> list[int]:
    """Positions at which a turn began: real user messages, and mail of other agents that started one."""
    boundaries: list[int] = []  # what a rollback counts: also mail that started nothing
    turns: list[int] = []
    for position, item in enumerate(items):
        message = _response(item)
        if message is not None and is_user_turn_boundary(message):
            boundaries.append(position)
            if message.role == "user" or is_envelope(message, triggers_turn=True):
                turns.append(position)
        elif isinstance(item, EventLine) and isinstance(item.msg, ThreadRolledBack):
            rolled_back = boundaries[max(0, len(boundaries) - item.msg.num_turns) :]
            if rolled_back:
                del boundaries[-len(rolled_back) :]
                turns = [turn for turn in turns if turn < rolled_back[0]]
    return turns


def unfinished_turn(items: Sequence[RolloutItem]) -> UnfinishedTurn | None:
    """The turn the rollout ends in the middle of, if it does."""
    explicit: UnfinishedTurn | None = None
    last_user: int | None = None
    for position, item in enumerate(items):
        if is_real_user_message(item):
            last_user = position
        if not isinstance(item, EventLine):
            continue
        match item.msg:
            case TaskStarted(turn_id=turn_id):
                explicit = UnfinishedTurn(position, turn_id)
            case TaskComplete() | TurnAborted():
                ended = item.msg.turn_id
                if explicit is None or ended is None or ended == explicit.turn_id:
                    explicit = None
                    last_user = None
    if explicit is not None:
        return explicit
    return None if last_user is None else UnfinishedTurn(last_user, None)


def cut_before_user_message(items: Sequence[RolloutItem], n: int, unfinished: UnfinishedTurn | None = None) -> int:
    """How many items a fork before the `n`-th user message keeps (0-based).

    Where there is no such message: all, except the `unfinished` turn of the source.
    """
    positions = user_message_positions(items)
    if n < len(positions):
        return positions[n]
    return len(items) if unfinished is None else unfinished.start


def last_turns_start(items: Sequence[RolloutItem], n: int) -> int | None:
    """The first position that a fork of the last `n` turns keeps: the whole source if it has no more than that.

    `None` if it keeps nothing.
    """
    if n <= 0:
        return None
    positions = fork_turn_positions(items)
    return positions[-n] if n < len(positions) else 0
