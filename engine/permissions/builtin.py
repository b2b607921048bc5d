"""The three sandbox modes as permission profiles, the way turn contexts record them (permissions.md 2.2-2.7, 8.5).

Paths are absolute and lexically normal; what must be known of the disk comes in as a `View`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import attrs

from engine.permissions.view import View
from engine.protocol.profiles import (
    DangerFullAccess,
    DisabledProfile,
    ExternalProfile,
    ExternalSandbox,
    FileSystemEntry,
    FileSystemPath,
    FileSystemSandboxPolicy,
    LiteralPath,
    ManagedProfile,
    PermissionProfile,
    ReadOnly,
    RestrictedFileSystem,
    SandboxPolicy,
    SpecialPath,
    UnrestrictedFileSystem,
    WorkspaceWrite,
)

__all__ = [
    "PROTECTED_NAMES",
    "Projection",
    "from_legacy",
    "from_legacy_for_cwd",
    "has_network",
    "materialize",
    "profile_from",
    "read_only_subpaths",
    "sandbox_projection",
]

# Folders of a writable root that stay read-only.
PROTECTED_NAMES = (".git", ".agents", ".codex")


@attrs.frozen
class Projection:
    """One policy in its three recorded forms.

    `differing_file_system` is None where it says no more than `sandbox_policy` does for the same cwd.
    """

    sandbox_policy: SandboxPolicy
    profile: PermissionProfile
    file_system: FileSystemSandboxPolicy
    differing_file_system: FileSystemSandboxPolicy | None


def sandbox_projection(
    policy: SandboxPolicy,
    *,
    cwd: str,
    view: View,
    workspace_roots: Sequence[str] = (),
    memory_root: str | None = None,
    updated: bool = False,
) -> Projection:
    """What a turn in `cwd` records for a sandbox policy.

    `workspace_roots` stand for the workspace, by default `cwd` alone; `cwd` is added where it is missing, as the policy
    has no legacy form without it. `memory_root` is a writable folder of the engine's own; it joins policies that came
    from the configuration. A policy that a client set later (`updated`) is bound to `cwd` and gets no such folder.
    """
    if not isinstance(policy, WorkspaceWrite):
        # Nothing in the others depends on the workspace or the disk.
        file_system = from_legacy(policy, view)
        return Projection(policy, profile_from(policy, file_system), file_system, differing_file_system=None)
    roots = list(dict.fromkeys(workspace_roots or (cwd,)))
    if cwd not in roots:
        roots.insert(0, cwd)
    symbolic = from_legacy_for_cwd(policy, cwd, view) if updated else from_legacy(policy, view)
    if memory_root is not None and not updated:
        symbolic = _with_writable(symbolic, memory_root, view)
    file_system = materialize(symbolic, roots)
    legacy = _to_legacy(policy, file_system, cwd)
    return Projection(
        sandbox_policy=legacy,
        profile=profile_from(policy, file_system),
        file_system=file_system,
        differing_file_system=None if file_system == from_legacy_for_cwd(legacy, cwd, view) else file_system,
    )


def has_network(policy: SandboxPolicy) -> bool:
    """Whether commands under the policy may use the network."""
    match policy:
        case DangerFullAccess():
            return True
        case ReadOnly() | WorkspaceWrite():
            return policy.network_access
        case ExternalSandbox():
            return policy.network_access == "enabled"
    return False


def from_legacy(policy: SandboxPolicy, view: View) -> FileSystemSandboxPolicy:
    """The file-system part with the workspace as a symbol (permissions.md 2.2). A policy nobody knows reads only."""
    match policy:
        case DangerFullAccess():
            return FileSystemSandboxPolicy("unrestricted")
        case ExternalSandbox():
            return FileSystemSandboxPolicy("external-sandbox")
        case WorkspaceWrite():
            return FileSystemSandboxPolicy("restricted", entries=tuple(_workspace_write(policy, view)))
    return FileSystemSandboxPolicy("restricted", entries=(_special("root", "read"),))


def from_legacy_for_cwd(policy: SandboxPolicy, cwd: str, view: View) -> FileSystemSandboxPolicy:
    """The same with the protected folders of `cwd` and the writable roots as paths (permissions.md 2.3)."""
    made = from_legacy(policy, view)
    if not isinstance(policy, WorkspaceWrite):
        return made
    entries = list(made.entries)
    _add_protected(entries, read_only_subpaths(cwd, view, protect_missing_dot_codex=True))
    for root in policy.writable_roots:
        _add_protected(entries, read_only_subpaths(root, view))
    return attrs.evolve(made, entries=tuple(entries))


def _workspace_write(policy: WorkspaceWrite, view: View) -> Iterator[FileSystemEntry]:
    entries = [_special("root", "read"), _special("project_roots", "write")]
    if not policy.exclude_slash_tmp:
        entries.append(_special("slash_tmp", "write"))
    if not policy.exclude_tmpdir_env_var:
        entries.append(_special("tmpdir", "write"))
    entries += (FileSystemEntry(LiteralPath(root), "write") for root in policy.writable_roots)
    entries += (_special("project_roots", "read", name) for name in PROTECTED_NAMES)
    for root in policy.writable_roots:
        _add_protected(entries, read_only_subpaths(root, view))
    return iter(entries)


def read_only_subpaths(root: str, view: View, *, protect_missing_dot_codex: bool = False) -> tuple[str, ...]:
    """What stays read-only below a writable root (permissions.md 3.1), a `.git` file's target included."""
    git, agents, codex = (os.path.join(root, name) for name in PROTECTED_NAMES)
    found: list[str] = []
    if view.is_file(git):
        target = _git_target(git, root, view)
        found += [target, git] if target else [git]
    elif view.is_directory(git):
        found.append(git)
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
    target = os.path.normpath(os.path.join(root, value))
    return target if view.exists(target) else None


