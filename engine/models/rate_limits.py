"""Rate-limit snapshots from response headers and in-band events, in their core wire form.

A snapshot says how much of one metered limit is used: `primary` and `secondary` are windows
`{used_percent, window_minutes, resets_at}` (percent, minutes, Unix seconds), `credits` is the account's.
The family `x-codex-...` is the limit `codex`; `x-{limit}-primary-used-percent` names further ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from engine.protocol.wire import JsonObject

__all__ = ["snapshot_for_limit", "snapshot_from_event", "snapshots_from_headers"]

DEFAULT_LIMIT: Final = "codex"
_FAMILY_SUFFIX: Final = "-primary-used-percent"


def snapshots_from_headers(headers: Mapping[str, str]) -> list[JsonObject]:
    """All snapshots in `headers` (names in lower case): always the one of `codex`, then other limits that have data."""
    limits = {
        name[len("x-") : -len(_FAMILY_SUFFIX)].replace("-", "_")
        for name in headers
        if name.endswith(_FAMILY_SUFFIX) and name.startswith("x-")
    }
    found = [snapshot_for_limit(headers, DEFAULT_LIMIT)]
    for limit in sorted(limits - {DEFAULT_LIMIT, ""}):
        snapshot = snapshot_for_limit(headers, limit)
        if any(snapshot[part] is not None for part in ("primary", "secondary", "credits")):
            found.append(snapshot)
    return found


def snapshot_for_limit(headers: Mapping[str, str], limit: str | None) -> JsonObject:
    """The snapshot of one limit id; parts without headers are `None`."""
    limit = (limit or "").strip().lower().replace("-", "_") or DEFAULT_LIMIT
    prefix = "x-" + limit.replace("_", "-")
    return _snapshot(
        limit,
        name=headers.get(f"{prefix}-limit-name", "").strip() or None,
        primary=_window_from_headers(headers, f"{prefix}-primary"),
        secondary=_window_from_headers(headers, f"{prefix}-secondary"),
        credits=_credits_from_headers(headers),
        plan=None,
    )


def snapshot_from_event(raw: Mapping[str, object]) -> JsonObject:
    """The snapshot in a `codex.rate_limits` event; what is malformed counts as absent."""
    details = raw.get("rate_limits")
    windows = details if isinstance(details, dict) else {}
    limit = next((value for key in ("metered_limit_name", "limit_name") if isinstance(value := raw.get(key), str)), "")
    plan = raw.get("plan_type")
    return _snapshot(
        limit.strip().lower().replace("-", "_") or DEFAULT_LIMIT,
        name=None,
        primary=_window_from_event(windows.get("primary")),
        secondary=_window_from_event(windows.get("secondary")),
        credits=_credits_from_event(raw.get("credits")),
        plan=plan if isinstance(plan, str) else None,
    )


def _snapshot(
    limit: str,
    *,
    name: str | None,
    primary: JsonObject | None,
    secondary: JsonObject | None,
    credits: JsonObject | None,
    plan: str | None,
) -> JsonObject:
    return {
        "limit_id": limit,
        "limit_name": name,
        "primary": primary,
        "secondary": secondary,
        "credits": credits,
        "plan_type": plan,
        "rate_limit_reached_type": None,
    }


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _integer(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def _window_from_headers(headers: Mapping[str, str], prefix: str) -> JsonObject | None:
    used = _number(headers.get(f"{prefix}-used-percent"))
    if used is None:
        return None
    minutes, resets = _integer(headers.get(f"{prefix}-window-minutes")), _integer(headers.get(f"{prefix}-reset-at"))
    if used == 0 and not minutes and resets is None:
        return None  # zeros are how a server says "no such window"
    return {"used_percent": used, "window_minutes": minutes, "resets_at": resets}


def _window_from_event(value: object) -> JsonObject | None:
    if not isinstance(value, dict):
        return None
    used, minutes, resets = value.get("used_percent"), value.get("window_minutes"), value.get("reset_at")
    if isinstance(used, bool) or not isinstance(used, int | float):
        return None
    return {
        "used_percent": float(used),
        "window_minutes": minutes if type(minutes) is int else None,
        "resets_at": resets if type(resets) is int else None,
    }


def _flag(text: str | None) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get((text or "").lower())


def _credits_from_headers(headers: Mapping[str, str]) -> JsonObject | None:
    has_credits = _flag(headers.get("x-codex-credits-has-credits"))
    unlimited = _flag(headers.get("x-codex-credits-unlimited"))
    if has_credits is None or unlimited is None:
        return None
    balance = headers.get("x-codex-credits-balance", "").strip() or None
    return {"has_credits": has_credits, "unlimited": unlimited, "balance": balance}


def _credits_from_event(value: object) -> JsonObject | None:
    if not isinstance(value, dict):
        return None
    has_credits, unlimited, balance = value.get("has_credits"), value.get("unlimited"), value.get("balance")
    if not isinstance(has_credits, bool) or not isinstance(unlimited, bool):
        return None
    return {
        "has_credits": has_credits,
        "unlimited": unlimited,
        "balance": balance if isinstance(balance, str) else None,
    }
