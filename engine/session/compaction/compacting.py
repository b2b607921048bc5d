"""One compaction, from the hooks before it to those after it; the new history is installed at one stroke.

session.md 4.10. Until then nothing has changed: a compaction that fails, is cancelled or dies with the process leaves
the history as it was, in memory and in the rollout.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from engine.errors import ContextWindowExceeded
from engine.protocol.events import Warning
from engine.protocol.ids import new_item_id
from engine.protocol.items import ResponseItem
from engine.protocol.rollout_items import Compacted, TurnContext
from engine.protocol.turn_items import ContextCompactionTurnItem
from engine.session.compaction.hooks import CompactionFacts, CompactionTriggerKind
from engine.session.compaction.remote import compact_remotely, is_remote
from engine.session.compaction.replacement import USER_TOKENS, after_local_summary, with_context
from engine.session.compaction.summarizing import summarize
from engine.session.compaction.texts import ACCURACY_WARNING, NO_ROOM_WARNING, summary_text
from engine.session.context import turn_context
from engine.session.telling import tell_compaction

if TYPE_CHECKING:
    from engine.models.catalogue import ModelInfo
    from engine.session.tracing import CompactionTrace
    from engine.session.turn import TurnRun

__all__ = ["compact"]

logger = logging.getLogger("engine")


async def compact(
    turn: TurnRun, trigger: CompactionTriggerKind, *, model: ModelInfo | None = None, within_turn: bool = False
) -> None:
    """Compacts the history by `model` (default: the turn's). `within_turn`: the turn goes on, so its context stays.

    Raises `ModelError` where no summary could be had; the history is the old one then. Where not even the request for
    one fits the window, the history is the newest user messages alone, and `ContextWindowExceeded` is raised: the next
    turn can go on. Does not return where a hook stops the turn. Cancelled before it is installed: nothing has changed.
    """
    core, used = turn.core, model or turn.model_info
    await core.generation_counted()
    facts = CompactionFacts(
        thread_id=turn.thread_id,
        turn_id=turn.id,
        trigger=trigger,
        model=used.slug,
        cwd=turn.facts.configuration.cwd,
        transcript_path=core.rollout_path,
    )
    await _ask(turn, "before", core.compaction_hooks.before, facts)
    shown = ContextCompactionTurnItem(new_item_id())
    turn.item_started(shown)
    context = await turn.context_after(None) if within_turn else None
    remote = is_remote(turn)
    trace = None if core.trace is None else core.trace.compaction(turn.id)
    tell_compaction(turn, trigger, remote=remote)
    try:
        if remote:
            message, history = "", await compact_remotely(turn, used, trace)
        else:
            message = summary_text(await summarize(turn, used))
            history = after_local_summary(core.history.items, message, _budget(turn))
    except ContextWindowExceeded:
        turn.fill_window()
        message = summary_text(None)
        _install(turn, after_local_summary(core.history.items, message, _budget(turn)), message, None, trace)
        turn.item_completed(shown)
        turn.emit(Warning(NO_ROOM_WARNING))
        raise
    _install(turn, history, message, context, trace)
    turn.item_completed(shown)
    if not remote:
        turn.emit(Warning(ACCURACY_WARNING))
    await _ask(turn, "after", core.compaction_hooks.after, facts)


def _budget(turn: TurnRun) -> int:
    """Tokens of what the user said: in a small window, not so many that the history is too long again."""
    window = turn.model_info.effective_context_window
    return USER_TOKENS if window is None else min(USER_TOKENS, window // 4)


async def _ask(
    turn: TurnRun, when: str, hook: Callable[[CompactionFacts], Awaitable[str | None]], facts: CompactionFacts
) -> None:
    """Does not return where the hook stops the turn. A hook that fails is told and stops nothing."""
    try:
        reason = await hook(facts)
        if not isinstance(reason, str | None):
            raise TypeError(f"it answered {reason!r} instead of a text or None")
    except Exception as exc:
        logger.exception("a hook %s a compaction failed", when)
        turn.emit(Warning(f"The hook {when} a compaction failed and is ignored: {exc}"))
        return
    if reason is not None:
        turn.emit(Warning(reason))
        turn.core.request_interrupt(turn.id)
        await trio.sleep_forever()


@trio.lowlevel.enable_ki_protection  # memory and rollout change together
def _install(
    turn: TurnRun,
    history: list[ResponseItem],
    message: str,
    context: Sequence[ResponseItem] | None,
    trace: CompactionTrace | None,
) -> None:
    if not turn.open:
        return  # aborted meanwhile: the history is what the abort left
    core = turn.core
    reference: TurnContext | None = None
    if context is not None:
        history, reference = with_context(history, context), turn_context(turn.facts)
    lines = [Compacted(message, tuple(history))]
    core.hub.persist(lines if reference is None else [*lines, reference])
    if trace is not None:
        trace.installed(core.history.items, history)
    core.history.replace(history)
    core.reference = reference
    core.generation += 1
    turn.estimate_tokens()
