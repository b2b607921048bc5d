"""Settings of a session: made from a configuration, changed as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.config.loading import load_config
from engine.errors import InvalidRequest
from engine.permissions.constrained import ConstraintError
from engine.permissions.view import DiskView
from engine.protocol.profiles import DangerFullAccess, DisabledProfile, ExternalSandbox, ReadOnly, WorkspaceWrite
from engine.session.configuration import SessionConfiguration, permission_overrides
from engine.session.settings import SessionSettings, SettingsUpdate

Make = Callable[..., SessionConfiguration]

DEV = """
[permissions.dev.filesystem]
":root" = "read"
":workspace_roots" = {"." = "write", "secret" = "none"}
[permissions.dev.workspace_roots]
"shared" = true
[permissions.broken.filesystem]
"rel" = "read"
"""


@pytest.fixture(name="make")
def _make(tmp_path: Path) -> Make:
    """A configuration of a session in `<tmp>/work`; keywords are settings."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()

    def make(text: str = "", requirements: str = "", **settings: object) -> SessionConfiguration:
        (tmp_path / "home" / "config.toml").write_text(text)
        (tmp_path / "requirements.toml").write_text(requirements)
        given = SessionSettings(**settings)  # type: ignore[arg-type]
        cwd = str(tmp_path / "work")
        env = {"HOME": str(tmp_path), "TMPDIR": ""}
        config = load_config(
            tmp_path / "home",
            cwd=cwd,
            env=env,
            system_folder=tmp_path,
            permissions=permission_overrides(given, cwd, DiskView(env)),
        )
        return SessionConfiguration.make(config, given, cwd)

    return make


def test_settings_come_before_the_configuration(make: Make, tmp_path: Path) -> None:
    made = make("sandbox_mode = 'read-only'\nmodel = 'm'", sandbox="workspace-write", model="other")
    memories = f"{tmp_path}/home/memories"
    assert made.model == "other"
    assert made.sandbox_policy == WorkspaceWrite((memories,))
    assert made.permissions.workspace_roots == (made.cwd,)
    assert make("sandbox_mode = 'read-only'", sandbox=ExternalSandbox("enabled")).sandbox_policy == (
        ExternalSandbox("enabled")
    )
    named = make(f"sandbox_mode = 'danger-full-access'\n{DEV}", permissions="dev", workspace_roots=["..", tmp_path])
    assert named.permissions.workspace_roots == (str(tmp_path),)
    active = named.permissions.snapshot.active
    assert active is not None
    assert active.id == "dev"
    assert named.permissions.snapshot.workspace_roots == (f"{tmp_path}/work/shared",)


def test_an_update_that_says_nothing_changes_nothing(make: Make) -> None:
    made = make("sandbox_mode = 'workspace-write'")
    assert made.apply(SettingsUpdate()) == made
    assert made.apply(SettingsUpdate(model="other")).permissions is made.permissions


def test_a_new_cwd_moves_the_workspace(make: Make, tmp_path: Path) -> None:
    made = make("sandbox_mode = 'workspace-write'").apply(SettingsUpdate(), cwd=f"{tmp_path}/other")
    assert (made.cwd, made.permissions.workspace_roots) == (f"{tmp_path}/other", (f"{tmp_path}/other",))
    assert made.sandbox_policy == WorkspaceWrite((f"{tmp_path}/home/memories",))


def test_a_later_profile(make: Make, tmp_path: Path) -> None:
    made = make(f"default_permissions = ':read-only'\n{DEV}")
    later = made.apply(SettingsUpdate(permissions="dev", workspace_roots=["x"]), cwd=f"{tmp_path}/other")
    snapshot = later.snapshot()
    assert snapshot.workspace_roots == (f"{tmp_path}/other/x",)
    assert snapshot.active_permission_profile is not None
    assert snapshot.active_permission_profile.id == "dev"
    assert snapshot.permission_profile == later.permissions.profile
    assert isinstance(snapshot.sandbox_policy, WorkspaceWrite)
    # What it denied stays denied when a mode follows.
    reading = later.apply(SettingsUpdate(sandbox="read-only"))
    assert reading.sandbox_policy == ReadOnly()
    assert [entry.access for entry in reading.permissions.file_system.entries] == ["read", "none", "none"]
    assert reading.permissions.snapshot.active is None


