"""From files to rows of the thread index: what a file tells, where it is, and which of two files of a thread counts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from engine.errors import StoreError
from engine.protocol.ids import ThreadId
from engine.rollout.names import ARCHIVED_DIRECTORY, parse_rollout_name
from engine.thread_store.facts import Facts, edge_of
from engine.thread_store.finding import live_folders
from engine.thread_store.index_rows import IndexedThread, forget_file, put_other, put_thread, read_thread
from engine.thread_store.places import is_archived
from engine.thread_store.summaries import SHORT, FileState, Summary, catch_up, summarise

if TYPE_CHECKING:
    import sqlite3

__all__ = ["FileRead", "folder_time", "folders_of", "put_file", "read_file", "rollouts_in", "state_of"]


@attrs.frozen
class FileRead:
    """What was read of a file: nothing if it is no thread; `on` if only what was new."""

    path: str
    summary: Summary | None
    thorough: bool
    on: bool = False


def read_file(
    path: str,
    known: IndexedThread | None,
    *,
    thorough: bool | None = None,
    pause: Callable[[], None] | None = None,
) -> FileRead:
    """Reads a file as far as needed: what was appended to a `known` one, else its ends, else (`thorough`) more."""
    try:
        if known is not None and (known.thorough or not thorough):
            grown = catch_up(path, Facts.of(known.thread), known.state, known.mark, pause)
            if grown is not None:
                return FileRead(path, grown, known.thorough, on=True)
        summary = summarise(path, thorough=thorough, pause=pause)
    except StoreError:
        return FileRead(path, None, thorough=True)
    if thorough is None:
        thorough = summary is None or summary.state.size <= SHORT
    return FileRead(path, summary, thorough)


def put_file(
    connection: sqlite3.Connection, home: Path, read: FileRead, name_of: Callable[[ThreadId], str | None]
) -> None:
    """Puts what was read of a file in place of what was known of it."""
    path, folder, summary = read.path, os.path.dirname(read.path), read.summary
    if summary is None:
        state = state_of(path)
        if state is None:
            forget_file(connection, path)
        else:
            put_other(connection, path, folder, state)
        return
    facts = summary.facts
    thread = facts.stored(
        path=path,
        archived=is_archived(home, path),
        updated_at=summary.state.updated_at,
        name=name_of(facts.thread_id),
    )
    rival = read_thread(connection, thread_id=facts.thread_id)
    if rival is not None and rival.thread.path != path and rival.thread.path is not None:
        if not os.path.exists(rival.thread.path):
            forget_file(connection, rival.thread.path)
        elif _rank(rival.thread.path, rival.thread.archived) > _rank(path, thread.archived):
            put_other(connection, path, folder, summary.state)
            return
        else:
            put_other(connection, rival.thread.path, os.path.dirname(rival.thread.path), rival.state)
    put_thread(
        connection,
        IndexedThread(
            thread=thread,
            state=summary.state,
            mark=summary.mark,
            thorough=read.thorough,
            dynamic_tools=None if read.on else facts.dynamic_tools,
            edge=edge_of(facts) if not read.on or facts.edge is not None else None,
        ),
        folder,
    )


def _rank(path: str, archived: bool) -> tuple[bool, str]:
    return not archived, os.path.basename(path)


def state_of(path: str) -> FileState | None:
    """The state of a file now."""
    try:
        return FileState.of(os.stat(path))
    except OSError:
        return None


def folder_time(folder: str) -> int | None:
    """When something came into a folder or went, in ns."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None


def folders_of(home: Path) -> Iterator[str]:
    """Every folder that may hold rollouts."""
    yield f"{home}/{ARCHIVED_DIRECTORY}"
    yield from live_folders(home)


def rollouts_in(folder: str) -> Iterator[str]:
    """The paths of the rollouts in a folder, by their names."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        if parse_rollout_name(name) is not None:
            yield f"{folder}/{name}"
