"""Permission profiles and what they are made of: file system, network, enforcement (permissions.md 2.7-2.10)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from engine.permissions.access import compile_policy
from engine.permissions.canonical import absolute
from engine.permissions.legacy import (
    EXTERNAL_SANDBOX,
    READ_ONLY,
    UNRESTRICTED,
    enforcement_of_legacy,
    from_legacy,
    from_legacy_for_cwd,
    network_of_legacy,
    to_legacy,
)
from engine.permissions.projection import materialize, merge_entries
from engine.permissions.protected import read_only_subpaths
from engine.permissions.view import View
from engine.permissions.whole_disk import add_missing_targets, has_full_disk_read
from engine.protocol.profiles import (
    Access,
    DangerFullAccess,
    DisabledProfile,
    ExternalProfile,
    ExternalSandbox,
    FileSystemEntry,
    FileSystemSandboxPolicy,
    LiteralPath,
    ManagedProfile,
    NetworkAccess,
    PermissionProfile,
    RestrictedFileSystem,
    SandboxEnforcement,
    SandboxPolicy,
    SpecialPath,
    UnrestrictedFileSystem,
    WorkspaceWrite,
)

__all__ = [
    "enforcement_of",
    "file_system_of",
    "from_runtime",
    "materialize_policy",
    "materialize_profile",
    "network_of",
    "preserve_deny",
    "profile_from_legacy",
    "profile_from_legacy_for_cwd",
    "profile_to_legacy",
    "read_only",
    "with_legacy_writable",
    "with_readable",
    "with_roots_added",
    "with_writable",
    "workspace_write",
]


def from_runtime(
    file_system: FileSystemSandboxPolicy, network: NetworkAccess, enforcement: SandboxEnforcement | None = None
) -> PermissionProfile:
    """The profile of what is in force (permissions.md 2.7). Without `enforcement` the file system tells it."""
    if file_system.kind == "external-sandbox":
        return ExternalProfile(network)
    if file_system.kind == "unrestricted":
        return DisabledProfile() if enforcement == "disabled" else ManagedProfile(UnrestrictedFileSystem(), network)
    # A depth of 0 lists nothing and has no form in a profile.
    return ManagedProfile(RestrictedFileSystem(file_system.entries, file_system.glob_scan_max_depth or None), network)


def file_system_of(profile: PermissionProfile) -> FileSystemSandboxPolicy:
    """The file-system part of a profile."""
    if isinstance(profile, ManagedProfile):
        managed = profile.file_system
        if isinstance(managed, RestrictedFileSystem):
            return FileSystemSandboxPolicy("restricted", managed.glob_scan_max_depth, managed.entries)
        return UNRESTRICTED
    return UNRESTRICTED if isinstance(profile, DisabledProfile) else EXTERNAL_SANDBOX


def network_of(profile: PermissionProfile) -> NetworkAccess:
    """The network part of a profile; without a sandbox it is enabled."""
    return "enabled" if isinstance(profile, DisabledProfile) else profile.network


def enforcement_of(profile: PermissionProfile) -> SandboxEnforcement:
    """Who isolates under a profile."""
    match profile:
        case ManagedProfile():
            return "managed"
        case DisabledProfile():
            return "disabled"
    return "external"


def profile_from_legacy(policy: SandboxPolicy, view: View) -> PermissionProfile:
    """The profile of a legacy policy, with the workspace as a symbol."""
    return from_runtime(from_legacy(policy, view), network_of_legacy(policy), enforcement_of_legacy(policy))


def profile_from_legacy_for_cwd(policy: SandboxPolicy, cwd: str, view: View) -> PermissionProfile:
    """The same with the protected folders of `cwd` as paths."""
    return from_runtime(
        from_legacy_for_cwd(policy, cwd, view), network_of_legacy(policy), enforcement_of_legacy(policy)
    )


def profile_to_legacy(profile: PermissionProfile, cwd: str, view: View) -> SandboxPolicy:
    """The legacy form of a profile in `cwd` (permissions.md 2.5). Raises `UnbridgeablePolicy`."""
    match profile:
        case DisabledProfile():
            return DangerFullAccess()
        case ExternalProfile():
            return ExternalSandbox(profile.network)
    return to_legacy(file_system_of(profile), profile.network, cwd, view)


def read_only() -> PermissionProfile:
    """Read everything, write nothing, no network."""
    return from_runtime(READ_ONLY, "restricted")


def workspace_write(
    view: View,
    writable_roots: Iterable[str] = (),
    network: NetworkAccess = "restricted",
    *,
    exclude_tmpdir_env_var: bool = False,
    exclude_slash_tmp: bool = False,
) -> PermissionProfile:
    """Write below the workspace, as a symbol, the normal paths `writable_roots` and the temporary folders."""
    policy = WorkspaceWrite(
        writable_roots=tuple(writable_roots),
        exclude_tmpdir_env_var=exclude_tmpdir_env_var,
        exclude_slash_tmp=exclude_slash_tmp,
    )
    return from_runtime(from_legacy(policy, view), network, "managed")


def preserve_deny(policy: FileSystemSandboxPolicy, existing: FileSystemSandboxPolicy) -> FileSystemSandboxPolicy:
    """`policy` in the place of `existing`, with what that one denies still denied (permissions.md 2.8).

    An unrestricted policy becomes a restricted one for it; one that somebody else enforces loses the denials.
    """
    if policy.kind == "unrestricted" and any(entry.access == "none" for entry in existing.entries):
        policy = FileSystemSandboxPolicy("restricted", entries=(FileSystemEntry(SpecialPath.of("root"), "write"),))
    if policy.kind != "restricted":
        return policy
    depth = policy.glob_scan_max_depth
    return FileSystemSandboxPolicy(
        "restricted",
        existing.glob_scan_max_depth if depth is None else depth,
        merge_entries(policy.entries, existing.entries, denied_only=True),
    )


def materialize_policy(policy: FileSystemSandboxPolicy, roots: Sequence[str]) -> FileSystemSandboxPolicy:
    """The policy with every workspace symbol replaced by the normal paths `roots` (permissions.md 2.9)."""
    return attrs.evolve(policy, entries=materialize(policy.entries, roots))


def with_roots_added(policy: FileSystemSandboxPolicy, roots: Sequence[str]) -> FileSystemSandboxPolicy:
    """The policy, symbols and all, and what they stand for in `roots` appended."""
    return attrs.evolve(policy, entries=merge_entries(policy.entries, materialize(policy.entries, roots)))


def materialize_profile(profile: PermissionProfile, roots: Sequence[str]) -> PermissionProfile:
    """The profile with every workspace symbol replaced; only managed ones have any."""
    if not isinstance(profile, ManagedProfile) or not isinstance(profile.file_system, RestrictedFileSystem):
        return profile
    managed = profile.file_system
    return ManagedProfile(
        RestrictedFileSystem(materialize(managed.entries, roots), managed.glob_scan_max_depth), profile.network
    )


def with_readable(
    policy: FileSystemSandboxPolicy, cwd: str, paths: Iterable[str], view: View
) -> FileSystemSandboxPolicy:
    """The policy with read entries for the paths that can't be read yet in `cwd` (permissions.md 2.10)."""
    return policy if has_full_disk_read(policy) else _with_access(policy, cwd, paths, view, "read")