def test_a_mode_means_what_the_configuration_says(make: Make, tmp_path: Path) -> None:
    made = make("sandbox_mode = 'read-only'\nsandbox_workspace_write = {network_access = true}")
    later = made.apply(SettingsUpdate(sandbox="workspace-write"))
    assert later.sandbox_policy == WorkspaceWrite(network_access=True)
    assert later.apply(SettingsUpdate(sandbox=DangerFullAccess())).permissions.profile == DisabledProfile()


def test_simple_settings(make: Make) -> None:
    made = make("service_tier = 'flex'")
    later = made.apply(
        SettingsUpdate(
            service_tier="fast", personality="friendly", reasoning_effort=None, approvals_reviewer="auto_review"
        )
    )
    assert (later.service_tier, later.personality, later.approvals_reviewer) == (
        "priority",
        "friendly",
        "guardian_subagent",
    )
    assert later.apply(SettingsUpdate(service_tier=None)).service_tier is None
    assert made.service_tier == "flex"


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (SettingsUpdate(model="x", sandbox="everything"), "unknown sandbox mode 'everything'"),  # type: ignore[arg-type]
        (SettingsUpdate(model="x", approval_policy="sometimes"), "unknown approval policy 'sometimes'"),
        (SettingsUpdate(model="x", approvals_reviewer="nobody"), "unknown approvals reviewer 'nobody'"),
        (SettingsUpdate(sandbox="read-only", permissions="dev"), "`permissions` cannot be combined with `sandbox`"),
        (SettingsUpdate(permissions="missing"), "default_permissions refers to undefined profile `missing`"),
        (SettingsUpdate(permissions="broken"), "failed to load configuration: .*config.toml:8.*`rel` must be absolute"),
    ],
)
def test_what_makes_no_sense(make: Make, update: SettingsUpdate, message: str) -> None:
    made = make(f"default_permissions = ':read-only'{DEV}")
    with pytest.raises(InvalidRequest, match=message):
        made.apply(update)
    assert made.model is None


def test_starts_that_make_no_sense(make: Make) -> None:
    with pytest.raises(InvalidRequest, match="`permissions` cannot be combined with `sandbox`"):
        make(sandbox="read-only", permissions=":workspace")
    with pytest.raises(InvalidRequest, match="unknown sandbox mode"):
        make(sandbox="everything")


RULES = (
    'allowed_sandbox_modes = ["read-only", "workspace-write"]\nallowed_approval_policies = ["on-request", "never"]\n'
)


def test_a_start_falls_back_to_what_is_allowed_and_says_so(make: Make) -> None:
    made = make("", RULES, sandbox="danger-full-access", approval_policy="untrusted")
    assert (made.sandbox_policy, made.approval_policy) == (ReadOnly(), "on-request")
    assert ["`approval_policy`" in text for text in made.warnings] == [True]
    assert ["`permission_profile`" in text for text in made.config.warnings] == [True]


@pytest.mark.parametrize(
    "update",
    [
        SettingsUpdate(model="x", sandbox="danger-full-access"),
        SettingsUpdate(model="x", permissions=":danger-full-access"),
        SettingsUpdate(sandbox="workspace-write", approval_policy="untrusted"),
    ],
)
def test_an_update_that_is_not_allowed_is_refused_as_a_whole(make: Make, update: SettingsUpdate) -> None:
    made = make("", RULES)
    with pytest.raises(ConstraintError):
        made.apply(update)
    assert (made.sandbox_policy, made.approval_policy, made.model) == (ReadOnly(), "on-request", None)
    assert isinstance(made.apply(SettingsUpdate(sandbox="workspace-write")).sandbox_policy, WorkspaceWrite)
