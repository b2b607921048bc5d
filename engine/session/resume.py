"""What a resumed thread brings along: history, reference context, usage, window generation (session.md 2.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.protocol.events import TokenCount
from engine.protocol.rollout_items import EventLine
from engine.rollout.reconstruction import reconstruct

if TYPE_CHECKING:
    from engine.models.catalogue import ModelInfo
    from engine.session.core import SessionCore
    from engine.thread_store.interface import StoredHistory

__all__ = ["restore"]


def restore(core: SessionCore, history: StoredHistory, model: ModelInfo) -> str | None:
    """Puts the stored state into `core`; returns the model the thread was recorded with, if that is known."""
    found = reconstruct(history.items, model.truncation_policy)
    core.history.replace(found.history)
    core.reference = found.reference_context_item
    core.generation = history.generation
    settings = found.previous_turn_settings
    core.previous_model = settings.model if settings is not None else None
    for item in reversed(history.items):
        if isinstance(item, EventLine) and isinstance(item.msg, TokenCount) and item.msg.info is not None:
            core.usage = item.msg.info
            break
    return core.previous_model
