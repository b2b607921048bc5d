"""Merging configuration tables, where each value came from, and the fingerprint of a table (config.md 1.1, 1.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime

__all__ = ["Table", "canonical_json", "fingerprint", "leaves", "merge", "normalise"]

Table = dict[str, object]

# Older names of keys, by the path of the table they stand in.
_ALIASES: Mapping[tuple[str, ...], Mapping[str, str]] = {
    ("memories",): {"no_memories_if_mcp_or_web_search": "disable_on_external_context"},
}
_DEEPEST_ALIAS = max(len(path) for path in _ALIASES)


def normalise(table: Mapping[str, object]) -> Table:
    """A copy of `table` with older key names replaced; a canonical name in the same table wins over its alias."""
    return _normalise(table, ())


def _normalise(table: Mapping[str, object], path: tuple[str, ...]) -> Table:
    aliases = _ALIASES.get(path)
    made: Table = {}
    for key, value in table.items():
        name = aliases.get(key, key) if aliases else key
        if name != key and name in table:
            continue
        if isinstance(value, dict):
            below = (*path, name)
            value = _normalise(value, below) if len(below) <= _DEEPEST_ALIAS else merge({}, value)
        elif isinstance(value, list):
            value = list(value)
        made[name] = value
    return made


def merge(base: Mapping[str, object], over: Mapping[str, object]) -> Table:
    """`over` laid over `base`: table over table key by key, anything else replaces whole. Both stay as they are.

    Both must be normalised. Merging is a left fold over layers: a scalar between two tables cuts the lower one off.
    """
    made = dict(base)
    for key, value in over.items():
        if isinstance(value, dict):
            below = made.get(key)
            made[key] = merge(below if isinstance(below, dict) else {}, value)
        else:
            made[key] = value
    return made


def leaves(table: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """The dotted paths of all leaves; an array's leaves are its indices. Empty tables and arrays have none."""
    for key, value in table.items():
        yield from _leaves(value, f"{prefix}{key}")


def _leaves(value: object, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from leaves(value, f"{path}.")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _leaves(part, f"{path}.{index}")
    else:
        yield path


def fingerprint(table: Mapping[str, object]) -> str:
    """`sha256:` and the lower-case hex digest of the table's canonical JSON. Comments and key order don't matter."""
    import hashlib

    return "sha256:" + hashlib.sha256(canonical_json(table).encode("utf-8", "surrogatepass")).hexdigest()


def canonical_json(value: object) -> str:
    """JSON with sorted keys, compact separators and unescaped Unicode; numbers that JSON lacks as `null`, and dates as
    other programs that write TOML as JSON have them."""
    import datetime
    import json

    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            parts = (f"{json.dumps(key, ensure_ascii=False)}:{canonical_json(value[key])}" for key in sorted(value))
            return "{" + ",".join(parts) + "}"
        case list() | tuple():
            return "[" + ",".join(map(canonical_json, value)) + "]"
        case float():
            return _float(value)
        case int():
            return str(value)
        case None:
            return "null"
        case datetime.date() | datetime.time():
            return f'{{"$__toml_private_datetime":"{_moment(value)}"}}'
        case _:
            return json.dumps(str(value), ensure_ascii=False)


def _moment(value: datetime.date | datetime.time) -> str:
    text = value.isoformat()
    fraction = getattr(value, "microsecond", 0)
    if fraction:
        text = text.replace(f".{fraction:06}", f".{fraction:06}".rstrip("0"), 1)
    return text.replace("+00:00", "Z")


def _float(value: float) -> str:
    if not math.isfinite(value):
        return "null"
    digits, exponent, power = repr(value).partition("e")
    # Other writers say `1e300` and `1e-5` where Python says `1e+300` and `1e-05`.
    return f"{digits}e{int(power)}" if exponent else digits
