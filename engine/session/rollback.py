"""Takes the last turns out of a session's history (session.md 3.8). The rollout only grows: it gets a mark."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import trio

from engine.errors import InvalidRequest, StoreError
from engine.protocol.events import ErrorEvent, ThreadRolledBack, TokenCount, Warning
from engine.protocol.rollout_items import EventLine
from engine.rollout.reconstruction import Reconstruction, reconstruct

if TYPE_CHECKING:
    from engine.session.core import SessionCore

__all__ = ["roll_back"]

AT_ONCE = 2000  # items that are replayed on the loop; more, in a worker thread


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
    await core.hub.live.flush()
    stored = await core.services.store.load_history(core.thread_id)
    mark, model = ThreadRolledBack(turns), core.model_info()
    replay = functools.partial(reconstruct, [*stored.items, EventLine(mark)], model.truncation_policy)
    made = replay() if len(stored.items) <= AT_ONCE else await trio.to_thread.run_sync(replay)
    _install(core, submission, made, mark)
    problem = await core.flush_quietly()
    if problem is not None:
        core.hub.emit(submission, Warning(f"The rollback is not saved yet; saving it is tried again: {problem}"))


@trio.lowlevel.enable_ki_protection  # memory and rollout change together
def _install(core: SessionCore, submission: str, made: Reconstruction, mark: ThreadRolledBack) -> None:
    core.history.replace(made.history)
    core.reference = made.reference_context_item
    settings = made.previous_turn_settings
    core.previous_model = settings.model if settings is not None else None
    core.estimate_usage(core.model_info().effective_context_window)
    core.hub.emit(submission, TokenCount(core.usage, core.rate_limits))
    core.hub.emit(submission, mark)
