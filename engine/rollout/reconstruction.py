"""What a thread looks like when it is resumed, computed from its rollout (rollout.md 5).

Two passes. The reverse scan goes from the newest item to the oldest, turn by turn, and finds the newest compaction
that still counts, the settings of the last user turn and the context that later turns are compared with; rollback
markers drop turns on the way. The forward replay then builds the history from that compaction on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from engine.protocol.events import TaskComplete, TaskStarted, ThreadRolledBack, TurnAborted, UserMessage
from engine.protocol.items import (
    CompactionTrigger,
    CustomToolCallOutput,
    FunctionCallOutput,
    Message,
    ResponseItem,
    user_message,
)
from engine.protocol.rollout_items import Compacted, EventLine, ResponseLine, RolloutItem, TurnContext
from engine.protocol.settings import TruncationPolicy
from engine.protocol.truncation import approx_tokens, scaled, truncate_output, truncate_text
from engine.protocol.wire import UnknownVariant
from engine.rollout.boundaries import (
    is_contextual_developer_message,
    is_contextual_user_message,
    is_user_turn_boundary,
    user_text,
)

__all__ = ["PreviousTurnSettings", "Reconstruction", "drop_last_turns", "legacy_compaction", "reconstruct"]

# Outputs are stored whole in the rollout; in the history they get a fifth more than the budget of the policy.
OUTPUT_ALLOWANCE: Final = 1.2
LEGACY_USER_TOKENS: Final = 20_000
NO_SUMMARY: Final = "(no summary available)"


@attrs.frozen
class PreviousTurnSettings:
    """What the last user turn ran with, as far as a later turn must know."""

    model: str
    realtime_active: bool | None = None


@attrs.frozen
class Reconstruction:
    """The state a rollout leads to: history oldest first, and the settings later turns are compared with."""

    history: tuple[ResponseItem, ...]
    previous_turn_settings: PreviousTurnSettings | None
    reference_context_item: TurnContext | None


def reconstruct(
    items: Sequence[RolloutItem], policy: TruncationPolicy, *, summary_prefix: str | None = None
) -> Reconstruction:
    """Replays a rollout, oldest item first. `policy` is the current budget of tool outputs.

    `summary_prefix` begins the summaries of earlier compactions; it matters only to rollouts whose compactions
    carry no replacement history.
    """
    found = _scan_backwards(items)
    history: list[ResponseItem] = list(found.base or ())
    legacy = False
    budget = scaled(policy, OUTPUT_ALLOWANCE)
    for position in range(found.start, len(items)):
        item = items[position]
        if isinstance(item, ResponseLine):
            kept = _as_history(item.item, budget)
            if kept is not None:
                history.append(kept)
        elif isinstance(item, Compacted):
            if item.replacement_history is not None:
                history = list(item.replacement_history)
            else:
                history = legacy_compaction(history, item.message, summary_prefix)
                legacy = True
        elif isinstance(item, EventLine) and isinstance(item.msg, ThreadRolledBack):
            history = drop_last_turns(history, item.msg.num_turns)
    reference = found.reference
    return Reconstruction(
        tuple(history),
        found.previous,
        reference if isinstance(reference, TurnContext) and not legacy else None,
    )


# --- the reverse scan --------------------------------------------------------------------------


class _Mark:
    """States of a reference besides a context."""


_UNSET: Final = _Mark()
_CLEARED: Final = _Mark()  # a compaction: the next turn sends its whole context


@attrs.define
class _Segment:
    """A turn while it is read backwards."""

    turn_id: str | None = None
    is_user_turn: bool = False
    previous: PreviousTurnSettings | None = None
    reference: TurnContext | _Mark = _UNSET
    base: tuple[ResponseItem, ...] | None = None


@attrs.define
class _Found:
    """What the reverse scan has found so far."""

    base: tuple[ResponseItem, ...] | None = None
    previous: PreviousTurnSettings | None = None
    reference: TurnContext | _Mark = _UNSET
    skip: int = 0
    start: int = 0

    @property
    def complete(self) -> bool:
        return self.base is not None and self.previous is not None and self.reference is not _UNSET

    def finalise(self, segment: _Segment) -> None:
        """Takes over what a turn has to say, unless a rollback drops it."""
        if self.skip > 0:
            if segment.is_user_turn:
                self.skip -= 1
            return
        if self.base is None:
            self.base = segment.base
        if segment.is_user_turn and self.previous is None:
            self.previous = segment.previous
        if self.reference is _UNSET and (segment.is_user_turn or segment.reference is _CLEARED):
            self.reference = segment.reference


def _scan_backwards(items: Sequence[RolloutItem]) -> _Found:
    found = _Found()
    segment: _Segment | None = None
    for position in range(len(items) - 1, -1, -1):
        segment = _step(found, segment, items[position], position)
        if found.complete:
            return found
    if segment is not None:
        found.finalise(segment)
    return found


def _step(found: _Found, segment: _Segment | None, item: RolloutItem, position: int) -> _Segment | None:
    """One item of the reverse scan; the segment that is open afterwards."""
    match item:
        case ResponseLine(item=response):
            segment = segment or _Segment()
            segment.is_user_turn = segment.is_user_turn or is_user_turn_boundary(response)
        case Compacted(replacement_history=replacement):
            segment = segment or _Segment()
            if segment.reference is _UNSET:
                segment.reference = _CLEARED
            if segment.base is None and replacement is not None:
                segment.base = replacement
                # Even if a rollback drops this turn later: readers of this format have always done so.
                found.start = position + 1
        case TurnContext():
            segment = segment or _Segment()
            segment.turn_id = segment.turn_id or item.turn_id
            if _compatible(segment.turn_id, item.turn_id):
                segment.previous = PreviousTurnSettings(item.model, item.realtime_active)
                if segment.reference is _UNSET:
                    segment.reference = item
        case EventLine(msg=ThreadRolledBack(num_turns=turns)):
            found.skip += turns
        case EventLine(msg=TaskComplete(turn_id=turn_id)):
            segment = segment or _Segment()
            segment.turn_id = segment.turn_id or turn_id
        case EventLine(msg=TurnAborted(turn_id=turn_id)):
            if segment is not None:
                segment.turn_id = segment.turn_id or turn_id
            elif turn_id is not None:
                segment = _Segment(turn_id)
        case EventLine(msg=UserMessage()):
            segment = segment or _Segment()
            segment.is_user_turn = True
        case EventLine(msg=TaskStarted(turn_id=turn_id)):
            if segment is not None and _compatible(segment.turn_id, turn_id):
                found.finalise(segment)
                segment = None
    return segment


def _compatible(one: str | None, other: str | None) -> bool:
    return one is None or other is None or one == other


# --- the forward replay ------------------------------------------------------------------------


def _as_history(item: ResponseItem, budget: TruncationPolicy) -> ResponseItem | None:
    match item:
        case UnknownVariant() | CompactionTrigger() | Message(role="system"):
            return None
        case FunctionCallOutput() | CustomToolCallOutput():
            output = truncate_output(item.output, budget)
            return item if output is item.output else attrs.evolve(item, output=output)
        case _:
            return item


def drop_last_turns(history: Sequence[ResponseItem], turns: int) -> list[ResponseItem]:
    """The history without its last `turns` user turns and the context in front of them.

    What stands before the first user turn always stays.
    """
    boundaries = [position for position, item in enumerate(history) if is_user_turn_boundary(item)]
    if turns <= 0 or not boundaries:
        return list(history)
    first = boundaries[0]
    cut = boundaries[-turns] if turns <= len(boundaries) else first
    while cut > first and (
        is_contextual_developer_message(history[cut - 1]) or is_contextual_user_message(history[cut - 1])
    ):
        cut -= 1
    return list(history[:cut])


def legacy_compaction(
    history: Sequence[ResponseItem], message: str, summary_prefix: str | None = None
) -> list[ResponseItem]:
    """The history after a compaction that only left its text: the newest user messages, then that text."""
    left = LEGACY_USER_TOKENS
    newest_first: list[str] = []
    for item in reversed(history):
        if not isinstance(item, Message) or item.role != "user" or is_contextual_user_message(item):
            continue
        text = user_text(item)
        if summary_prefix is not None and text.startswith(summary_prefix + "\n"):
            continue
        tokens = approx_tokens(text)
        if tokens > left:
            newest_first.append(truncate_text(text, TruncationPolicy("tokens", left)))
            break
        newest_first.append(text)
        left -= tokens
        if left == 0:
            break
    texts = [*reversed(newest_first), message or NO_SUMMARY]
    return [user_message(text) for text in texts]
