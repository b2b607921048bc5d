"""Turns from stored items (app_server.md 5, "Rebuilding turns"). Pure.

A turn begins where its start is told, or, in rollouts that tell none there, where its user speaks or something is
shown. What follows belongs to it until the next one begins. An event that names another turn belongs to that one,
wherever it stands. A rollback takes away the last user turns with all that came after them.

`all_turns` does it for items in memory; `turn_ranges` finds where the turns of a file lie, so that `TurnBuilder` needs
to look at the lines of one turn only. Both give the same turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Final, final

import attrs

from engine.protocol.events import (
    AgentReasoning,
    AgentReasoningRawContent,
    ErrorEvent,
    EventMsg,
    ItemCompleted,
    TaskComplete,
    TaskStarted,
    ThreadRolledBack,
    TurnAborted,
    UserMessage,
)
from engine.protocol.items import Message
from engine.protocol.rollout_items import EventLine, ResponseLine, RolloutItem
from engine.protocol.thread_items import (
    ItemsView,
    ShownAgentMessage,
    ShownReasoning,
    ShownUserMessage,
    ThreadItem,
    ThreadTurn,
    TurnFailure,
    TurnStatus,
)
from engine.protocol.turn_items import UserMessageItem
from engine.protocol.wire import UnknownVariant
from engine.rollout.boundaries import is_envelope
from engine.rollout.inline_images import ImagesBack
from engine.rollout.shown_items import camel_words, shown_item

__all__ = ["TurnBuilder", "all_turns", "implicit_id", "is_mail", "named_turn", "numbered_turns", "shows", "speaks"]

# Errors that say nothing about the turn they stand in.
_BESIDE: Final = frozenset({"thread_rollback_failed", "active_turn_not_steerable"})


def implicit_id(number: int) -> str:
    """The id of a turn whose start nobody has told; it is the `number`-th that began in its thread."""
    return f"turn-{number}"


def named_turn(msg: EventMsg) -> str | None:
    """The turn an event says that it belongs to."""
    found = msg.raw.get("turn_id") if isinstance(msg, UnknownVariant) else getattr(msg, "turn_id", None)
    return found if isinstance(found, str) else None


def speaks(msg: EventMsg) -> bool:
    """Whether the user speaks."""
    return isinstance(msg, UserMessage) or (isinstance(msg, ItemCompleted) and isinstance(msg.item, UserMessageItem))


def shows(msg: EventMsg) -> bool:
    """Whether an event is worth a turn where there is none."""
    return isinstance(msg, AgentReasoning | AgentReasoningRawContent) or shown_item(msg, "") is not None


def is_mail(item: RolloutItem) -> bool:
    """Whether an item is mail of another agent, which counts as a user turn where turns are rolled back."""
    return isinstance(item, ResponseLine) and isinstance(item.item, Message) and is_envelope(item.item)


@final
class TurnBuilder:
    """One turn on its way. `explicit`: its start was told; else the events of any turn are taken for its own."""

    def __init__(self, turn_id: str, *, explicit: bool) -> None:
        self.id = turn_id
        self.explicit = explicit
        self.over = False
        self.user = False
        self._items: dict[str, ThreadItem] = {}
        self._last = ""
        self._counts: dict[str, int] = {}
        self._status: TurnStatus | None = None
        self._error: TurnFailure | None = None
        self._times: tuple[int | None, int | None, int | None] = (None, None, None)
        self._images = ImagesBack()

    def hear(self, item: RolloutItem) -> None:
        """An item among the lines of the turn, or right before them: what the user says may have images."""
        self._images.hear(item)

    def take(self, msg: EventMsg) -> None:
        """The next event among the lines of the turn; what belongs to another one is left out."""
        named = named_turn(msg)
        if self.explicit and named is not None and named != self.id:
            return
        msg = self._images.shown(msg)
        match msg:
            case TaskStarted():
                self._times = (msg.started_at, None, None)
            case TaskComplete() | TurnAborted():
                self.over = True
                self._times = (self._times[0], msg.completed_at, msg.duration_ms)
                if isinstance(msg, TurnAborted):
                    self._status = "interrupted"
                elif self._status is None:
                    self._status = "completed"
            case ErrorEvent():
                self._fail(msg)
            case AgentReasoning():
                self._think(msg.text, raw=False)
            case AgentReasoningRawContent():
                self._think(msg.text, raw=True)
            case _:
                self.user = self.user or speaks(msg)
                item = shown_item(msg, self._next_id(msg.type))
                if item is not None:
                    self._counts[msg.type] = self._counts.get(msg.type, 0) + 1
                    self._show(item)

    def build(self, active: str | None, view: ItemsView = "full") -> ThreadTurn:
        """The turn as of now. One that has not ended runs if it is `active`; else it was interrupted."""
        status: TurnStatus | None = self._status
        if status is None:
            status = "inProgress" if self.id == active else "interrupted"
        return ThreadTurn(
            id=self.id,
            items=self._viewed(view),
            items_view=view,
            status=status,
            error=self._error if status == "failed" else None,
            started_at=self._times[0],
            completed_at=self._times[1],
            duration_ms=self._times[2],
        )

    def _viewed(self, view: ItemsView) -> tuple[ThreadItem, ...]:
        items = tuple(self._items.values())
        if view == "full":
            return items
        if view == "notLoaded":
            return ()
        first = next((item for item in items if isinstance(item, ShownUserMessage)), None)
        last = next((item for item in reversed(items) if isinstance(item, ShownAgentMessage)), None)
        return tuple(item for item in (first, last) if item is not None)

    def _fail(self, msg: ErrorEvent) -> None:
        info = msg.codex_error_info
        kinds = {info} if isinstance(info, str) else set(info or ())
        if not kinds & _BESIDE:
            self._error = TurnFailure(msg.message, camel_words(info))
            self._status = "failed"

    def _think(self, text: str, *, raw: bool) -> None:
        last = self._items.get(self._last)
        if not isinstance(last, ShownReasoning):
            last = ShownReasoning(self._next_id("reasoning"))
            self._counts["reasoning"] = self._counts.get("reasoning", 0) + 1
        summary, content = last.summary, last.content
        self._show(
            attrs.evolve(last, content=(*content, text)) if raw else attrs.evolve(last, summary=(*summary, text))
        )

    def _next_id(self, kind: str) -> str:
        """For an item without an id: counted by kind, so that it does not depend on what else is looked at."""
        count = self._counts.get(kind, 0) + 1
        return f"{self.id}-{kind}-{count}"

    def _show(self, item: ThreadItem) -> None:
        self._items[item.id] = item
        self._last = item.id


@attrs.define(eq=False)
class _Begun:
    number: int
    turn: TurnBuilder


def all_turns(items: Iterable[RolloutItem], active: str | None = None, view: ItemsView = "full") -> list[ThreadTurn]:
    """The turns of a thread, oldest first."""
    return [begun.turn.build(active, view) for begun in _begun(items)]


def numbered_turns(
    items: Iterable[RolloutItem], active: str | None = None, view: ItemsView = "full"
) -> list[tuple[int, ThreadTurn]]:
    """As `all_turns`, with the number of each among all that ever began."""
    return [(begun.number, begun.turn.build(active, view)) for begun in _begun(items)]


def _begun(items: Iterable[RolloutItem]) -> list[_Begun]:
    turns: list[_Begun] = []
    current: TurnBuilder | None = None
    number = 0
    late: list[tuple[TurnBuilder, EventMsg]] = []  # what is told of a turn elsewhere comes after its own lines

    def begin(turn_id: str | None, before: RolloutItem | None = None) -> TurnBuilder:
        nonlocal number
        turn = TurnBuilder(implicit_id(number) if turn_id is None else turn_id, explicit=turn_id is not None)
        if before is not None:
            turn.hear(before)
        turns.append(_Begun(number, turn))
        number += 1
        return turn

    ahead, behind = itertools.tee(items)
    for before, item in zip(itertools.chain([None], behind), ahead, strict=False):
        if current is not None:
            current.hear(item)
        if is_mail(item) and current is not None:
            current.user = True
        if not isinstance(item, EventLine):
            continue
        msg = item.msg
        if isinstance(msg, TaskStarted):
            if current is None or current.over or current.id != msg.turn_id:  # else the line is there twice
                current = begin(msg.turn_id)
                current.take(msg)
            continue
        if isinstance(msg, ThreadRolledBack):
            if msg.num_turns > 0:
                _roll_back(turns, msg.num_turns)
                current = None
            continue
        named = named_turn(msg)
        if named is not None and (current is None or (current.explicit and named != current.id)):
            late += [(begun.turn, msg) for begun in reversed(turns) if begun.turn.id == named][:1]
            continue
        if speaks(msg):
            if current is None or current.over or not current.explicit:
                current = begin(None, before)
        elif current is None and shows(msg):
            current = begin(None, before)
        if current is not None:
            current.take(msg)
    for turn, msg in late:
        turn.take(msg)
    return turns


def _roll_back(turns: list[_Begun], count: int) -> None:
    users = [position for position, begun in enumerate(turns) if begun.turn.user]
    if users:
        del turns[users[max(0, len(users) - count)] :]
