"""Absolute and canonical paths as the permission code has them: user-level links stay (permissions.md 1.8, 1.9)."""

from __future__ import annotations

from engine.permissions.view import View
from engine.protocol.paths import absolute_path, components, normal_path

__all__ = ["absolute", "canonicalize_preserving", "effective"]


def absolute(text: str, view: View, base: str | None = None) -> str:
    """`text` as a normal absolute path: `~` expanded, relative text joined to `base` or the process's directory."""
    if text[:1] == "/":
        return normal_path(text)
    if base is None:
        base = view.process_cwd()
    elif base[:1] != "/":
        base = absolute_path(base, view.process_cwd(), view.home)
    return absolute_path(text, base, view.home)


def _has_linked_ancestor(path: str, view: View) -> bool:
    """Whether the normal `path` or something above it is a link that does not lie directly below the root."""
    names = components(path)
    at = "/" + "/".join(names[:1])
    for name in names[1:]:
        at = f"{at}/{name}"
        if view.is_link(at):
            return True
    return False


def canonicalize_preserving(path: str, view: View) -> str:
    """The path with links resolved, but only first-level aliases such as `/bin -> /usr/bin` (permissions.md 1.9)."""
    logical = absolute(path, view)
    resolved = view.resolve(logical)
    if resolved is None or resolved == logical or _has_linked_ancestor(logical, view):
        return logical
    return resolved


def effective(path: str, view: View) -> str:
    """The normal `path` with what exists of it canonicalised, the missing rest as it is (permissions.md 1.9)."""
    at, rest = path, ""
    while not view.is_there(at):
        if at == "/":
            return path
        at, _, name = at.rpartition("/")
        at, rest = at or "/", f"/{name}{rest}"
    found = canonicalize_preserving(at, view)
    return (f"{found}{rest}" if found != "/" else rest) or "/"
