"""Permissions of a session: the worked cases of a settings update, and that updates are whole or nothing."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.permissions.access import compile_policy
from engine.permissions.constrained import ConstraintError, InvalidValue
from engine.permissions.legacy import UnbridgeablePolicy
from engine.permissions.memory_view import MemoryView
from engine.permissions.profiles import (
    file_system_of,
    from_runtime,
    materialize_profile,
    profile_from_legacy_for_cwd,
    profile_to_legacy,
    workspace_write,
)
from engine.permissions.requirements import PermissionRequirements, fallback, requirement_class
from engine.permissions.state import PermissionUpdate, ProfileSnapshot, ProfileState, SessionPermissions
from engine.protocol.profiles import (
    Access,
    ActivePermissionProfile,
    DangerFullAccess,
    DisabledProfile,
    ExternalProfile,
    FileSystemEntry,
    FileSystemPath,
    FileSystemSandboxPolicy,
    GlobPath,
    LiteralPath,
    ManagedProfile,
    PermissionProfile,
    ReadOnly,
    SpecialPath,
    UnrestrictedFileSystem,
    WorkspaceWrite,
)
from tests.permissions.policies import cwds, disks, legacy_policies, profiles, roots

NOTHING = MemoryView()
QUIET = WorkspaceWrite(exclude_tmpdir_env_var=True, exclude_slash_tmp=True)
DEV = ActivePermissionProfile("dev")


def managed(*rows: tuple[str | FileSystemPath, Access], depth: int | None = None) -> PermissionProfile:
    entries = (FileSystemEntry(LiteralPath(path) if isinstance(path, str) else path, access) for path, access in rows)
    return from_runtime(FileSystemSandboxPolicy("restricted", depth, tuple(entries)), "restricted")


def session(
    profile: PermissionProfile | None = None, *, roots: tuple[str, ...] = ("/w/a",), cwd: str = "/w/a"
) -> SessionPermissions:
    stored = profile or profile_from_legacy_for_cwd(QUIET, "/w/a", NOTHING)
    return SessionPermissions(cwd, roots, ProfileState.new(ProfileSnapshot.of(stored, DEV)))


def can_write(permissions: SessionPermissions, path: str) -> bool:
    return compile_policy(permissions.file_system, permissions.cwd, NOTHING).can_write(path)


def test_a_new_cwd_takes_the_workspace_along() -> None:
    made = session().apply(PermissionUpdate(cwd="/w/b"), NOTHING)
    assert (made.cwd, made.workspace_roots, made.snapshot.active) == ("/w/b", ("/w/b",), DEV)
    assert can_write(made, "/w/b/x")
    assert not can_write(made, "/w/a/x")


def test_given_roots_stay_where_they_are() -> None:
    made = session().apply(PermissionUpdate(cwd="/w/b", workspace_roots=("/w/a",)), NOTHING)
    assert made.workspace_roots == ("/w/a",)
    assert not can_write(made, "/w/b")
    made = session().apply(PermissionUpdate(workspace_roots=("/w/a", "/x")), NOTHING)
    assert made.apply(PermissionUpdate(cwd="/x"), NOTHING).workspace_roots == ("/x",)
    elsewhere = session(roots=("/q",)).apply(PermissionUpdate(cwd="/w/b"), NOTHING)
    assert elsewhere.workspace_roots == ("/q",)


def test_paths_do_not_move_with_the_cwd() -> None:
    made = session(managed(("/w/a", "write"))).apply(PermissionUpdate(cwd="/w/b"), NOTHING)
    assert can_write(made, "/w/a")
    assert not can_write(made, "/w/b")
    docs = managed((SpecialPath.of("project_roots"), "write"), ("/w/a/docs", "read"))
    made = session(docs).apply(PermissionUpdate(cwd="/w"), NOTHING)
    assert made.workspace_roots == ("/w",)
    assert can_write(made, "/w/a/x")
    assert not can_write(made, "/w/a/docs/x")


def test_a_relative_cwd_is_the_processs() -> None:
    made = session().apply(PermissionUpdate(cwd="b/../c"), MemoryView(cwd="/proc"))
    assert made.cwd == "/proc/c"


ROOT = SpecialPath.of("root")


def test_denials_outlive_what_allowed_beside_them() -> None:
    glob: tuple[GlobPath, Access] = (GlobPath("/w/**/*.env"), "none")
    start = session(managed((ROOT, "read"), (SpecialPath.of("project_roots"), "write"), glob, depth=3))
    made = start.apply(PermissionUpdate(sandbox_policy=ReadOnly()), NOTHING)
    assert made.snapshot == ProfileSnapshot(managed((ROOT, "read"), glob, depth=3))
    made = start.apply(PermissionUpdate(sandbox_policy=DangerFullAccess()), NOTHING)
    assert made.snapshot.profile == DisabledProfile()
    made = start.apply(PermissionUpdate(permission_profile=DisabledProfile()), NOTHING)
    # Without a sandbox the network was free, and it stays so.
    restricted = file_system_of(managed((ROOT, "write"), glob, depth=3))
    assert made.snapshot == ProfileSnapshot(from_runtime(restricted, "enabled"))
    made = start.apply(PermissionUpdate(permission_profile=ExternalProfile("enabled")), NOTHING)
    assert made.snapshot.profile == ExternalProfile("enabled")


def test_symbolic_denials_are_frozen_to_the_old_roots() -> None:
    start = session(managed((ROOT, "read"), (SpecialPath.of("project_roots", "secret"), "none")))
    made = start.apply(PermissionUpdate(cwd="/w/b", sandbox_policy=ReadOnly()), NOTHING)
    assert made.snapshot.profile == managed((ROOT, "read"), ("/w/a/secret", "none"))


def test_ids_and_roots_come_with_a_profile_only() -> None:
    start = session()
    named = PermissionUpdate(
        permission_profile=managed((ROOT, "read")),
        active=ActivePermissionProfile("ro", "base"),
        profile_workspace_roots=("/x",),
    )
    made = start.apply(named, NOTHING)
    assert made.snapshot == ProfileSnapshot(managed((ROOT, "read")), ActivePermissionProfile("ro", "base"), ("/x",))
    assert start.apply(PermissionUpdate(active=DEV, profile_workspace_roots=("/x",)), NOTHING) == start
    # The materialised profile is the one that is in force, so it keeps its id.
    same = start.apply(PermissionUpdate(permission_profile=start.profile), NOTHING)
    assert same.snapshot.active == DEV
    other = start.apply(PermissionUpdate(permission_profile=managed((ROOT, "read"))), NOTHING)
    assert other.snapshot.active is None


def test_kinds_of_profiles() -> None:
    profile = managed((ROOT, "read"))
    assert ProfileSnapshot.of(profile, None, ("/x",)) == ProfileSnapshot(profile)
    assert ProfileSnapshot.of(profile).kind == "legacy"
    assert ProfileSnapshot.of(profile, ActivePermissionProfile(":workspace")).kind == "built-in"
    assert ProfileSnapshot.of(profile, ActivePermissionProfile(":other"), ("/x",)).kind == "named"


def test_the_policy_in_replies_and_the_one_in_records() -> None:
    # A symbolic workspace counts as writable in one of them, even if the cwd is none of the roots.
    made = session(workspace_write(NOTHING), roots=("/x",))
    assert isinstance(made.sandbox_policy(NOTHING), WorkspaceWrite)
    assert made.sandbox_policy(NOTHING) == WorkspaceWrite()
    assert made.turn(NOTHING).sandbox_policy == WorkspaceWrite(
        ("/x",), exclude_tmpdir_env_var=True, exclude_slash_tmp=True
    )


updates = st.builds(
    PermissionUpdate,
    cwd=st.none() | cwds,
    workspace_roots=st.none() | roots,
    sandbox_policy=st.none() | legacy_policies,
    permission_profile=st.none() | profiles,
    active=st.sampled_from([None, DEV]),
    profile_workspace_roots=st.none() | roots,
)
states = st.builds(
    SessionPermissions,
    cwds,
    roots,
    st.builds(ProfileSnapshot.of, profiles, st.sampled_from([None, DEV]), roots).map(ProfileState.new),
)
REQUIRED = PermissionRequirements(sandbox_classes=("read-only",), sandbox_source="test")


@given(states, updates, disks())
def test_an_update_changes_nothing_in_place(
    start: SessionPermissions, update: PermissionUpdate, disk: MemoryView
) -> None:
    before = attrs.asdict(start)
    made = start.apply(update, disk)
    assert attrs.asdict(start) == before
    assert made.apply(PermissionUpdate(), disk) is made
    assert made.profile == materialize_profile(made.snapshot.profile, made.workspace_roots)
    turn = made.turn(disk)
    try:
        assert turn.sandbox_policy == profile_to_legacy(made.profile, made.cwd, disk)
    except UnbridgeablePolicy:
        assert isinstance(turn.sandbox_policy, WorkspaceWrite)


@given(states, updates, disks())
def test_denials_are_lost_only_to_what_somebody_else_enforces(
    start: SessionPermissions, update: PermissionUpdate, disk: MemoryView
) -> None:
    made = start.apply(update, disk)
    denied = [entry for entry in start.file_system.entries if entry.access == "none"]
    if made.state is not start.state and made.file_system.kind == "restricted":
        assert set(denied) <= set(made.file_system.entries)
    elif update.permission_profile is not None and denied:
        assert made.file_system.kind == "external-sandbox" or not denied


@given(states, updates, disks())
def test_a_refused_update_is_refused_as_a_whole(
    start: SessionPermissions, update: PermissionUpdate, disk: MemoryView
) -> None:
    allowed = ProfileSnapshot.of(fallback(start.snapshot.profile))
    start = attrs.evolve(start, state=ProfileState.new(allowed, REQUIRED.check))
    try:
        made = start.apply(update, disk)
    except ConstraintError:
        assert start.snapshot == allowed
        return
    assert requirement_class(made.snapshot.profile) == "read-only"


def test_requirement_classes() -> None:
    assert requirement_class(DisabledProfile()) == "danger-full-access"
    assert requirement_class(ExternalProfile("enabled")) == "external-sandbox"
    assert requirement_class(ManagedProfile(UnrestrictedFileSystem(), "restricted")) == "danger-full-access"
    assert requirement_class(managed((ROOT, "write"))) == "danger-full-access"
    assert requirement_class(managed((ROOT, "write"), ("/d", "read"))) == "workspace-write"
    assert requirement_class(managed(("/x", "write"))) == "workspace-write"
    assert requirement_class(managed(("/x", "read"))) == "read-only"
    with pytest.raises(InvalidValue):
        ProfileState.new(ProfileSnapshot(DisabledProfile()), REQUIRED.check)
    assert PermissionRequirements().validator() is None
