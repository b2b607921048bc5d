"""Where a rollout may stand below a home: with the live ones of its day, or with the archived ones (rollout.md 3.1)."""

from __future__ import annotations

import os
from pathlib import Path

from engine.rollout.names import ARCHIVED_DIRECTORY, SESSIONS_DIRECTORY, parse_rollout_name

__all__ = ["archived_place", "dated_place", "is_archived", "places_of"]


def archived_place(home: Path, path: str) -> str:
    """Where the rollout stands once it is archived."""
    return f"{home}/{ARCHIVED_DIRECTORY}/{os.path.basename(path)}"


def dated_place(home: Path, path: str) -> str | None:
    """Where the rollout stands as a live thread: its day is in its name. `None` if the name has none."""
    name = parse_rollout_name(os.path.basename(path))
    if name is None:
        return None
    day = name.time
    return f"{home}/{SESSIONS_DIRECTORY}/{day.year}/{day.month:02d}/{day.day:02d}/{os.path.basename(path)}"


def is_archived(home: Path, path: str) -> bool:
    """Whether a rollout at `path` counts as archived."""
    archive = f"{home}/{ARCHIVED_DIRECTORY}"
    return path.startswith(archive + os.sep) or ARCHIVED_DIRECTORY in Path(path).parts


def places_of(home: Path, path: str) -> tuple[str, ...]:
    """Where a rollout that stands at `path` now may be found from now on: there, or where it may be moved to."""
    places = (path, dated_place(home, path), archived_place(home, path))
    return tuple(dict.fromkeys(place for place in places if place is not None))
