"""The permissions of a session as state, and the one way to change them: all or nothing (permissions.md 6, 7)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal

import attrs

from engine.permissions.canonical import absolute
from engine.permissions.compatibility import Projection, compatibility_policy, project
from engine.permissions.constrained import Constrained
from engine.permissions.legacy import (
    UnbridgeablePolicy,
    enforcement_of_legacy,
    from_legacy_preserving_deny,
    network_of_legacy,
)
from engine.permissions.profiles import (
    enforcement_of,
    file_system_of,
    from_runtime,
    materialize_profile,
    network_of,
    preserve_deny,
    profile_to_legacy,
)
from engine.permissions.roots import is_semantically_equivalent
from engine.permissions.view import View
from engine.protocol.profiles import (
    ActivePermissionProfile,
    FileSystemSandboxPolicy,
    NetworkAccess,
    PermissionProfile,
    SandboxPolicy,
    SpecialPath,
)
from engine.records import frozen

__all__ = ["BUILT_IN_IDS", "PermissionUpdate", "ProfileSnapshot", "ProfileState", "SessionPermissions"]

BUILT_IN_IDS = (":read-only", ":workspace", ":danger-full-access")


@frozen
class ProfileSnapshot:
    """A profile, symbols and all, with where it comes from: id, profile and roots always change together."""

    profile: PermissionProfile
    active: ActivePermissionProfile | None = None
    workspace_roots: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        profile: PermissionProfile,
        active: ActivePermissionProfile | None = None,
        workspace_roots: tuple[str, ...] = (),
    ) -> ProfileSnapshot:
        """The snapshot of a profile; one without an id has no roots of its own either."""
        return cls(profile) if active is None else cls(profile, active, workspace_roots)

    @property
    def kind(self) -> Literal["legacy", "built-in", "named"]:
        """Whether the profile has an id, and whose."""
        if self.active is None:
            return "legacy"
        return "built-in" if self.active.id in BUILT_IN_IDS else "named"


@frozen
class ProfileState:
    """The snapshot in force under the constraint of an administrator, which looks at the profile alone."""

    _constrained: Constrained[ProfileSnapshot]

    @classmethod
    def new(
        cls, snapshot: ProfileSnapshot, validator: Callable[[PermissionProfile], None] | None = None
    ) -> ProfileState:
        """A state that holds `snapshot`. Raises what the validator raises for its profile."""
        if validator is None:
            return cls(Constrained.allow_any(snapshot))
        return cls(Constrained.new(snapshot, lambda candidate: validator(candidate.profile)))

    @property
    def snapshot(self) -> ProfileSnapshot:
        """What is in force."""
        return self._constrained.value

    def set(self, snapshot: ProfileSnapshot) -> ProfileState:
        """The state with another snapshot. Raises what the validator raises; this state stays as it is."""
        return ProfileState(self._constrained.set(snapshot))

    def set_legacy(self, profile: PermissionProfile) -> ProfileState:
        """The state with a profile that has no id."""
        return self.set(ProfileSnapshot.of(profile))


@frozen(kw_only=True)
class PermissionUpdate:
    """Changes to the permissions of a session; None leaves things as they are. Roots are normal absolute paths.

    `active` and `profile_workspace_roots` belong to `permission_profile` and mean nothing without it. A profile comes
    before a sandbox policy.
    """

    cwd: str | None = None
    workspace_roots: tuple[str, ...] | None = None
    sandbox_policy: SandboxPolicy | None = None
    permission_profile: PermissionProfile | None = None
    active: ActivePermissionProfile | None = None
    profile_workspace_roots: tuple[str, ...] | None = None


@attrs.define(slots=False, frozen=True)
class SessionPermissions:
    """Where a session works and what it may touch. The stored profile keeps its symbols, `profile` has none."""

    cwd: str
    workspace_roots: tuple[str, ...]
    state: ProfileState

    @property
    def snapshot(self) -> ProfileSnapshot:
        """The stored profile and where it comes from."""
        return self.state.snapshot

    @cached_property
    def profile(self) -> PermissionProfile:
        """The stored profile with the workspace roots in the place of symbols."""
        return materialize_profile(self.snapshot.profile, self.workspace_roots)

    @cached_property
    def file_system(self) -> FileSystemSandboxPolicy:
        """The file-system part of `profile`."""
        return file_system_of(self.profile)

    @property
    def network(self) -> NetworkAccess:
        """The network part of the stored profile."""
        return network_of(self.snapshot.profile)

    def sandbox_policy(self, view: View) -> SandboxPolicy:
        """The legacy policy that stands for the profile.

        Where it has no legacy form, the symbolic profile is tried first: a symbolic workspace counts as writable even
        if the cwd is none of the roots. What a turn records (`turn`) does not do so.
        """
        try:
            return profile_to_legacy(self.profile, self.cwd, view)
        except UnbridgeablePolicy:
            return compatibility_policy(self.snapshot.profile, self.file_system, self.network, self.cwd, view)

    def turn(self, view: View) -> Projection:
        """What a turn records."""
        return project(self.profile, self.cwd, view)

    def apply(self, update: PermissionUpdate, view: View) -> SessionPermissions:
        """The permissions after `update`. Raises `ConstraintError` for what an administrator does not allow."""
        cwd = self.cwd if update.cwd is None else absolute(update.cwd, view)
        changed = cwd != self.cwd
        roots = self.workspace_roots
        if update.workspace_roots is not None:
            roots = update.workspace_roots
        elif changed and self.cwd in roots:
            roots = tuple(dict.fromkeys(cwd if root == self.cwd else root for root in roots))
        state = self.state
        if update.permission_profile is not None:
            state = state.set(self._replaced(update, update.permission_profile))
        elif update.sandbox_policy is not None:
            state = state.set_legacy(self._bound(update.sandbox_policy, cwd, view))
        elif changed and self._follows_cwd(view):
            state = state.set_legacy(self._bound(self.sandbox_policy(view), cwd, view))
        if not changed and roots == self.workspace_roots and state is self.state:
            return self
        return SessionPermissions(cwd, roots, state)

    def _replaced(self, update: PermissionUpdate, profile: PermissionProfile) -> ProfileSnapshot:
        """The profile of an update, with what is denied now still denied."""
        active = update.active
        if active is None and profile == self.profile:
            active = self.snapshot.active
        kept = preserve_deny(file_system_of(profile), self.file_system)
        made = from_runtime(kept, network_of(profile), enforcement_of(profile))
        return ProfileSnapshot.of(made, active, update.profile_workspace_roots or ())

    def _bound(self, policy: SandboxPolicy, cwd: str, view: View) -> PermissionProfile:
        """The profile of a legacy policy for `cwd`, with what is denied now still denied where it can be."""
        made = from_legacy_preserving_deny(policy, cwd, self.file_system, view)
        return from_runtime(made, network_of_legacy(policy), enforcement_of_legacy(policy))

    def _follows_cwd(self, view: View) -> bool:
        """Whether the profile is a legacy policy's with a symbolic workspace, which then moves with the cwd.

        After materialising there is no symbol left, so this is false today; the rule is kept for what it guards.
        """
        has_symbol = any(
            isinstance(entry.path, SpecialPath)
            and entry.path.kind == "project_roots"
            and entry.path.subpath is None
            and entry.access == "write"
            for entry in self.file_system.entries
        )
        if not has_symbol:
            return False
        same = from_legacy_preserving_deny(self.sandbox_policy(view), self.cwd, self.file_system, view)
        return is_semantically_equivalent(self.file_system, same, self.cwd, view)
