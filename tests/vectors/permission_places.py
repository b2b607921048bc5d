"""Lays permission cases out on the disk: placeholders become paths below a temporary root outside of `/tmp`."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from engine.permissions.memory_view import MemoryView
from engine.permissions.view import DiskView, View

__all__ = ["Place", "described", "layout_named", "place_of"]

# `/tmp` is literal in the cases, and on the machine where they were made it had these folders.
RECORDED_IN_TMP = ("/tmp/.git", "/tmp/.agents", "/tmp/.codex")

PLACEHOLDERS = ("/workspace", "/srv", "/home/user", "/codex_home")
_PLACEHOLDER = re.compile(r"(?<![^\s:])/(?:workspace|srv|home/user|codex_home)(?=[/\s]|\Z)")
_OWN_LAYOUTS = Path(__file__).parent / "permissions" / "layouts.json"


@attrs.frozen
class _RecordedView(DiskView):
    """The real disk, but for what `/tmp` held where the cases were made."""

    def is_directory(self, path: str) -> bool:
        return path in RECORDED_IN_TMP or super().is_directory(path)


def described(layout: Mapping[str, Any], env: Mapping[str, Any]) -> MemoryView:
    """A layout without a disk; placeholders stay as they are, of literal paths it knows `/tmp` and `/etc/hosts`."""
    return MemoryView(
        files={"/etc/hosts": "", **layout["files"]},
        directories=frozenset((*layout["dirs"], *PLACEHOLDERS, *RECORDED_IN_TMP)),
        links=layout["symlinks"],
        home=env.get("HOME"),
        tmpdir=env.get("TMPDIR") or None,
        cwd=env.get("process_cwd") or "/",
    )


@attrs.frozen
class Place:
    """Where a case lives: `root` stands before every placeholder."""

    root: str

    def real(self, value: Any) -> Any:
        """A JSON value of a case with real paths, keys of objects included."""
        if isinstance(value, str):
            return _PLACEHOLDER.sub(lambda found: self.root + found[0], value)
        if isinstance(value, list):
            return [self.real(part) for part in value]
        if isinstance(value, dict):
            return {self.real(key): self.real(part) for key, part in value.items()}
        return value

    def lay_out(self, layout: Mapping[str, Any]) -> None:
        """Makes the placeholders' folders and what the layout names."""
        for name in (*PLACEHOLDERS, *layout["dirs"]):
            os.makedirs(self.real(name), exist_ok=True)
        for name, content in layout["files"].items():
            path = Path(self.real(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.real(content))
        for link, target in layout["symlinks"].items():
            os.symlink(self.real(target), self.real(link))

    def view(self, env: Mapping[str, Any]) -> View:
        """The real disk with the environment of a case."""
        return _RecordedView(self.environment(env), self.real(env.get("process_cwd")))

    def environment(self, env: Mapping[str, Any]) -> dict[str, str]:
        """The variables of a case, those that are set."""
        return {key: self.real(env[key]) for key in ("HOME", "TMPDIR") if env.get(key) is not None}


@contextmanager
def place_of(layout: Mapping[str, Any]) -> Iterator[Place]:
    """A temporary place with the layout in it."""
    root = tempfile.mkdtemp(prefix="permissions-", dir=_parent())
    try:
        place = Place(root)
        place.lay_out(layout)
        yield place
    finally:
        shutil.rmtree(root, ignore_errors=True)


@functools.cache
def _parent() -> str:
    """A canonical folder that does not lie below `/tmp` or `$TMPDIR`, which are places of their own in the cases."""
    taken = ["/tmp", os.path.realpath(os.environ.get("TMPDIR") or "/tmp")]
    for wanted in ("/var/tmp", os.path.expanduser("~"), os.getcwd(), os.path.dirname(__file__)):
        path = os.path.realpath(wanted)
        outside = all(path != place and not path.startswith(f"{place}/") for place in taken)
        if outside and os.access(path, os.W_OK | os.X_OK):
            return path
    raise RuntimeError("no writable folder outside of /tmp")


def layout_named(name: str | None, folder: Path | None) -> Mapping[str, Any]:
    """A layout of the `layouts.json` beside the case file, else of ours."""
    for file in (None if folder is None else folder / "layouts.json", _OWN_LAYOUTS):
        if file is not None and file.is_file():
            layouts = json.loads(file.read_text())
            if (name or "empty") in layouts:
                found: Mapping[str, Any] = layouts[name or "empty"]
                return found
    raise KeyError(f"no layout {name!r}")
