"""Profiles that extend others: tables are merged before they are compiled (permissions.md 11)."""

from __future__ import annotations

from collections.abc import Mapping

from engine.permissions.named import NamedProfileError

__all__ = ["merged_profile"]

Table = Mapping[str, object]

# What the built-in profiles are as parents.
_BUILT_IN: Mapping[str, Table] = {
    ":read-only": {"filesystem": {":root": "read"}},
    ":workspace": {
        "filesystem": {
            ":root": "read",
            ":slash_tmp": "write",
            ":tmpdir": "write",
            ":workspace_roots": {".": "write"},
        }
    },
}


def merged_profile(profiles: Mapping[str, Table], id: str) -> tuple[Table, str | None]:
    """The table of `id`, its parents' below it, and the id of the immediate parent.

    Tables merge key by key, anything else replaces. Raises `NamedProfileError` for a cycle and for a parent that is
    neither a profile of the user's nor `:read-only` or `:workspace`.
    """
    chain: list[Table] = []
    seen: list[str] = []
    at: str | None = id
    while at is not None:
        if at in seen:
            way = " -> ".join([*seen, at])
            raise NamedProfileError(
                "cycle", f"permissions profiles extend each other in a circle: {way}", seen[-1], "extends"
            )
        if at.startswith(":"):
            if at not in _BUILT_IN:
                raise NamedProfileError(
                    "unsupported_parent",
                    f"permissions profile `{seen[-1]}` can't extend the built-in `{at}`",
                    seen[-1],
                    "extends",
                )
            chain.append(_BUILT_IN[at])
            break
        table = profiles.get(at)
        if table is None:
            raise NamedProfileError(
                "undefined_parent",
                f"permissions profile `{seen[-1]}` extends undefined profile `{at}`",
                seen[-1],
                "extends",
            )
        chain.append(table)
        seen.append(at)
        at = _parent(table, at)
    made: Table = {}
    for table in reversed(chain):
        made = _merge(made, table)
    return made, _parent(profiles[id], id)


def _parent(table: Table, id: str) -> str | None:
    parent = table.get("extends")
    if parent is not None and not isinstance(parent, str):
        raise NamedProfileError("malformed", "expected the id of a profile", id, "extends")
    return parent


def _merge(below: Table, above: Table) -> Table:
    made = dict(below)
    for key, value in above.items():
        under = made.get(key)
        made[key] = _merge(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return made
