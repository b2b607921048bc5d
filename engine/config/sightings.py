"""What a load looked at on the disk, and whether it would see the same again.

A configuration is used again as long as nothing changed that took part in it: files that were read, files that were not
there, directories that mark a project. Looking again costs one `stat` for each.
"""

from __future__ import annotations

import errno
import os
import stat

from engine.permissions.view import View
from engine.records import define

__all__ = ["Sightings", "WatchingView"]

_Look = tuple[str, str]


class Sightings:
    """Paths with what was found there. Take note before you read: what changes in between is then noticed later."""

    def __init__(self) -> None:
        self._seen: dict[_Look, object] = {}

    def contents(self, path: str) -> None:
        """Note a file whose contents matter."""
        self._note(("contents", path))

    def presence(self, path: str) -> None:
        """Note a path of which only matters what it is, not what is in it. Links are followed."""
        self._note(("presence", path))

    def name(self, path: str) -> None:
        """The same for a path whose last component may be a link that leads nowhere."""
        self._note(("name", path))

    def hold(self) -> bool:
        """Whether all of it is as it was. Blocks for a few `stat` calls."""
        return all(_look(kind, path) == found for (kind, path), found in self._seen.items())

    def paths(self) -> tuple[str, ...]:
        """What has to be looked at again, first looks first."""
        return tuple(dict.fromkeys(path for _, path in self._seen))

    def _note(self, look: _Look) -> None:
        if look not in self._seen:
            found = _look(*look)
            if found == errno.ENOENT and (missing := _first_missing(look[1])) != look[1]:
                look = ("presence", missing)
            self._seen[look] = found


def _first_missing(path: str) -> str:
    """Of a path that is not there, the first part that is missing: as long as it is, nothing below it is there."""
    parent = os.path.dirname(path)
    return _first_missing(parent) if parent and _look("presence", parent) == errno.ENOENT else path


def _look(kind: str, path: str) -> object:
    try:
        found = os.lstat(path) if kind == "name" else os.stat(path)
    except OSError as exc:
        return exc.errno
    except ValueError:
        return None  # no path at all
    if kind == "contents" and not stat.S_ISDIR(found.st_mode):
        return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    # The times of a directory change with every file in it.
    return (found.st_dev, found.st_ino, stat.S_IFMT(found.st_mode))


@define(eq=False)
class WatchingView:
    """A view of the disk that notes what it is asked."""

    view: View
    sightings: Sightings

    @property
    def home(self) -> str | None:
        return self.view.home

    @property
    def tmpdir(self) -> str | None:
        return self.view.tmpdir

    def process_cwd(self) -> str:
        return self.view.process_cwd()

    def is_file(self, path: str) -> bool:
        self.sightings.presence(path)
        return self.view.is_file(path)

    def is_directory(self, path: str) -> bool:
        self.sightings.presence(path)
        return self.view.is_directory(path)

    def exists(self, path: str) -> bool:
        self.sightings.presence(path)
        return self.view.exists(path)

    def is_there(self, path: str) -> bool:
        self.sightings.name(path)
        return self.view.is_there(path)

    def is_link(self, path: str) -> bool:
        self.sightings.name(path)
        return self.view.is_link(path)

    def resolve(self, path: str) -> str | None:
        self.sightings.presence(path)
        return self.view.resolve(path)

    def read_text(self, path: str) -> str | None:
        self.sightings.contents(path)
        return self.view.read_text(path)
