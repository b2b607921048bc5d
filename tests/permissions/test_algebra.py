"""What holds for every policy: denials survive, projections are stable, questions agree with the plain rules."""

from __future__ import annotations

import attrs
from hypothesis import given

from engine.permissions.access import compile_policy, resolve_entries
from engine.permissions.canonical import absolute, canonicalize_preserving, effective
from engine.permissions.compatibility import project
from engine.permissions.legacy import UnbridgeablePolicy, from_legacy, from_legacy_preserving_deny, to_legacy
from engine.permissions.memory_view import MemoryView
from engine.permissions.profiles import (
    enforcement_of,
    file_system_of,
    from_runtime,
    materialize_policy,
    materialize_profile,
    network_of,
    preserve_deny,
    profile_from_legacy,
    profile_to_legacy,
    with_legacy_writable,
    with_readable,
    with_roots_added,
    with_writable,
)
from engine.permissions.read_denial import read_deny_matcher
from engine.permissions.roots import Roots, is_semantically_equivalent, needs_direct_enforcement
from engine.permissions.whole_disk import has_denied_read, has_full_disk_read, has_full_disk_write
from engine.protocol.paths import components, is_under
from engine.protocol.profiles import (
    PROTECTED_NAMES,
    Access,
    FileSystemEntry,
    FileSystemSandboxPolicy,
    PermissionProfile,
    SandboxPolicy,
    SpecialPath,
    WorkspaceWrite,
)
from tests.permissions.policies import cwds, disks, legacy_policies, policies, profiles, roots, texts

RANK: dict[Access, int] = {"read": 0, "write": 1, "none": 2}


def denials(policy: FileSystemSandboxPolicy) -> set[FileSystemEntry]:
    return {entry for entry in policy.entries if entry.access == "none"}


@given(policies, policies)
def test_no_denial_is_lost_where_the_allowing_side_is_replaced(
    new: FileSystemSandboxPolicy, old: FileSystemSandboxPolicy
) -> None:
    made = preserve_deny(new, old)
    if made.kind == "restricted":
        assert denials(made) >= denials(old)
    else:
        assert made == new
        assert new.kind == "external-sandbox" or not denials(old)


@given(legacy_policies, cwds, policies, disks())
def test_no_denial_is_lost_where_a_legacy_policy_restricts(
    legacy: SandboxPolicy, cwd: str, old: FileSystemSandboxPolicy, disk: MemoryView
) -> None:
    made = from_legacy_preserving_deny(legacy, cwd, old, disk)
    if made.kind == "restricted":
        assert denials(made) == denials(old)
        assert made.glob_scan_max_depth == old.glob_scan_max_depth


@given(profiles)
def test_a_profile_is_what_it_is_made_of(profile: PermissionProfile) -> None:
    made = from_runtime(file_system_of(profile), network_of(profile), enforcement_of(profile))
    assert made == profile


@given(legacy_policies, cwds, disks())
def test_a_legacy_policy_comes_back_from_its_profile(legacy: SandboxPolicy, cwd: str, disk: MemoryView) -> None:
    back = profile_to_legacy(profile_from_legacy(legacy, disk), cwd, disk)
    if isinstance(legacy, WorkspaceWrite):
        kept = dict.fromkeys(root for root in legacy.writable_roots if root != cwd)
        legacy = attrs.evolve(legacy, writable_roots=tuple(kept))
    assert back == legacy


@given(policies, roots)
def test_materialising_leaves_no_symbol_and_only_once(policy: FileSystemSandboxPolicy, places: tuple[str, ...]) -> None:
    made = materialize_policy(policy, places)
    assert not any(isinstance(entry.path, SpecialPath) and entry.path.kind == "project_roots" for entry in made.entries)
    assert materialize_policy(made, ("/other",)) == made
    added = with_roots_added(policy, places)
    assert added.entries[: len(policy.entries)] == policy.entries
    assert set(added.entries) == set(policy.entries) | set(made.entries)


@given(profiles, cwds, disks())
def test_a_recorded_turn_says_the_same_in_all_forms(profile: PermissionProfile, cwd: str, disk: MemoryView) -> None:
    made = project(materialize_profile(profile, (cwd,)), cwd, disk)
    again = project(made.profile, cwd, disk)
    assert again == made
    assert made.file_system == file_system_of(made.profile)


@given(policies, cwds, texts, disks())
def test_access_is_that_of_the_deepest_entry(
    policy: FileSystemSandboxPolicy, cwd: str, text: str, disk: MemoryView
) -> None:
    compiled = compile_policy(policy, cwd, disk)
    path = absolute(text, disk, cwd)
    rows = [row for row in resolve_entries(policy, cwd, disk) if is_under(path, row[0])]
    found = max(rows, key=lambda row: (len(components(row[0])), RANK[row[1]]), default=None)
    access = "write" if policy.kind != "restricted" else "none" if found is None else found[1]
    assert compiled.access(text) == access
    assert compiled.can_read(text) == (access != "none")
    forbidden = metadata_rule(policy, path, cwd, disk)
    can_write = access == "write" and (has_full_disk_write(policy) or forbidden is None)
    assert compiled.can_write(text) == can_write
    assert compiled.forbidden_metadata(text) == (None if can_write else forbidden)
    decision = compiled.explain(text)
    assert (decision.access, decision.can_read, decision.can_write) == (access, access != "none", can_write)
    if decision.reason == "entry":
        assert decision.entry is not None
        assert policy.entries[decision.entry].access == access


