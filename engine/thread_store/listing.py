"""Order, filters and cursors of listings, for whatever holds the threads (app_server.md 3.1, rollout.md 4.1).

A cursor names a place in the order: a time in ms (RFC 3339, as in other programs) and the id that breaks ties. It goes
on behind that thread, or, with a `+`, from it on. A bare time is one, too.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable
from typing import Final

from engine.errors import InvalidRequest
from engine.protocol.ids import parse_thread_id
from engine.records import frozen
from engine.rollout.lines import format_timestamp
from engine.thread_store.facts import parse_time
from engine.thread_store.interface import Direction, IndexProgress, ListThreads, SortKey, StoredThread, ThreadPage
from engine.thread_store.sources import INTERNAL, expand_kinds, source_kind

__all__ = ["Cursor", "make_matcher", "page_of", "select", "sort_value"]

Place = tuple[int, str]  # ms, thread id

_CURSOR: Final = re.compile(r"(?P<time>[^_]+)(?:_(?P<id>[0-9a-f-]{36})(?P<inclusive>\+?))?", re.ASCII)


@frozen
class Cursor:
    """A place in an order; `inclusive` if the thread there is part of what follows."""

    place: Place
    inclusive: bool = False

    @classmethod
    def parse(cls, text: str, direction: Direction) -> Cursor:
        """Raises `InvalidRequest`."""
        match = _CURSOR.fullmatch(text)
        moment = None if match is None else parse_time(match["time"])
        if match is None or moment is None:
            raise InvalidRequest(f"invalid cursor: {text}")
        ms = round(moment * 1000)
        if match["id"] is None:  # everything at that time was listed
            return cls((ms, "" if direction == "desc" else "~"))
        try:
            return cls((ms, parse_thread_id(match["id"])), match["inclusive"] == "+")
        except InvalidRequest:
            raise InvalidRequest(f"invalid cursor: {text}") from None

    def __str__(self) -> str:
        ms, thread_id = self.place
        return f"{format_timestamp(ms * 1_000_000)}_{thread_id}{'+' if self.inclusive else ''}"

    def admits(self, place: Place, direction: Direction) -> bool:
        """Whether a place comes after this cursor in the order of `direction`."""
        if place == self.place:
            return self.inclusive
        return place < self.place if direction == "desc" else place > self.place


def sort_value(thread: StoredThread, key: SortKey) -> int:
    """What a listing sorts by, in ms."""
    return round((thread.created_at if key == "created_at" else thread.updated_at) * 1000)


def make_matcher(query: ListThreads) -> Callable[[StoredThread], bool]:
    """Whether a thread is listed by `query`, pages aside."""
    kinds = expand_kinds(query.source_kinds) if query.source_kinds else None
    providers, cwds = frozenset(query.model_providers or ()), frozenset(query.cwds or ())
    originators, excluded = frozenset(query.originators or ()), frozenset(query.excluded)
    search = query.search

    def matches(thread: StoredThread) -> bool:
        kind = source_kind(thread.source)
        return (
            thread.preview is not None
            and thread.archived == query.archived
            and kind != INTERNAL
            and (kinds is None or kind in kinds)
            and (not providers or thread.model_provider in providers)
            and (not cwds or thread.cwd in cwds)
            and (not originators or thread.originator in originators)
            and (not search or search in (thread.title or "") or search in (thread.name or ""))
            and thread.thread_id not in excluded
        )

    return matches


def select(threads: Iterable[StoredThread], query: ListThreads) -> ThreadPage:
    """The page of `query` among all threads there are. Raises `InvalidRequest` for a bad cursor."""
    cursor = None if query.cursor is None else Cursor.parse(query.cursor, query.direction)
    matches = make_matcher(query)

    def place(thread: StoredThread) -> Place:
        return sort_value(thread, query.sort_key), thread.thread_id

    fitting = (
        thread
        for thread in threads
        if matches(thread) and (cursor is None or cursor.admits(place(thread), query.direction))
    )
    pick = heapq.nlargest if query.direction == "desc" else heapq.nsmallest
    return page_of(pick(max(1, query.limit) + 1, fitting, key=place), query)


def page_of(threads: list[StoredThread], query: ListThreads, indexing: IndexProgress | None = None) -> ThreadPage:
    """A page from the first threads in order; one more than its limit tells that there are more."""
    limit = max(1, query.limit)
    shown = tuple(threads[:limit])
    if not shown:
        return ThreadPage(threads=(), indexing=indexing)
    first, last = ((sort_value(thread, query.sort_key), thread.thread_id) for thread in (shown[0], shown[-1]))
    return ThreadPage(
        threads=shown,
        next_cursor=str(Cursor(last)) if len(threads) > limit else None,
        backwards_cursor=str(Cursor(first, inclusive=True)),
        indexing=indexing,
    )
