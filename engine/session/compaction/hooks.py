"""Who may stop a compaction, before or after it: the seam that hooks plug into (extensibility.md, Pre/PostCompact).

`open_engine(compaction_hooks=...)` takes those of a host, for all sessions of the engine.
"""

from __future__ import annotations

from typing import Literal, Protocol, final

import trio

from engine.protocol.ids import ThreadId, TurnId
from engine.records import frozen

__all__ = ["NO_HOOKS", "CompactionFacts", "CompactionHooks", "CompactionTriggerKind"]

CompactionTriggerKind = Literal["manual", "auto"]


@frozen(kw_only=True)
class CompactionFacts:
    """What hooks are told. `transcript_path` is the rollout, where there is one."""

    thread_id: ThreadId
    turn_id: TurnId
    trigger: CompactionTriggerKind
    model: str
    cwd: str
    transcript_path: str | None


class CompactionHooks(Protocol):
    """Both answer with the reason to stop, which the user is told, or `None` to go on.

    They run in the task of the turn: an interrupt cancels them. One that fails stops nothing; the user is warned.
    """

    async def before(self, facts: CompactionFacts) -> str | None:
        """Asked before anything is compacted; a reason stops the compaction and aborts the turn."""
        ...

    async def after(self, facts: CompactionFacts) -> str | None:
        """Told once the history is replaced; a reason aborts the turn, the history stays replaced."""
        ...


@final
class _NoHooks:
    async def before(self, facts: CompactionFacts) -> str | None:
        await trio.lowlevel.checkpoint()
        return None

    async def after(self, facts: CompactionFacts) -> str | None:
        await trio.lowlevel.checkpoint()
        return None


NO_HOOKS: CompactionHooks = _NoHooks()
