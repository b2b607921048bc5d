"""Absolute paths by text alone: `~`, `.`, `..` and doubled slashes; relative paths in a table (config.md 1.3)."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import cast

from engine.config.merge import Table

__all__ = ["absolute_path", "resolve_paths"]


def absolute_path(text: str, base: str, user_home: str | None) -> str:
    """`text` as an absolute, lexically normal path; symbolic links are not followed (permissions.md 1.8).

    `~` and `~/...` stand for `user_home`, where one is known; relative text is joined to `base`, which is absolute.
    """
    if user_home and (text == "~" or text.startswith("~/")):
        text = posixpath.join(user_home, text[2:].lstrip("/"))
    made = os.path.normpath(os.path.join(base, text))
    # POSIX keeps a leading double slash; here it collapses.
    return made[1:] if made.startswith("//") else made


def resolve_paths(table: Mapping[str, object], base: str, user_home: str | None) -> Table:
    """A copy of a layer's table in which every key that is typed as a path is absolute. Keys typed as text stay."""
    from engine.config.schema import ROOT

    return cast(Table, ROOT.rebase(table, lambda text: absolute_path(text, base, user_home)))
