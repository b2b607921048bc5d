"""What permission code may know of the world: paths and a few facts of the environment, real or described.

The functions of this room get a `View` as an argument and ask nothing else, so that a policy can be worked out for a
machine that is only described, and a test can say what there is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

import attrs

from engine.protocol.paths import normal_path
from engine.records import frozen

__all__ = ["LARGEST_TEXT", "DiskView", "View"]

LARGEST_TEXT = 1 << 16  # characters; what the permission code reads are one-line pointer files


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
            if "/.." in path:
                os.stat(path)  # `realpath` would go up from a file, too
            return normal_path(os.path.realpath(path, strict=True))
        except (OSError, ValueError):
            return None

    def read_text(self, path: str) -> str | None:
        try:
            with open(path, encoding="utf-8", newline="") as file:
                text = file.read(LARGEST_TEXT + 1)
        except (OSError, ValueError):
            return None
        return text if len(text) <= LARGEST_TEXT else None
