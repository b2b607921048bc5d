"""Disks that are only described, and what a command would see of them behind a layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from engine.execution.sandbox.disk import Kind
from engine.execution.sandbox.layout import Layout
from engine.execution.sandbox.resolving import is_below
from engine.permissions.memory_view import MemoryView

__all__ = ["MemoryDisk", "access_behind", "described"]


def described(*names: str, links: Mapping[str, str] | None = None, **texts: str) -> MemoryView:
    """A machine with these files, and folders (names that end with a slash)."""
    return MemoryView(
        files={name: texts.get(name, "") for name in names if not name.endswith("/")},
        directories=frozenset(name.rstrip("/") for name in names if name.endswith("/")),
        links=links or {},
        home="/home/user",
    )


@attrs.frozen
class MemoryDisk:
    """What a described machine answers a layout's questions."""

    view: MemoryView

    def kind(self, path: str) -> Kind:
        if self.view.is_link(path):
            return "link"
        if not self.view.is_there(path):
            return "missing"
        return "directory" if self.view.is_directory(path) else "file"

    def link_target(self, path: str) -> str:
        return self.view.links.get(path, "")


def access_behind(layout: Layout, path: str) -> Literal["none", "read", "write"]:
    """What the mounts leave of the access to an existing path without links: the last one around it decides."""
    found: Literal["none", "read", "write"] = "read" if layout.whole_disk else "none"
    for mount in layout.mounts:
        if path == mount.path or is_below(path, mount.path):
            found = mount.kind if mount.kind in ("read", "write") else "none"
    return found
