"""What a session may touch, as data: legacy sandbox policies and permission profiles (permissions.md 1).

The functions over these types live in `engine.permissions`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs

from engine.protocol.wire import JsonObject, UnknownVariant, Wire, defaulted, optional

__all__ = [
    "ActivePermissionProfile",
    "DangerFullAccess",
    "DisabledProfile",
    "ExternalProfile",
    "ExternalSandbox",
    "FileSystemEntry",
    "FileSystemPath",
    "FileSystemSandboxPolicy",
    "GlobPath",
    "LiteralPath",
    "ManagedFileSystem",
    "ManagedProfile",
    "PermissionProfile",
    "ReadOnly",
    "RestrictedFileSystem",
    "SandboxMode",
    "SandboxPolicy",
    "SpecialPath",
    "UnrestrictedFileSystem",
    "WorkspaceWrite",
]

SandboxMode = Literal["read-only", "workspace-write", "danger-full-access"]


@attrs.frozen
class DangerFullAccess(Wire):
    """No restriction at all."""

    type: ClassVar[str] = "danger-full-access"


@attrs.frozen
class ReadOnly(Wire):
    """Read everything, write nothing."""

    type: ClassVar[str] = "read-only"
    network_access: bool = defaulted(False)


@attrs.frozen
class ExternalSandbox(Wire):
    """Somebody else isolates the process. `network_access`: `restricted` or `enabled`."""

    type: ClassVar[str] = "external-sandbox"
    network_access: str = "restricted"


@attrs.frozen
class WorkspaceWrite(Wire):
    """Write below the workspace, the listed roots and (unless excluded) the temporary folders."""

    type: ClassVar[str] = "workspace-write"
    writable_roots: tuple[str, ...] = defaulted(())
    network_access: bool = False
    exclude_tmpdir_env_var: bool = False
    exclude_slash_tmp: bool = False


SandboxPolicy = DangerFullAccess | ReadOnly | ExternalSandbox | WorkspaceWrite | UnknownVariant


@attrs.frozen
class LiteralPath(Wire):
    """One absolute path and everything below it."""

    type: ClassVar[str] = "path"
    path: str


@attrs.frozen
class GlobPath(Wire):
    """A glob; only meaningful with access `none`."""

    type: ClassVar[str] = "glob_pattern"
    pattern: str


@attrs.frozen
class SpecialPath(Wire):
    """A symbolic location, e.g. `{"kind": "root"}`."""

    type: ClassVar[str] = "special"
    value: JsonObject


FileSystemPath = LiteralPath | GlobPath | SpecialPath | UnknownVariant


@attrs.frozen
class FileSystemEntry(Wire):
    """Access (`read`, `write`, `none`) to a path expression."""

    path: FileSystemPath
    access: str


@attrs.frozen
class FileSystemSandboxPolicy(Wire):
    """The file-system part as turn contexts carry it. `kind`: restricted, unrestricted, external-sandbox."""

    kind: str
    glob_scan_max_depth: int | None = optional()
    entries: tuple[FileSystemEntry, ...] = defaulted(())


@attrs.frozen
class RestrictedFileSystem(Wire):
    """Only what the entries allow."""

    type: ClassVar[str] = "restricted"
    entries: tuple[FileSystemEntry, ...]
    glob_scan_max_depth: int | None = optional()


@attrs.frozen
class UnrestrictedFileSystem(Wire):
    """Everything may be read and written."""

    type: ClassVar[str] = "unrestricted"


ManagedFileSystem = RestrictedFileSystem | UnrestrictedFileSystem | UnknownVariant


@attrs.frozen
class ManagedProfile(Wire):
    """We build the sandbox. `network`: `restricted` or `enabled`."""

    type: ClassVar[str] = "managed"
    file_system: ManagedFileSystem
    network: str


@attrs.frozen
class DisabledProfile(Wire):
    """No sandbox at all."""

    type: ClassVar[str] = "disabled"


@attrs.frozen
class ExternalProfile(Wire):
    """Somebody else isolates the file system."""

    type: ClassVar[str] = "external"
    network: str


PermissionProfile = ManagedProfile | DisabledProfile | ExternalProfile | UnknownVariant


@attrs.frozen
class ActivePermissionProfile(Wire):
    """Which named profile is in force; metadata only."""

    id: str
    extends: str | None = optional()