def metadata_rule(policy: FileSystemSandboxPolicy, path: str, cwd: str, disk: MemoryView) -> str | None:
    """The rule as it is written down (permissions.md 3.2)."""
    if policy.kind != "restricted":
        return None
    written = [row[0] for row in resolve_entries(policy, cwd, disk) if row[1] == "write"]
    for place in written:
        below = components(path)[len(components(place)) :]
        if is_under(path, place) and below and below[0] in PROTECTED_NAMES:
            metadata = f"{place.rstrip('/')}/{below[0]}"
            reopened = any(is_under(path, other) and is_under(other, metadata) for other in written)
            return None if reopened else below[0]
    return None


@given(policies, cwds, disks())
def test_root_lists_agree_with_the_answers(policy: FileSystemSandboxPolicy, cwd: str, disk: MemoryView) -> None:
    lists = Roots(policy, cwd, disk)
    for kind in (lists.readable, lists.unreadable, [root.root for root in lists.writable]):
        assert len(set(kind)) == len(kind)
    assert "/" not in lists.unreadable or any(disk.is_link(path) for path in disk.links)
    for root in lists.writable:
        assert len(set(root.read_only_subpaths)) == len(root.read_only_subpaths)
        assert root.is_path_writable(root.root) != (root.root in root.read_only_subpaths)
        assert not any(root.is_path_writable(f"{root.root.rstrip('/')}/{name}/x") for name in PROTECTED_NAMES)


@given(policies, policies, cwds, disks())
def test_equivalence_is_an_equivalence(
    one: FileSystemSandboxPolicy, other: FileSystemSandboxPolicy, cwd: str, disk: MemoryView
) -> None:
    assert is_semantically_equivalent(one, one, cwd, disk)
    forth, back = (is_semantically_equivalent(*pair, cwd, disk) for pair in ((one, other), (other, one)))
    assert forth == back
    shuffled = attrs.evolve(one, entries=(*reversed(one.entries), *one.entries))
    if one.kind == "restricted" and len({e.access for e in one.entries if e.access == "write"}) == 0:
        assert is_semantically_equivalent(one, shuffled, cwd, disk)


@given(policies, cwds, disks())
def test_whole_disk_predicates(policy: FileSystemSandboxPolicy, cwd: str, disk: MemoryView) -> None:
    compiled = compile_policy(policy, cwd, disk)
    if has_full_disk_read(policy):
        assert not has_denied_read(policy)
        assert compiled.can_read("/anything/at/all")
    if has_full_disk_write(policy):
        assert compiled.can_write("/anything/.git/at/all")
    try:
        legacy = to_legacy(policy, "restricted", cwd, disk)
    except UnbridgeablePolicy:
        assert needs_direct_enforcement(policy, "restricted", cwd, disk)
        return
    assert from_legacy(legacy, disk).kind != "unrestricted"


@given(policies, cwds, roots, disks())
def test_added_roots_can_be_used(
    policy: FileSystemSandboxPolicy, cwd: str, places: tuple[str, ...], disk: MemoryView
) -> None:
    readable = with_readable(policy, cwd, places, disk)
    writable = with_writable(policy, cwd, places, disk)
    compiled = compile_policy(readable, cwd, disk)
    if all(map(compiled.can_read, places)):  # what a denial outranks stays unreadable, and would be added once more
        assert with_readable(readable, cwd, places, disk) == readable
    assert denials(readable) == denials(policy)
    for place in places:
        # A denial at the same place outranks what is added.
        assert compiled.can_read(place) or has_denied_read(policy)
    added = with_legacy_writable(policy, places, disk)
    assert policy.kind == "restricted" or added == policy
    assert denials(added) == denials(policy) == denials(writable)


@given(policies, cwds, texts, disks())
def test_what_can_not_be_read_is_denied_to_tools(
    policy: FileSystemSandboxPolicy, cwd: str, text: str, disk: MemoryView
) -> None:
    matcher = read_deny_matcher(policy, cwd, disk)
    assert (matcher is None) == (not has_denied_read(policy))
    if matcher is not None and not matcher.is_broken:
        for root in Roots(policy, cwd, disk).unreadable:
            assert matcher.is_read_denied(root)
            assert matcher.is_read_denied(f"{root.rstrip('/')}/below")


@given(texts, disks())
def test_canonical_paths_are_stable(text: str, disk: MemoryView) -> None:
    path = absolute(text, disk)
    assert effective(effective(path, disk), disk) in (effective(path, disk), path)
    made = canonicalize_preserving(path, disk)
    assert made in (path, disk.resolve(path))
