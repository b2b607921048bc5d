"""Permissions that one command gets besides, and those a user grants of what was asked for (permissions.md 9)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.errors import InvalidRequest
from engine.permissions.access import compile_policy, resolve_path
from engine.permissions.canonical import absolute, canonicalize_preserving
from engine.permissions.profiles import enforcement_of, file_system_of, from_runtime, network_of
from engine.permissions.projection import materialize, merge_entries
from engine.permissions.read_denial import read_deny_matcher
from engine.permissions.view import View
from engine.permissions.whole_disk import has_full_disk_write
from engine.protocol.paths import is_under, normal_path
from engine.protocol.profiles import (
    Access,
    AdditionalFileSystem,
    AdditionalNetwork,
    AdditionalPermissionProfile,
    FileSystemEntry,
    FileSystemSandboxPolicy,
    GlobPath,
    LiteralPath,
    NetworkAccess,
    PermissionProfile,
)

__all__ = ["GlobAccessError", "effective_profile", "intersect", "merge", "needs_platform_sandbox", "normalize"]


class GlobAccessError(InvalidRequest):
    """A glob can deny, but not allow."""

    def __init__(self, glob: str, access: Access) -> None:
        super().__init__(f"the glob `{glob}` can only have access `none`, not `{access}`")


def normalize(additional: AdditionalPermissionProfile, view: View) -> AdditionalPermissionProfile:
    """A request in its canonical form: what says nothing is dropped, paths are canonical. Raises `GlobAccessError`."""
    network = additional.network
    if network is not None and network.enabled is None:
        network = None
    if additional.file_system is None:
        return AdditionalPermissionProfile(network)
    entries = dict.fromkeys(_canonical(entry, view) for entry in additional.file_system.entries)
    if not entries:
        return AdditionalPermissionProfile(network)
    return AdditionalPermissionProfile(
        network, AdditionalFileSystem(tuple(entries), additional.file_system.glob_scan_max_depth)
    )


def _canonical(entry: FileSystemEntry, view: View) -> FileSystemEntry:
    if isinstance(entry.path, GlobPath) and entry.access != "none":
        raise GlobAccessError(entry.path.pattern, entry.access)
    if isinstance(entry.path, LiteralPath):
        return FileSystemEntry(LiteralPath(canonicalize_preserving(entry.path.path, view)), entry.access)
    return entry


def merge(
    base: AdditionalPermissionProfile | None, add: AdditionalPermissionProfile | None
) -> AdditionalPermissionProfile | None:
    """Both together; None where nothing is left of them."""
    if base is None or add is None:
        return add if base is None else base
    either = any(side.network is not None and side.network.enabled for side in (base, add))
    network = AdditionalNetwork(True) if either else None
    file_system = _merge_file_systems(base.file_system, add.file_system)
    if network is None and file_system is None:
        return None
    return AdditionalPermissionProfile(network, file_system)


def _merge_file_systems(
    base: AdditionalFileSystem | None, add: AdditionalFileSystem | None
) -> AdditionalFileSystem | None:
    if base is None or add is None:
        made = add if base is None else base
    else:
        made = AdditionalFileSystem(
            tuple(dict.fromkeys((*base.entries, *add.entries))),
            _merge_depths(base.entries, base.glob_scan_max_depth, add.entries, add.glob_scan_max_depth),
        )
    return made if made is not None and made.entries else None


def _merge_depths(
    left: Sequence[FileSystemEntry], left_depth: int | None, right: Sequence[FileSystemEntry], right_depth: int | None
) -> int | None:
    """Only sides that deny a glob have a say; one without a bound lifts it."""
    depths = [depth for entries, depth in ((left, left_depth), (right, right_depth)) if _denies_glob(entries)]
    bounded = [depth for depth in depths if depth is not None]
    return max(bounded) if bounded and len(bounded) == len(depths) else None


def _denies_glob(entries: Iterable[FileSystemEntry]) -> bool:
    return any(entry.access == "none" and isinstance(entry.path, GlobPath) for entry in entries)


def effective_profile(profile: PermissionProfile, additional: AdditionalPermissionProfile | None) -> PermissionProfile:
    """The profile a command runs under that got `additional` besides; who enforces it stays."""
    file_system, network = file_system_of(profile), network_of(profile)
    if additional is None:
        return from_runtime(file_system, network, enforcement_of(profile))
    enabled = network == "enabled" or (additional.network is not None and bool(additional.network.enabled))
    added = additional.file_system
    if added is not None and added.entries and file_system.kind == "restricted":
        file_system = FileSystemSandboxPolicy(
            "restricted",
            _merge_depths(
                file_system.entries, file_system.glob_scan_max_depth, added.entries, added.glob_scan_max_depth
            ),
            merge_entries(file_system.entries, added.entries),
        )
    return from_runtime(file_system, "enabled" if enabled else "restricted", enforcement_of(profile))


def intersect(
    requested: AdditionalPermissionProfile, granted: AdditionalPermissionProfile, cwd: str, view: View
) -> AdditionalPermissionProfile:
    """What of a grant was asked for: nobody gets more than the request, and denials of both sides stay."""
    enabled = all(side.network is not None and side.network.enabled for side in (requested, granted))
    network = AdditionalNetwork(True) if enabled else None
    if requested.file_system is None or granted.file_system is None:
        return AdditionalPermissionProfile(network)
    cwd = absolute(cwd, view)
    asked = materialize(requested.file_system.entries, (cwd,))
    given = materialize(granted.file_system.entries, (cwd,))
    accepted = _accepted(asked, given, cwd, view)
    if not accepted:
        return AdditionalPermissionProfile(network)
    places = [resolve_path(entry.path, cwd, view) for entry in accepted]
    denied = [
        entry
        for entry in (*asked, *given)
        if entry.access == "none" and any(_overlaps(entry, place, cwd, view) for place in places)
    ]
    return AdditionalPermissionProfile(
        network,
        AdditionalFileSystem(
            tuple(dict.fromkeys((*accepted, *denied))),
            _merge_depths(
                requested.file_system.entries,
                requested.file_system.glob_scan_max_depth,
                granted.file_system.entries,
                granted.file_system.glob_scan_max_depth,
            ),
        ),
    )


def _accepted(
    asked: Sequence[FileSystemEntry], given: Sequence[FileSystemEntry], cwd: str, view: View
) -> list[FileSystemEntry]:
    policy = FileSystemSandboxPolicy("restricted", entries=tuple(asked))
    compiled = compile_policy(policy, cwd, view)
    denied = read_deny_matcher(policy, cwd, view)
    kept: list[FileSystemEntry] = []
    for entry in given:
        if entry.access == "none":
            continue
        path = resolve_path(entry.path, cwd, view)
        if path is None:
            covered = any(other.path == entry.path and _covers(other.access, entry.access) for other in asked)
        else:
            covered = _covers(compiled.access(path), entry.access)
            covered = covered and (denied is None or not denied.is_read_denied(path))
        if covered:
            kept.append(entry)
    return kept


def _covers(asked: Access, given: Access) -> bool:
    """Whether an access that was asked for includes one that is given."""
    return asked == "write" or asked == given == "read"


def _overlaps(denied: FileSystemEntry, place: str | None, cwd: str, view: View) -> bool:
    """Whether a denial speaks of something at, below or above a granted place."""
    if place is None:
        return False
    if isinstance(denied.path, GlobPath):
        path: str | None = _static_prefix(absolute(denied.path.pattern, view, cwd))
    else:
        path = resolve_path(denied.path, cwd, view)
    return path is not None and (is_under(path, place) or is_under(place, path))


def _static_prefix(glob: str) -> str:
    """The directory a glob searches: its text up to the first character with a meaning, cut at the last slash."""
    end = min((at for at in map(glob.find, "*?[]{") if at >= 0), default=len(glob))
    head = glob[:end]
    return normal_path(head if end == len(glob) else head.rpartition("/")[0] or "/")


def needs_platform_sandbox(
    file_system: FileSystemSandboxPolicy, network: NetworkAccess, *, managed_requirements: bool = False
) -> bool:
    """Whether a command under these permissions has to be started in a sandbox."""
    if managed_requirements:
        return True
    if network == "restricted":
        return file_system.kind != "external-sandbox"
    return file_system.kind == "restricted" and not has_full_disk_write(file_system)
