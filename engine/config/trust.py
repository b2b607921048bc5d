"""Whether somebody decided to trust the directory a session works in (config.md 1.4)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from engine.permissions.canonical import absolute
from engine.permissions.view import View
from engine.records import frozen

__all__ = [
    "Trust",
    "TrustLevel",
    "directories_of_project",
    "find_trust",
    "linked_worktree",
    "main_repository",
    "project_folders",
    "project_root",
]

TrustLevel = Literal["trusted", "untrusted"]


@frozen
class Trust:
    """A decision, and the key of `[projects]` that holds it."""

    level: TrustLevel
    key: str


def find_trust(projects: object, directory: str, markers: Sequence[str], view: View) -> Trust | None:
    """The decision for a directory: its own, else its project root's, else the one of its main repository.

    `projects` is the merged table of the layers that may trust, never of a project's own. A key may be the canonical
    path or the spelled one; the canonical one counts first.
    """
    if not isinstance(projects, Mapping) or not projects:
        return None
    for place in _places(directory, markers, view):
        for key in dict.fromkeys((view.resolve(place) or place, place)):
            entry = projects.get(key)
            level = entry.get("trust_level") if isinstance(entry, Mapping) else None
            if level == "trusted" or level == "untrusted":
                return Trust(level, key)
    return None


def _places(directory: str, markers: Sequence[str], view: View) -> Iterator[str]:
    yield directory
    yield project_root(directory, markers, view)
    main = main_repository(directory, view)
    if main is not None:
        yield main


def project_root(directory: str, markers: Sequence[str], view: View) -> str:
    """The nearest directory at or above the absolute `directory` with an entry named like a marker; else itself."""
    for place in _upwards(directory):
        if any(view.is_there(os.path.join(place, marker)) for marker in markers):
            return place
    return directory


def directories_of_project(directory: str, markers: Sequence[str], view: View) -> list[str]:
    """The directories from the project root down to the absolute `directory`."""
    root = project_root(directory, markers, view)
    places: list[str] = []
    for place in _upwards(directory):
        places.append(place)
        if place == root:
            break
    return places[::-1]


def project_folders(directory: str, markers: Sequence[str], view: View) -> list[str]:
    """The `.codex` directories among them."""
    places = (os.path.join(place, ".codex") for place in directories_of_project(directory, markers, view))
    return [path for path in places if view.is_directory(path)]


def main_repository(directory: str, view: View) -> str | None:
    """The main checkout of the repository around the absolute `directory`, which a linked worktree points to."""
    for place in _upwards(directory):
        git = os.path.join(place, ".git")
        if view.is_directory(git):
            return place
        if view.is_file(git):
            return _main_of_worktree(git, place, view)
    return None


def linked_worktree(directory: str, view: View) -> tuple[str, str] | None:
    """The linked worktree around the absolute `directory` and the main checkout it belongs to; None outside of one."""
    for place in _upwards(directory):
        git = os.path.join(place, ".git")
        if view.is_directory(git):
            return None
        if view.is_file(git):
            main = _main_of_worktree(git, place, view)
            return None if main is None else (place, main)
    return None


def _main_of_worktree(git: str, place: str, view: View) -> str | None:
    key, _, target = (view.read_text(git) or "").strip().partition(":")
    if key.strip() != "gitdir" or not target.strip():
        return None
    # <main>/.git/worktrees/<name>
    worktrees = os.path.dirname(absolute(target.strip(), view, place))
    if os.path.basename(worktrees) != "worktrees":
        return None
    return os.path.dirname(os.path.dirname(worktrees))


def _upwards(directory: str) -> Iterator[str]:
    while True:
        yield directory
        above = os.path.dirname(directory)
        if above == directory:
            return
        directory = above
