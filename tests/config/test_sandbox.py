"""Which sandbox policy a session starts with."""

from __future__ import annotations

from typing import Any

import pytest

from engine.config.layers import Layer, LayerName, LayerStack
from engine.config.sandbox import SandboxChoice, choose_sandbox, workspace_roots
from engine.errors import ConfigError
from engine.protocol.profiles import DangerFullAccess, ReadOnly, SandboxPolicy, WorkspaceWrite

PROFILES = {"permissions": {"dev": {"filesystem": {":minimal": "read"}}}}


def stack(**layers: dict[str, Any]) -> LayerStack:
    names: list[LayerName] = ["system", "user", "project", "sessionFlags", "session"]
    return LayerStack([Layer(name, layers[name]) for name in names if name in layers])


def choice(profile: dict[str, Any] | None = None, **layers: dict[str, Any]) -> SandboxChoice:
    return choose_sandbox(stack(**layers), profile or {})


def policy(profile: dict[str, Any] | None = None, **layers: dict[str, Any]) -> SandboxPolicy:
    return choice(profile, **layers).policy


def test_nothing_said_is_read_only() -> None:
    assert choice() == SandboxChoice(ReadOnly(), legacy=False)


def test_modes() -> None:
    assert policy(user={"sandbox_mode": "read-only"}) == ReadOnly()
    assert policy(user={"sandbox_mode": "danger-full-access"}) == DangerFullAccess()
    assert policy(user={"sandbox_mode": "workspace-write"}) == WorkspaceWrite()
    settings = {
        "writable_roots": ["/a", "/b"],
        "network_access": True,
        "exclude_tmpdir_env_var": True,
        "exclude_slash_tmp": True,
    }
    wanted = WorkspaceWrite(("/a", "/b"), network_access=True, exclude_tmpdir_env_var=True, exclude_slash_tmp=True)
    assert policy(user={"sandbox_workspace_write": settings}, session={"sandbox_mode": "workspace-write"}) == wanted
    assert policy(user={"sandbox_mode": "read-only", "sandbox_workspace_write": settings}) == ReadOnly()


def test_the_order_of_decisions() -> None:
    both = {"sandbox_mode": "danger-full-access", "default_permissions": ":read-only"}
    assert policy(user=both) == ReadOnly()
    assert policy(user={"default_permissions": ":workspace"}, project={"sandbox_mode": "read-only"}) == ReadOnly()
    assert policy(user={"sandbox_mode": "read-only"}, project={"default_permissions": ":workspace"}) == WorkspaceWrite()
    profile = {"sandbox_mode": "danger-full-access"}
    assert policy(profile, user={"default_permissions": ":workspace"}) == DangerFullAccess()
    assert policy(profile, sessionFlags={"default_permissions": ":workspace"}) == WorkspaceWrite()
    assert (
        policy(sessionFlags={"default_permissions": ":workspace"}, session={"sandbox_mode": "read-only"}) == ReadOnly()
    )


def test_an_explicit_workspace_profile_ignores_the_legacy_table() -> None:
    user = {"default_permissions": ":workspace", "sandbox_workspace_write": {"network_access": True}}
    assert policy(user=user) == WorkspaceWrite()


def test_a_profile_of_ones_own_reads_only_and_says_so() -> None:
    made = choice(user={"default_permissions": "dev", "sandbox_mode": "danger-full-access", **PROFILES})
    assert made.policy == ReadOnly()
    assert made.warning is not None
    assert "`default_permissions` names the profile `dev`" in made.warning
    assert "not supported yet by this engine" in made.warning


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"default_permissions": ":yolo"}, "default_permissions refers to unknown built-in profile `:yolo`"),
        ({"default_permissions": "dev"}, "default_permissions requires a `[permissions]` table"),
        ({"default_permissions": "x", **PROFILES}, "default_permissions refers to undefined profile `x`"),
        (PROFILES, "config defines `[permissions]` profiles but does not set `default_permissions`"),
        ({"permissions": {":dev": {}}}, "permissions profile `:dev` uses a reserved built-in profile prefix"),
    ],
)
def test_wrong_profiles(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choice(sessionFlags=table)
    assert caught.value.message == f"{message} (set by -c/--config override)"


def test_legacy_syntax_leaves_profiles_alone() -> None:
    assert policy(user={"sandbox_mode": "read-only", **PROFILES}) == ReadOnly()


def test_two_overrides_that_exclude_each_other() -> None:
    with pytest.raises(ConfigError) as caught:
        choice(session={"sandbox_mode": "read-only", "default_permissions": ":workspace"})
    assert str(caught.value) == "`sandbox_mode` and `default_permissions` overrides cannot both be set"


def test_workspace_roots() -> None:
    user = {"sandbox_workspace_write": {"writable_roots": ["/a", "/p", "/b"]}}
    assert workspace_roots(stack(user=user), "/p", ["/x", "/a"]) == ("/p", "/x", "/a", "/b")
    assert workspace_roots(stack(user={"default_permissions": ":workspace", **user}), "/p", []) == ("/p",)
    assert workspace_roots(stack(), "/p", []) == ("/p",)
