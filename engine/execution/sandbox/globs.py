"""Which files the globs of denied paths match when a command starts (permissions.md 10, tools.md 6.2)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from engine.execution.sandbox.errors import SandboxPolicyError
from engine.execution.sandbox.layout import DeniedFile
from engine.execution.sandbox.rules import FileSystemRules
from engine.permissions.globs import GlobError, compile_glob
from engine.protocol.paths import normal_path

__all__ = ["MAX_MATCHES", "expand_globs", "search_folder"]

MAX_MATCHES = 8192


def search_folder(pattern: str) -> str | None:
    """The folder below which an absolute glob can match; None where that is the root or nothing certain."""
    at = next((index for index, letter in enumerate(pattern) if letter in "*?[]"), len(pattern))
    folder = pattern[:at].rpartition("/")[0]
    return normal_path(folder) if folder[:1] == "/" and folder.strip("/") else None


def expand_globs(rules: FileSystemRules, is_wanted: Callable[[], bool] = lambda: True) -> list[DeniedFile]:
    """The files (and links, not folders) that match; hidden and ignored ones count, links are not followed.

    Walks whole trees, so it belongs into a thread; it stops when `is_wanted` says no. Raises `SandboxPolicyError` for
    a glob that makes no sense and for more than 8192 matches.
    """
    found: dict[str, bool] = {}
    for pattern in rules.unreadable_globs:
        folder = search_folder(pattern)
        if folder is None or not os.path.isdir(folder):
            continue
        try:
            glob = compile_glob(pattern)
        except GlobError as exc:
            raise SandboxPolicyError(f"cannot enforce sandbox unreadable glob: {exc}", path=pattern) from exc
        pinned = not _matches_anywhere(pattern, folder)
        for path in _files(folder, rules.glob_scan_max_depth, is_wanted):
            if glob.matches(path):
                found[path] = found.get(path, False) or pinned
                if len(found) > MAX_MATCHES:
                    raise SandboxPolicyError(
                        f"cannot enforce sandbox unreadable glob {pattern}: more than {MAX_MATCHES} files match; "
                        "deny a folder instead",
                        path=pattern,
                    )
    return [DeniedFile(path, pinned) for path, pinned in found.items()]


def _matches_anywhere(pattern: str, folder: str) -> bool:
    """Whether a file goes on matching when a folder above it, below the search folder, gets another name."""
    return all(part == "**" for part in pattern[len(folder) :].strip("/").split("/")[:-1])


def _files(folder: str, levels: int | None, is_wanted: Callable[[], bool]) -> Iterator[str]:
    """Everything below that is no folder. Folders that can't be read hide what is in them from commands, too."""
    waiting = [(folder, 1)]
    while waiting:
        if not is_wanted():
            return
        at, level = waiting.pop()
        try:
            with os.scandir(at) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        yield entry.path
                    elif levels is None or level < levels:
                        waiting.append((entry.path, level + 1))
        except OSError:
            continue
