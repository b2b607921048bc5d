"""Legacy sandbox policies to and from file-system policies, all conversions of permissions.md 2.1-2.5."""

from __future__ import annotations

import attrs

from engine.errors import InvalidRequest
from engine.permissions.canonical import absolute
from engine.permissions.projection import legacy_scan, merge_entries
from engine.permissions.protected import read_only_subpaths
from engine.permissions.view import View
from engine.permissions.whole_disk import add_missing_targets, has_full_disk_write
from engine.protocol.profiles import (
    PROTECTED_NAMES,
    Access,
    DangerFullAccess,
    ExternalSandbox,
    FileSystemEntry,
    FileSystemSandboxPolicy,
    LiteralPath,
    NetworkAccess,
    ReadOnly,
    SandboxEnforcement,
    SandboxPolicy,
    SpecialKind,
    SpecialPath,
    WorkspaceWrite,
)

__all__ = [
    "EXTERNAL_SANDBOX",
    "READ_ONLY",
    "UNRESTRICTED",
    "UnbridgeablePolicy",
    "enforcement_of_legacy",
    "from_legacy",
    "from_legacy_for_cwd",
    "from_legacy_preserving_deny",
    "has_network",
    "legacy_runtime",
    "network_of_legacy",
    "to_legacy",
    "workspace_write_entries",
]

UNRESTRICTED = FileSystemSandboxPolicy("unrestricted")
EXTERNAL_SANDBOX = FileSystemSandboxPolicy("external-sandbox")
READ_ONLY = FileSystemSandboxPolicy("restricted", entries=(FileSystemEntry(SpecialPath.of("root"), "read"),))


class UnbridgeablePolicy(InvalidRequest):
    """A policy that lets something outside the workspace be written has no legacy form."""

    def __init__(self) -> None:
        super().__init__("the policy writes outside the workspace root, which no legacy sandbox policy can express")


def has_network(policy: SandboxPolicy) -> bool:
    """Whether commands under the policy may use the network."""
    match policy:
        case DangerFullAccess():
            return True
        case ExternalSandbox():
            return policy.network_access == "enabled"
    return policy.network_access


def network_of_legacy(policy: SandboxPolicy) -> NetworkAccess:
    """The network part of a legacy policy (permissions.md 2.1)."""
    return "enabled" if has_network(policy) else "restricted"


def enforcement_of_legacy(policy: SandboxPolicy) -> SandboxEnforcement:
    """Who isolates under a legacy policy (permissions.md 2.7)."""
    match policy:
        case DangerFullAccess():
            return "disabled"
        case ExternalSandbox():
            return "external"
    return "managed"


def from_legacy(policy: SandboxPolicy, view: View) -> FileSystemSandboxPolicy:
    """The file-system part with the workspace as a symbol (permissions.md 2.2)."""
    match policy:
        case DangerFullAccess():
            return UNRESTRICTED
        case ExternalSandbox():
            return EXTERNAL_SANDBOX
        case ReadOnly():
            return READ_ONLY
    return FileSystemSandboxPolicy("restricted", entries=tuple(workspace_write_entries(policy, view)))


def workspace_write_entries(policy: WorkspaceWrite, view: View) -> list[FileSystemEntry]:
    """The entries of a `workspace-write` policy, symbolic, in the order in which they are recorded."""
    entries = _writing_entries(policy)
    add_missing_targets(entries, (_special("project_roots", "read", name) for name in PROTECTED_NAMES))
    for root in policy.writable_roots:
        _protect(entries, root, view)
    return entries


def _writing_entries(policy: WorkspaceWrite) -> list[FileSystemEntry]:
    entries = [_special("root", "read"), _special("project_roots", "write")]
    if not policy.exclude_slash_tmp:
        entries.append(_special("slash_tmp", "write"))
    if not policy.exclude_tmpdir_env_var:
        entries.append(_special("tmpdir", "write"))
    entries += (FileSystemEntry(LiteralPath(root), "write") for root in policy.writable_roots)
    return entries


def from_legacy_for_cwd(policy: SandboxPolicy, cwd: str, view: View) -> FileSystemSandboxPolicy:
    """The same with the protected folders of `cwd` and of the writable roots as paths (permissions.md 2.3)."""
    made = from_legacy(policy, view)
    if not isinstance(policy, WorkspaceWrite):
        return made
    return attrs.evolve(made, entries=_with_protected_paths(list(made.entries), policy, cwd, view))


def legacy_runtime(policy: WorkspaceWrite, cwd: str, view: View) -> FileSystemSandboxPolicy:
    """What the legacy sandbox of a `workspace-write` policy enforces in `cwd`: no symbols for metadata (4.8)."""
    return FileSystemSandboxPolicy(
        "restricted", entries=_with_protected_paths(_writing_entries(policy), policy, cwd, view)
    )


def _with_protected_paths(
    entries: list[FileSystemEntry], policy: WorkspaceWrite, cwd: str, view: View
) -> tuple[FileSystemEntry, ...]:
    _protect(entries, absolute(cwd, view), view, protect_missing_dot_codex=True)
    for root in policy.writable_roots:
        _protect(entries, root, view)
    return tuple(entries)


def from_legacy_preserving_deny(
    policy: SandboxPolicy, cwd: str, existing: FileSystemSandboxPolicy, view: View
) -> FileSystemSandboxPolicy:
    """The same, keeping what `existing` denies; a policy that restricts nothing loses it (permissions.md 2.4)."""
    made = from_legacy_for_cwd(policy, cwd, view)
    if made.kind != "restricted":
        return made
    return FileSystemSandboxPolicy(
        "restricted",
        existing.glob_scan_max_depth,
        merge_entries(made.entries, existing.entries, denied_only=True),
    )


def to_legacy(policy: FileSystemSandboxPolicy, network: NetworkAccess, cwd: str, view: View) -> SandboxPolicy:
    """The legacy form of a policy in `cwd`: it never says what is denied (permissions.md 2.5).

    Raises `UnbridgeablePolicy` where something outside the workspace may be written.
    """
    enabled = network == "enabled"
    if policy.kind == "external-sandbox":
        return ExternalSandbox(network)
    if policy.kind == "unrestricted" or has_full_disk_write(policy):
        return DangerFullAccess() if enabled else ExternalSandbox("restricted")
    found = legacy_scan(policy.entries, absolute(cwd, view))
    if found.workspace:
        return WorkspaceWrite(
            writable_roots=found.roots,
            network_access=enabled,
            exclude_tmpdir_env_var=not found.tmpdir,
            exclude_slash_tmp=not found.slash_tmp,
        )
    if found.roots or found.root_write or found.tmpdir or found.slash_tmp:
        raise UnbridgeablePolicy
    return ReadOnly(network_access=enabled)


def _special(kind: SpecialKind, access: Access, subpath: str | None = None) -> FileSystemEntry:
    return FileSystemEntry(SpecialPath.of(kind, subpath), access)


def _protect(entries: list[FileSystemEntry], root: str, view: View, *, protect_missing_dot_codex: bool = False) -> None:
    """Read entries for what stays read-only below a root, except where there is an entry already."""
    kept = read_only_subpaths(root, view, protect_missing_dot_codex=protect_missing_dot_codex)
    add_missing_targets(entries, (FileSystemEntry(LiteralPath(path), "read") for path in kept))
