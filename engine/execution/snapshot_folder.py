"""The folder of shell snapshots: written for the user alone, swept of what ended sessions left (tools.md 3.5)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress

import attrs

from engine.records import define

__all__ = ["KEPT_SECONDS", "SnapshotFolder"]

KEPT_SECONDS = 3 * 24 * 3600  # after the last word in a thread

_THREAD = r"(?P<thread>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
_SNAPSHOT = re.compile(rf"{_THREAD}\.(?:[0-9]+\.sh|tmp-[0-9]+)")


@define(eq=False)
class SnapshotFolder:
    """`shell_snapshots` of a home, as one engine uses it; `active` are its threads that may have files there."""

    path: str
    active: set[str] = attrs.field(factory=set)
    _swept: bool = attrs.field(default=False, init=False)

    @classmethod
    def of(cls, home: str | os.PathLike[str]) -> SnapshotFolder:
        """The folder of a home. Touches nothing."""
        return cls(os.path.join(home, "shell_snapshots"))

    def write(self, path: str, text: bytes, last_used: Callable[[str], float | None]) -> None:
        """A new file of the folder, readable for the user alone; before the first one the folder is swept.

        Blocks. Raises `OSError`.
        """
        with suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
        if not self._swept:
            self._swept = True
            self.sweep(last_used)
        with open(path, "xb", opener=_private) as file:
            file.write(text)

    def sweep(self, last_used: Callable[[str], float | None]) -> None:
        """Removes files of unknown names, and those of threads that are not stored or were not used for three days.

        `last_used` tells when a thread was last written to, in unix seconds; None if it is not stored. Blocks. What
        can't be removed stays.
        """
        with suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False) and self._is_stale(entry.name, last_used):
                    with suppress(OSError):
                        os.unlink(entry.path)

    def _is_stale(self, name: str, last_used: Callable[[str], float | None]) -> bool:
        known = _SNAPSHOT.fullmatch(name)
        if known is None:
            return True
        if known["thread"] in self.active:
            return False
        used = last_used(known["thread"])
        return used is None or used < time.time() - KEPT_SECONDS


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
