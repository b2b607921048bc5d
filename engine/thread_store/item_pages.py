"""Pages of the items of a thread, across its turns (app_server.md 3, items/list), over any store that pages turns.

A cursor names a turn by its own cursor, and an item of it by its position.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from engine.errors import InvalidRequest
from engine.protocol.ids import ThreadId
from engine.protocol.thread_items import ThreadItem
from engine.records import frozen
from engine.thread_store.interface import Direction, ListTurns, ThreadStore

__all__ = ["ItemPage", "ListItems", "StoredItem", "item_page"]

_CURSOR: Final = re.compile(r"(\d{1,18})\.(\d{1,18})(\+?)", re.ASCII)


@frozen(kw_only=True)
class ListItems:
    """A page of the items of a thread, or of one turn. `active` as in `ListTurns`."""

    limit: int = 25
    cursor: str | None = None
    direction: Direction = "asc"
    turn_id: str | None = None
    active: str | None = None


@frozen
class StoredItem:
    """An item and the turn it belongs to."""

    turn_id: str
    item: ThreadItem


@frozen(kw_only=True)
class ItemPage:
    """Items in order. Cursors as in `TurnPage`."""

    items: tuple[StoredItem, ...]
    next_cursor: str | None = None
    backwards_cursor: str | None = None


@frozen
class _Placed:
    turn: str
    position: int
    item: StoredItem

    def cursor(self, *, inclusive: bool = False) -> str:
        return f"{self.turn}.{self.position}{'+' if inclusive else ''}"


async def item_page(store: ThreadStore, thread: ThreadId, query: ListItems) -> ItemPage:
    """The page. Reads no more turns than it needs. Raises as `ThreadStore.list_turns`."""
    limit, descending = max(1, query.limit), query.direction == "desc"
    turns = ListTurns(limit=1, direction=query.direction, view="full", turn_id=query.turn_id, active=query.active)
    begin: tuple[str, int, bool] | None = None
    if query.cursor is not None:
        begin = _parse(query.cursor)
        turns = attrs.evolve(turns, cursor=f"{begin[0]}+")
    found: list[_Placed] = []
    while len(found) <= limit:
        page = await store.list_turns(thread, turns)
        if not page.turns or page.backwards_cursor is None:
            break
        number, turn = page.backwards_cursor.rstrip("+"), page.turns[0]
        placed = [_Placed(number, position, StoredItem(turn.id, item)) for position, item in enumerate(turn.items)]
        if descending:
            placed.reverse()
        found += [each for each in placed if begin is None or _follows(each, begin, descending)]
        if page.next_cursor is None:
            break
        turns = attrs.evolve(turns, cursor=page.next_cursor)
    shown = found[:limit]
    if not shown:
        return ItemPage(items=())
    return ItemPage(
        items=tuple(each.item for each in shown),
        next_cursor=shown[-1].cursor() if len(found) > limit else None,
        backwards_cursor=shown[0].cursor(inclusive=True),
    )


def _parse(text: str) -> tuple[str, int, bool]:
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"invalid cursor: {text}")
    return match[1], int(match[2]), match[3] == "+"


def _follows(placed: _Placed, begin: tuple[str, int, bool], descending: bool) -> bool:
    turn, position, inclusive = begin
    if placed.turn != turn:
        return True
    if placed.position == position:
        return inclusive
    return placed.position < position if descending else placed.position > position
