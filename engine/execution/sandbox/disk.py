"""What a launch knows of the disk: every fact looked up once, and remembered so that it can be looked up again.

A plan is worth nothing when the disk has changed since it was made, but asking again is much cheaper than planning
again. Placeholders of commands that run at the moment (tools.md 6.2) count as missing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

from engine.execution._placeholder import is_placeholder
from engine.permissions.view import DiskView

__all__ = ["Disk", "Kind", "ObservedDisk"]

Kind = Literal["missing", "file", "directory", "link", "other"]
_Answer = TypeVar("_Answer")


class Disk(Protocol):
    """Two questions about names; a link is told from what it leads to. Neither raises."""

    def kind(self, path: str, /) -> Kind:
        """What is there by this name; `missing` also for what can't be looked at."""
        ...

    def link_target(self, path: str, /) -> str:
        """What is written in the link; empty if it is none (any more)."""
        ...


class ObservedDisk:
    """The machine's disk and environment for one plan: a `Disk`, and a `View` for the permission code."""

    def __init__(self, view: DiskView) -> None:
        self._view = view
        self._facts: dict[tuple[Callable[..., object], str], object] = {}

    def still_holds(self) -> bool:
        """Whether every answer given would be the same now."""
        return all(ask(self._view, path) == answer for (ask, path), answer in self._facts.items())

    def _ask(self, ask: Callable[[DiskView, str], _Answer], path: str) -> _Answer:
        facts: dict[tuple[Callable[..., object], str], _Answer] = self._facts  # type: ignore[assignment]
        key = (ask, path)
        if key not in facts:
            facts[key] = ask(self._view, path)
        return facts[key]

    def kind(self, path: str) -> Kind:
        return self._ask(_kind, path)

    def link_target(self, path: str) -> str:
        return self._ask(_link_target, path)

    @property
    def home(self) -> str | None:
        return self._ask(_home, "")

    @property
    def tmpdir(self) -> str | None:
        return self._ask(_tmpdir, "")

    def process_cwd(self) -> str:
        return self._ask(_process_cwd, "")

    def is_file(self, path: str) -> bool:
        return self._ask(_target_kind, path) == "file"

    def is_directory(self, path: str) -> bool:
        return self._ask(_target_kind, path) == "directory"

    def exists(self, path: str) -> bool:
        return self._ask(_target_kind, path) != "missing"

    def is_there(self, path: str) -> bool:
        return self.kind(path) != "missing"

    def is_link(self, path: str) -> bool:
        return self.kind(path) == "link"

    def resolve(self, path: str) -> str | None:
        return self._ask(_resolve, path) if self.exists(path) else None

    def read_text(self, path: str) -> str | None:
        return self._ask(_read_text, path)


def _kind(view: DiskView, path: str) -> Kind:
    try:
        return _kind_of(os.lstat(path), path)
    except (OSError, ValueError):
        return "missing"


def _target_kind(view: DiskView, path: str) -> Kind:
    try:
        return _kind_of(os.stat(path), path)
    except (OSError, ValueError):
        return "missing"


def _kind_of(status: os.stat_result, path: str) -> Kind:
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return "link"
    if is_placeholder(status, path):
        return "missing"
    return "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def _link_target(view: DiskView, path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _home(view: DiskView, _: str) -> str | None:
    return view.home


def _tmpdir(view: DiskView, _: str) -> str | None:
    return view.tmpdir


def _process_cwd(view: DiskView, _: str) -> str:
    return view.process_cwd()


def _resolve(view: DiskView, path: str) -> str | None:
    return view.resolve(path)


def _read_text(view: DiskView, path: str) -> str | None:
    return view.read_text(path)
