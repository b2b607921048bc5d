"""Absolute paths by text alone: `~`, `.`, `..` and doubled slashes (permissions.md 1.8). Nothing here looks at a disk.

Text is kept as it is: no Unicode normalisation, no case folding. A path is *normal* when it begins with one slash, has
no empty, `.` or `..` component and, except for `/` itself, no slash at its end.
"""

from __future__ import annotations

import re

__all__ = ["absolute_path", "components", "is_under", "join", "normal_path"]


_DOTS = re.compile(r"/\.\.?(?:/|\Z)")


def normal_path(path: str) -> str:
    """An absolute path in normal form; a leading double slash collapses too, and `..` above the root vanishes."""
    if "//" not in path and (path[-1:] != "/" or path == "/") and ("/." not in path or not _DOTS.search(path)):
        return path
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if kept:
                kept.pop()
        elif part and part != ".":
            kept.append(part)
    return "/" + "/".join(kept)


def absolute_path(text: str, base: str, home: str | None = None) -> str:
    """`text` as a normal absolute path; relative text is joined to `base`, which is absolute.

    `~` and `~/...` stand for `home`, where one is known; `~name` is no more than a name.
    """
    if home and text[:1] == "~" and (text == "~" or text[1] == "/"):
        text = f"{home}/{text[2:]}"
    return normal_path(text if text[:1] == "/" else f"{base}/{text}")


def join(base: str, below: str) -> str:
    """`below` seen from the normal path `base`: lexically resolved, and instead of it when it is absolute."""
    return normal_path(below if below[:1] == "/" else f"{base}/{below}")


def is_under(path: str, place: str) -> bool:
    """Whether the normal `path` is `place` or lies below it, component by component."""
    return path == place or path.startswith(place if place == "/" else place + "/")


def components(path: str) -> list[str]:
    """The names a normal path is made of; none for the root."""
    return path[1:].split("/") if path != "/" else []