def materialize(policy: FileSystemSandboxPolicy, roots: Sequence[str]) -> FileSystemSandboxPolicy:
    """The policy with every workspace symbol replaced by one path per root, in place (permissions.md 2.9)."""
    entries: list[FileSystemEntry] = []
    for entry in policy.entries:
        if isinstance(entry.path, SpecialPath) and entry.path.value.get("kind") == "project_roots":
            below = entry.path.value.get("subpath")
            for root in roots:
                path = os.path.normpath(os.path.join(root, below)) if isinstance(below, str) else root
                entries.append(FileSystemEntry(LiteralPath(path), entry.access))
        else:
            entries.append(entry)
    return attrs.evolve(policy, entries=tuple(entries))


def profile_from(policy: SandboxPolicy, file_system: FileSystemSandboxPolicy) -> PermissionProfile:
    """The permission profile with the enforcement and network of `policy` (permissions.md 2.7)."""
    network = "enabled" if has_network(policy) else "restricted"
    match file_system.kind:
        case "external-sandbox":
            return ExternalProfile(network)
        case "unrestricted":
            if isinstance(policy, DangerFullAccess):
                return DisabledProfile()
            return ManagedProfile(UnrestrictedFileSystem(), network)
    return ManagedProfile(RestrictedFileSystem(file_system.entries, file_system.glob_scan_max_depth or None), network)


def _with_writable(policy: FileSystemSandboxPolicy, root: str, view: View) -> FileSystemSandboxPolicy:
    """One more writable root, with its protected folders (permissions.md 2.10)."""
    entries = list(policy.entries)
    entry = FileSystemEntry(LiteralPath(root), "write")
    if entry not in entries:
        entries.append(entry)
    _add_protected(entries, read_only_subpaths(root, view))
    return attrs.evolve(policy, entries=tuple(entries))


def _to_legacy(policy: WorkspaceWrite, file_system: FileSystemSandboxPolicy, cwd: str) -> SandboxPolicy:
    """The legacy form of a materialised policy that came from `policy` (permissions.md 2.5)."""
    written = [entry.path for entry in file_system.entries if entry.access == "write"]
    paths = [path.path for path in written if isinstance(path, LiteralPath)]
    kinds = {path.value.get("kind") for path in written if isinstance(path, SpecialPath)}
    return WorkspaceWrite(
        writable_roots=tuple(dict.fromkeys(path for path in paths if path != cwd)),
        network_access=policy.network_access,
        exclude_tmpdir_env_var="tmpdir" not in kinds,
        exclude_slash_tmp="slash_tmp" not in kinds,
    )


def _special(kind: str, access: str, subpath: str | None = None) -> FileSystemEntry:
    value: dict[str, object] = {"kind": kind}
    if subpath is not None:
        value["subpath"] = subpath
    return FileSystemEntry(SpecialPath(value), access)


def _add_protected(entries: list[FileSystemEntry], paths: Iterable[str]) -> None:
    """Append read entries, except for what has an entry already."""
    for path in paths:
        if not any(_same_target(entry.path, path) for entry in entries):
            entries.append(FileSystemEntry(LiteralPath(path), "read"))


def _same_target(entry: FileSystemPath, path: str) -> bool:
    """Whether an entry speaks of just this path (permissions.md 2.6)."""
    match entry:
        case LiteralPath():
            return entry.path == path
        case SpecialPath():
            return (entry.value.get("kind"), path) in (("root", "/"), ("slash_tmp", "/tmp"))
    return False
