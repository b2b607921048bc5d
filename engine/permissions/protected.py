"""What stays read-only below a writable root: version control and agent metadata (permissions.md 3.1)."""

from __future__ import annotations

from engine.permissions.canonical import absolute
from engine.permissions.view import View
from engine.protocol.paths import join

__all__ = ["read_only_subpaths"]


def read_only_subpaths(root: str, view: View, *, protect_missing_dot_codex: bool = False) -> tuple[str, ...]:
    """The protected folders of a writable root that are there, as they are written, and a `.git` file's target."""
    git, agents, codex = (join(root, name) for name in (".git", ".agents", ".codex"))
    found: list[str] = []
    if view.is_directory(git):
        found.append(git)
    elif view.is_file(git):
        target = _git_target(git, root, view)
        found += [target, git] if target else [git]
    if view.is_directory(agents):
        found.append(agents)
    if protect_missing_dot_codex or view.is_directory(codex):
        found.append(codex)
    return tuple(dict.fromkeys(found))


def _git_target(git: str, root: str, view: View) -> str | None:
    """Where a `.git` file points to, if it is a pointer and its target exists."""
    key, colon, value = (view.read_text(git) or "").strip().partition(":")
    value = value.strip()
    if not colon or key.strip() != "gitdir" or not value:
        return None
    target = absolute(value, view, root)
    return target if view.exists(target) else None
