"""Names and places of rollout files (rollout.md 1.1)."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from engine.protocol.ids import ThreadId
from engine.records import frozen

__all__ = ["ARCHIVED_DIRECTORY", "SESSIONS_DIRECTORY", "RolloutName", "parse_rollout_name", "rollout_path"]

SESSIONS_DIRECTORY = "sessions"
ARCHIVED_DIRECTORY = "archived_sessions"

_NAME = re.compile(
    r"rollout-(?P<stamp>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)-"
    r"(?P<id>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32})\.jsonl",
    re.ASCII,
)


@frozen
class RolloutName:
    """What a file name tells: the thread, and when it was created (local time of then, read as UTC for sorting)."""

    thread_id: ThreadId
    time: datetime


def rollout_path(home: str, thread_id: ThreadId, created: time.struct_time) -> str:
    """`<home>/sessions/YYYY/MM/DD/rollout-<stamp>-<id>.jsonl`; `created` is the local time."""
    year, month, day = f"{created.tm_year}", f"{created.tm_mon:02d}", f"{created.tm_mday:02d}"
    stamp = f"{year}-{month}-{day}T{created.tm_hour:02d}-{created.tm_min:02d}-{created.tm_sec:02d}"
    return f"{home}/{SESSIONS_DIRECTORY}/{year}/{month}/{day}/rollout-{stamp}-{thread_id}.jsonl"


def parse_rollout_name(name: str) -> RolloutName | None:
    """What a file name tells, or `None` if it is not the name of a rollout."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        # Not by `strptime`, whose module takes longer to load than all names of a home to read.
        stamp = datetime(*map(int, re.split("[-T]", match["stamp"])), tzinfo=UTC)  # type: ignore[misc, arg-type]
    except ValueError:
        return None
    digits = match["id"].lower().replace("-", "")
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return RolloutName(ThreadId("-".join(parts)), stamp)
