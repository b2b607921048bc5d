"""What a session may touch, as data: legacy sandbox policies and permission profiles (permissions.md 1).

As wire classes they take any text for a path and keep fields nobody knows, so that lines of other writers survive.
`engine.protocol.profile_decoding` reads the same JSON strictly; its values, and those that `engine.permissions` makes,
have normal absolute paths (permissions.md 1.8) and can be compared and hashed: unknown fields don't count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import attrs

from engine.protocol.wire import EMPTY, Wire, defaulted, optional
from engine.records import frozen

__all__ = [
    "PROJECT_ROOTS_PREFIX",
    "PROTECTED_NAMES",
    "Access",
    "ActivePermissionProfile",
    "AdditionalFileSystem",
    "AdditionalNetwork",
    "AdditionalPermissionProfile",
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
    "NetworkAccess",
    "PermissionData",
    "PermissionProfile",
    "ReadOnly",
    "RestrictedFileSystem",
    "SandboxEnforcement",
    "SandboxMode",
    "SandboxPolicy",
    "SpecialKind",
    "SpecialPath",
    "SpecialValue",
    "UnrestrictedFileSystem",
    "WorkspaceWrite",
]

SandboxMode = Literal["read-only", "workspace-write", "danger-full-access"]
SandboxEnforcement = Literal["managed", "disabled", "external"]
Access = Literal["read", "write", "none"]
NetworkAccess = Literal["restricted", "enabled"]
SpecialKind = Literal["root", "minimal", "project_roots", "tmpdir", "slash_tmp", "unknown"]

# A glob that begins like this is relative to every workspace root; what follows is kept as it was written.
PROJECT_ROOTS_PREFIX = "codex-project-roots://"

# Folders of a writable root that stay read-only, in this order (permissions.md 3).
PROTECTED_NAMES = (".git", ".agents", ".codex")


@frozen
class PermissionData(Wire):
    """Base of the classes below: equality and hash leave out fields that nobody knows."""

    extra: Mapping[str, object] = attrs.field(default=EMPTY, kw_only=True, repr=False, eq=False)


@frozen
class DangerFullAccess(PermissionData):
    """No restriction at all."""

    type: ClassVar[str] = "danger-full-access"


@frozen
class ReadOnly(PermissionData):
    """Read everything, write nothing."""

    type: ClassVar[str] = "read-only"
    network_access: bool = defaulted(False)


@frozen
class ExternalSandbox(PermissionData):
    """Somebody else isolates the process."""

    type: ClassVar[str] = "external-sandbox"
    network_access: NetworkAccess = "restricted"


@frozen
class WorkspaceWrite(PermissionData):
    """Write below the workspace, the listed roots and (unless excluded) the temporary folders."""

    type: ClassVar[str] = "workspace-write"
    writable_roots: tuple[str, ...] = defaulted(())
    network_access: bool = False
    exclude_tmpdir_env_var: bool = False
    exclude_slash_tmp: bool = False


SandboxPolicy = DangerFullAccess | ReadOnly | ExternalSandbox | WorkspaceWrite


@frozen
class LiteralPath(PermissionData):
    """One absolute path and everything below it."""

    type: ClassVar[str] = "path"
    path: str


@frozen
class GlobPath(PermissionData):
    """A glob; only meaningful with access `none`."""

    type: ClassVar[str] = "glob_pattern"
    pattern: str


@frozen
class SpecialValue(PermissionData):
    """What a symbolic location stands for. `path` belongs to `unknown`, `subpath` to `project_roots` and `unknown`."""

    kind: SpecialKind
    path: str | None = optional()
    subpath: str | None = optional()


@frozen
class SpecialPath(PermissionData):
    """A symbolic location, e.g. `{"kind": "root"}`."""

    type: ClassVar[str] = "special"
    value: SpecialValue

    @classmethod
    def of(cls, kind: SpecialKind, subpath: str | None = None) -> SpecialPath:
        """The location of a kind that needs no path."""
        return cls(SpecialValue(kind, subpath=subpath))

    @property
    def kind(self) -> SpecialKind:
        """Which location."""
        return self.value.kind

    @property
    def subpath(self) -> str | None:
        """What lies below it, where only that is meant."""
        return self.value.subpath


FileSystemPath = LiteralPath | GlobPath | SpecialPath


@frozen
class FileSystemEntry(PermissionData):
    """Access to a path expression; `none` is written, `deny` is read too."""

    path: FileSystemPath
    access: Access


@frozen
class FileSystemSandboxPolicy(PermissionData):
    """The file-system part by itself, as turn contexts carry it. Only a restricted one has entries."""

    kind: Literal["restricted", "unrestricted", "external-sandbox"]
    glob_scan_max_depth: int | None = optional()
    entries: tuple[FileSystemEntry, ...] = defaulted(())


@frozen
class RestrictedFileSystem(PermissionData):
    """Only what the entries allow."""

    type: ClassVar[str] = "restricted"
    entries: tuple[FileSystemEntry, ...] = ()
    glob_scan_max_depth: int | None = optional()


@frozen
class UnrestrictedFileSystem(PermissionData):
    """Everything may be read and written."""

    type: ClassVar[str] = "unrestricted"


ManagedFileSystem = RestrictedFileSystem | UnrestrictedFileSystem


@frozen
class ManagedProfile(PermissionData):
    """We build the sandbox."""

    type: ClassVar[str] = "managed"
    file_system: ManagedFileSystem
    network: NetworkAccess


@frozen
class DisabledProfile(PermissionData):
    """No sandbox at all."""

    type: ClassVar[str] = "disabled"


@frozen
class ExternalProfile(PermissionData):
    """Somebody else isolates the file system."""

    type: ClassVar[str] = "external"
    network: NetworkAccess


PermissionProfile = ManagedProfile | DisabledProfile | ExternalProfile


@frozen
class ActivePermissionProfile(Wire):
    """Which named profile is in force; metadata only."""

    id: str
    extends: str | None = optional()


@frozen
class AdditionalNetwork(PermissionData):
    """Network of an additional profile; `enabled` None says nothing."""

    enabled: bool | None = None


@frozen
class AdditionalFileSystem(PermissionData):
    """Entries of an additional profile. `glob_scan_max_depth` is at least 1."""

    entries: tuple[FileSystemEntry, ...] = ()
    glob_scan_max_depth: int | None = None


@frozen
class AdditionalPermissionProfile(PermissionData):
    """What one command may touch besides (permissions.md 9); None says nothing."""

    network: AdditionalNetwork | None = None
    file_system: AdditionalFileSystem | None = None
