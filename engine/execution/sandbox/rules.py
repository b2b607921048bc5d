"""What a policy comes to for a launcher: lists of places, from the disk as it is (permissions.md 4.4, 4.5)."""

from __future__ import annotations

from engine.permissions.roots import Roots, WritableRoot
from engine.permissions.view import View
from engine.permissions.whole_disk import has_full_disk_read, has_full_disk_write, includes_platform_defaults
from engine.protocol.profiles import FileSystemSandboxPolicy
from engine.records import frozen

__all__ = ["PLATFORM_ROOTS", "FileSystemRules", "file_system_rules"]

# What `minimal` stands for on Linux, where it exists.
PLATFORM_ROOTS = (
    "/bin",
    "/etc",
    "/lib",
    "/lib64",
    "/nix/store",
    "/run/current-system/sw",
    "/sbin",
    "/usr",
)


@frozen
class FileSystemRules:
    """Normal absolute paths, links not resolved. `full_read` and `full_write` are about the whole disk."""

    full_read: bool = False
    full_write: bool = False
    readable: tuple[str, ...] = ()
    writable: tuple[WritableRoot, ...] = ()
    unreadable: tuple[str, ...] = ()
    unreadable_globs: tuple[str, ...] = ()
    glob_scan_max_depth: int | None = None


def file_system_rules(policy: FileSystemSandboxPolicy, cwd: str, view: View) -> FileSystemRules:
    """The rules of a policy in the directory `cwd`."""
    roots = Roots(policy, cwd, view)
    readable = roots.readable
    if includes_platform_defaults(policy):
        readable = tuple(dict.fromkeys((*PLATFORM_ROOTS, *readable)))
    return FileSystemRules(
        # A policy that denies something has no full read, but still the whole disk to deny it from.
        full_read=has_full_disk_read(policy) or "/" in readable,
        full_write=has_full_disk_write(policy),
        readable=readable,
        writable=roots.writable,
        unreadable=roots.unreadable,
        unreadable_globs=roots.unreadable_globs,
        glob_scan_max_depth=policy.glob_scan_max_depth,
    )
