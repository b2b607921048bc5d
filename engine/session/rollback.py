"""Takes the last turns out of a session's history (session.md 3.8). The rollout only grows: it gets a mark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from engine.errors import InvalidRequest, StoreError
from engine.protocol.events import (
    ContextCompacted,
    ErrorEvent,
    TaskComplete,
    TaskStarted,
    ThreadRolledBack,
    TokenCount,
    Warning,
)
from engine.protocol.rollout_items import Compacted, EventLine

if TYPE_CHECKING:
    from engine.rollout.rolling_back import RolledBack
    from engine.session.core import SessionCore

__all__ = ["roll_back"]


async def roll_back(core: SessionCore, submission: str, turns: int) -> None:
    """Drops the last `turns` turns of the user, or all there are; what stands before the first one stays.

    The history becomes what a resume would make of the rollout. Raises `InvalidRequest` and `StoreError`, told as an
    event too; then nothing has changed.
    """
    try:
        await _roll_back(core, submission, turns)
    except (InvalidRequest, StoreError) as exc:
        core.hub.emit(submission, ErrorEvent(str(exc), "thread_rollback_failed"))
        raise


async def _roll_back(core: SessionCore, submission: str, turns: int) -> None:
    if turns < 1:
        raise InvalidRequest("num_turns must be >= 1")
    if core.active is not None:
        raise InvalidRequest("Cannot rollback while a turn is in progress.")
    if core.hub.live is None:
        raise InvalidRequest("thread rollback requires persisted thread history")
    await core.settle_past()
    await core.generation_counted()
    await core.hub.live.flush()
    tail = await core.services.store.load_tail(core.thread_id)
    try:
        policy = core.model_info().truncation_policy
        made = await trio.to_thread.run_sync(tail.rolled_back, turns, policy, abandon_on_cancel=True)
    finally:
        tail.close()
    _install(core, submission, turns, made)
    problem = await core.flush_quietly()
    if problem is not None:
        core.hub.emit(submission, Warning(f"The rollback is not saved yet; saving it is tried again: {problem}"))


@trio.lowlevel.enable_ki_protection  # memory and rollout change together
def _install(core: SessionCore, submission: str, turns: int, made: RolledBack) -> None:
    left = made.left
    core.history.replace(left.history)
    core.reference = None if made.restored else left.reference_context_item
    core.previous_model = left.previous_turn_settings.model if left.previous_turn_settings is not None else None
    core.estimate_usage(core.model_info().effective_context_window)
    count = TokenCount(core.usage, core.rate_limits)
    core.hub.emit(submission, count)
    core.hub.emit(submission, ThreadRolledBack(turns))
    if made.restored:
        # Readers begin at the newest compaction, dropped or not (rollout.md 5.2): they get one to go on from.
        core.generation += 1
        core.hub.persist(
            [
                EventLine(TaskStarted(submission)),
                Compacted("", left.history),
                EventLine(count),
                EventLine(ContextCompacted()),
                EventLine(TaskComplete(submission)),
            ]
        )
