"""Pages of the turns of a stored thread, from either end, without reading the rest (app_server.md 3, turns/list).

Where the turns of a rollout lie is kept in the index, and brought up to date from what was appended; a file that is
another one than it was, or was written anew, is gone through again at the speed of the scanner. Without an index it is
gone through for every page.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.protocol.rollout_items import RolloutItem
from engine.protocol.thread_items import ThreadTurn
from engine.records import define
from engine.rollout.turn_ranges import RangeState, TurnChange, TurnRange, read_turn, scan
from engine.rollout.turns import numbered_turns
from engine.thread_store.interface import ListTurns, TurnPage
from engine.thread_store.rollout_bytes import RolloutBytes
from engine.thread_store.turn_rows import (
    TurnFile,
    admits,
    apply_changes,
    cursor_at,
    forget_turns,
    put_turn_file,
    read_turn_file,
    read_turns,
)

if TYPE_CHECKING:
    import sqlite3

    from engine.thread_store.hop import Hop
    from engine.thread_store.index import ThreadIndex

__all__ = ["page_of_items", "turn_page", "turn_page_of_file"]

MARK_LENGTH = 256  # bytes before what is known that must still be there; long enough to have a time in it
TRIES = 3  # how often a table that another process has changed meanwhile is looked at again


@define(eq=False)
class _Survey:
    """What is new in a file: changes to the table up to its last whole line, and what an unfinished line adds."""

    source: RolloutBytes
    anew: bool
    changes: list[TurnChange]
    known: TurnFile
    rest: list[TurnChange]


async def turn_page(path: Path, query: ListTurns, hop: Hop, index: ThreadIndex | None) -> TurnPage:
    """A page of the turns in a rollout. Raises as `ThreadStore.list_turns`."""
    if not path.is_absolute():
        index = None  # which names files by their whole paths
    found: list[TurnRange] | None = None
    for _ in range(TRIES if index is not None else 0):
        assert index is not None
        known = await index.run_on_turns(str(path), functools.partial(read_turn_file, path=str(path)))
        survey = await hop(_survey, path, known)
        update = functools.partial(_update, path=str(path), before=known, survey=survey, query=query)
        found = await index.run_on_turns(str(path), update)
        if found is not None:
            return await hop(_read, survey.source, found, query)
    return await hop(turn_page_of_file, path, query)


def page_of_items(items: Sequence[RolloutItem], query: ListTurns) -> TurnPage:
    """As `turn_page`, for a thread all of whose items are there."""
    turns = numbered_turns(items, query.active, query.view)
    if query.direction == "desc":
        turns.reverse()
    fitting = [
        (number, turn)
        for number, turn in turns
        if query.turn_id in (None, turn.id) and admits(query.cursor, number, query.direction)
    ]
    limit = max(1, query.limit)
    return _page([turn for _, turn in fitting[:limit]], [number for number, _ in fitting], query)


# --- blocking, behind the hop ------------------------------------------------------------------


def _survey(path: Path, known: TurnFile | None) -> _Survey:
    source = RolloutBytes(path)
    anew = known is None or not _fits(known, source)
    offset, state = (0, RangeState()) if known is None or anew else (known.offset, known.state)
    end = _after_last_line(source, offset)
    changes: list[TurnChange] = []
    for behind, found in scan(source, offset, end, state):
        changes += found
        state = behind
    rest = [change for _, found in scan(source, end, source.size, state) for change in found]
    mark = source.read(max(0, end - MARK_LENGTH), end)
    return _Survey(source, anew, changes, TurnFile(*source.identity, end, mark, state), rest)


def _fits(known: TurnFile, source: RolloutBytes) -> bool:
    if (known.device, known.inode) != source.identity or known.offset > source.size:
        return False
    return source.read(known.offset - len(known.mark), known.offset) == known.mark


def _after_last_line(source: RolloutBytes, start: int) -> int:
    end = source.size
    while end > start:
        begin = max(start, end - MARK_LENGTH * 1024)
        at = source.read(begin, end).rfind(b"\n")
        if at >= 0:
            return begin + at + 1
        end = begin
    return start


def _read(source: RolloutBytes, found: list[TurnRange], query: ListTurns) -> TurnPage:
    limit = max(1, query.limit)
    turns = [read_turn(source, place, source.size, query.active, query.view) for place in found[:limit]]
    source.close()
    return _page(turns, [place.number for place in found], query)


def _page(turns: list[ThreadTurn], numbers: list[int], query: ListTurns) -> TurnPage:
    if not turns:
        return TurnPage(turns=())
    more = len(numbers) > len(turns)
    return TurnPage(
        turns=tuple(turns),
        next_cursor=cursor_at(numbers[len(turns) - 1]) if more else None,
        backwards_cursor=cursor_at(numbers[0], inclusive=True),
    )


def turn_page_of_file(path: Path, query: ListTurns) -> TurnPage:
    import sqlite3

    from engine.thread_store.index_rows import prepare

    survey = _survey(path, None)
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        prepare(connection)
        found = _update(connection, str(path), None, survey, query)
    finally:
        connection.close()
    assert found is not None, "nobody else reaches this table"
    return _read(survey.source, found, query)


# --- on the database's thread --------------------------------------------------------------------


def _update(
    connection: sqlite3.Connection, path: str, before: TurnFile | None, survey: _Survey, query: ListTurns
) -> list[TurnRange] | None:
    """Brings the table up to date and reads the page; `None` if somebody else has changed it meanwhile."""
    if survey.known == before and not survey.rest:  # nothing is new, so nobody needs to wait for us
        return read_turns(connection, path, query) if read_turn_file(connection, path) == before else None
    connection.execute("BEGIN IMMEDIATE")
    try:
        if read_turn_file(connection, path) != before:
            connection.rollback()
            return None
        if survey.anew:
            forget_turns(connection, path)
        apply_changes(connection, path, survey.changes)
        if survey.known != before:
            put_turn_file(connection, path, survey.known)
        connection.execute("SAVEPOINT unfinished")
        apply_changes(connection, path, survey.rest)
        found = read_turns(connection, path, query)
        connection.execute("ROLLBACK TO unfinished")
    except BaseException:
        connection.rollback()
        raise
    connection.commit()
    return found
