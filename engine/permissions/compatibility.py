"""The legacy policy that stands for a profile in replies and records, lossy where it must be (permissions.md 5, 7)."""

from __future__ import annotations

from engine.permissions.canonical import absolute
from engine.permissions.legacy import UnbridgeablePolicy, from_legacy_for_cwd
from engine.permissions.profiles import file_system_of, network_of, profile_to_legacy
from engine.permissions.roots import Roots
from engine.permissions.view import View
from engine.protocol.profiles import (
    FileSystemSandboxPolicy,
    NetworkAccess,
    PermissionProfile,
    SandboxPolicy,
    WorkspaceWrite,
)
from engine.records import frozen

__all__ = ["Projection", "compatibility_policy", "project"]


def compatibility_policy(
    profile: PermissionProfile, file_system: FileSystemSandboxPolicy, network: NetworkAccess, cwd: str, view: View
) -> SandboxPolicy:
    """The profile's legacy form in `cwd`; where it has none, the nearest `workspace-write` policy of `file_system`."""
    try:
        return profile_to_legacy(profile, cwd, view)
    except UnbridgeablePolicy:
        pass
    roots = Roots(file_system, cwd, view)
    cwd = absolute(cwd, view)
    tmpdir = view.tmpdir
    return WorkspaceWrite(
        writable_roots=tuple(writable.root for writable in roots.writable if writable.root != cwd),
        network_access=network == "enabled",
        exclude_tmpdir_env_var=not (tmpdir and roots.compiled.can_write(absolute(tmpdir, view))),
        exclude_slash_tmp=not (view.is_directory("/tmp") and roots.compiled.can_write("/tmp")),
    )


@frozen
class Projection:
    """One materialised profile in its recorded forms.

    `differing_file_system` is None where it is exactly what `sandbox_policy` gives for the same cwd.
    """

    sandbox_policy: SandboxPolicy
    profile: PermissionProfile
    file_system: FileSystemSandboxPolicy
    differing_file_system: FileSystemSandboxPolicy | None


def project(profile: PermissionProfile, cwd: str, view: View) -> Projection:
    """What a turn in `cwd` records of a profile whose workspace symbols are replaced already."""
    file_system = file_system_of(profile)
    policy = compatibility_policy(profile, file_system, network_of(profile), cwd, view)
    same = file_system == from_legacy_for_cwd(policy, cwd, view)
    return Projection(policy, profile, file_system, differing_file_system=None if same else file_system)
