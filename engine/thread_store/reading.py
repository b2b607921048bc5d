"""Reads rollouts from the disk: find by id, summarise, load whole. Blocking; stores call it on a worker thread."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ProtocolError, StoreError, ThreadNotFound
from engine.protocol.codec import json_value
from engine.protocol.ids import ThreadId
from engine.rollout.loading import load
from engine.rollout.names import SESSIONS_DIRECTORY, RolloutName, parse_rollout_name
from engine.rollout.scan import Scan
from engine.rollout.summary import RolloutHead, latest_turn_context, read_head
from engine.thread_store.interface import StoredHistory, StoredThread, ThreadQuery

if TYPE_CHECKING:
    from engine.protocol.rollout_items import TurnContext

__all__ = ["find_latest", "find_rollout", "load_rollout", "summarise"]

CHUNK = 64 << 10  # first look at either end of a file; doubled while it is not enough
SCANNED_FILES = 10_000  # the newest names a search looks at (rollout.md 4.1)
NAMES_FILE = "session_index.jsonl"


def find_rollout(home: Path, thread_id: ThreadId) -> Path | None:
    """The rollout file of a thread, by its name: first where the time in its id says, then newest folders first."""
    for folder in _likely_folders(home, thread_id):
        for path, name in _rollouts_in(folder):
            if name.thread_id == thread_id:
                return Path(path)
    for path, name in _rollouts(home):
        if name.thread_id == thread_id:
            return Path(path)
    return None


def load_rollout(path: Path) -> StoredHistory:
    """Reads a whole rollout. Raises `ThreadNotFound` if there is no such file, `StoreError` if it is no thread."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as exc:
        raise ThreadNotFound(f"no rollout found at {path}", thread=str(path)) from exc
    except OSError as exc:
        raise StoreError(f"failed to read {path}: {exc}") from exc
    if not data.strip():
        raise StoreError(f"{path} is empty: there is nothing to go on with")
    loaded = load(data)
    if loaded.meta is None:
        raise StoreError(
            f"{path} has no readable session_meta line, so it is no thread; {loaded.damaged} damaged lines"
        )
    return StoredHistory(
        thread_id=loaded.meta.id,
        path=str(path),
        meta=loaded.meta,
        items=loaded.items,
        damaged=loaded.damaged,
        foreign=loaded.foreign,
        generation=loaded.generation,
    )


def summarise(path: str) -> StoredThread | None:
    """What is known of a thread from the ends of its file; `None` if it is no thread. Raises `StoreError`."""
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            head = _head(file.fileno(), found.st_size)
            if head.meta is None:
                return None
            context = _latest_context(file.fileno(), found.st_size)
    except OSError as exc:
        raise StoreError(f"failed to read {path}: {exc}") from exc
    return StoredThread(
        thread_id=head.meta.id,
        path=path,
        meta=head.meta,
        cwd=head.meta.cwd if context is None else context.cwd,
        preview=head.preview,
        updated_at=found.st_mtime,
    )


def find_latest(home: Path, query: ThreadQuery) -> StoredThread | None:
    """The most recently written thread that fits and has anything of a user in it."""
    named = None if query.name is None else _threads_named(home, query.name)
    candidates: list[tuple[float, str]] = []
    for path, name in _rollouts(home):
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
            thread = summarise(path)
        except StoreError:
            continue  # one unreadable thread must not hide the others
        if thread is not None and thread.preview is not None and _fits(thread, query, cwd):
            return thread
    return None


def _fits(thread: StoredThread, query: ThreadQuery, real_cwd: str | None) -> bool:
    if query.model_provider is not None and thread.meta.model_provider not in (None, query.model_provider):
        return False
    return real_cwd is None or thread.cwd in (query.cwd, real_cwd) or os.path.realpath(thread.cwd) == real_cwd


def _rollouts(home: Path) -> Iterator[tuple[str, RolloutName]]:
    """The rollout files of live threads, newest folders and names first. What can't be read is left out."""
    root = f"{home}/{SESSIONS_DIRECTORY}"
    for year in _newest_first(root):
        for month in _newest_first(f"{root}/{year}"):
            for day in _newest_first(f"{root}/{year}/{month}"):
                yield from _rollouts_in(f"{root}/{year}/{month}/{day}")


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


def _threads_named(home: Path, name: str) -> set[ThreadId]:
    """The threads that have this name now; of several entries of a thread the last one counts (rollout.md 7)."""
    try:
        data = (home / NAMES_FILE).read_bytes()
    except OSError:
        return set()
    current: dict[str, str] = {}
    for start, end, _ in Scan(data).forward():
        try:
            entry = json_value(data[start:end])
        except ProtocolError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and isinstance(entry.get("thread_name"), str):
            current[entry["id"].lower()] = entry["thread_name"]
    return {ThreadId(thread) for thread, given in current.items() if given == name}


def _head(handle: int, size: int) -> RolloutHead:
    length = CHUNK
    while True:
        data = _read(handle, min(length, size), 0)
        whole = len(data) >= size or len(data) < length
        if not whole:
            data = data[: data.rfind(b"\n") + 1]  # the rest of the last line is not there yet
        head = read_head(data, whole=whole)
        if head.complete:
            return head
        length *= 2


def _latest_context(handle: int, size: int) -> TurnContext | None:
    length = CHUNK
    while True:
        start = max(0, size - length)
        context = latest_turn_context(_read(handle, size - start, start), whole=start == 0)
        if context is not None or start == 0:
            return context
        length *= 2


def _read(handle: int, length: int, offset: int) -> bytes:
    """`length` bytes from `offset` on, or fewer where the file ends."""
    pieces: list[bytes] = []
    while length > 0:
        piece = os.pread(handle, length, offset)
        if not piece:
            break
        pieces.append(piece)
        length -= len(piece)
        offset += len(piece)
    return b"".join(pieces)
