"""What can be said of a policy without a directory: whether it reads or writes the whole disk (permissions.md 4.4)."""

from __future__ import annotations

from collections.abc import Iterable

from engine.protocol.profiles import (
    FileSystemEntry,
    FileSystemPath,
    FileSystemSandboxPolicy,
    GlobPath,
    LiteralPath,
    SpecialPath,
)

__all__ = [
    "add_missing_targets",
    "has_denied_read",
    "has_full_disk_read",
    "has_full_disk_write",
    "includes_platform_defaults",
    "target_of",
]

# Paths that speak of the same place as a symbol.
_SAME: dict[str, FileSystemPath] = {"/": SpecialPath.of("root"), "/tmp": SpecialPath.of("slash_tmp")}


def target_of(path: FileSystemPath) -> FileSystemPath:
    """One path expression for all that share its target (permissions.md 2.6)."""
    return _SAME.get(path.path, path) if isinstance(path, LiteralPath) else path


def add_missing_targets(entries: list[FileSystemEntry], added: Iterable[FileSystemEntry]) -> None:
    """Appends the entries to whose target there is none yet, earlier additions included."""
    targets = {target_of(entry.path) for entry in entries}
    for entry in added:
        target = target_of(entry.path)
        if target not in targets:
            targets.add(target)
            entries.append(entry)


def has_denied_read(policy: FileSystemSandboxPolicy) -> bool:
    """Whether something may not be read."""
    return policy.kind == "restricted" and any(entry.access == "none" for entry in policy.entries)


def has_full_disk_read(policy: FileSystemSandboxPolicy) -> bool:
    """Whether everything may be read; an entry for the path `/` does not count, only the symbol does."""
    if policy.kind != "restricted":
        return True
    return not has_denied_read(policy) and any(
        _is(entry, "root") and entry.access in ("read", "write") for entry in policy.entries
    )


def has_full_disk_write(policy: FileSystemSandboxPolicy) -> bool:
    """Whether everything may be written."""
    if policy.kind != "restricted":
        return True
    if not any(_is(entry, "root") and entry.access == "write" for entry in policy.entries):
        return False
    written = {target_of(entry.path) for entry in policy.entries if entry.access == "write"}
    return not any(_narrows(entry, written) for entry in policy.entries)


def _narrows(entry: FileSystemEntry, written: set[FileSystemPath]) -> bool:
    """Whether an entry takes away from what the whole disk's write entry gives."""
    path = entry.path
    if entry.access == "write":
        return False
    if isinstance(path, GlobPath):
        return True
    if isinstance(path, SpecialPath):
        if path.kind == "root":
            return entry.access == "none"
        if path.kind in ("minimal", "unknown"):
            return False
    # A write entry outranks `read` at the same place, but never `none`.
    return entry.access == "none" or target_of(path) not in written


def includes_platform_defaults(policy: FileSystemSandboxPolicy) -> bool:
    """Whether the platform's own readable places are asked for."""
    return (
        policy.kind == "restricted"
        and not has_full_disk_read(policy)
        and any(_is(entry, "minimal") and entry.access != "none" for entry in policy.entries)
    )


def _is(entry: FileSystemEntry, kind: str) -> bool:
    return isinstance(entry.path, SpecialPath) and entry.path.kind == kind
