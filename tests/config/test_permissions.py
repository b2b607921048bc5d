"""Which permissions a session starts with: syntaxes, built-in and own profiles, roots, and what may not be."""

from __future__ import annotations

from typing import Any

import pytest

from engine.config.layers import Layer, LayerName, LayerStack
from engine.config.permissions import (
    ConfiguredPermissions,
    PermissionOverrides,
    PermissionsError,
    ProfileSource,
    configure_permissions,
)
from engine.config.trust import Trust
from engine.permissions.constrained import InvalidValue
from engine.permissions.memory_view import MemoryView
from engine.permissions.profiles import network_of
from engine.permissions.requirements import PermissionRequirements
from engine.protocol.profiles import (
    DangerFullAccess,
    DisabledProfile,
    FileSystemEntry,
    GlobPath,
    LiteralPath,
    ReadOnly,
    SandboxPolicy,
    SpecialPath,
    WorkspaceWrite,
)

VIEW = MemoryView(directories=frozenset({"/p", "/tmp", "/home/u"}), home="/home/u")
MEMORIES = "/codex_home/memories"
DEV = {
    "filesystem": {":root": "read", ":workspace_roots": {".": "write", "secret": "none"}},
    "network": {"enabled": True},
    "workspace_roots": {"/x": True, "rel": True, "/off": False},
}
PROFILES = {"permissions": {"dev": DEV}}
TRUSTED = Trust("trusted", "/p")


def configure(
    profile: dict[str, Any] | None = None,
    *,
    overrides: PermissionOverrides | None = None,
    trust: Trust | None = None,
    requirements: PermissionRequirements | None = None,
    **layers: dict[str, Any],
) -> ConfiguredPermissions:
    names: list[LayerName] = ["system", "user", "project", "sessionFlags", "session"]
    stack = LayerStack([Layer(name, layers[name]) for name in names if name in layers])
    return configure_permissions(
        stack,
        profile or {},
        overrides or PermissionOverrides(),
        cwd="/p",
        trust=trust,
        source=ProfileSource(
            stack=stack,
            requirements=requirements or PermissionRequirements(),
            memory_root=MEMORIES,
            view=VIEW,
        ),
    )


def policy(profile: dict[str, Any] | None = None, **given: Any) -> SandboxPolicy:
    return configure(profile, **given).session().sandbox_policy(VIEW)


def active(configured: ConfiguredPermissions) -> str | None:
    found = configured.state.snapshot.active
    return None if found is None else found.id


def test_nothing_said_depends_on_trust() -> None:
    assert policy() == ReadOnly()
    assert active(configure()) == ":read-only"
    for level in ("trusted", "untrusted"):
        made = configure(trust=Trust(level, "/p"))
        assert made.session().sandbox_policy(VIEW) == WorkspaceWrite((MEMORIES,))
        assert active(made) == ":workspace"


def test_the_legacy_table_shapes_the_implicit_workspace() -> None:
    user = {"sandbox_workspace_write": {"writable_roots": ["/a"], "network_access": True, "exclude_slash_tmp": True}}
    made = configure(user=user, trust=TRUSTED)
    assert active(made) is None
    assert made.workspace_roots == ("/p", "/a")
    assert made.session().sandbox_policy(VIEW) == WorkspaceWrite(
        ("/a", MEMORIES), network_access=True, exclude_slash_tmp=True
    )


def test_modes() -> None:
    assert policy(user={"sandbox_mode": "read-only"}) == ReadOnly()
    assert policy(user={"sandbox_mode": "danger-full-access"}) == DangerFullAccess()
    assert policy(user={"sandbox_mode": "workspace-write"}) == WorkspaceWrite((MEMORIES,))
    settings = {
        "writable_roots": ["/a", "/b"],
        "network_access": True,
        "exclude_tmpdir_env_var": True,
        "exclude_slash_tmp": True,
    }
    wanted = WorkspaceWrite(
        ("/a", "/b", MEMORIES), network_access=True, exclude_tmpdir_env_var=True, exclude_slash_tmp=True
    )
    assert policy(user={"sandbox_workspace_write": settings}, session={"sandbox_mode": "workspace-write"}) == wanted
    assert policy(user={"sandbox_mode": "read-only", "sandbox_workspace_write": settings}) == ReadOnly()
    own = WorkspaceWrite(("/z",))
    assert policy(overrides=PermissionOverrides(sandbox=own)) == WorkspaceWrite(("/z", MEMORIES))


