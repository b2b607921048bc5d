"""Legacy policies as profiles: equal to what the other program recorded, and the rules by themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.permissions.compatibility import Projection
from engine.permissions.legacy import from_legacy, from_legacy_for_cwd, has_network
from engine.permissions.memory_view import MemoryView
from engine.permissions.profiles import (
    enforcement_of,
    file_system_of,
    from_runtime,
    materialize_policy,
    network_of,
    profile_from_legacy,
    profile_from_legacy_for_cwd,
    with_legacy_writable,
)
from engine.permissions.protected import read_only_subpaths
from engine.permissions.state import ProfileSnapshot, ProfileState, SessionPermissions
from engine.permissions.view import View
from engine.protocol.codec import decode, encode, json_bytes
from engine.protocol.profiles import (
    DangerFullAccess,
    DisabledProfile,
    ExternalProfile,
    ExternalSandbox,
    FileSystemSandboxPolicy,
    ManagedProfile,
    ReadOnly,
    SandboxPolicy,
    WorkspaceWrite,
)

RECORDED = Path(__file__).parents[1] / "vectors" / "rollout" / "recorded"
NOTHING = MemoryView()
MEMORIES = "/codex_home/memories"


def recorded_turns() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(RECORDED.glob("*.jsonl")):
        for number, line in enumerate(file.read_text().splitlines()):
            row = json.loads(line)
            if row["type"] == "turn_context":
                yield f"{file.stem}-{number}", row["payload"]


def sandbox_projection(
    policy: SandboxPolicy,
    *,
    cwd: str,
    view: View,
    workspace_roots: Sequence[str] = (),
    memory_root: str | None = None,
    updated: bool = False,
) -> Projection:
    """What a session in `cwd` records that was started with the policy, or got it later (`updated`)."""
    if updated:
        profile = profile_from_legacy_for_cwd(policy, cwd, view)
    else:
        profile = profile_from_legacy(policy, view)
        if memory_root is not None and isinstance(policy, WorkspaceWrite):
            added = with_legacy_writable(file_system_of(profile), (memory_root,), view)
            profile = from_runtime(added, network_of(profile), enforcement_of(profile))
    roots = dict.fromkeys((cwd, *workspace_roots))
    return SessionPermissions(cwd, tuple(roots), ProfileState.new(ProfileSnapshot.of(profile))).turn(view)


def written(projection: Projection) -> object:
    made = {
        "sandbox_policy": encode(projection.sandbox_policy),
        "permission_profile": encode(projection.profile),
    }
    if projection.differing_file_system is not None:
        made["file_system_sandbox_policy"] = encode(projection.differing_file_system)
    return json.loads(json_bytes(made))


@pytest.mark.parametrize("turn", [pytest.param(turn, id=name) for name, turn in recorded_turns()])
def test_recorded_turns_come_out_equal(turn: dict[str, Any]) -> None:
    given = turn["sandbox_policy"]
    policy: SandboxPolicy
    updated = False
    match given["type"]:
        case "danger-full-access":
            policy = DangerFullAccess()
        case "read-only":
            policy = ReadOnly(network_access=given.get("network_access", False))
        case _:
            # The program's own folder is the mark of a policy that came from the configuration.
            updated = given["writable_roots"] != [MEMORIES]
            policy = WorkspaceWrite(
                writable_roots=tuple(root for root in given["writable_roots"] if root != MEMORIES),
                network_access=given["network_access"],
                exclude_tmpdir_env_var=given["exclude_tmpdir_env_var"],
                exclude_slash_tmp=given["exclude_slash_tmp"],
            )
    made = sandbox_projection(policy, cwd=turn["cwd"], memory_root=MEMORIES, updated=updated, view=NOTHING)
    keys = ("sandbox_policy", "permission_profile", "file_system_sandbox_policy")
    assert written(made) == {key: turn[key] for key in keys if key in turn}


def entries(policy: FileSystemSandboxPolicy) -> list[str]:
    made = []
    for entry in policy.entries:
        path = encode(entry.path)
        value = path.get("value") or {}
        what = path.get("path") or value["kind"] + ("/" + value["subpath"] if "subpath" in value else "")
        made.append(f"{what} {entry.access}")
    return made


SYMBOLIC = [
    "root read",
    "project_roots write",
    "slash_tmp write",
    "tmpdir write",
    "project_roots/.git read",
    "project_roots/.agents read",
    "project_roots/.codex read",
]


def test_legacy_policies_in_symbols() -> None:
    assert from_legacy(DangerFullAccess(), NOTHING).kind == "unrestricted"
    assert from_legacy(ExternalSandbox(), NOTHING).kind == "external-sandbox"
    assert entries(from_legacy(ReadOnly(), NOTHING)) == ["root read"]
    assert entries(from_legacy(WorkspaceWrite(), NOTHING)) == SYMBOLIC
    bare = WorkspaceWrite(exclude_tmpdir_env_var=True, exclude_slash_tmp=True)
    assert entries(from_legacy(bare, NOTHING)) == [row for row in SYMBOLIC if "tmp" not in row]


REPO = MemoryView({"/repo/.git/config": "", "/repo/.codex/config.toml": ""}, frozenset({"/repo/.agents", "/p"}))


def test_protected_folders_of_writable_roots_are_added_once() -> None:
    policy = WorkspaceWrite(writable_roots=("/repo", "/repo", "/repo/.git", "/other"))
    assert entries(from_legacy(policy, REPO)) == [
        *SYMBOLIC[:4],
        "/repo write",
        "/repo write",
        "/repo/.git write",
        "/other write",
        *SYMBOLIC[4:],
        "/repo/.agents read",
        "/repo/.codex read",
    ]


def test_the_cwd_has_its_folders_as_paths_too() -> None:
    assert entries(from_legacy_for_cwd(WorkspaceWrite(), "/repo", REPO)) == [
        *SYMBOLIC,
        "/repo/.git read",
        "/repo/.agents read",
        "/repo/.codex read",
    ]
    assert entries(from_legacy_for_cwd(WorkspaceWrite(), "/p", REPO)) == [*SYMBOLIC, "/p/.codex read"]
    assert from_legacy_for_cwd(ReadOnly(), "/repo", REPO) == from_legacy(ReadOnly(), REPO)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"/w/.git": "gitdir: /main/.git/wt\n", "/main/.git/wt/HEAD": ""}, ("/main/.git/wt", "/w/.git")),
        ({"/w/.git": " gitdir :../main/./.git\n", "/main/.git/HEAD": ""}, ("/main/.git", "/w/.git")),
        ({"/w/.git": "gitdir: /gone"}, ("/w/.git",)),
        ({"/w/.git": "gitdir:"}, ("/w/.git",)),
        ({"/w/.git": "other: /main", "/main/x": ""}, ("/w/.git",)),
        ({"/w/.git/HEAD": "", "/w/.codex/x": "", "/w/.agents": "a file"}, ("/w/.git", "/w/.codex")),
        ({}, ()),
    ],
)
def test_what_stays_read_only_below_a_root(files: dict[str, str], found: tuple[str, ...]) -> None:
    view = MemoryView(files)
    assert read_only_subpaths("/w", view) == found
    with_codex = read_only_subpaths("/w", view, protect_missing_dot_codex=True)
    assert with_codex == (*(path for path in found if path != "/w/.codex"), "/w/.codex")


def test_materialising_over_several_roots_and_none() -> None:
    policy = from_legacy(WorkspaceWrite(), NOTHING)
    assert entries(materialize_policy(policy, ["/a", "/b"])) == [
        "root read",
        "/a write",
        "/b write",
        "slash_tmp write",
        "tmpdir write",
        *(f"{root}/{name} read" for name in (".git", ".agents", ".codex") for root in ("/a", "/b")),
    ]
    assert entries(materialize_policy(policy, [])) == ["root read", "slash_tmp write", "tmpdir write"]


def test_profiles_and_network() -> None:
    assert sandbox_projection(DangerFullAccess(), cwd="/p", view=NOTHING).profile == DisabledProfile()
    external = sandbox_projection(ExternalSandbox("enabled"), cwd="/p", view=NOTHING)
    assert external.profile == ExternalProfile("enabled")
    assert external.sandbox_policy == ExternalSandbox("enabled")
    assert external.differing_file_system is None
    open_profile = from_runtime(FileSystemSandboxPolicy("unrestricted"), "restricted")
    assert encode(open_profile) == {
        "type": "managed",
        "file_system": {"type": "unrestricted"},
        "network": "restricted",
    }
    assert [has_network(policy) for policy in (DangerFullAccess(), ReadOnly(), ReadOnly(network_access=True))] == [
        True,
        False,
        True,
    ]
    assert not has_network(ExternalSandbox())


def test_further_workspace_roots_become_writable_roots() -> None:
    made = sandbox_projection(
        WorkspaceWrite(), cwd="/p", workspace_roots=("/x", "/p", "/y"), memory_root=MEMORIES, view=NOTHING
    )
    assert made.sandbox_policy == WorkspaceWrite(writable_roots=("/x", "/y", MEMORIES))
    without = sandbox_projection(WorkspaceWrite(), cwd="/p", workspace_roots=("/x",), view=NOTHING)
    assert without.sandbox_policy == WorkspaceWrite(writable_roots=("/x",))


paths = st.sampled_from(["/p", "/repo", "/repo/.git", "/tmp", "/", "/p/sub"])
policies = st.builds(
    WorkspaceWrite,
    writable_roots=st.lists(paths, max_size=3).map(tuple),
    network_access=st.booleans(),
    exclude_tmpdir_env_var=st.booleans(),
    exclude_slash_tmp=st.booleans(),
)


@given(policies, paths, st.lists(paths, max_size=2), st.sampled_from([None, MEMORIES]), st.booleans())
def test_a_projection_survives_the_wire_and_keeps_what_the_policy_says(
    policy: WorkspaceWrite, cwd: str, roots: list[str], memories: str | None, updated: bool
) -> None:
    made = sandbox_projection(policy, cwd=cwd, workspace_roots=roots, memory_root=memories, updated=updated, view=REPO)
    assert decode(ManagedProfile, encode(made.profile)) == made.profile
    legacy = made.sandbox_policy
    assert isinstance(legacy, WorkspaceWrite)
    assert legacy.network_access == policy.network_access
    assert legacy.exclude_slash_tmp == policy.exclude_slash_tmp
    assert legacy.exclude_tmpdir_env_var == policy.exclude_tmpdir_env_var
    assert set(policy.writable_roots) - {cwd} <= set(legacy.writable_roots)
    assert cwd not in legacy.writable_roots
    symbols = {"project_roots", "project_roots/.git", "project_roots/.agents", "project_roots/.codex"}
    assert not symbols & {row.split()[0] for row in entries(made.file_system)}
    if made.differing_file_system is None:
        assert made.file_system == from_legacy_for_cwd(legacy, cwd, REPO)
