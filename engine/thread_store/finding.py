"""Finds rollouts below a home, from the files alone: by id, the latest, a page of a listing. Blocking.

A thread is told by the name of its file; what can't be read is left out and hides nothing else. Where a thread has two
files, the one that counts is not archived, and of two such the one with the later name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import attrs

from engine.errors import StoreError, ThreadNotFound
from engine.protocol.ids import ThreadId
from engine.rollout.names import ARCHIVED_DIRECTORY, SESSIONS_DIRECTORY, RolloutName, parse_rollout_name
from engine.thread_store.interface import ListThreads, StoredThread, ThreadPage, ThreadQuery
from engine.thread_store.listing import Cursor, make_matcher, page_of, sort_value
from engine.thread_store.names import ThreadNames
from engine.thread_store.places import is_archived
from engine.thread_store.summaries import summarise

__all__ = [
    "MOVES",
    "at_its_place",
    "find_anywhere",
    "find_archived",
    "find_latest",
    "find_rollout",
    "list_files",
    "live_folders",
    "looks",
    "rollouts",
    "stored_thread",
]

T = TypeVar("T")

MOVES = 32  # of one file by others, that one look for it may meet
CLOCK_BEHIND = 1_000_000_000  # nanoseconds by which the time of a folder may be behind, above all that of a server
SCANNED_FILES = 10_000  # the newest names a search looks at (rollout.md 4.1)
EAST, WEST = 14 * 3600, 12 * 3600  # seconds by which local time, as in names, may be off from UTC


def find_rollout(home: Path, thread_id: ThreadId) -> Path | None:
    """The rollout of a live thread, by its name: first where the time in its id says, then newest folders first."""
    for folder in _likely_folders(home, thread_id):
        for path, name in _rollouts_in(folder):
            if name.thread_id == thread_id:
                return Path(path)
    for path, name in rollouts(home):
        if name.thread_id == thread_id:
            return Path(path)
    return None


def find_archived(home: Path, thread_id: ThreadId) -> Path | None:
    """The rollout of an archived thread."""
    for path, name in rollouts(home, archived=True):
        if name.thread_id == thread_id:
            return Path(path)
    return None


def find_anywhere(home: Path, thread_id: ThreadId) -> Path | None:
    """The rollout of a thread, archived or not."""
    for _ in looks(home):
        path = find_rollout(home, thread_id) or find_archived(home, thread_id)
        if path is not None:
            return path
    return None


def looks(home: Path) -> Iterator[None]:
    """One look for a thread after the other: what was not found may have been moved to where was looked already.

    Ends with the first look during which nobody archived a thread or brought one back.
    """
    for _ in range(MOVES):
        began = time.time_ns()
        yield
        try:
            moved = os.stat(home / ARCHIVED_DIRECTORY).st_mtime_ns
        except OSError:
            return  # there is no archive
        if moved < began - CLOCK_BEHIND:
            return


def at_its_place(find: Callable[[], Path], act: Callable[[Path], T]) -> T:
    """What `act` does with the file that `find` finds; again where others have moved that in between.

    Raises what either of them raises; `act` tells by `ThreadNotFound` that there is no file.
    """
    for _ in range(MOVES):
        path = find()
        try:
            return act(path)
        except ThreadNotFound:
            continue
    return act(find())


def stored_thread(home: Path, path: str, *, thorough: bool | None = None) -> StoredThread | None:
    """What is known of the thread in a file; `None` if it is no thread. Raises `StoreError`."""
    summary = summarise(path, thorough=thorough)
    if summary is None:
        return None
    return summary.facts.stored(path=path, archived=is_archived(home, path), updated_at=summary.state.updated_at)


def find_latest(home: Path, query: ThreadQuery) -> StoredThread | None:
    """The most recently written thread that fits and has anything of a user in it."""
    names = ThreadNames(home)
    names.refresh()
    named = None if query.name is None else names.having(query.name)
    candidates: list[tuple[float, str]] = []
    for path, name in rollouts(home):
        if named is not None and name.thread_id not in named:
            continue
        try:
            candidates.append((os.stat(path).st_mtime, path))
        except OSError:
            continue  # gone meanwhile
        if len(candidates) >= SCANNED_FILES:
            break
    cwd = None if query.cwd is None else os.path.realpath(query.cwd)
    for _, path in sorted(candidates, reverse=True):
        try:
            thread = stored_thread(home, path)
        except StoreError:
            continue  # one unreadable thread must not hide the others
        if thread is not None and thread.preview is not None and _fits(thread, query, cwd):
            return attrs.evolve(thread, name=names.get(thread.thread_id))
    return None


def _fits(thread: StoredThread, query: ThreadQuery, real_cwd: str | None) -> bool:
    if query.model_provider is not None and thread.model_provider not in (None, query.model_provider):
        return False
    latest = thread.latest_cwd
    return real_cwd is None or latest in (query.cwd, real_cwd) or os.path.realpath(latest) == real_cwd


def list_files(home: Path, query: ListThreads) -> ThreadPage:
    """A page without any index: reads no more threads than the page needs. Raises `InvalidRequest` for a bad cursor."""
    names = ThreadNames(home)
    names.refresh()
    cursor = None if query.cursor is None else Cursor.parse(query.cursor, query.direction)
    matches = make_matcher(query)
    descending = query.direction == "desc"
    found: dict[ThreadId, tuple[tuple[int, str], StoredThread]] = {}
    wanted = max(1, query.limit) + 1
    worst: tuple[int, str] | None = None
    scanned = 0
    for best, path in _in_order(home, query, cursor):
        if worst is not None and (best < worst[0] if descending else best > worst[0]):
            break  # nothing that follows can come before what is there
        if scanned >= SCANNED_FILES:
            break
        scanned += 1
        try:
            thread = stored_thread(home, path, thorough=False)
        except StoreError:
            continue
        if thread is None:
            continue
        thread = attrs.evolve(thread, name=names.get(thread.thread_id))
        place = (sort_value(thread, query.sort_key), thread.thread_id)
        if not matches(thread) or (cursor is not None and not cursor.admits(place, query.direction)):
            continue
        known = found.get(thread.thread_id)
        if known is None or os.path.basename(path) > os.path.basename(known[1].path or ""):
            found[thread.thread_id] = (place, thread)
        if len(found) >= wanted:
            places = sorted((place for place, _ in found.values()), reverse=descending)
            worst = places[wanted - 1]
    ordered = sorted(found.values(), key=lambda entry: entry[0], reverse=descending)
    return page_of([thread for _, thread in ordered[:wanted]], query)


def _in_order(home: Path, query: ListThreads, cursor: Cursor | None) -> list[tuple[int, str]]:
    """Paths with the best sort value (ms) their thread can have, best first; those before the cursor left out."""
    descending = query.direction == "desc"
    found: list[tuple[int, str]] = []
    for path, name in rollouts(home, archived=query.archived):
        if query.sort_key == "created_at":
            stamp = name.time.timestamp()
            earliest, latest = stamp - EAST, stamp + WEST
        else:
            try:
                earliest = latest = os.stat(path).st_mtime_ns / 1e9
            except OSError:
                continue
        # A name can't tell a time before 1970 or one that was changed by hand; a day more costs nothing.
        low, high = round(earliest * 1000), round(latest * 1000)
        if cursor is not None and (low > cursor.place[0] if descending else high < cursor.place[0]):
            continue
        found.append((high if descending else low, path))
    return sorted(found, reverse=descending)


# --- folders -------------------------------------------------------------------------------------


def rollouts(home: Path, *, archived: bool = False) -> Iterator[tuple[str, RolloutName]]:
    """The rollout files of live (or archived) threads, newest folders and names first."""
    if archived:
        yield from _rollouts_in(f"{home}/{ARCHIVED_DIRECTORY}")
        return
    for folder in live_folders(home):
        yield from _rollouts_in(folder)


def live_folders(home: Path) -> Iterator[str]:
    """The folders of days, newest first."""
    root = f"{home}/{SESSIONS_DIRECTORY}"
    for year in _newest_first(root):
        for month in _newest_first(f"{root}/{year}"):
            for day in _newest_first(f"{root}/{year}/{month}"):
                yield f"{root}/{year}/{month}/{day}"


def _rollouts_in(folder: str) -> Iterator[tuple[str, RolloutName]]:
    for name in sorted(_entries(folder), reverse=True):
        parsed = parse_rollout_name(name)
        if parsed is not None:
            yield f"{folder}/{name}", parsed


def _newest_first(folder: str) -> list[str]:
    return sorted((name for name in _entries(folder) if name.isascii() and name.isdigit()), key=int, reverse=True)


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _likely_folders(home: Path, thread_id: ThreadId) -> list[str]:
    """Where a time-ordered id would be: the local day of its time, or a neighbour if the time zone was another."""
    if thread_id[14:15] != "7":
        return []
    moment = int(thread_id[:8] + thread_id[9:13], 16) / 1000
    days: list[str] = []
    for shift in (0, -86_400, 86_400):
        try:
            day = time.localtime(moment + shift)
        except (OverflowError, ValueError, OSError):
            continue
        days.append(f"{home}/{SESSIONS_DIRECTORY}/{day.tm_year}/{day.tm_mon:02d}/{day.tm_mday:02d}")
    return days
