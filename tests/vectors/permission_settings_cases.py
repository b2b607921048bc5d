"""Golden cases of permission settings: profiles of a configuration, thread starts, turns, settings updates.

They go the way a session goes: a `config.toml` (and `requirements.toml`) on the disk, `load_config`, the permissions it
gives, and `SessionPermissions.apply`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.config.loading import load_config
from engine.config.model import Config
from engine.config.permissions import PermissionOverrides, PermissionsError
from engine.errors import ConfigError, InvalidRequest
from engine.permissions.app_server import decode_start_fields, decode_turn_fields, encode_policy
from engine.permissions.compatibility import Projection
from engine.permissions.named import compile_named
from engine.permissions.state import PermissionUpdate, ProfileSnapshot, ProfileState, SessionPermissions
from engine.permissions.view import View
from engine.protocol.codec import encode
from engine.protocol.profile_decoding import decode_profile, decode_sandbox_policy
from engine.protocol.profiles import ActivePermissionProfile
from tests.vectors.permission_places import Place

__all__ = ["OPERATIONS"]

Given = Mapping[str, Any]


# --- configurations ------------------------------------------------------------------------------


def _toml(value: object) -> str:
    """A JSON value as inline TOML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _write(path: str, table: Given) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_text("".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in table.items()))


def _load(place: Place, given: Given, *, cwd: str, start: Given | None = None, view: View) -> Config:
    """The configuration of a case; `start` holds the camelCase fields of `thread/start`."""
    config = dict(given.get("config") or {})
    if "projects" in config:
        config["projects"] = {path: {"trust_level": level} for path, level in config["projects"].items()}
    home = place.real("/codex_home")
    _write(f"{home}/config.toml", config)
    system = f"{place.root}/etc"
    if given.get("requirements") is not None:
        _write(f"{system}/requirements.toml", given["requirements"])
    start = start or {}
    fields = decode_start_fields(start, view)
    session = dict(start.get("config") or {})
    if start.get("approvalPolicy") is not None:
        session["approval_policy"] = start["approvalPolicy"]
    return load_config(
        home,
        cwd=cwd,
        session=session,
        env=place.environment(given.get("env") or {}),
        permissions=PermissionOverrides(
            sandbox=fields.sandbox, permissions=fields.permissions, workspace_roots=fields.workspace_roots
        ),
        system_folder=system,
    )


# --- the forms of the cases ----------------------------------------------------------------------


def _turn(permissions: SessionPermissions, view: View) -> object:
    return _recorded(permissions.cwd, permissions.turn(view))


def _recorded(cwd: str, turn: Projection) -> object:
    return {
        "cwd": cwd,
        "sandbox_policy": turn.sandbox_policy,
        "permission_profile": turn.profile,
        "file_system_sandbox_policy": turn.differing_file_system,
    }


def _state(permissions: SessionPermissions) -> object:
    snapshot = permissions.snapshot
    return {
        "cwd": permissions.cwd,
        "workspace_roots": permissions.workspace_roots,
        "profile": snapshot.profile,
        "active": None if snapshot.active is None else snapshot.active.id,
        "profile_workspace_roots": snapshot.workspace_roots,
    }


def _permissions(state: Given) -> SessionPermissions:
    active = None if state["active"] is None else ActivePermissionProfile(state["active"])
    snapshot = ProfileSnapshot.of(decode_profile(state["profile"]), active, tuple(state["profile_workspace_roots"]))
    return SessionPermissions(state["cwd"], tuple(state["workspace_roots"]), ProfileState.new(snapshot))


def _update(given: Given) -> PermissionUpdate:
    policy, profile, roots = (given.get(key) for key in ("sandbox_policy", "permission_profile", "workspace_roots"))
    own = given.get("profile_workspace_roots")
    return PermissionUpdate(
        cwd=given.get("cwd"),
        workspace_roots=None if roots is None else tuple(roots),
        sandbox_policy=None if policy is None else decode_sandbox_policy(policy),
        permission_profile=None if profile is None else decode_profile(profile),
        active=None if given.get("active") is None else ActivePermissionProfile(given["active"]),
        profile_workspace_roots=None if own is None else tuple(own),
    )


def _requested(config: Config, permissions: SessionPermissions, request: Given, view: View) -> PermissionUpdate:
    """The core update that a turn request becomes. Raises `InvalidRequest`, `ConfigError`."""
    fields = decode_turn_fields(request, permissions.cwd, view)
    if request.get("approvalPolicy") is not None:
        config.requirements.check_approval_policy(request["approvalPolicy"])
    if fields.permissions is None:
        return PermissionUpdate(
            cwd=fields.cwd, workspace_roots=fields.workspace_roots, sandbox_policy=fields.sandbox_policy
        )
    roots = permissions.workspace_roots if fields.workspace_roots is None else fields.workspace_roots
    snapshot = config.permissions.source.named(
        fields.permissions, cwd=fields.cwd or permissions.cwd, roots=roots
    ).snapshot
    return PermissionUpdate(
        cwd=fields.cwd,
        workspace_roots=fields.workspace_roots,
        permission_profile=snapshot.profile,
        active=snapshot.active,
        profile_workspace_roots=snapshot.workspace_roots,
    )


