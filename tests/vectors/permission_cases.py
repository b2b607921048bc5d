"""Golden cases of the permission algebra: each operation through the engine's public functions, on a real disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import ProtocolError
from engine.permissions.access import compile_policy
from engine.permissions.additional import (
    GlobAccessError,
    effective_profile,
    merge,
    needs_platform_sandbox,
    normalize,
)
from engine.permissions.canonical import absolute
from engine.permissions.compatibility import compatibility_policy
from engine.permissions.legacy import (
    UnbridgeablePolicy,
    enforcement_of_legacy,
    from_legacy,
    from_legacy_for_cwd,
    from_legacy_preserving_deny,
    network_of_legacy,
    to_legacy,
)
from engine.permissions.profiles import (
    file_system_of,
    materialize_policy,
    network_of,
    preserve_deny,
    with_roots_added,
)
from engine.permissions.read_denial import read_deny_matcher
from engine.permissions.roots import (
    Roots,
    WritableRoot,
    is_semantically_equivalent,
    legacy_writable_roots,
    needs_direct_enforcement,
)
from engine.permissions.view import View
from engine.permissions.whole_disk import (
    has_denied_read,
    has_full_disk_read,
    has_full_disk_write,
    includes_platform_defaults,
)
from engine.protocol.codec import encode, json_bytes
from engine.protocol.profile_decoding import (
    decode_additional,
    decode_file_system_policy,
    decode_profile,
    decode_sandbox_policy,
)
from engine.protocol.profiles import AdditionalPermissionProfile
from tests.vectors import permission_settings_cases
from tests.vectors.permission_places import described, layout_named, place_of

__all__ = ["DESCRIBED", "OPERATIONS", "run_case", "run_described"]

Given = Mapping[str, Any]
Operation = Callable[[Given, View], object]


def run_case(case: Given, area: object, root: Path) -> tuple[object, object]:
    """Runs one case in a place of its own; `area` is the file it stands in, whose folder has the layouts."""
    layout = layout_named(case.get("layout"), area.parent if isinstance(area, Path) else None)
    if case["op"] in _WITHOUT_PLACE:
        return case["out"], plain(ALGEBRA[case["op"]](case["in"], described(layout, case["in"]["env"])))
    with place_of(layout) as place:
        given = place.real(case["in"])
        view = place.view(case["in"].get("env") or {})
        expected = _lower(place.real(case["out"])) if case["op"] == "profile_extends" else place.real(case["out"])
        if case["op"] in permission_settings_cases.OPERATIONS:
            return expected, plain(permission_settings_cases.OPERATIONS[case["op"]](given, view, place))
        return expected, plain(ALGEBRA[case["op"]](given, view))


def run_described(case: Given, file: Path) -> tuple[object, object]:
    """The same without a disk: the layout is only described, and placeholders stay as they are."""
    layout = layout_named(case.get("layout"), file.parent)
    view = described(layout, case["in"].get("env") or {})
    return case["out"], plain(ALGEBRA[case["op"]](case["in"], view))


def _lower(value: Any) -> Any:
    """Cases of the later level, read as this one spells them."""
    if isinstance(value, dict):
        return {key: "none" if (key, part) == ("access", "deny") else _lower(part) for key, part in value.items()}
    return list(map(_lower, value)) if isinstance(value, list) else value


def plain(value: object) -> object:
    """A value as JSON has it; wire objects may stand anywhere in it."""
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return json.loads(json_bytes(encode(value)))


# --- values ------------------------------------------------------------------------------------


def _normalize_path(given: Given, view: View) -> object:
    return absolute(given["path"], view, given["base"])


def _decode_profile(given: Given, view: View) -> object:
    try:
        # These cases are those of the 0.131 line, which does not know the spelling `deny`.
        return {"ok": decode_profile(given["json"], deny=False)}
    except ProtocolError:
        return {"error": "profile"}


# --- conversions -------------------------------------------------------------------------------


def _from_legacy(given: Given, view: View) -> object:
    legacy = decode_sandbox_policy(given["legacy"])
    return {
        "file_system": from_legacy(legacy, view),
        "network": network_of_legacy(legacy),
        "enforcement": enforcement_of_legacy(legacy),
    }


def _from_legacy_for_cwd(given: Given, view: View) -> object:
    return from_legacy_for_cwd(decode_sandbox_policy(given["legacy"]), given["cwd"], view)


def _from_legacy_preserving_deny(given: Given, view: View) -> object:
    legacy, existing = decode_sandbox_policy(given["legacy"]), decode_file_system_policy(given["existing"])
    return from_legacy_preserving_deny(legacy, given["cwd"], existing, view)


def _to_legacy(given: Given, view: View) -> object:
    try:
        return {"ok": to_legacy(decode_file_system_policy(given["policy"]), given["network"], given["cwd"], view)}
    except UnbridgeablePolicy:
        return {"error": "unbridgeable"}


def _preserve_deny(given: Given, view: View) -> object:
    return preserve_deny(decode_file_system_policy(given["policy"]), decode_file_system_policy(given["existing"]))


def _materialize(given: Given, view: View) -> object:
    return materialize_policy(decode_file_system_policy(given["policy"]), given["roots"])


def _with_roots_added(given: Given, view: View) -> object:
    return with_roots_added(decode_file_system_policy(given["policy"]), given["roots"])


def _compatibility(given: Given, view: View) -> object:
    profile = decode_profile(given["profile"])
    return compatibility_policy(profile, file_system_of(profile), network_of(profile), given["cwd"], view)


# --- questions ---------------------------------------------------------------------------------


def _access(given: Given, view: View) -> object:
    compiled = compile_policy(decode_file_system_policy(given["policy"]), given["cwd"], view)
    rows = []
    for path in given["paths"]:
        decision = compiled.explain(path)
        row = {
            "path": path,
            "access": compiled.access(path),
            "can_read": compiled.can_read(path),
            "can_write": compiled.can_write(path),
            "forbidden_metadata": compiled.forbidden_metadata(path),
        }
        assert row == {name: getattr(decision, name) for name in row if name != "path"} | {"path": path}
        rows.append(row)
    return rows


def _whole_disk(given: Given, view: View) -> object:
    policy = decode_file_system_policy(given["policy"])
    return {
        "full_read": has_full_disk_read(policy),
        "full_write": has_full_disk_write(policy),
        "has_denied_read": has_denied_read(policy),
        "platform_defaults": includes_platform_defaults(policy),
    }


def _roots(given: Given, view: View) -> object:
    roots = Roots(decode_file_system_policy(given["policy"]), given["cwd"], view)
    return {
        "readable_roots": roots.readable,
        "unreadable_roots": roots.unreadable,
        "unreadable_globs": roots.unreadable_globs,
        "writable_roots": [_writable(root) for root in roots.writable],
    }


def _legacy_roots(given: Given, view: View) -> object:
    return [
        _writable(root) for root in legacy_writable_roots(decode_sandbox_policy(given["legacy"]), given["cwd"], view)
    ]


def _writable(root: WritableRoot) -> object:
    return {
        "root": root.root,
        "read_only_subpaths": root.read_only_subpaths,
        "protected_metadata_names": root.protected_metadata_names,
    }


def _equivalent(given: Given, view: View) -> object:
    left, right = decode_file_system_policy(given["a"]), decode_file_system_policy(given["b"])
    return is_semantically_equivalent(left, right, given["cwd"], view)


def _needs_direct(given: Given, view: View) -> object:
    return needs_direct_enforcement(decode_file_system_policy(given["policy"]), given["network"], given["cwd"], view)


def _read_denied(given: Given, view: View) -> object:
    matcher = read_deny_matcher(decode_file_system_policy(given["policy"]), given["cwd"], view)
    return [
        {"path": path, "denied": None if matcher is None else matcher.is_read_denied(path)} for path in given["paths"]
    ]


# --- additional permissions --------------------------------------------------------------------


def _optional(value: Any) -> AdditionalPermissionProfile | None:
    return None if value is None else decode_additional(value)


def _additional_normalize(given: Given, view: View) -> object:
    try:
        return {"ok": normalize(decode_additional(given["additional"]), view)}
    except GlobAccessError:
        return {"error": "glob_access"}


def _additional_merge(given: Given, view: View) -> object:
    return merge(_optional(given["base"]), _optional(given["add"]))


def _additional_effective(given: Given, view: View) -> object:
    return effective_profile(decode_profile(given["profile"]), _optional(given["additional"]))


def _needs_platform_sandbox(given: Given, view: View) -> object:
    return needs_platform_sandbox(
        decode_file_system_policy(given["policy"]),
        given["network"],
        managed_requirements=given["managed_requirements"],
    )


ALGEBRA: Mapping[str, Operation] = {
    "normalize_path": _normalize_path,
    "decode_profile": _decode_profile,
    "from_legacy": _from_legacy,
    "from_legacy_for_cwd": _from_legacy_for_cwd,
    "from_legacy_preserving_deny": _from_legacy_preserving_deny,
    "legacy_writable_roots": _legacy_roots,
    "to_legacy": _to_legacy,
    "preserve_deny": _preserve_deny,
    "materialize_with_roots": _materialize,
    "with_roots_added": _with_roots_added,
    "access": _access,
    "whole_disk": _whole_disk,
    "roots": _roots,
    "is_semantically_equivalent": _equivalent,
    "needs_direct_enforcement": _needs_direct,
    "compatibility_policy": _compatibility,
    "read_denied": _read_denied,
    "additional_normalize": _additional_normalize,
    "additional_merge": _additional_merge,
    "additional_effective": _additional_effective,
    "needs_platform_sandbox": _needs_platform_sandbox,
}

OPERATIONS = frozenset((*ALGEBRA, *permission_settings_cases.OPERATIONS))

# What can be run without a disk as well.
DESCRIBED = frozenset(ALGEBRA)

# Lexical: a root before the paths would be climbed out of.
_WITHOUT_PLACE = frozenset({"normalize_path"})