def test_the_order_of_decisions() -> None:
    both = {"sandbox_mode": "danger-full-access", "default_permissions": ":read-only"}
    workspace = {"default_permissions": ":workspace"}
    writing = WorkspaceWrite((MEMORIES,))
    assert policy(user=both) == ReadOnly()
    assert policy(user=workspace, project={"sandbox_mode": "read-only"}) == ReadOnly()
    assert policy(user={"sandbox_mode": "read-only"}, project=workspace) == writing
    profile = {"sandbox_mode": "danger-full-access"}
    assert policy(profile, user=workspace) == DangerFullAccess()
    assert policy(profile, sessionFlags=workspace) == writing
    assert policy(profile, session={"sandbox_mode": "read-only"}) == ReadOnly()
    assert policy(sessionFlags=workspace, overrides=PermissionOverrides(sandbox="read-only")) == ReadOnly()
    assert policy(user=both, overrides=PermissionOverrides(permissions=":workspace")) == writing


def test_an_explicit_workspace_profile_ignores_the_legacy_table() -> None:
    user = {
        "default_permissions": ":workspace",
        "sandbox_workspace_write": {"network_access": True, "writable_roots": ["/a"]},
    }
    made = configure(user=user)
    assert made.session().sandbox_policy(VIEW) == WorkspaceWrite((MEMORIES,))
    assert made.workspace_roots == ("/p",)


def test_a_profile_of_ones_own() -> None:
    made = configure(user={"default_permissions": "dev", "sandbox_mode": "danger-full-access", **PROFILES})
    snapshot = made.state.snapshot
    assert (active(made), snapshot.kind, snapshot.workspace_roots) == ("dev", "named", ("/x", "/p/rel"))
    session = made.session()
    assert session.network == network_of(session.profile) == "enabled"
    assert session.file_system.entries == (
        FileSystemEntry(SpecialPath.of("root"), "read"),
        FileSystemEntry(LiteralPath("/p"), "write"),
        FileSystemEntry(LiteralPath("/p/secret"), "none"),
        *(
            FileSystemEntry(LiteralPath(path), access)  # type: ignore[arg-type]
            for path, access in (
                ("/x", "write"),
                ("/p/rel", "write"),
                ("/x/secret", "none"),
                ("/p/rel/secret", "none"),
                (MEMORIES, "write"),
            )
        ),
    )
    assert made.warnings == ()


@pytest.mark.parametrize(
    ("table", "rule", "message"),
    [
        (
            {"default_permissions": ":yolo"},
            "unknown_builtin",
            "default_permissions refers to unknown built-in profile `:yolo`",
        ),
        (
            {"default_permissions": "dev"},
            "no_permissions_table",
            "default_permissions requires a `[permissions]` table",
        ),
        (
            {"default_permissions": "x", **PROFILES},
            "undefined_profile",
            "default_permissions refers to undefined profile `x`",
        ),
        (
            PROFILES,
            "missing_default",
            "config defines `[permissions]` profiles but does not set `default_permissions`",
        ),
        (
            {"permissions": {":dev": {}}},
            "reserved_prefix",
            "permissions profile `:dev` uses a reserved built-in profile prefix",
        ),
    ],
)
def test_wrong_profiles(table: dict[str, Any], rule: str, message: str) -> None:
    with pytest.raises(PermissionsError) as caught:
        configure(sessionFlags=table)
    assert caught.value.message == f"{message} (set by -c/--config override)"
    assert caught.value.rule == rule


