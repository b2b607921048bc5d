"""Strict reading of permission data, as requests, launchers and files of our own bring it (permissions.md 1).

What comes out is canonical: paths are normal, `current_working_directory` is `project_roots`, `deny` is `none`, and
fields nobody knows inside a shape are dropped. Anything else is a `ProtocolError` that says where. There is no base for
relative paths here, so they are errors, and so is `~`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from engine.errors import ProtocolError
from engine.protocol.paths import normal_path
from engine.protocol.profiles import (
    Access,
    AdditionalFileSystem,
    AdditionalNetwork,
    AdditionalPermissionProfile,
    DangerFullAccess,
    DisabledProfile,
    ExternalProfile,
    ExternalSandbox,
    FileSystemEntry,
    FileSystemPath,
    FileSystemSandboxPolicy,
    GlobPath,
    LiteralPath,
    ManagedFileSystem,
    ManagedProfile,
    NetworkAccess,
    PermissionProfile,
    ReadOnly,
    RestrictedFileSystem,
    SandboxPolicy,
    SpecialKind,
    SpecialPath,
    SpecialValue,
    UnrestrictedFileSystem,
    WorkspaceWrite,
)

__all__ = [
    "decode_additional",
    "decode_entry",
    "decode_file_system_policy",
    "decode_profile",
    "decode_sandbox_policy",
    "decode_untagged_profile",
]

T = TypeVar("T")
Object = Mapping[str, object]

_ACCESS: Mapping[str, Access] = {"read": "read", "write": "write", "none": "none", "deny": "none"}
_KINDS: Mapping[str, SpecialKind] = {
    "root": "root",
    "minimal": "minimal",
    "project_roots": "project_roots",
    "current_working_directory": "project_roots",
    "tmpdir": "tmpdir",
    "slash_tmp": "slash_tmp",
    "unknown": "unknown",
}
_LARGEST_DEPTH = 2**64 - 1


def decode_profile(value: object, *, deny: bool = True) -> PermissionProfile:
    """A permission profile: the tagged shape or the old untagged one. Raises `ProtocolError`.

    `deny=False` refuses the spelling `deny`, as programs of the 0.131 line do.
    """
    given = _object(value, "")
    # The old shape has no key `type`, so at most one of the two can fit.
    return _tagged_profile(given, deny) if "type" in given else decode_untagged_profile(given, deny=deny)


def decode_untagged_profile(value: Object, *, deny: bool = True) -> ManagedProfile:
    """The old shape `{"network"?: {"enabled"?}, "file_system"?}`, which has no other keys. Raises `ProtocolError`."""
    _only(value, ("network", "file_system"), "")
    network = _network(value.get("network"), "network")
    made = _additional_file_system(value.get("file_system"), "file_system", deny) or AdditionalFileSystem()
    return ManagedProfile(
        RestrictedFileSystem(made.entries, made.glob_scan_max_depth),
        "enabled" if network is not None and network.enabled else "restricted",
    )


def decode_file_system_policy(value: object, *, deny: bool = True) -> FileSystemSandboxPolicy:
    """A file-system policy as turn contexts carry it. Raises `ProtocolError`."""
    given = _object(value, "")
    kind = given.get("kind")
    if kind not in ("restricted", "unrestricted", "external-sandbox"):
        raise _error(f"no such kind of policy: {kind!r}", "kind")
    return FileSystemSandboxPolicy(
        kind,
        _depth(given.get("glob_scan_max_depth"), "glob_scan_max_depth", least=0),
        _entries(given.get("entries", ()), "entries", deny),
    )


def decode_sandbox_policy(value: object) -> SandboxPolicy:
    """A legacy policy in its snake_case form. Raises `ProtocolError`."""
    given = _object(value, "")
    match given.get("type"):
        case "danger-full-access":
            return DangerFullAccess()
        case "read-only":
            return ReadOnly(network_access=_flag(given, "network_access"))
        case "external-sandbox":
            return ExternalSandbox(_network_access(given.get("network_access", "restricted"), "network_access"))
        case "workspace-write":
            return WorkspaceWrite(
                writable_roots=_array(given.get("writable_roots", ()), "writable_roots", _absolute),
                network_access=_flag(given, "network_access"),
                exclude_tmpdir_env_var=_flag(given, "exclude_tmpdir_env_var"),
                exclude_slash_tmp=_flag(given, "exclude_slash_tmp"),
            )
    raise _error(f"no such type of policy: {given.get('type')!r}", "type")


def decode_additional(value: object) -> AdditionalPermissionProfile:
    """What one command may touch besides: `{"network"?, "file_system"?}`. Raises `ProtocolError`."""
    given = _object(value, "")
    return AdditionalPermissionProfile(
        _network(given.get("network"), "network"),
        _additional_file_system(given.get("file_system"), "file_system", deny=True),
    )


def _tagged_profile(given: Object, deny: bool) -> PermissionProfile:
    match given["type"]:
        case "disabled":
            return DisabledProfile()
        case "external":
            return ExternalProfile(_network_access(given.get("network"), "network"))
        case "managed":
            return ManagedProfile(
                _managed(given.get("file_system"), deny), _network_access(given.get("network"), "network")
            )
    raise _error(f"no such type of profile: {given['type']!r}", "type")


def _managed(value: object, deny: bool) -> ManagedFileSystem:
    given = _object(value, "file_system")
    match given.get("type"):
        case "unrestricted":
            return UnrestrictedFileSystem()
        case "restricted":
            if "entries" not in given:
                raise _error("is missing", "file_system.entries")
            return RestrictedFileSystem(
                _entries(given["entries"], "file_system.entries", deny),
                _depth(given.get("glob_scan_max_depth"), "file_system.glob_scan_max_depth"),
            )
    raise _error(f"no such type of file system: {given.get('type')!r}", "file_system.type")


def _additional_file_system(value: object, path: str, deny: bool) -> AdditionalFileSystem | None:
    if value is None:
        return None
    given = _object(value, path)
    if "entries" in given:
        _only(given, ("entries", "glob_scan_max_depth"), path)
        return AdditionalFileSystem(
            _entries(given["entries"], f"{path}.entries", deny),
            _depth(given.get("glob_scan_max_depth"), f"{path}.glob_scan_max_depth"),
        )
    _only(given, ("read", "write"), path)
    entries: list[FileSystemEntry] = []
    modes: tuple[Access, ...] = ("read", "write")
    for access in modes:
        listed = given.get(access)
        if listed is not None:
            places = _array(listed, f"{path}.{access}", _absolute)
            entries += (FileSystemEntry(LiteralPath(place), access) for place in places)
    return AdditionalFileSystem(tuple(entries))


def _network(value: object, path: str) -> AdditionalNetwork | None:
    if value is None:
        return None
    enabled = _object(value, path).get("enabled")
    if enabled is not None and not isinstance(enabled, bool):
        raise _error("expected a boolean", f"{path}.enabled")
    return AdditionalNetwork(enabled)


def _entries(value: object, path: str, deny: bool) -> tuple[FileSystemEntry, ...]:
    return _array(value, path, lambda part, place: decode_entry(part, place, deny=deny))


def decode_entry(value: object, path: str = "", *, deny: bool = True) -> FileSystemEntry:
    """One entry of a policy; `path` is where it stands, for errors. Raises `ProtocolError`."""
    given = _object(value, path)
    where = _object(given.get("path"), f"{path}.path")
    access = given.get("access")
    if not isinstance(access, str) or access not in _ACCESS or (access == "deny" and not deny):
        raise _error(f"no such access mode: {access!r}", f"{path}.access")
    return FileSystemEntry(_path(where, f"{path}.path"), _ACCESS[access])


def _path(given: Object, path: str) -> FileSystemPath:
    match given.get("type"):
        case "path":
            return LiteralPath(_absolute(given.get("path"), f"{path}.path"))
        case "glob_pattern":
            return GlobPath(_text(given.get("pattern"), f"{path}.pattern"))
        case "special":
            return SpecialPath(_special(_object(given.get("value"), f"{path}.value"), f"{path}.value"))
    raise _error(f"no such type of path: {given.get('type')!r}", f"{path}.type")


def _special(given: Object, path: str) -> SpecialValue:
    name = given.get("kind")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise _error(f"no such location: {name!r}", f"{path}.kind")
    if kind not in ("project_roots", "unknown"):
        return SpecialValue(kind)
    subpath = given.get("subpath")
    if subpath is not None:
        subpath = _text(subpath, f"{path}.subpath")
    return SpecialValue(kind, _text(given.get("path"), f"{path}.path") if kind == "unknown" else None, subpath)


# --- JSON values -------------------------------------------------------------------------------


def _error(message: str, path: str) -> ProtocolError:
    return ProtocolError(message, path=path.lstrip("."))


def _object(value: object, path: str) -> Object:
    if not isinstance(value, Mapping):
        raise _error("expected an object", path)
    return value


def _only(given: Object, keys: tuple[str, ...], path: str) -> None:
    for key in given:
        if key not in keys:
            raise _error("no such key", f"{path}.{key}")


def _array(value: object, path: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise _error("expected an array", path)
    return tuple(read(part, f"{path}[{at}]") for at, part in enumerate(value))


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise _error("expected a string", path)
    return value


def _absolute(value: object, path: str) -> str:
    text = _text(value, path)
    if not text.startswith("/"):
        raise _error(f"must be an absolute path, not {text!r}", path)
    return normal_path(text)


def _flag(given: Object, key: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise _error("expected a boolean", key)
    return value


def _network_access(value: object, path: str) -> NetworkAccess:
    if value == "restricted":
        return "restricted"
    if value == "enabled":
        return "enabled"
    raise _error(f"expected `restricted` or `enabled`, not {value!r}", path)


def _depth(value: object, path: str, least: int = 1) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not least <= value <= _LARGEST_DEPTH:
        raise _error(f"expected a whole number of at least {least}", path)
    return value
