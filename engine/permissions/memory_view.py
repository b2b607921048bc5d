"""A machine that is only described: what permission code is told of it in tests, and by whoever plans for another."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final

import attrs

from engine.permissions.view import LARGEST_TEXT

__all__ = ["MemoryView"]

_LONGEST_CHAIN: Final = 40  # symbolic links on the way to one path, as the kernel has it


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
        return text if text is None or len(text) <= LARGEST_TEXT else None

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
