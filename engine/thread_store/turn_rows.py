"""The table of where the turns of rollouts lie: kept in the index, or made for one look where there is none.

SQL only; knows no files. `TurnFile` says how far the table goes, and by what the file is known again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from engine.errors import InvalidRequest
from engine.records import frozen
from engine.rollout.turn_ranges import Began, Closed, RangeState, RolledBack, Spoke, Strayed, TurnChange, TurnRange
from engine.thread_store.interface import Direction, ListTurns

if TYPE_CHECKING:
    import sqlite3

__all__ = ["TurnFile", "apply_changes", "cursor_at", "forget_turns", "put_turn_file", "read_turn_file", "read_turns"]


@frozen
class TurnFile:
    """The turns in the first `offset` bytes of the file `(device, inode)`, which end with `mark`, are in the table."""

    device: int
    inode: int
    offset: int
    mark: bytes
    state: RangeState


def read_turn_file(connection: sqlite3.Connection, path: str) -> TurnFile | None:
    """How far the turns of a file are known."""
    row = connection.execute(
        "SELECT device, inode, offset, mark, state FROM turn_files WHERE path = ?", (path,)
    ).fetchone()
    if row is None:
        return None
    device, inode, offset, mark, state = row
    return TurnFile(device, inode, offset, mark, RangeState(*json.loads(state)))


def put_turn_file(connection: sqlite3.Connection, path: str, known: TurnFile) -> None:
    """Notes how far the turns of a file are known now."""
    state = json.dumps(attrs.astuple(known.state))
    connection.execute(
        "INSERT OR REPLACE INTO turn_files VALUES (?, ?, ?, ?, ?, ?)",
        (path, known.device, known.inode, known.offset, known.mark, state),
    )


def forget_turns(connection: sqlite3.Connection, path: str) -> None:
    """Nothing is known of the turns of a file any more."""
    for table in ("turn_files", "turns"):
        connection.execute(f"DELETE FROM {table} WHERE path = ?", (path,))


def apply_changes(connection: sqlite3.Connection, path: str, changes: Iterable[TurnChange]) -> None:
    """Brings the table up to date."""
    for change in changes:
        match change:
            case Began():
                connection.execute(
                    "INSERT INTO turns (path, number, turn_id, start) VALUES (?, ?, ?, ?)",
                    (path, change.number, change.turn_id, change.start),
                )
            case Spoke():
                connection.execute("UPDATE turns SET user = 1 WHERE path = ? AND number = ?", (path, change.number))
            case Closed():
                connection.execute(
                    "UPDATE turns SET end = ? WHERE path = ? AND number = ?", (change.end, path, change.number)
                )
            case RolledBack():
                _roll_back(connection, path, change.count)
            case Strayed():
                _add_stray(connection, path, change)


def _roll_back(connection: sqlite3.Connection, path: str, count: int) -> None:
    # The last `count` of them, or all there are: the first of these, and everything after it.
    connection.execute(
        "DELETE FROM turns WHERE path = ?1 AND number >= (SELECT min(number) FROM (SELECT number FROM turns"
        " WHERE path = ?1 AND user = 1 ORDER BY number DESC LIMIT ?2))",
        (path, count),
    )


def _add_stray(connection: sqlite3.Connection, path: str, stray: Strayed) -> None:
    row = connection.execute(
        "SELECT number, strays FROM turns WHERE path = ? AND turn_id = ? ORDER BY number DESC LIMIT 1",
        (path, stray.turn_id),
    ).fetchone()
    if row is not None:
        strays = json.dumps([*json.loads(row[1]), [stray.start, stray.end]])
        connection.execute("UPDATE turns SET strays = ? WHERE path = ? AND number = ?", (strays, path, row[0]))


def read_turns(connection: sqlite3.Connection, path: str, query: ListTurns) -> list[TurnRange]:
    """Where the turns of a page lie, and one more. Raises `InvalidRequest` for a bad cursor."""
    descending = query.direction == "desc"
    where, values = ["path = ?"], [path]
    rest: list[object] = []
    if query.turn_id is not None:
        kind, _, number = query.turn_id.rpartition("-")
        implicit = int(number) if kind == "turn" and number.isdecimal() else -1
        where.append("(turn_id = ? OR (turn_id IS NULL AND number = ?))")
        rest += [query.turn_id, implicit]
    if query.cursor is not None:
        at, inclusive = parse_cursor(query.cursor)
        where.append(f"number {'<' if descending else '>'}{'=' if inclusive else ''} ?")
        rest.append(at)
    order = "DESC" if descending else "ASC"
    rows = connection.execute(
        f"SELECT number, turn_id, start, end, strays FROM turns WHERE {' AND '.join(where)}"
        f" ORDER BY number {order} LIMIT ?",
        (*values, *rest, max(1, query.limit) + 1),
    )
    return [
        TurnRange(number, turn_id, start, end, tuple((first, last) for first, last in json.loads(strays)))
        for number, turn_id, start, end, strays in rows
    ]


def cursor_at(number: int, *, inclusive: bool = False) -> str:
    """A place among the turns of a thread."""
    return f"{number}{'+' if inclusive else ''}"


def parse_cursor(text: str) -> tuple[int, bool]:
    """The number, and whether the turn there is part of what follows. Raises `InvalidRequest`."""
    digits = text.removesuffix("+")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 18:
        raise InvalidRequest(f"invalid cursor: {text}")
    return int(digits), text.endswith("+")


def admits(cursor: str | None, number: int, direction: Direction) -> bool:
    """Whether a turn comes after a cursor. Raises `InvalidRequest`."""
    if cursor is None:
        return True
    at, inclusive = parse_cursor(cursor)
    return (number < at if direction == "desc" else number > at) or (inclusive and number == at)
