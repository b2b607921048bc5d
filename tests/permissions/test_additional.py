"""Additional permissions: merging, and grants that never exceed the request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.permissions.access import compile_policy, resolve_path
from engine.permissions.additional import (
    GlobAccessError,
    effective_profile,
    intersect,
    merge,
    needs_platform_sandbox,
    normalize,
)
from engine.permissions.memory_view import MemoryView
from engine.permissions.profiles import enforcement_of, file_system_of, network_of
from engine.protocol.profiles import (
    Access,
    AdditionalFileSystem,
    AdditionalNetwork,
    AdditionalPermissionProfile,
    FileSystemEntry,
    FileSystemPath,
    FileSystemSandboxPolicy,
    GlobPath,
    LiteralPath,
    PermissionProfile,
    SpecialPath,
)
from tests.permissions.policies import cwds, disks, entries, profiles

NOTHING = MemoryView()
additions = st.builds(
    AdditionalPermissionProfile,
    st.none() | st.builds(AdditionalNetwork, st.sampled_from([None, True, False])),
    st.none()
    | st.builds(AdditionalFileSystem, st.lists(entries, max_size=4).map(tuple), st.none() | st.integers(1, 3)),
)


def files(*rows: tuple[str | FileSystemPath, Access], depth: int | None = None) -> AdditionalPermissionProfile:
    made = [FileSystemEntry(LiteralPath(path) if isinstance(path, str) else path, access) for path, access in rows]
    return AdditionalPermissionProfile(None, AdditionalFileSystem(tuple(made), depth))


def test_requests_are_made_canonical() -> None:
    disk = MemoryView(directories=frozenset({"/usr/bin"}), links={"/bin": "usr/bin"})
    given = AdditionalPermissionProfile(AdditionalNetwork(None), files(("/bin", "read"), ("/bin", "read")).file_system)
    assert normalize(given, disk) == files(("/usr/bin", "read"))
    assert normalize(AdditionalPermissionProfile(AdditionalNetwork(False), AdditionalFileSystem()), disk) == (
        AdditionalPermissionProfile(AdditionalNetwork(False))
    )
    with pytest.raises(GlobAccessError, match=r"/x/\*"):
        normalize(files((GlobPath("/x/*"), "read")), disk)


@pytest.mark.parametrize(("left", "right", "depth"), [(1, 3, 3), (1, None, None), (None, 2, None)])
def test_scan_depths_of_two_sides_with_globs(left: int | None, right: int | None, depth: int | None) -> None:
    made = merge(files((GlobPath("/x/*"), "none"), depth=left), files((GlobPath("/y/*"), "none"), depth=right))
    assert made is not None
    assert made.file_system is not None
    assert made.file_system.glob_scan_max_depth == depth


def test_sides_without_globs_have_no_say_in_the_depth() -> None:
    made = merge(files((GlobPath("/x/*"), "none"), depth=2), files(("/y", "read"), depth=5))
    assert made == AdditionalPermissionProfile(
        None,
        AdditionalFileSystem(
            (FileSystemEntry(GlobPath("/x/*"), "none"), FileSystemEntry(LiteralPath("/y"), "read")), 2
        ),
    )
    assert merge(None, None) is None


@given(profiles, additions)
def test_an_addition_only_adds(profile: PermissionProfile, additional: AdditionalPermissionProfile) -> None:
    made = effective_profile(profile, additional)
    before, after = file_system_of(profile), file_system_of(made)
    assert enforcement_of(made) == enforcement_of(profile)
    assert after.entries[: len(before.entries)] == before.entries
    assert network_of(profile) == "restricted" or network_of(made) == "enabled"
    assert effective_profile(profile, None) == profile


@given(additions, additions, cwds, disks())
def test_nobody_gets_more_than_was_asked_for(
    requested: AdditionalPermissionProfile, granted: AdditionalPermissionProfile, cwd: str, disk: MemoryView
) -> None:
    made = intersect(requested, granted, cwd, disk)
    asked_network = requested.network is not None and requested.network.enabled
    assert made.network is None or asked_network
    if made.file_system is None:
        return
    assert requested.file_system is not None
    asked = compile_policy(FileSystemSandboxPolicy("restricted", entries=requested.file_system.entries), cwd, disk)
    for entry in made.file_system.entries:
        path = resolve_path(entry.path, cwd, disk)
        if path is not None and entry.access != "none":
            access = asked.access(path)
            assert access == "write" or access == entry.access == "read"


def test_grants() -> None:
    request = files(("/w", "write"), ("/w/secret", "none"), (GlobPath("/w/*.key"), "none"), ("/other", "none"))
    grant = files(("/w/a", "write"), ("/w/a.key", "read"), ("/x", "read"), (SpecialPath.of("minimal"), "read"))
    assert intersect(request, grant, "/w", NOTHING).file_system == AdditionalFileSystem(
        (FileSystemEntry(LiteralPath("/w/a"), "write"), FileSystemEntry(GlobPath("/w/*.key"), "none"))
    )
    here = files((SpecialPath.of("project_roots"), "write"))
    assert intersect(here, here, "/w", NOTHING) == files(("/w", "write"))
    everything = AdditionalPermissionProfile(AdditionalNetwork(True))
    assert intersect(everything, everything, "/w", NOTHING) == everything
    assert intersect(everything, AdditionalPermissionProfile(), "/w", NOTHING) == AdditionalPermissionProfile()


def test_when_a_command_needs_a_sandbox() -> None:
    full = FileSystemSandboxPolicy("restricted", entries=(FileSystemEntry(SpecialPath.of("root"), "write"),))
    assert needs_platform_sandbox(full, "restricted")
    assert not needs_platform_sandbox(full, "enabled")
    assert needs_platform_sandbox(full, "enabled", managed_requirements=True)
