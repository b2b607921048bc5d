"""The rollout items of a running session, from what it holds in memory: for a file that others took away.

Resuming from them gives the same history, reference context, previous settings, usage and window generation. What only
the file knew (finished turns as such, events of tools) is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.errors import StoreError
from engine.protocol.events import TaskStarted, TokenCount, UserMessage
from engine.protocol.items import InputImage, Message, ResponseItem
from engine.protocol.rollout_items import Compacted, EventLine, ResponseLine, RolloutItem
from engine.rollout.boundaries import is_user_turn_boundary, user_text
from engine.rollout.inline_images import ImagesOnce

if TYPE_CHECKING:
    from engine.session.core import SessionCore

__all__ = ["items_from_memory"]


def items_from_memory(core: SessionCore) -> list[RolloutItem]:
    """Everything of the session's thread but its meta, oldest first."""
    try:
        history = core.history.items
    except StoreError:  # what was not read yet of a resumed thread went with its file
        history = core.history.own_items
    items = _compacted(history, core.generation) if core.generation else _plain(history)
    if core.usage is not None:
        items.append(EventLine(TokenCount(core.usage, core.rate_limits)))
    # Both belong to the newest user turn: a reader meets them on its way back to where that turn began.
    if core.reference is not None:
        items.append(core.reference)
    if core.active is not None:
        items.append(EventLine(TaskStarted(core.active.id)))
    return items


def _plain(history: Sequence[ResponseItem]) -> list[RolloutItem]:
    items: list[RolloutItem] = []
    for item in history:
        items.append(ResponseLine(item))
        if isinstance(item, Message) and item.role == "user" and is_user_turn_boundary(item):
            images = tuple(part.image_url for part in item.content if isinstance(part, InputImage))
            items.append(EventLine(UserMessage(user_text(item), images=images or None)))
    return list(map(ImagesOnce().stored, items))


def _compacted(history: Sequence[ResponseItem], generation: int) -> list[RolloutItem]:
    """One replacement history, and as many compactions before it as there were: they number the window."""
    said = [item for item in _plain(history) if isinstance(item, EventLine)]
    return [*said[:1], *[Compacted("")] * (generation - 1), Compacted("", tuple(history))]
