"""Names of threads: `<home>/session_index.jsonl`, appended to by every program; the last entry per id counts.

rollout.md 7. The file is read on as it grows; one line nobody can read costs one line.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

from engine.errors import ProtocolError
from engine.protocol.codec import json_bytes, json_value
from engine.protocol.ids import ThreadId
from engine.rollout.scan import Scan

__all__ = ["NAMES_FILE", "ThreadNames", "append_name"]

NAMES_FILE = "session_index.jsonl"


@final
class ThreadNames:
    """The names of a home, as of the last `refresh`. Used by one thread at a time."""

    def __init__(self, home: Path | str) -> None:
        self._path = f"{home}/{NAMES_FILE}"
        self._names: dict[ThreadId, str] = {}
        self._seen: tuple[int, int, int] | None = None  # device, inode, bytes that were read
        self._mtime = -1

    def get(self, thread_id: ThreadId) -> str | None:
        """The name of a thread, if it has one."""
        return self._names.get(thread_id) or None

    def having(self, name: str) -> set[ThreadId]:
        """The threads that have this name now."""
        return {thread_id for thread_id, given in self._names.items() if given == name}

    def all(self) -> dict[ThreadId, str]:
        """Every name."""
        return dict(self._names)

    def refresh(self) -> set[ThreadId]:
        """Reads what is new; the threads whose name has changed. Raises nothing: without the file nobody has a name."""
        try:
            with open(self._path, "rb") as file:
                found = os.fstat(file.fileno())
                grown = (
                    self._seen is not None
                    and self._seen[:2] == (found.st_dev, found.st_ino)
                    and self._seen[2] <= found.st_size
                )
                if grown and self._mtime == found.st_mtime_ns:
                    return set()
                begin = self._seen[2] if grown and self._seen is not None else 0
                file.seek(begin)
                data = file.read()
        except OSError:
            changed = set(self._names)
            self._names = {}
            self._seen = None
            return changed
        whole = data.rfind(b"\n") + 1
        given = dict(_entries(data))  # a last line without its end counts, and is read again
        before = self._names if begin else {}
        names = {**before, **given}
        changed = {key for key in names.keys() | self._names.keys() if names.get(key) != self._names.get(key)}
        self._names = names
        self._seen = (found.st_dev, found.st_ino, begin + whole)
        self._mtime = found.st_mtime_ns
        return changed


def append_name(home: Path | str, thread_id: ThreadId, name: str, timestamp: str) -> None:
    """Names a thread. Raises `OSError`."""
    path = f"{home}/{NAMES_FILE}"
    os.makedirs(home, exist_ok=True)
    line = json_bytes({"id": thread_id, "thread_name": name, "updated_at": timestamp}) + b"\n"
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            line = b"\n" + line  # behind a torn line
        os.write(handle, line)
    finally:
        os.close(handle)


def _entries(data: bytes) -> list[tuple[ThreadId, str]]:
    found: list[tuple[ThreadId, str]] = []
    for start, end, _ in Scan(data).forward():
        try:
            entry = json_value(data[start:end])
        except ProtocolError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and isinstance(entry.get("thread_name"), str):
            found.append((ThreadId(entry["id"].lower()), entry["thread_name"]))
    return found
