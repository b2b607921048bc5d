"""The local date and IANA time zone a turn runs in (session.md 4.1)."""

from __future__ import annotations

import functools
import os
import time
from datetime import UTC, datetime

__all__ = ["local_date_and_zone"]

_LOCALTIME = "/etc/localtime"
_ZONEINFO = "/zoneinfo/"
UNKNOWN_ZONE = "Etc/UTC"


def local_date_and_zone() -> tuple[str, str]:
    """`("2026-01-31", "Europe/Berlin")`; where the zone can't be told, the UTC date and `Etc/UTC`."""
    zone = _zone()
    if zone is None:
        return datetime.now(UTC).strftime("%Y-%m-%d"), UNKNOWN_ZONE
    return time.strftime("%Y-%m-%d", time.localtime()), zone


def _zone() -> str | None:
    named = os.environ.get("TZ", "").lstrip(":")
    if named and "/" in named and not named.startswith("/"):
        return named
    try:
        link = os.lstat(_LOCALTIME)
    except OSError:
        return None
    return _linked_zone(link.st_ino, link.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _linked_zone(inode: int, changed: int) -> str | None:
    """The zone the system's link points to. Follows it once per link: that is a look at every folder on the way."""
    try:
        target = os.path.realpath(_LOCALTIME)
    except OSError:
        return None
    _, found, name = target.partition(_ZONEINFO)
    if not found:
        return None
    return {"UTC": UNKNOWN_ZONE, "Etc/UCT": UNKNOWN_ZONE}.get(name, name)
