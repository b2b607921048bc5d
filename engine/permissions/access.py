"""A policy seen from a directory: which paths its entries stand for, and the policy compiled for questions."""

from __future__ import annotations

from engine.permissions.canonical import absolute
from engine.permissions.decision import Row
from engine.permissions.projection import CompiledPolicy
from engine.permissions.view import View
from engine.permissions.whole_disk import has_full_disk_write
from engine.protocol.paths import join
from engine.protocol.profiles import FileSystemPath, FileSystemSandboxPolicy, LiteralPath, SpecialPath

__all__ = ["compile_policy", "resolve_entries", "resolve_path"]


def resolve_path(path: FileSystemPath, cwd: str, view: View) -> str | None:
    """The path an expression stands for in the normal `cwd`; None for globs and what is never a path (4.1)."""
    if isinstance(path, LiteralPath):
        return path.path
    if not isinstance(path, SpecialPath):
        return None
    match path.kind:
        case "root":
            return "/"
        case "project_roots":
            return cwd if path.subpath is None else join(cwd, path.subpath)
        case "tmpdir":
            named = view.tmpdir
            return absolute(named, view) if named else None
        case "slash_tmp":
            return "/tmp" if view.is_directory("/tmp") else None
    return None


def resolve_entries(policy: FileSystemSandboxPolicy, cwd: str, view: View) -> list[Row]:
    """`(path, access, position)` of every entry that stands for a path in the normal `cwd`, in list order."""
    rows: list[Row] = []
    for position, entry in enumerate(policy.entries):
        path = resolve_path(entry.path, cwd, view)
        if path is not None:
            rows.append((path, entry.access, position))
    return rows


def compile_policy(policy: FileSystemSandboxPolicy, cwd: str, view: View) -> CompiledPolicy:
    """The policy as it holds in `cwd`, with the places of temporary folders looked up now (permissions.md 4)."""
    cwd = absolute(cwd, view)
    if policy.kind != "restricted":
        return CompiledPolicy((), cwd=cwd, home=view.home, open=True)
    return CompiledPolicy(
        resolve_entries(policy, cwd, view), cwd=cwd, home=view.home, full_write=has_full_disk_write(policy)
    )
