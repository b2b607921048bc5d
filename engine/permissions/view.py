"""What permission code may know of the world: paths and a few facts of the environment, real or described.

The functions of this room get a `View` as an argument and ask nothing else, so that a policy can be worked out for a
machine that is only described, and a test can say what there is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Protocol

import attrs

from engine.protocol.paths import normal_path
from engine.records import frozen

__all__ = ["DiskView", "MemoryView", "View"]

_LARGEST_TEXT = 1 << 16  # characters; what the permission code reads are one-line pointer files
_LONGEST_CHAIN = 40  # symbolic links on the way to one path, as the kernel has it


class View(Protocol):
    """Questions about paths and the environment. None of them raises; paths are absolute."""

    @property
    def home(self) -> str | None:
        """The home directory that `~` stands for, if one is known."""
        ...

    @property
    def tmpdir(self) -> str | None:
        """`$TMPDIR`, if it is set and not empty."""
        ...

    def process_cwd(self) -> str:
        """What relative paths without another base are joined to."""
        ...

    def is_file(self, path: str, /) -> bool:
        """Whether this is a regular file; links are followed."""
        ...

    def is_directory(self, path: str, /) -> bool:
        """Whether this is a directory; links are followed."""
        ...

    def exists(self, path: str, /) -> bool:
        """Whether there is something at the end of all links."""
        ...

    def is_there(self, path: str, /) -> bool:
        """Whether there is something by this name, be it a link to nowhere."""
        ...

    def is_link(self, path: str, /) -> bool:
        """Whether the last component is a symbolic link."""
        ...

    def resolve(self, path: str, /) -> str | None:
        """The path with all links followed; None if something on the way is missing or can't be looked at."""
        ...

    def read_text(self, path: str, /) -> str | None:
        """The text of a small file, or None if it can't be read, is not UTF-8 or is not small."""
        ...


@frozen
class DiskView:
    """The machine's own disk; environment and working directory are the process's where they are not given."""

    environment: Mapping[str, str] = attrs.field(factory=lambda: os.environ, repr=False)
    cwd: str | None = None

    @property
    def home(self) -> str | None:
        named = self.environment.get("HOME")
        if named:
            return named
        found = os.path.expanduser("~")
        return found if found != "~" else None

    @property
    def tmpdir(self) -> str | None:
        return self.environment.get("TMPDIR") or None

    def process_cwd(self) -> str:
        if self.cwd is not None:
            return self.cwd
        try:
            return os.getcwd()
        except OSError:
            return "/"  # the process's directory was removed

    def is_file(self, path: str) -> bool:
        return os.path.isfile(path)

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def is_there(self, path: str) -> bool:
        return os.path.lexists(path)

    def is_link(self, path: str) -> bool:
        return os.path.islink(path)

    def resolve(self, path: str) -> str | None:
        try:
            return normal_path(os.path.realpath(path, strict=True))
        except (OSError, ValueError):
            return None

    def read_text(self, path: str) -> str | None:
        try:
            with open(path, encoding="utf-8", newline="") as file:
                text = file.read(_LARGEST_TEXT + 1)
        except (OSError, ValueError):
            return None
        return text if len(text) <= _LARGEST_TEXT else None


@attrs.define(slots=False, frozen=True)
class MemoryView:
    """A described machine: texts of files by path, links by path, directories, and its environment.

    The root and whatever lies above something described are directories too.
    """

    files: Mapping[str, str] = attrs.field(factory=dict)
    directories: frozenset[str] = frozenset()
    links: Mapping[str, str] = attrs.field(factory=dict)
    home: str | None = None
    tmpdir: str | None = None
    cwd: str = "/"

    @cached_property
    def _directories(self) -> frozenset[str]:
        made = {"/", *self.directories}
        for path in (*self.files, *self.directories, *self.links):
            while path != "/":
                path = path.rpartition("/")[0] or "/"
                made.add(path)
        return frozenset(made)

    def process_cwd(self) -> str:
        return self.cwd

    def is_file(self, path: str) -> bool:
        found = self.resolve(path)
        return found in self.files

    def is_directory(self, path: str) -> bool:
        found = self.resolve(path)
        return found in self._directories

    def exists(self, path: str) -> bool:
        return self.resolve(path) is not None

    def is_there(self, path: str) -> bool:
        return self._found(path) is not None

    def is_link(self, path: str) -> bool:
        return self._found(path) in self.links

    def resolve(self, path: str) -> str | None:
        return self._walk(path, follow_last=True)

    def read_text(self, path: str) -> str | None:
        found = self.resolve(path)
        text = None if found is None else self.files.get(found)
        return text if text is None or len(text) <= _LARGEST_TEXT else None

    def _found(self, path: str) -> str | None:
        return self._walk(path, follow_last=False)

    def _walk(self, path: str, *, follow_last: bool) -> str | None:
        """Component by component, as the kernel does it: `..` after a link leaves the link's target."""
        waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        follow_last = follow_last or path.endswith("/")
        at, followed = "/", 0
        while waiting:
            part = waiting.pop()
            if at not in self._directories:
                return None
            if part == "..":
                at = at.rpartition("/")[0] or "/"
                continue
            at = f"/{part}" if at == "/" else f"{at}/{part}"
            target = self.links.get(at)
            if target is None or not (waiting or follow_last):
                continue
            followed += 1
            if followed > _LONGEST_CHAIN:
                return None
            at = "/" if target[:1] == "/" else at.rpartition("/")[0] or "/"
            waiting += (part for part in reversed(target.split("/")) if part not in ("", "."))
        return at if at in self._directories or at in self.files or at in self.links else None
