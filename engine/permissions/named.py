"""Named permission profiles: from the tables of `[permissions]` to profiles (permissions.md 8.1, 8.3).

Pure: a table is what a TOML reader gives. Errors say which rule was broken and where in the table.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Literal

from engine.errors import EngineError
from engine.permissions.globs import has_glob_characters
from engine.permissions.profiles import from_runtime, read_only, with_roots_added, workspace_write
from engine.permissions.view import View
from engine.protocol.paths import absolute_path, join
from engine.protocol.profiles import (
    PROJECT_ROOTS_PREFIX,
    Access,
    DisabledProfile,
    FileSystemEntry,
    FileSystemPath,
    FileSystemSandboxPolicy,
    GlobPath,
    LiteralPath,
    NetworkAccess,
    PermissionProfile,
    SpecialKind,
    SpecialPath,
    SpecialValue,
)
from engine.records import frozen

__all__ = ["NamedProfile", "NamedProfileError", "ProfileWarning", "Rule", "built_in", "compile_named"]

Table = Mapping[str, object]

Rule = Literal[
    "reserved_prefix",
    "unknown_builtin",
    "undefined_profile",
    "missing_default",
    "no_permissions_table",
    "not_absolute",
    "no_nested",
    "bad_subpath",
    "glob_access",
    "depth_zero",
    "cycle",
    "undefined_parent",
    "unsupported_parent",
    "malformed",
]

_MODES: Mapping[str, Access] = {"read": "read", "write": "write", "none": "none", "deny": "none"}
_TOKENS: Mapping[str, SpecialKind] = {
    ":root": "root",
    ":minimal": "minimal",
    ":workspace_roots": "project_roots",
    ":tmpdir": "tmpdir",
}
# Known where a table was inherited, as the built-in parent has it.
_INHERITED_TOKENS: Mapping[str, SpecialKind] = {**_TOKENS, ":slash_tmp": "slash_tmp"}
_ALL_BELOW = "/**"
_DEPTH = "glob_scan_max_depth"


class NamedProfileError(EngineError):
    """A profile table that has no meaning: the rule it breaks, and the keys that lead there from the table."""

    def __init__(self, rule: Rule, message: str, *path: str) -> None:
        self.rule = rule
        self.message = message
        self.path = path
        super().__init__(message)


@frozen
class ProfileWarning:
    """Something in a table that works, but hardly as its author meant it."""

    kind: Literal["no_entries", "unknown_special", "unsupported_glob", "unbounded_glob"]
    message: str


@frozen
class NamedProfile:
    """A compiled profile. `workspace_roots` are its own, normal and absolute; the entries are still symbolic."""

    file_system: FileSystemSandboxPolicy
    network: NetworkAccess
    workspace_roots: tuple[str, ...] = ()
    warnings: tuple[ProfileWarning, ...] = ()

    def profile(self) -> PermissionProfile:
        """The profile to store: symbols, and what they stand for in the profile's own roots."""
        return from_runtime(with_roots_added(self.file_system, self.workspace_roots), self.network)


def built_in(id: str, view: View) -> PermissionProfile | None:
    """The profile of a built-in id; None for an id that is not built in."""
    match id:
        case ":read-only":
            return read_only()
        case ":workspace":
            return workspace_write(view)
        case ":danger-full-access":
            return DisabledProfile()
    return None


def compile_named(table: Table, *, id: str, cwd: str, home: str | None, inherited: bool = False) -> NamedProfile:
    """The table of the profile `id`, for a session in the normal `cwd`. `inherited`: it was merged with a parent's.

    Raises `NamedProfileError`.
    """
    compiling = _Compiling(id, cwd, home, _INHERITED_TOKENS if inherited else _TOKENS)
    files = _table(table.get("filesystem"), "filesystem")
    file_system = compiling.file_system(files)
    network = _table(table.get("network"), "network")
    return NamedProfile(
        file_system=file_system,
        network="enabled" if network.get("enabled") is True else "restricted",
        workspace_roots=_own_roots(_table(table.get("workspace_roots"), "workspace_roots"), cwd, home),
        warnings=tuple(compiling.warnings),
    )


def _own_roots(table: Table, cwd: str, home: str | None) -> tuple[str, ...]:
    roots: dict[str, None] = {}
    for text, enabled in _sorted(table):
        if not isinstance(enabled, bool):
            raise NamedProfileError("malformed", "expected a boolean", "workspace_roots", text)
        if enabled:
            roots[absolute_path(text, cwd, home)] = None
    return tuple(roots)


