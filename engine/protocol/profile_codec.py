"""Permission data on the core wire: read leniently, kept whole where something in it is unknown.

A profile or policy with a part that this version does not know (a kind, an access mode) becomes an `UnknownVariant` as
a whole, and is written back as it came: half a profile must not pass for one. Strict reading, with normal paths, is
`engine.protocol.profile_decoding`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import cattrs

from engine.errors import ProtocolError
from engine.protocol.profile_decoding import decode_untagged_profile
from engine.protocol.profiles import (
    Access,
    FileSystemPath,
    FileSystemSandboxPolicy,
    ManagedFileSystem,
    PermissionProfile,
    SandboxPolicy,
    SpecialKind,
)
from engine.protocol.wire import UnknownVariant

__all__ = ["register"]

_Hook = Callable[[Any, Any], Any]

# Older and newer spellings of other writers.
_SPELLINGS: Mapping[Any, Mapping[str, str]] = {
    Access: {"deny": "none"},
    SpecialKind: {"current_working_directory": "project_roots"},
}
_WHOLE = (
    frozenset(typing.get_args(PermissionProfile)),
    frozenset(typing.get_args(SandboxPolicy)),
    frozenset({FileSystemSandboxPolicy}),
)


def register(converter: cattrs.Converter) -> None:
    """Adds the hooks to the core wire's converter. Mismatches are `ProtocolError` or `ValueError`."""
    converter.register_structure_hook_func(_is_literal, _literal)
    converter.register_structure_hook_factory(lambda kind: kind in (FileSystemPath, ManagedFileSystem), _tagged)
    converter.register_structure_hook_factory(_is_recorded, _recorded)


def _is_literal(kind: Any) -> bool:
    origin: object = typing.get_origin(kind)
    return origin is typing.Literal


def _literal(value: Any, kind: Any) -> Any:
    if isinstance(value, str):
        value = _SPELLINGS.get(kind, {}).get(value, value)
        if value in typing.get_args(kind):
            return value
    raise ValueError(f"expected one of {', '.join(map(repr, typing.get_args(kind)))}, got {value!r}")


def _tagged(kind: Any, converter: cattrs.Converter) -> _Hook:
    hooks = {member.type: converter.get_structure_hook(member) for member in typing.get_args(kind)}
    classes = {member.type: member for member in typing.get_args(kind)}

    def structure(value: Any, _: Any) -> Any:
        tag = value.get("type") if isinstance(value, dict) else None
        if not isinstance(tag, str) or tag not in hooks:
            raise ValueError(f"expected one of {', '.join(hooks)}, got {tag!r}")
        return hooks[tag](value, classes[tag])

    return structure


def _is_recorded(kind: Any) -> bool:
    """Whether `kind` is one of the unions that carry permission data in lines and events, or None besides."""
    if not isinstance(kind, types.UnionType) and typing.get_origin(kind) is not typing.Union:
        return False
    members = frozenset(typing.get_args(kind))
    return UnknownVariant in members and members - {UnknownVariant, type(None)} in _WHOLE


def _recorded(kind: Any, converter: cattrs.Converter) -> _Hook:
    members = [member for member in typing.get_args(kind) if member not in (UnknownVariant, type(None))]
    nullable = type(None) in typing.get_args(kind)
    untagged = members == [FileSystemSandboxPolicy]
    hooks = {getattr(member, "type", ""): (member, converter.get_structure_hook(member)) for member in members}
    is_profile = frozenset(members) == frozenset(typing.get_args(PermissionProfile))

    def structure(value: Any, _: Any) -> Any:
        if value is None and nullable:
            return None
        if not isinstance(value, dict):
            raise ValueError(f"expected an object, got {type(value).__name__}")
        tag = "" if untagged else value.get("type")
        member, hook = hooks.get(tag, (None, None)) if isinstance(tag, str) else (None, None)
        try:
            if hook is not None:
                return hook(value, member)
            if is_profile:
                return decode_untagged_profile(value)
        except (ProtocolError, KeyError, TypeError, ValueError, AttributeError):
            pass
        return UnknownVariant(value)

    return structure
