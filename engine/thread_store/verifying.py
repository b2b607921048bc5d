"""What is wrong in a home: its rollouts line by line, the index against them, locks nobody holds. Blocking.

Changes nothing. What costs a thread anything is a problem, what readers get over by themselves a note (rollout.md 4.1).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import attrs

from engine.errors import StoreError
from engine.protocol.codec import json_bytes, json_value
from engine.protocol.ids import ThreadId
from engine.records import frozen
from engine.rollout.names import parse_rollout_name
from engine.rollout.verification import RolloutReport, verify
from engine.thread_store.finding import rollouts, stored_thread
from engine.thread_store.index import INDEX_FILE
from engine.thread_store.index_files import folders_of, state_of
from engine.thread_store.index_rows import VERSION, IndexedThread, known_files, read_thread
from engine.thread_store.locks import LOCK_SUFFIX, LockHolder, RolloutLocks
from engine.thread_store.names_repairing import damaged_names
from engine.thread_store.rollout_bytes import RolloutBytes
from engine.thread_store.rollout_file import TORN_SUFFIX
from engine.thread_store.summaries import TAIL_LIMIT

if TYPE_CHECKING:
    import sqlite3

__all__ = ["FileReport", "HomeReport", "IndexReport", "stale_locks", "verify_file", "verify_home", "verify_index"]

Progress = Callable[[str, int, int], None]  # path, bytes looked at, bytes in all

# Facts that don't depend on how a file was read: at once, or as it grew.
_STEADY: Final = ("thread_id", "path", "archived", "created_at", "cwd", "source", "forked_from_id", "preview", "title")


@frozen(kw_only=True)
class FileReport:
    """What one rollout is like.

    - `rollout`: its lines; `None` if it can't be read at all
    - `problems` beyond its lines, and `notes` on what is no damage
    - `holder`: who writes it now; then a torn last line is one that is just being written
    """

    path: str
    thread_id: ThreadId | None
    size: int = 0
    rollout: RolloutReport | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    holder: LockHolder | None = None

    @property
    def damaged(self) -> int:
        """How many lines are lost."""
        if self.rollout is None:
            return 0
        return self.rollout.damaged - (self.rollout.torn and self.holder is not None)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not self.damaged

    @property
    def only_cut_off(self) -> bool:
        """Whether nothing is wrong but a last line that was cut off, as a crash leaves it: it was never stored."""
        found = self.rollout
        if found is None or found.damaged > found.torn:
            return False
        return not self.problems or found.lines == found.damaged


@frozen(kw_only=True)
class IndexReport:
    """What the index is like; `threads` it knows. Without an index there is nothing wrong with it."""

    path: str
    threads: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@frozen(kw_only=True)
class HomeReport:
    """What a home is like: its rollouts, its index, and `names`, what is wrong with the list of names.

    `stale_locks` are those of writers that were killed; whoever comes next takes them over.
    """

    home: str
    files: tuple[FileReport, ...]
    index: IndexReport
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stale_locks: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.index.problems and not self.names and all(file.clean for file in self.files)


def verify_home(home: Path, *, progress: Progress = lambda path, done, total: None, index: bool = True) -> HomeReport:
    """Looks at everything in a home. Raises nothing for what is damaged: it is reported."""
    locks = RolloutLocks(home)
    paths = [path for archived in (False, True) for path, _ in rollouts(home, archived=archived)]
    sizes = {path: state.size for path in paths if (state := state_of(path)) is not None}
    total, before = sum(sizes.values()), 0
    files: list[FileReport] = []
    for path in paths:
        start = before

        def told(position: int, path: str = path, start: int = start) -> None:
            progress(path, start + position, total)

        told(0)
        files.append(verify_file(path, locks, told))
        before += sizes.get(path, 0)
    return HomeReport(
        home=str(home),
        files=tuple(files),
        index=verify_index(home) if index else IndexReport(path=f"{home}/{INDEX_FILE}"),
        names=tuple(damaged_names(home)),
        notes=tuple(_doubles(files)),
        stale_locks=stale_locks(home, locks),
    )


def verify_file(path: str, locks: RolloutLocks, progress: Callable[[int], None] = lambda position: None) -> FileReport:
    """Looks at every line of a rollout. What can't be read is reported, not raised."""
    name = parse_rollout_name(os.path.basename(path))
    named = None if name is None else name.thread_id
    holder = locks.holder(path)
    try:
        source = RolloutBytes(Path(path))
        found = verify(source, progress)
    except StoreError as exc:
        return FileReport(path=path, thread_id=named, problems=(str(exc),), holder=holder)
    problems: list[str] = []
    notes: list[str] = []
    if found.lines == found.damaged and found.lines <= 1 and (found.torn or not found.lines):
        problems.append("it was cut off while its first line was written: there is no thread in it")
    elif found.thread_id is None:
        problems.append("there is no readable session_meta line, so it is no thread")
    elif named is not None and named != found.thread_id:
        problems.append(f"its name says {named}, its first line {found.thread_id}")
    if found.foreign:
        notes.append(f"{found.foreign} lines are of types of other versions; they are kept")
    aside = state_of(path + TORN_SUFFIX)
    if aside is not None:
        notes.append(f"{aside.size} bytes of a line that was cut off are kept aside in {path}{TORN_SUFFIX}")
    if found.torn and holder is None and (now := state_of(path)) is not None and now.size > source.size:
        return verify_file(path, locks, progress)  # somebody without a lock was just writing that line
    return FileReport(
        path=path,
        thread_id=found.thread_id or named,
        size=source.size,
        rollout=found,
        problems=tuple(problems),
        notes=tuple(notes),
        holder=holder,
    )