class _Compiling:
    """One file-system table on its way to entries; collects warnings."""

    def __init__(self, id: str, cwd: str, home: str | None, tokens: Mapping[str, SpecialKind]) -> None:
        self._id = id
        self._cwd = cwd
        self._home = home
        self._tokens = tokens
        self._unbounded: list[ProfileWarning] = []
        self.warnings: list[ProfileWarning] = []

    def file_system(self, table: Table) -> FileSystemSandboxPolicy:
        entries: list[FileSystemEntry] = []
        for key, value in _sorted(table):
            if key == _DEPTH:
                continue
            if isinstance(value, Mapping):
                for sub, mode in _sorted(value):
                    entries.append(self._scoped(key, sub, _mode(mode, key, sub)))
            else:
                entries.append(self._plain(key, _mode(value, key)))
        depth = _depth(table)
        if depth is None:
            self.warnings += self._unbounded
        if not entries:
            self._warn(
                "no_entries",
                f"Permissions profile `{self._id}` does not define any filesystem entries; "
                "filesystem access stays fully restricted.",
            )
        return FileSystemSandboxPolicy("restricted", depth, tuple(entries))

    def _plain(self, key: str, access: Access) -> FileSystemEntry:
        if not has_glob_characters(key):
            return FileSystemEntry(self._place(key), access)
        if access == "none":
            self._note_unbounded(key, key)
            return FileSystemEntry(GlobPath(self._absolute(key)), access)
        return FileSystemEntry(self._place(self._without_glob(key, access, key, key)), access)

    def _scoped(self, key: str, sub: str, access: Access) -> FileSystemEntry:
        kind = self._kind(key)
        if has_glob_characters(sub):
            if access == "none" and kind in (None, "project_roots"):
                _check_subpath(key, sub)
                self._note_unbounded(sub, f"{key}/{sub}")
                glob = PROJECT_ROOTS_PREFIX + sub if kind else join(self._absolute(key), sub)
                return FileSystemEntry(GlobPath(glob), access)
            sub = self._without_glob(sub, access, key, f"{key}/{sub}")
        if sub == ".":
            return FileSystemEntry(self._place(key), access)
        _check_subpath(key, sub)
        if kind is None:
            return FileSystemEntry(LiteralPath(join(self._absolute(key), sub)), access)
        if kind == "unknown":
            self._note_unknown(key)
            return FileSystemEntry(SpecialPath(SpecialValue(kind, key, sub)), access)
        if kind != "project_roots":
            raise NamedProfileError(
                "no_nested", f"filesystem path `{key}` does not support nested entries", "filesystem", key
            )
        return FileSystemEntry(SpecialPath.of(kind, sub), access)

    def _kind(self, key: str) -> SpecialKind | None:
        return self._tokens.get(key, "unknown") if key.startswith(":") else None

    def _place(self, key: str) -> FileSystemPath:
        kind = self._kind(key)
        if kind is None:
            return LiteralPath(self._absolute(key))
        if kind == "unknown":
            self._note_unknown(key)
            return SpecialPath(SpecialValue(kind, key))
        return SpecialPath.of(kind)

    def _absolute(self, key: str) -> str:
        if key.startswith(("/", "~/")) or key == "~":
            return absolute_path(key, self._cwd, self._home)
        raise NamedProfileError(
            "not_absolute",
            f"filesystem path `{key}` must be absolute, use `~/...`, or start with `:`",
            "filesystem",
            key,
        )

    def _without_glob(self, text: str, access: Access, key: str, shown: str) -> str:
        """The text without one trailing `/**`, which says no more than the path itself."""
        self._warn(
            "unsupported_glob",
            f"Filesystem glob `{shown}` with `{access}` access: of globs, only a trailing `/**` can allow.",
        )
        plain = text.removesuffix(_ALL_BELOW)
        if not has_glob_characters(plain):
            return plain or "/"
        raise NamedProfileError(
            "glob_access",
            f"filesystem glob path `{shown}` only supports `none` access, not `{access}`; use an exact path or a "
            "trailing `/**`",
            "filesystem",
            key,
        )

    def _note_unknown(self, key: str) -> None:
        self._warn(
            "unknown_special",
            f"Permissions profile `{self._id}` uses the filesystem path `{key}`, which this "
            "version does not know and ignores.",
        )

    def _note_unbounded(self, glob: str, shown: str) -> None:
        if "**" in glob:
            self._unbounded.append(
                ProfileWarning(
                    "unbounded_glob",
                    f"Filesystem deny glob `{shown}` uses `**` without `{_DEPTH}`; files are looked for at every depth "
                    "when a command starts.",
                )
            )

    def _warn(self, kind: Literal["no_entries", "unknown_special", "unsupported_glob"], message: str) -> None:
        self.warnings.append(ProfileWarning(kind, message))


def _check_subpath(key: str, sub: str) -> None:
    """Only what lies plainly below: nothing absolute, no `..`, no `.` at the start."""
    parts = sub.split("/")
    if not sub or posixpath.isabs(sub) or parts[0] == "." or ".." in parts:
        raise NamedProfileError(
            "bad_subpath",
            f"filesystem subpath `{sub}` must be a descendant path without `.` or `..`",
            "filesystem",
            key,
            sub,
        )


def _mode(value: object, *path: str) -> Access:
    if isinstance(value, str) and value in _MODES:
        return _MODES[value]
    raise NamedProfileError("malformed", f"expected `read`, `write` or `none`, not {value!r}", "filesystem", *path)


def _depth(table: Table) -> int | None:
    value = table.get(_DEPTH)
    if value is None:
        return None
    if type(value) is not int:
        raise NamedProfileError("malformed", f"expected a whole number, not {value!r}", "filesystem", _DEPTH)
    if value < 1:
        raise NamedProfileError("depth_zero", f"`{_DEPTH}` must be at least 1", "filesystem", _DEPTH)
    return value


def _table(value: object, key: str) -> Table:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise NamedProfileError("malformed", "expected a table", key)
    return value


def _sorted(table: Table) -> Iterator[tuple[str, object]]:
    """In byte order of the keys."""
    return iter(sorted(table.items(), key=lambda item: item[0].encode("utf-8", "surrogatepass")))