def _written(update: PermissionUpdate) -> object:
    policy = update.sandbox_policy
    made = {
        "cwd": update.cwd,
        "workspace_roots": update.workspace_roots,
        # Here the booleans are always written, but an empty list is not.
        "sandbox_policy": policy,
        "permission_profile": update.permission_profile,
        "active": None if update.active is None else update.active.id,
        "profile_workspace_roots": update.profile_workspace_roots,
    }
    return {key: value for key, value in made.items() if value is not None}


# --- operations ----------------------------------------------------------------------------------


def _compile_profile(given: Given, view: View, place: Place) -> object:
    filled = {name: {"filesystem": {":root": "read"}} for name in given["defined"]}
    tables = {**filled, given["id"]: given["profile"]}
    case = {**given, "config": {"default_permissions": given["select"], "permissions": tables}}
    try:
        config = _load(place, case, cwd=given["cwd"], start={"cwd": given["cwd"]}, view=view)
    except PermissionsError as error:
        return {"error": error.rule}
    compiled = compile_named(given["profile"], id=given["id"], cwd=given["cwd"], home=view.home)
    return {
        "ok": {
            "policy": compiled.file_system,
            "network": compiled.network,
            "profile_workspace_roots": config.permissions.state.snapshot.workspace_roots,
            "warnings": sorted(warning.kind for warning in compiled.warnings),
            "turn": _turn(config.permissions.session(), view),
        }
    }


def _thread_start(given: Given, view: View, place: Place) -> object:
    start = given["start"]
    permissions = _load(place, given, cwd=start["cwd"], start=start, view=view).permissions.session()
    state = _state(permissions)
    assert isinstance(state, dict)
    return {**state, "sandbox": encode_policy(permissions.turn(view).sandbox_policy)}


def _turn_request(given: Given, view: View, place: Place) -> object:
    permissions = _permissions(given["state"])
    config = _load(place, given, cwd=permissions.cwd, start={"cwd": permissions.cwd}, view=view)
    update = _requested(config, permissions, given["request"], view)
    after = permissions.apply(update, view)
    return {"update": _written(update), "state": _state(after), "turn": _turn(after, view)}


def _session_apply(given: Given, view: View, place: Place) -> object:
    after = _permissions(given["state"]).apply(_update(given["update"]), view)
    return {"state": _state(after), "turn": _turn(after, view)}


def _constrained_start(given: Given, view: View, place: Place) -> object:
    config = _load(place, given, cwd=given["cwd"], start={"cwd": given["cwd"], **given["start"]}, view=view)
    permissions = config.permissions.session()
    active = permissions.snapshot.active
    return {
        "active": None if active is None else active.id,
        "approval_policy": config.approval_policy,
        "sandbox": encode_policy(permissions.turn(view).sandbox_policy),
        "turn": _turn(permissions, view),
    }


def _constrained_turn(given: Given, view: View, place: Place) -> object:
    before = given["before"]
    cwd = before["cwd"]
    config = _load(place, given, cwd=cwd, start={"cwd": cwd}, view=view)
    snapshot = ProfileSnapshot.of(decode_profile(before["permission_profile"]))
    state = ProfileState.new(snapshot, config.requirements.permissions.validator())
    permissions = SessionPermissions(cwd, (cwd,), state)
    try:
        update = _requested(config, permissions, given["request"], view)
        return {"turn": _turn(permissions.apply(update, view), view)}
    except (InvalidRequest, ConfigError):
        return {"error": True}


def _profile_extends(given: Given, view: View, place: Place) -> object:
    case = {"config": {"default_permissions": given["select"], "permissions": given["permissions"]}}
    try:
        config = _load(place, case, cwd=given["cwd"], start={"cwd": given["cwd"]}, view=view)
    except PermissionsError as error:
        return {"error": error.rule}
    permissions = config.permissions.session()
    active = permissions.snapshot.active
    assert active is not None
    turn = permissions.turn(view)
    memories = place.real("/codex_home/memories")
    profile = encode(turn.profile)
    profile["file_system"]["entries"] = [
        entry for entry in profile["file_system"]["entries"] if entry["path"].get("path") != memories
    ]
    sandbox = encode_policy(turn.sandbox_policy)
    if "writableRoots" in sandbox:
        roots = sandbox["writableRoots"]
        assert isinstance(roots, list)
        sandbox["writableRoots"] = [root for root in roots if root != memories]
    return {
        "active": {"id": active.id, "extends": active.extends},
        "permission_profile": profile,
        "sandbox": sandbox,
        "workspace_roots": permissions.workspace_roots,
    }


OPERATIONS: Mapping[str, Callable[[Given, View, Place], object]] = {
    "compile_profile": _compile_profile,
    "thread_start": _thread_start,
    "turn_request": _turn_request,
    "session_apply": _session_apply,
    "constrained_start": _constrained_start,
    "constrained_turn": _constrained_turn,
    "profile_extends": _profile_extends,
}
