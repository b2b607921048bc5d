"""Strict and lenient reading of permission data: canonical values, errors that say where, nothing lost in lines."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ProtocolError
from engine.protocol.codec import decode, encode
from engine.protocol.profile_decoding import (
    decode_additional,
    decode_file_system_policy,
    decode_profile,
    decode_sandbox_policy,
)
from engine.protocol.profiles import (
    AdditionalFileSystem,
    AdditionalNetwork,
    AdditionalPermissionProfile,
    FileSystemEntry,
    FileSystemSandboxPolicy,
    LiteralPath,
    ManagedProfile,
    PermissionProfile,
    RestrictedFileSystem,
    SandboxPolicy,
    SpecialPath,
    WorkspaceWrite,
)
from engine.protocol.rollout_items import TurnContext
from engine.protocol.wire import UnknownVariant
from tests.permissions.policies import legacy_policies, policies, profiles
from tests.protocol.wire_values import json_values


def entry(path: object, access: str = "read") -> dict[str, object]:
    return {"path": path, "access": access}


def special(**value: object) -> dict[str, object]:
    return {"type": "special", "value": value}


def managed(*entries: object, **more: object) -> dict[str, object]:
    return {
        "type": "managed",
        "file_system": {"type": "restricted", "entries": [*entries], **more},
        "network": "enabled",
    }


@given(profiles)
def test_canonical_profiles_are_read_as_they_are(profile: PermissionProfile) -> None:
    assert decode_profile(encode(profile)) == profile
    assert hash(decode_profile(encode(profile))) == hash(profile)


@given(policies)
def test_canonical_policies_are_read_as_they_are(policy: FileSystemSandboxPolicy) -> None:
    assert decode_file_system_policy(encode(policy)) == policy


@given(legacy_policies)
def test_legacy_policies_are_read_as_they_are(policy: SandboxPolicy) -> None:
    assert decode_sandbox_policy(encode(policy)) == policy


@given(json_values)
def test_no_json_raises_anything_but_protocol_errors(value: object) -> None:
    for read in (decode_profile, decode_file_system_policy, decode_sandbox_policy, decode_additional):
        try:
            typing.cast(Any, read)(value)
        except ProtocolError:
            pass


def test_spellings_of_others() -> None:
    here = special(kind="current_working_directory", subpath="a")
    made = decode_profile(managed(entry(here, "deny"), entry(special(kind="root", subpath="x"))))
    assert made == ManagedProfile(
        RestrictedFileSystem(
            (
                FileSystemEntry(SpecialPath.of("project_roots", "a"), "none"),
                FileSystemEntry(SpecialPath.of("root"), "read"),
            )
        ),
        "enabled",
    )
    assert encode(made)["file_system"]["entries"] == [
        {"path": special(kind="project_roots", subpath="a"), "access": "none"},
        {"path": special(kind="root"), "access": "read"},
    ]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([], ""),
        ({"type": "future"}, "type"),
        ({"type": "external"}, "network"),
        ({"type": "managed", "network": "enabled"}, "file_system"),
        ({"type": "managed", "file_system": {"type": "restricted"}, "network": "enabled"}, "file_system.entries"),
        (managed(entry({"type": "path", "path": "rel"})), "file_system.entries[0].path.path"),
        (managed(entry({"type": "path", "path": "~/x"})), "file_system.entries[0].path.path"),
        (managed(entry({"type": "file", "path": "/x"})), "file_system.entries[0].path.type"),
        (managed(entry(special(kind="home"))), "file_system.entries[0].path.value.kind"),
        (managed(entry(special(kind="unknown"))), "file_system.entries[0].path.value.path"),
        (managed(entry(special(kind="root"), "append")), "file_system.entries[0].access"),
        (managed(glob_scan_max_depth=0), "file_system.glob_scan_max_depth"),
        (managed(glob_scan_max_depth=True), "file_system.glob_scan_max_depth"),
        ({"network": {"enabled": "yes"}}, "network.enabled"),
        ({"other": 1}, "other"),
        ({"file_system": {"read": [], "entries": []}}, "file_system.read"),
        ({"file_system": {"write": ["x"]}}, "file_system.write[0]"),
        ({"file_system": {"read": "/x"}}, "file_system.read"),
    ],
)
def test_errors_say_where(value: object, path: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_profile(value)
    assert caught.value.path == path


def test_the_old_shape() -> None:
    made = decode_profile({"network": {"enabled": True}, "file_system": {"write": ["/w/"], "read": ["//r"]}})
    assert made == ManagedProfile(
        RestrictedFileSystem((FileSystemEntry(LiteralPath("/r"), "read"), FileSystemEntry(LiteralPath("/w"), "write"))),
        "enabled",
    )


def test_other_shapes() -> None:
    policy = decode_file_system_policy({"kind": "restricted", "glob_scan_max_depth": 0})
    assert policy == FileSystemSandboxPolicy("restricted", 0)
    assert decode_sandbox_policy({"type": "workspace-write", "writable_roots": ["/a/../b"]}) == WorkspaceWrite(("/b",))
    for broken in ({"type": "workspace-write", "writable_roots": ["b"]}, {"type": "read-only", "network_access": "x"}):
        with pytest.raises(ProtocolError):
            decode_sandbox_policy(broken)
    assert decode_additional({"network": {"enabled": None}, "file_system": {"read": ["/x"], "write": None}}) == (
        AdditionalPermissionProfile(
            AdditionalNetwork(None), AdditionalFileSystem((FileSystemEntry(LiteralPath("/x"), "read"),))
        )
    )


LINE = {
    "cwd": "/",
    "approval_policy": "never",
    "sandbox_policy": {"type": "read-only"},
    "model": "m",
    "summary": "auto",
}


@pytest.mark.parametrize(
    "profile",
    [
        {"type": "of_the_future", "network": "enabled"},
        managed(entry(special(kind="home"))),
        managed(entry({"type": "path", "path": "/x"}, "append")),
        {"type": "managed", "file_system": {"type": "layered"}, "network": "enabled"},
        {"type": "external", "network": "vpn"},
        {"neither": "shape"},
    ],
)
def test_a_profile_with_an_unknown_part_is_kept_as_a_whole(profile: dict[str, object]) -> None:
    read = decode(TurnContext, {**LINE, "permission_profile": profile})
    assert read.permission_profile == UnknownVariant(profile)
    assert encode(read)["permission_profile"] == profile


def test_unknown_policies_are_kept() -> None:
    policy: dict[str, object] = {"kind": "layered", "entries": [{"x": 1}]}
    legacy: dict[str, object] = {"type": "external-sandbox", "network_access": "vpn"}
    read = decode(TurnContext, {**LINE, "file_system_sandbox_policy": policy, "sandbox_policy": legacy})
    assert read.file_system_sandbox_policy == UnknownVariant(policy)
    assert read.sandbox_policy == UnknownVariant(legacy)
    assert encode(read)["file_system_sandbox_policy"] == policy


def test_later_and_older_spellings_in_lines() -> None:
    here = special(kind="current_working_directory")
    read = decode(TurnContext, {**LINE, "permission_profile": managed(entry(here, "deny"))})
    assert read.permission_profile == decode_profile(managed(entry(here, "deny")))
    read = decode(TurnContext, {**LINE, "permission_profile": {"network": {"enabled": True}}})
    assert read.permission_profile == ManagedProfile(RestrictedFileSystem(), "enabled")


@given(profiles, st.dictionaries(st.sampled_from(["x_later", "x_other"]), json_values, min_size=1))
def test_unknown_fields_count_for_nothing(profile: PermissionProfile, extra: dict[str, object]) -> None:
    read = decode(TurnContext, {**LINE, "permission_profile": {**encode(profile), **extra}})
    assert read.permission_profile == profile
    assert encode(read)["permission_profile"] == {**encode(profile), **extra}
