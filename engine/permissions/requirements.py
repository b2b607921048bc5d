"""What an administrator requires of permission profiles, and what becomes of one that is refused (permissions.md 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import attrs

from engine.permissions.constrained import InvalidValue
from engine.permissions.globs import has_glob_characters
from engine.permissions.profiles import (
    enforcement_of,
    file_system_of,
    from_runtime,
    network_of,
    preserve_deny,
    read_only,
)
from engine.permissions.projection import merge_entries
from engine.permissions.whole_disk import has_full_disk_write
from engine.protocol.profiles import (
    DisabledProfile,
    ExternalProfile,
    FileSystemEntry,
    GlobPath,
    LiteralPath,
    PermissionProfile,
)
from engine.records import frozen

__all__ = ["PermissionRequirements", "RequirementClass", "fallback", "requirement_class", "variant_name"]

RequirementClass = Literal["read-only", "workspace-write", "danger-full-access", "external-sandbox"]

_VARIANTS: Mapping[str, str] = {
    "read-only": "ReadOnly",
    "workspace-write": "WorkspaceWrite",
    "danger-full-access": "DangerFullAccess",
    "external-sandbox": "ExternalSandbox",
}
# With denials, a mode that can't express them is out.
_EXPRESS_DENIALS: tuple[RequirementClass, ...] = ("read-only", "workspace-write")


def requirement_class(profile: PermissionProfile) -> RequirementClass:
    """How requirements see a profile: by what it allows at most."""
    match profile:
        case DisabledProfile():
            return "danger-full-access"
        case ExternalProfile():
            return "external-sandbox"
    file_system = file_system_of(profile)
    if has_full_disk_write(file_system):
        return "danger-full-access"
    return "workspace-write" if any(entry.access == "write" for entry in file_system.entries) else "read-only"


def variant_name(sandbox_class: str) -> str:
    """A sandbox class as messages about requirements name it."""
    return _VARIANTS[sandbox_class]


@frozen
class PermissionRequirements:
    """What profiles must satisfy. `sandbox_classes` None allows all; `deny_read` has normal absolute paths and globs.

    The sources say in messages who requires it.
    """

    sandbox_classes: tuple[RequirementClass, ...] | None = None
    sandbox_source: str = "<unspecified>"
    deny_read: tuple[str, ...] = ()
    deny_read_source: str = "<unspecified>"

    def check(self, profile: PermissionProfile) -> None:
        """Raises `InvalidValue` for a profile that is not allowed."""
        for allowed, source in self._allowed():
            found = requirement_class(profile)
            if found not in allowed:
                names = ", ".join(map(variant_name, allowed))
                raise InvalidValue("sandbox_mode", variant_name(found), f"[{names}]", source)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is required."""
        return self.sandbox_classes is None and not self.deny_read

    def _allowed(self) -> list[tuple[tuple[RequirementClass, ...], str]]:
        made: list[tuple[tuple[RequirementClass, ...], str]] = []
        if self.sandbox_classes is not None:
            made.append((self.sandbox_classes, self.sandbox_source))
        if self.deny_read:
            made.append((_EXPRESS_DENIALS, self.deny_read_source))
        return made

    def validator(self) -> Callable[[PermissionProfile], None] | None:
        """What the profile of a session is checked with from now on; None where nothing is required."""
        return None if self.is_empty else self.check

    def with_denials(self, profile: PermissionProfile) -> PermissionProfile:
        """The profile with what must not be read denied; one that restricts nothing stays as it is."""
        file_system = file_system_of(profile)
        if not self.deny_read or file_system.kind != "restricted":
            return profile
        denied = [
            FileSystemEntry(GlobPath(text) if has_glob_characters(text) else LiteralPath(text), "none")
            for text in self.deny_read
        ]
        made = attrs.evolve(file_system, entries=merge_entries(file_system.entries, denied))
        return from_runtime(made, network_of(profile), enforcement_of(profile))


def fallback(refused: PermissionProfile) -> PermissionProfile:
    """What stands in for a refused profile: read-only, with what the refused one denied still denied."""
    allowed = read_only()
    return from_runtime(preserve_deny(file_system_of(allowed), file_system_of(refused)), network_of(allowed), "managed")
