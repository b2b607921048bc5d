"""What the model is told about its permissions: what holds, in words that name every place, and when to ask."""

from __future__ import annotations

import pytest

from engine.exec_policy.rules import PrefixRule
from engine.permissions.memory_view import MemoryView
from engine.permissions.profiles import materialize_profile, read_only, workspace_write
from engine.protocol.profiles import (
    DisabledProfile,
    ExternalProfile,
    FileSystemEntry,
    GlobPath,
    LiteralPath,
    ManagedProfile,
    PermissionProfile,
    RestrictedFileSystem,
)
from engine.protocol.settings import ApprovalPolicy, GranularApproval
from engine.session import permission_text as module
from engine.session.permission_text import permission_text

VIEW = MemoryView()
WORKSPACE = materialize_profile(
    workspace_write(exclude_tmpdir_env_var=True, exclude_slash_tmp=True, view=VIEW), ["/work", "/extra"]
)


def text(
    profile: PermissionProfile = WORKSPACE,
    policy: ApprovalPolicy = "on-request",
    allowed: tuple[PrefixRule, ...] = (),
    **features: bool,
) -> str:
    told = permission_text(profile, policy, cwd="/work", view=VIEW, features=features, allowed=allowed)
    assert told.startswith("<permissions instructions>\n")
    assert told.endswith("\n</permissions instructions>")
    return told


def test_a_workspace_names_its_places() -> None:
    told = text()
    assert (
        "Sandbox mode: `workspace-write`. Every file can be read. Can be changed, with all below: `/extra`, `/work`;"
        in told
    )
    assert "Network access is restricted." in told


def test_what_is_denied_is_said() -> None:
    entries = (
        FileSystemEntry(LiteralPath("/work"), "write"),
        FileSystemEntry(LiteralPath("/usr"), "read"),
        FileSystemEntry(LiteralPath("/work/secret"), "none"),
        FileSystemEntry(GlobPath("/work/**/*.key"), "none"),
    )
    told = text(ManagedProfile(RestrictedFileSystem(entries), "enabled"))
    assert "Can be read: `/usr`." in told
    assert "Neither read nor changed can be: `/work/**/*.key`, `/work/secret`." in told
    assert "Network access is enabled." in told


@pytest.mark.parametrize(
    ("profile", "mode", "says"),
    [
        (read_only(), "read-only", "nothing can be changed"),
        (DisabledProfile(), "danger-full-access", "Every file the user may change can be changed"),
        (ExternalProfile("restricted"), "danger-full-access", "Somebody else isolates this machine"),
    ],
)
def test_the_other_modes(profile: PermissionProfile, mode: str, says: str) -> None:
    told = text(profile)
    assert f"Sandbox mode: `{mode}`." in told
    assert says in told


def test_a_long_list_of_places_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PLACES", 1)
    assert "`/extra` and 1 more;" in text()


@pytest.mark.parametrize(
    ("policy", "asks"),
    [
        ("on-request", True),
        ("never", False),
        ("untrusted", False),
        ("on-failure", False),
        (GranularApproval(True, False, False), False),
    ],
)
def test_only_on_request_takes_the_parameters(policy: ApprovalPolicy, asks: bool) -> None:
    told = text(policy=policy)
    assert ("`require_escalated`" in told) is asks
    assert ("Calls that set `sandbox_permissions` are refused." in told) is not asks


def test_without_a_sandbox_nothing_has_to_be_escalated() -> None:
    assert "no call needs `sandbox_permissions`" in text(DisabledProfile())


def test_ways_to_ask_are_told_where_they_are_there() -> None:
    told = text()
    assert ("with_additional_permissions" in told, "request_permissions" in told) == (False, False)
    told = text(exec_permission_approvals=True, request_permissions_tool=True)
    assert ("with_additional_permissions" in told, "`request_permissions`" in told) == (True, True)


def test_granular_says_which_questions_reach_the_user() -> None:
    asked, refused = text(policy=GranularApproval(True, False, False)).split("Refused without a question:")
    assert ("the sandbox stops" in asked, "a rule wants" in asked) == (True, False)
    assert "a rule wants" in refused
    everything = GranularApproval(True, True, True, skill_approval=True, request_permissions=True)
    assert "Refused without a question" not in text(policy=everything)
    nothing = GranularApproval(False, False, False)
    assert "The user is asked about" not in text(policy=nothing)


def test_allowed_prefixes_are_told_short_ones_first_and_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = (
        PrefixRule("git", (("pull", "fetch"), ("--all",)), "allow"),
        PrefixRule("make", (), "allow"),
        PrefixRule("make", (), "allow"),
    )
    assert text(allowed=rules).splitlines()[-3:-1] == ['- ["make"]', '- ["git", ["pull", "fetch"], "--all"]']
    assert '["make"]' not in text(policy="never", allowed=rules)
    monkeypatch.setattr(module, "MOST_PREFIX_CHARS", 15)
    assert text(allowed=rules).splitlines()[-3:-1] == ['- ["make"]', "- and 1 more"]
