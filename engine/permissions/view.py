"""What permission code may know of the disk: four questions, asked of the machine or of a description of one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

import attrs

__all__ = ["DiskView", "MemoryView", "View"]


class View(Protocol):
    """Questions about paths; symbolic links are followed. None of them raises."""

    def is_file(self, path: str, /) -> bool: ...
    def is_directory(self, path: str, /) -> bool: ...
    def exists(self, path: str, /) -> bool: ...
    def read_text(self, path: str, /) -> str | None:
        """The text of a small file, or None if it can't be read or is not UTF-8."""
        ...


@attrs.frozen
class DiskView:
    """The machine's own disk."""

    def is_file(self, path: str) -> bool:
        return os.path.isfile(path)

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def read_text(self, path: str) -> str | None:
        try:
            with open(path, encoding="utf-8") as file:
                return file.read(1 << 16)
        except (OSError, ValueError):
            return None


@attrs.frozen
class MemoryView:
    """A described disk: texts of files by path, and directories (those above a file are implied)."""

    files: Mapping[str, str] = attrs.field(factory=dict)
    directories: frozenset[str] = frozenset()

    def is_file(self, path: str) -> bool:
        return path in self.files

    def is_directory(self, path: str) -> bool:
        below = path.rstrip("/") + "/"
        return path in self.directories or any(other.startswith(below) for other in (*self.files, *self.directories))

    def exists(self, path: str) -> bool:
        return self.is_file(path) or self.is_directory(path)

    def read_text(self, path: str) -> str | None:
        return self.files.get(path)