# --- the index -----------------------------------------------------------------------------------


def verify_index(home: Path) -> IndexReport:
    """Compares the index with the files. It may be behind: that is a note; what it says must be right."""
    import sqlite3

    path = f"{home}/{INDEX_FILE}"
    if not os.path.exists(path):
        return IndexReport(path=path, notes=("there is none; it is built when it is used",))
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=5)) as connection:
            return _verify_rows(home, path, connection)
    except sqlite3.DatabaseError as exc:
        busy = isinstance(exc, sqlite3.OperationalError) and "locked" in str(exc)
        if busy:
            return IndexReport(path=path, notes=("others are writing it; it was not looked at",))
        return IndexReport(path=path, problems=(f"it can't be read: {exc}",))


def _verify_rows(home: Path, path: str, connection: sqlite3.Connection) -> IndexReport:
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        return IndexReport(path=path, notes=("it is of another version; it is built anew when it is used",))
    problems = [text for (text,) in connection.execute("PRAGMA quick_check") if text != "ok"]
    if problems:
        return IndexReport(path=path, problems=tuple(problems))
    known = known_files(connection)
    behind = sum(file not in known for folder in folders_of(home) for file in _rollouts_in(folder))
    threads = 0
    for file, (state, _) in known.items():
        indexed = read_thread(connection, path=file)
        threads += indexed is not None
        if state_of(file) != state:
            behind += 1
        elif indexed is not None and (wrong := _differences(home, indexed)) and state_of(file) == state:
            problems.append(f"what it says of {file} is not what stands there: {', '.join(wrong)}")
    notes = (f"{behind} files have changed since it looked at them",) if behind else ()
    return IndexReport(path=path, threads=threads, problems=tuple(problems), notes=notes)


def _differences(home: Path, indexed: IndexedThread) -> list[str]:
    said = indexed.thread
    try:
        stands = None if said.path is None else stored_thread(home, said.path, thorough=indexed.thorough)
    except StoreError:
        return []  # the report of the file tells
    if stands is None:
        return ["it is no thread"]
    steady = indexed.state.size > TAIL_LIMIT
    names = _STEADY if steady else [field.name for field in attrs.fields(type(said)) if field.name != "name"]
    return [name for name in names if _json(getattr(said, name)) != _json(getattr(stands, name))]


def _json(value: object) -> object:
    """As the index keeps it: lists for tuples inside of JSON."""
    return json_value(json_bytes(value)) if isinstance(value, dict) else value


def _rollouts_in(folder: str) -> Iterator[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    yield from (f"{folder}/{name}" for name in names if parse_rollout_name(name) is not None)


# --- what lies around ----------------------------------------------------------------------------


def stale_locks(home: Path, locks: RolloutLocks) -> tuple[str, ...]:
    """The locks whose holders are dead."""
    found: list[str] = []
    for folder in folders_of(home):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            path = f"{folder}/{name.removesuffix(LOCK_SUFFIX)}"
            if not name.endswith(LOCK_SUFFIX) or locks.holder(path) is not None:
                continue
            if os.path.islink(path + LOCK_SUFFIX):  # it was not released right now
                found.append(path + LOCK_SUFFIX)
    return tuple(sorted(found))


def _doubles(files: list[FileReport]) -> Iterator[str]:
    seen: dict[ThreadId, str] = {}
    for file in files:
        if file.thread_id is None:
            continue
        other = seen.setdefault(file.thread_id, file.path)
        if other != file.path:
            yield f"thread {file.thread_id} has two files; {other} counts, {file.path} does not"