def with_writable(
    policy: FileSystemSandboxPolicy, cwd: str, paths: Iterable[str], view: View
) -> FileSystemSandboxPolicy:
    """The policy with write entries for the paths that can't be written yet in `cwd`."""
    return _with_access(policy, cwd, paths, view, "write")


def _with_access(
    policy: FileSystemSandboxPolicy, cwd: str, paths: Iterable[str], view: View, access: Access
) -> FileSystemSandboxPolicy:
    compiled = compile_policy(policy, cwd, view)
    for path in paths:
        if not (compiled.can_read(path) if access == "read" else compiled.can_write(path)):
            added = FileSystemEntry(LiteralPath(absolute(path, view, cwd)), access)
            policy = attrs.evolve(policy, entries=(*policy.entries, added))
            compiled = compile_policy(policy, cwd, view)
    return policy


def with_legacy_writable(policy: FileSystemSandboxPolicy, paths: Iterable[str], view: View) -> FileSystemSandboxPolicy:
    """A restricted policy with further writable roots and their protected folders; others as they are."""
    if policy.kind != "restricted":
        return policy
    entries = list(policy.entries)
    for path in paths:
        root = absolute(path, view)
        entry = FileSystemEntry(LiteralPath(root), "write")
        if entry not in entries:
            entries.append(entry)
        kept = read_only_subpaths(root, view)
        add_missing_targets(entries, (FileSystemEntry(LiteralPath(below), "read") for below in kept))
    return attrs.evolve(policy, entries=tuple(entries))
