"""What a thread looks like when it is resumed, computed from its rollout (rollout.md 5).

Two passes. The reverse scan goes from the newest item to the oldest, turn by turn, and finds the newest compaction
that still counts, the settings of the last user turn and the context that later turns are compared with; rollback
markers drop turns on the way. The forward replay then builds the history from that compaction on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from engine.records import define, frozen
from engine.rollout.boundaries import (
    is_contextual_developer_message,
    is_contextual_user_message,
    is_user_turn_boundary,
    user_text,
)

__all__ = [
    "PreviousTurnSettings",
    "Reconstruction",
    "ReverseScan",
    "drop_last_turns",
    "legacy_compaction",
    "reconstruct",
    "replay",
]

# Outputs are stored whole in the rollout; in the history they get a fifth more than the budget of the policy.
OUTPUT_ALLOWANCE: Final = 1.2
LEGACY_USER_TOKENS: Final = 20_000
NO_SUMMARY: Final = "(no summary available)"


@frozen
class PreviousTurnSettings:
    """What the last user turn ran with, as far as a later turn must know."""

    model: str
    realtime_active: bool | None = None


@frozen
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
    found = ReverseScan()
    for position in range(len(items) - 1, -1, -1):
        found.take(items[position], position + 1)
        if found.complete:
            break
    found.finish()
    following = (items[position] for position in range(found.start, len(items)))
    history, legacy = replay(found.base or (), following, policy, summary_prefix=summary_prefix)
    return Reconstruction(tuple(history), found.previous, None if legacy else found.reference_context_item)


# --- the reverse scan --------------------------------------------------------------------------


class _Mark:
    """States of a reference besides a context."""


_UNSET: Final = _Mark()
_CLEARED: Final = _Mark()  # a compaction: the next turn sends its whole context


@define
class _Segment:
    """A turn while it is read backwards."""

    turn_id: str | None = None
    is_user_turn: bool = False
    previous: PreviousTurnSettings | None = None
    reference: TurnContext | _Mark = _UNSET
    base: tuple[ResponseItem, ...] | None = None


@define
class ReverseScan:
    """Takes items from the newest to the oldest, until it is `complete`; then, or where there are no more, `finish`.

    - `base`: the history that the newest compaction which still counts has left
    - `start`: the place from which on items are replayed; 0 is the beginning
    - `previous`: the settings of the last user turn
    """

    base: tuple[ResponseItem, ...] | None = None
    previous: PreviousTurnSettings | None = None
    start: int = 0
    _reference: TurnContext | _Mark = _UNSET
    _skip: int = 0
    _segment: _Segment | None = None

    @property
    def reference_context_item(self) -> TurnContext | None:
        """The context that later turns are compared with, if it was found and no compaction came after it."""
        return self._reference if isinstance(self._reference, TurnContext) else None

    @property
    def knows_settings(self) -> bool:
        """Whether older items can only change `base` and `start`."""
        return self.previous is not None and self._reference is not _UNSET

    @property
    def complete(self) -> bool:
        """Whether older items change nothing any more."""
        return self.base is not None and self.knows_settings

    @property
    def in_user_turn(self) -> bool:
        """Whether older messages of the turn that is being read can't tell anything."""
        return self._segment is not None and self._segment.is_user_turn

    def take(self, item: RolloutItem, after: int) -> None:
        """The next older item; `after` is the place behind it.

        Items without effect may be left out: response items that begin no user turn, and all events but those of
        turns, user messages and rollbacks.
        """
        segment = self._segment
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
                    self.start = after
            case TurnContext():
                segment = segment or _Segment()
                segment.turn_id = segment.turn_id or item.turn_id
                if _compatible(segment.turn_id, item.turn_id):
                    segment.previous = PreviousTurnSettings(item.model, item.realtime_active)
                    if segment.reference is _UNSET:
                        segment.reference = item
            case EventLine(msg=ThreadRolledBack(num_turns=turns)):
                self._skip += turns
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
                    self._finalise(segment)
                    segment = None
        self._segment = segment

    def finish(self) -> None:
        """There are no older items, or none that matter."""
        segment, self._segment = self._segment, None
        if segment is not None and not self.complete:
            self._finalise(segment)

    def _finalise(self, segment: _Segment) -> None:
        """Takes over what a turn has to say, unless a rollback drops it."""
        if self._skip > 0:
            if segment.is_user_turn:
                self._skip -= 1
            return
        if self.base is None:
            self.base = segment.base
        if segment.is_user_turn and self.previous is None:
            self.previous = segment.previous
        if self._reference is _UNSET and (segment.is_user_turn or segment.reference is _CLEARED):
            self._reference = segment.reference


def _compatible(one: str | None, other: str | None) -> bool:
    return one is None or other is None or one == other


# --- the forward replay ------------------------------------------------------------------------


def replay(
    base: Sequence[ResponseItem],
    items: Iterable[RolloutItem],
    policy: TruncationPolicy,
    *,
    summary_prefix: str | None = None,
) -> tuple[list[ResponseItem], bool]:
    """The history after `items`, which go on from `base`; and whether a compaction without a history was among them."""
    history = list(base)
    legacy = False
    budget = scaled(policy, OUTPUT_ALLOWANCE)
    for item in items:
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
    return history, legacy


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
