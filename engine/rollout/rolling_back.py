"""What a rollback leaves of a rollout (session.md 3.8, rollout.md 5.8): what is before its last turns. Pure.

A mark alone can't tell of a compaction that was taken back with the turns: readers begin at the newest one, dropped or
not (rollout.md 5.2). Where there is one, the history is what the lines before the dropped turns lead to.

`rolled_back` reads a file from its end, `rolled_back_items` has all items in memory; both give the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from engine.errors import ProtocolError
from engine.protocol.events import TaskStarted, ThreadRolledBack
from engine.protocol.rollout_items import Compacted, EventLine, RolloutItem
from engine.protocol.settings import TruncationPolicy
from engine.records import frozen
from engine.rollout.blocks import BLOCK, ByteSource, TailReader
from engine.rollout.fork_points import is_real_user_message, user_message_positions
from engine.rollout.lines import decode_rollout_line
from engine.rollout.reconstruction import Reconstruction, reconstruct
from engine.rollout.scan import COMPACTIONS, ROLLED_BACK, TURN_STARTED, USER_ITEM
from engine.rollout.tail import RolloutTail

__all__ = ["RolledBack", "rolled_back", "rolled_back_items"]

_WANTED = USER_ITEM | ROLLED_BACK | TURN_STARTED | COMPACTIONS


@frozen
class RolledBack:
    """What is left. `restored`: a compaction went with the dropped turns, which the mark alone does not tell."""

    left: Reconstruction
    restored: bool


def rolled_back_items(items: Sequence[RolloutItem], turns: int, policy: TruncationPolicy) -> RolledBack:
    """What is left of all items without the last `turns` turns of the user, or all there are."""
    start = _first_dropped(items, turns)
    if any(isinstance(item, Compacted) for item in items[start:]):
        return RolledBack(reconstruct(items[:start], policy), True)
    return RolledBack(reconstruct([*items, EventLine(ThreadRolledBack(turns))], policy), False)


def _first_dropped(items: Sequence[RolloutItem], turns: int) -> int:
    """Where the oldest turn that is dropped begins: with its context or, where it was steered, with what was said."""
    positions = user_message_positions(items)
    if not positions:
        return len(items)
    said = positions[max(0, len(positions) - turns)]
    for at in range(said - 1, -1, -1):
        item = items[at]
        if isinstance(item, EventLine) and isinstance(item.msg, TaskStarted):
            return at
        if at in positions:
            break
    return said


def rolled_back(source: ByteSource, turns: int, policy: TruncationPolicy, block: int = BLOCK) -> RolledBack:
    """As `rolled_back_items` for the items in `source`; reads no more of it than those turns and what is left of the
    history. Raises what the source raises."""
    tail = RolloutTail(source, block, rolled_back=turns)
    dropped = _Dropped(source, tail.end, block)
    dropped.find(turns)
    if dropped.compacted:
        return RolledBack(RolloutTail(_Beginning(source, dropped.start), block).reconstruct(policy), True)
    return RolledBack(tail.reconstruct(policy), False)


@final
class _Dropped:
    """Goes back to where the oldest of the dropped turns begins; whether there was a compaction on the way."""

    def __init__(self, source: ByteSource, end: int, block: int) -> None:
        self._reader = TailReader(source, block)
        self._reader.go_to(end)
        self._gone = 0  # messages to come that were rolled back already
        self.start = end
        self.compacted = False

    def find(self, turns: int) -> None:
        """Goes back as far as it takes; to the beginning where there are fewer turns."""
        compacted = False  # behind where the reader is
        said = False
        began: tuple[int, bool] | None = None  # the start of the turn of the oldest message so far
        while (found := self._next()) is not None:
            at, item = found
            if isinstance(item, Compacted):
                compacted = True
            elif is_real_user_message(item):
                if self._gone > 0:
                    self._gone -= 1
                elif turns == 0:
                    return  # what is dropped was steered into the turn of this message
                else:
                    turns -= 1
                    said, began = True, None
                    self.start, self.compacted = at, compacted
            elif said and isinstance(item, EventLine) and isinstance(item.msg, TaskStarted):
                began = began or (at, compacted)
                if turns == 0:
                    break
        if began is not None:
            self.start, self.compacted = began

    def _next(self) -> tuple[int, RolloutItem] | None:
        while (found := self._reader.find(_WANTED)) is not None:
            start, end, _ = found
            try:
                item = decode_rollout_line(self._reader.text(start, end))
            except ProtocolError:
                continue
            if isinstance(item, EventLine) and isinstance(item.msg, ThreadRolledBack):
                self._gone += item.msg.num_turns
            elif item is not None:
                return start, item
        return None


@final
class _Beginning:
    """The first bytes of a source."""

    def __init__(self, source: ByteSource, size: int) -> None:
        self._source = source
        self.size = size

    def read(self, start: int, end: int) -> bytes:
        return self._source.read(start, end)
