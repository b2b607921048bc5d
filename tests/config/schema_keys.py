"""Walks the schema of the configuration: every key it knows, with values that fit it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from engine.config.kinds import (
    ANY,
    BOOL,
    FLOAT,
    INT,
    PATH,
    STR,
    TABLE,
    ByType,
    Choice,
    Kind,
    ListOf,
    MapOf,
    Report,
    Table,
    Whole,
)
from engine.config.mcp_servers import McpServer
from engine.config.schema import ROOT

__all__ = ["NAME", "Leaf", "schema_leaves"]

NAME = "some-name"  # stands where a table has free keys


class Leaf(NamedTuple):
    """A key that holds a value, by its path from the top; `values` are some that fit it."""

    path: tuple[str, ...]
    values: tuple[object, ...]

    @property
    def dotted(self) -> str:
        """The key as people write it, with `<name>` where it is free."""
        return ".".join("<name>" if part == NAME else part for part in self.path)

    def table(self, value: object) -> dict[str, object]:
        """The smallest table that has this key, and what must stand beside it."""
        made = value
        for end in range(len(self.path) - 1, -1, -1):
            made = {**_beside(self.path[:end]), self.path[end]: made}
        assert isinstance(made, dict)
        return made


def schema_leaves() -> Iterator[Leaf]:
    """All of them, in the order of the schema. A table whose content is open is a leaf of its own."""
    yield from _leaves(ROOT, ())


def _leaves(kind: Kind, path: tuple[str, ...]) -> Iterator[Leaf]:
    match kind:
        case Table():
            for key, below in kind.keys.items():
                yield from _leaves(below, (*path, key))
            if kind.rest is not None:
                yield from _leaves(kind.rest, (*path, NAME))
        case MapOf() if kind.item is not STR:
            yield from _leaves(kind.item, (*path, NAME))
        case ByType():
            scalars = tuple(value for type, below in kind.kinds.items() if type is not dict for value in _values(below))
            if scalars:
                yield Leaf(path, scalars)
            if dict in kind.kinds:
                yield from _leaves(kind.kinds[dict], path)
        case _:
            yield Leaf(path, _values(kind))


def _values(kind: Kind) -> tuple[object, ...]:
    if isinstance(kind, Choice):
        return kind.names
    if isinstance(kind, Whole):
        return (max(kind.low, 1),)
    if isinstance(kind, ListOf):
        return (list(_values(kind.item)[:1]),)
    if isinstance(kind, Table):
        return ({key: _values(below)[0] for key, below in kind.keys.items()},)
    if isinstance(kind, MapOf):
        return ({NAME: _values(kind.item)[0]},)
    if isinstance(kind, McpServer):
        return ({"command": "x"},)
    values: list[tuple[Kind, tuple[object, ...]]] = [
        (ANY, ("x", {"x": 1})),
        (BOOL, (True, False)),
        (STR, ("x",)),
        (PATH, ("/x",)),
        (FLOAT, (1.5,)),
        (INT, (1,)),
        (TABLE, ({"x": 1},)),
    ]
    return next(found for known, found in values if known is kind)


def _beside(path: tuple[str, ...]) -> Mapping[str, object]:
    """Fields that a table must have."""
    kind: Kind = ROOT
    for part in path:
        if isinstance(kind, ByType):
            kind = kind.kinds[dict]
        if isinstance(kind, Table):
            below = kind.keys.get(part, kind.rest)
            assert below is not None
            kind = below
        elif isinstance(kind, MapOf):
            kind = kind.item
    if isinstance(kind, ByType):
        kind = kind.kinds[dict]
    return {key: _values(kind.keys[key])[0] for key in kind.required} if isinstance(kind, Table) else {}


def fits(table: Mapping[str, object]) -> bool:
    """Whether the schema has nothing to say against a table."""
    report = Report()
    ROOT.check(table, (), report)
    return not report.problems and not report.unknown
