"""Ids of threads, turns, submissions and items (session.md 1.1).

All are lower-case hyphenated UUID strings; the distinct types exist for the type checker only.
"""

from __future__ import annotations

import os
import threading
import time
from typing import NewType

from engine.errors import InvalidRequest

__all__ = [
    "ItemId",
    "SessionId",
    "SubmissionId",
    "ThreadId",
    "TurnId",
    "new_item_id",
    "new_submission_id",
    "new_thread_id",
    "parse_thread_id",
    "window_id",
]

ThreadId = NewType("ThreadId", str)
SessionId = NewType("SessionId", str)
SubmissionId = NewType("SubmissionId", str)
TurnId = NewType("TurnId", str)
ItemId = NewType("ItemId", str)


class _Clock:
    """Time-ordered UUIDs that never repeat nor go back in one process: 48 bits of ms, then a 74-bit counter."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = 0
        self._counter = 0

    def next(self) -> str:
        with self._lock:
            now = time.time_ns() // 1_000_000
            if now > self._last_ms:
                self._last_ms = now
                # The top counter bit starts clear, so one millisecond has room for 2**73 ids.
                self._counter = int.from_bytes(os.urandom(10), "big") >> 7
            else:
                self._counter += 1
            high, low = self._counter >> 62, self._counter & ((1 << 62) - 1)
            value = (self._last_ms << 80) | (0x7 << 76) | ((high & 0xFFF) << 64) | (0b10 << 62) | low
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_next_uuid7 = _Clock().next


def new_thread_id() -> ThreadId:
    """A fresh, time-ordered thread id (UUIDv7)."""
    return ThreadId(_next_uuid7())


def new_submission_id() -> SubmissionId:
    """A fresh submission id (UUIDv7); the turn a submission starts has the same id."""
    return SubmissionId(_next_uuid7())


def new_item_id() -> ItemId:
    """A fresh id (UUIDv4) for an item the engine makes itself."""
    import uuid

    return ItemId(str(uuid.uuid4()))


def parse_thread_id(text: str) -> ThreadId:
    """The canonical thread id in `text` (any UUID version). Raises `InvalidRequest` if it is none."""
    import uuid

    try:
        return ThreadId(str(uuid.UUID(text)))
    except ValueError as exc:
        raise InvalidRequest(f"invalid thread id {text!r}: {exc}") from exc


def window_id(thread: ThreadId, generation: int) -> str:
    """The id of a context window: changes with every compaction."""
    return f"{thread}:{generation}"