def test_errors_in_a_profile_name_its_key() -> None:
    broken = {"default_permissions": "dev", "permissions": {"dev": {"filesystem": {"rel": "read"}}}}
    with pytest.raises(PermissionsError) as caught:
        configure(user=broken)
    assert caught.value.key == "permissions.dev.filesystem.rel"
    circle = {"default_permissions": "a", "permissions": {"a": {"extends": "b"}, "b": {"extends": "a"}}}
    with pytest.raises(PermissionsError) as caught:
        configure(user=circle)
    assert (caught.value.rule, caught.value.key) == ("cycle", "permissions.b.extends")


def test_legacy_syntax_leaves_profiles_alone() -> None:
    assert policy(user={"sandbox_mode": "read-only", **PROFILES}) == ReadOnly()


def test_two_overrides_that_exclude_each_other() -> None:
    with pytest.raises(PermissionsError) as caught:
        configure(overrides=PermissionOverrides(sandbox="read-only", permissions=":workspace"))
    assert str(caught.value) == "`sandbox_mode` and `default_permissions` overrides cannot both be set"


def test_workspace_roots() -> None:
    user = {"sandbox_workspace_write": {"writable_roots": ["/a", "/p", "/b"]}}
    added = PermissionOverrides(additional_writable_roots=("/x", "/a"))
    assert configure(user=user, overrides=added).workspace_roots == ("/p", "/x", "/a", "/b")
    assert configure(user={"default_permissions": ":workspace", **user}).workspace_roots == ("/p",)
    given = PermissionOverrides(workspace_roots=("/q", "/q", "/r"))
    assert configure(user=user, overrides=given).workspace_roots == ("/q", "/r")
    assert configure(overrides=PermissionOverrides(workspace_roots=())).workspace_roots == ()


def test_the_engines_own_folder_is_not_added_where_nothing_is_written() -> None:
    without_cwd = PermissionOverrides(sandbox="workspace-write", workspace_roots=("/q",))
    assert MEMORIES not in str(configure(overrides=without_cwd).state.snapshot.profile)
    assert MEMORIES not in str(configure(user={"default_permissions": ":read-only"}).state.snapshot.profile)


READING = PermissionRequirements(sandbox_classes=("read-only",), sandbox_source="/etc/r.toml")
DENYING = PermissionRequirements(deny_read=("/keys", "/**/*.key"), deny_read_source="/etc/r.toml")


def test_a_profile_that_is_not_allowed_is_replaced() -> None:
    made = configure(user={"default_permissions": "dev", **PROFILES}, requirements=READING)
    assert made.session().sandbox_policy(VIEW) == ReadOnly()
    assert made.state.snapshot.kind == "legacy"
    # What the refused profile denied stays denied.
    assert FileSystemEntry(LiteralPath("/p/secret"), "none") in made.session().file_system.entries
    assert made.warnings == (
        "Configured value for `permission_profile` is disallowed by requirements; falling back to required value "
        "ReadOnly. Details: invalid value for `sandbox_mode`: `WorkspaceWrite` is not in the allowed set [ReadOnly] "
        "(set by /etc/r.toml)",
    )
    silent = configure(trust=TRUSTED, requirements=READING)
    assert (silent.session().sandbox_policy(VIEW), silent.warnings) == (ReadOnly(), ())


def test_required_denials_join_every_profile() -> None:
    made = configure(user={"sandbox_mode": "danger-full-access"}, requirements=DENYING)
    assert made.state.snapshot.profile != DisabledProfile()
    assert made.session().file_system.entries == (
        FileSystemEntry(SpecialPath.of("root"), "read"),
        FileSystemEntry(LiteralPath("/keys"), "none"),
        FileSystemEntry(GlobPath("/**/*.key"), "none"),
    )


def test_a_later_profile_that_is_not_allowed_is_an_error() -> None:
    made = configure(user={"default_permissions": ":read-only", **PROFILES}, requirements=READING)
    with pytest.raises(InvalidValue):
        made.source.named("dev", cwd="/p", roots=("/p",))
    with pytest.raises(InvalidValue):
        made.state.set_legacy(DisabledProfile())
