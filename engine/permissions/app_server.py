"""Permission fields of app-server requests and replies: camelCase to and from the core (permissions.md 1.5, 8.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from engine.errors import InvalidRequest, ProtocolError
from engine.permissions.canonical import absolute
from engine.permissions.view import View
from engine.protocol.profile_decoding import decode_sandbox_policy
from engine.protocol.profiles import (
    DangerFullAccess,
    ExternalSandbox,
    ReadOnly,
    SandboxMode,
    SandboxPolicy,
)
from engine.protocol.wire import JsonObject
from engine.records import frozen

__all__ = [
    "StartFields",
    "TurnFields",
    "decode_policy",
    "decode_start_fields",
    "decode_turn_fields",
    "encode_policy",
]

_TYPES: Mapping[str, str] = {
    "dangerFullAccess": "danger-full-access",
    "readOnly": "read-only",
    "externalSandbox": "external-sandbox",
    "workspaceWrite": "workspace-write",
}
_FIELDS: Mapping[str, str] = {
    "networkAccess": "network_access",
    "writableRoots": "writable_roots",
    "excludeTmpdirEnvVar": "exclude_tmpdir_env_var",
    "excludeSlashTmp": "exclude_slash_tmp",
}
_MODES = ("read-only", "workspace-write", "danger-full-access")


@frozen(kw_only=True)
class StartFields:
    """What `thread/start`, `thread/resume` and `thread/fork` say of permissions; None is not said.

    `cwd` is normal and absolute, `workspace_roots` are made absolute against it and have no duplicates.
    """

    cwd: str
    sandbox: SandboxMode | None = None
    permissions: str | None = None
    workspace_roots: tuple[str, ...] | None = None


@frozen(kw_only=True)
class TurnFields:
    """What `turn/start` says of permissions; None is not said. Paths are normal and absolute."""

    cwd: str | None = None
    sandbox_policy: SandboxPolicy | None = None
    permissions: str | None = None
    workspace_roots: tuple[str, ...] | None = None


def decode_start_fields(params: Mapping[str, object], view: View) -> StartFields:
    """The permission fields of a start. Raises `InvalidRequest`.

    A relative cwd, and the absent one, is the process's.
    """
    permissions, sandbox = _text(params, "permissions"), _text(params, "sandbox")
    if permissions is not None and sandbox is not None:
        raise InvalidRequest("`permissions` cannot be combined with `sandbox`")
    if sandbox is not None and sandbox not in _MODES:
        raise InvalidRequest(f"`sandbox`: expected one of {', '.join(_MODES)}, not {sandbox!r}")
    cwd = absolute(_text(params, "cwd") or ".", view)
    return StartFields(
        cwd=cwd,
        sandbox=cast("SandboxMode | None", sandbox),
        permissions=permissions,
        workspace_roots=_roots(params, cwd, view),
    )


def decode_turn_fields(params: Mapping[str, object], session_cwd: str, view: View) -> TurnFields:
    """The permission fields of a turn in a session that works in `session_cwd`. Raises `InvalidRequest`."""
    permissions, policy = _text(params, "permissions"), params.get("sandboxPolicy")
    if permissions is not None and policy is not None:
        raise InvalidRequest("`permissions` cannot be combined with `sandboxPolicy`")
    named = _text(params, "cwd")
    cwd = None if named is None else absolute(named, view, session_cwd)
    return TurnFields(
        cwd=cwd,
        sandbox_policy=None if policy is None else decode_policy(policy),
        permissions=permissions,
        workspace_roots=_roots(params, cwd or session_cwd, view),
    )


def decode_policy(value: object) -> SandboxPolicy:
    """A legacy policy as clients spell it. Raises `InvalidRequest`."""
    if not isinstance(value, Mapping):
        raise InvalidRequest("invalid sandbox policy: expected an object")
    core: dict[str, object] = {_FIELDS[key]: part for key, part in value.items() if key in _FIELDS}
    tag = value.get("type")
    core["type"] = _TYPES.get(tag, tag) if isinstance(tag, str) and tag in _TYPES else None
    try:
        return decode_sandbox_policy(core)
    except ProtocolError as error:
        raise InvalidRequest(f"invalid sandbox policy: {error}") from error


def encode_policy(policy: SandboxPolicy) -> JsonObject:
    """A legacy policy as clients read it; every field is written."""
    match policy:
        case DangerFullAccess():
            return {"type": "dangerFullAccess"}
        case ReadOnly():
            return {"type": "readOnly", "networkAccess": policy.network_access}
        case ExternalSandbox():
            return {"type": "externalSandbox", "networkAccess": policy.network_access}
    return {
        "type": "workspaceWrite",
        "writableRoots": list(policy.writable_roots),
        "networkAccess": policy.network_access,
        "excludeTmpdirEnvVar": policy.exclude_tmpdir_env_var,
        "excludeSlashTmp": policy.exclude_slash_tmp,
    }


def _roots(params: Mapping[str, object], cwd: str, view: View) -> tuple[str, ...] | None:
    given = params.get("runtimeWorkspaceRoots")
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(root, str) for root in given):
        raise InvalidRequest("`runtimeWorkspaceRoots`: expected an array of strings")
    return tuple(dict.fromkeys(absolute(root, view, cwd) for root in given))


def _text(params: Mapping[str, object], key: str) -> str | None:
    value = params.get(key)
    if value is None or isinstance(value, str):
        return value
    raise InvalidRequest(f"`{key}`: expected a string")
