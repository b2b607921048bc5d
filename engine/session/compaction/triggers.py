"""When a history is compacted without being asked: before a turn, and within one (session.md 4.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.models.catalogue import find_model
from engine.session.compaction.compacting import compact
from engine.session.compaction.estimate import active_tokens

if TYPE_CHECKING:
    from engine.session.turn import TurnRun

__all__ = ["compact_before_turn", "compact_within_turn"]


async def compact_before_turn(turn: TurnRun) -> None:
    """Makes room before a turn sends anything: the history may be too long, or the new model's window smaller.

    In the latter case the old model writes the summary: the history fits its window. Raises what `compact` raises.
    """
    core, new = turn.core, turn.model_info
    if core.previous_model is not None and core.previous_model != new.slug:
        config = turn.facts.configuration.config
        old = find_model(core.previous_model, config, core.services.models.catalogue(config))
        larger = old.window is not None and new.window is not None and old.window > new.window
        limit = new.auto_compact_limit
        if larger and limit is not None and _total(turn) > limit:
            await compact(turn, "auto", model=old)
    if _is_full(turn):
        await compact(turn, "auto")


async def compact_within_turn(turn: TurnRun) -> bool:
    """Makes room for a turn that goes on; whether that was needed. Raises what `compact` raises."""
    if not _is_full(turn):
        return False
    await compact(turn, "auto", within_turn=True)
    return True


def _is_full(turn: TurnRun) -> bool:
    limit = turn.model_info.auto_compact_limit
    return limit is not None and _total(turn) >= limit


def _total(turn: TurnRun) -> int:
    core = turn.core
    last = core.usage.last_token_usage.total_tokens if core.usage is not None else 0
    return active_tokens(core.history.items, last, reasoning_included=turn.reasoning_counted)
