"""Reads a whole rollout: every item that can be read, and a count of what cannot (rollout.md 4.1).

One bad line costs one line: torn tails, invalid UTF-8, NUL bytes, foreign types. Types of other writers are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import ProtocolError
from engine.protocol.ids import ThreadId
from engine.protocol.rollout_items import Compacted, RolloutItem, SessionMeta
from engine.records import frozen
from engine.rollout.lines import decode_rollout_line
from engine.rollout.policy import is_known
from engine.rollout.scan import BLANK, BROKEN, Scan

if TYPE_CHECKING:
    from engine.rollout.scan import Source

__all__ = ["LoadedRollout", "load"]


@frozen
class LoadedRollout:
    """What a rollout holds.

    - `items`: all that was decoded, oldest first; unknown line and event types are among them
    - `meta`: the first `session_meta`; later ones come from the sources of a fork
    - `damaged`: lines that are lost; `foreign`: lines of types that the level of this engine does not know
    - `generation`: number of compactions, which numbers the context window on resume (rollout.md 5.6)
    """

    items: tuple[RolloutItem, ...]
    meta: SessionMeta | None
    damaged: int
    foreign: int
    generation: int

    @property
    def thread_id(self) -> ThreadId | None:
        """The id of the first `session_meta`."""
        return None if self.meta is None else self.meta.id

    @property
    def skipped(self) -> int:
        """How many lines a reader of the level of this engine skips."""
        return self.damaged + self.foreign

    def known_items(self) -> tuple[RolloutItem, ...]:
        """The items such a reader sees; positions in a rollout (fork points) count these."""
        return tuple(item for item in self.items if is_known(item)) if self.foreign else self.items


def load(data: Source) -> LoadedRollout:
    """All items of the rollout in `data`. Never raises, whatever the bytes."""
    items: list[RolloutItem] = []
    meta: SessionMeta | None = None
    damaged = foreign = generation = 0
    view = memoryview(data)
    for start, end, kind in Scan(data).forward():
        if kind == BLANK:
            continue
        if kind == BROKEN:
            damaged += 1
            continue
        try:
            item = decode_rollout_line(bytes(view[start:end]))
        except ProtocolError:
            damaged += 1
            continue
        if item is None:
            continue
        items.append(item)
        if isinstance(item, Compacted):
            generation += 1
        elif isinstance(item, SessionMeta):
            meta = meta or item
        elif not is_known(item):
            foreign += 1
    return LoadedRollout(tuple(items), meta, damaged, foreign, generation)
