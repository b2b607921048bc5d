"""The kinds of values a configuration key can have: checking, finding unknown keys, making paths absolute.

Plain classes and tuples here and in the neighbouring modules: an attrs class costs a third of a millisecond when it is
made, and a configuration is loaded on the way to every first event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from engine.config.layers import Path

__all__ = [
    "ANY",
    "BOOL",
    "FLOAT",
    "INT",
    "PATH",
    "STR",
    "TABLE",
    "ByType",
    "Choice",
    "Kind",
    "ListOf",
    "MapOf",
    "Problem",
    "Report",
    "Table",
    "Whole",
]

Place = Callable[[str], str]

_I64 = 2**63


class Problem(NamedTuple):
    """A value that does not fit its key."""

    path: Path
    message: str


class Report:
    """What a check found: problems, and keys that nobody knows (their values are kept)."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.unknown: list[Path] = []

    def fail(self, path: Path, message: str) -> None:
        self.problems.append(Problem(path, message))


def named(value: object) -> str:
    """A value as messages name it: its TOML type, and itself where it is short."""
    match value:
        case bool():
            return f"boolean `{'true' if value else 'false'}`"
        case int():
            return f"integer `{value}`" if -_I64 <= value < _I64 else "an integer out of range"
        case float():
            return f"floating point `{value}`"
        case str():
            return f'string "{value if len(value) <= 80 else value[:77] + "..."}"'
        case list() | tuple():
            return "sequence"
        case dict():
            return "map"
        case _:
            return f"{type(value).__name__} `{value}`"


class Kind:
    """A kind of value."""

    expected: ClassVar[str] = "a value"

    def check(self, value: object, path: Path, report: Report) -> None:
        """Report what is wrong with `value`, and keys in it that nobody knows."""

    def rebase(self, value: object, place: Place) -> object:
        """`value` with the paths in it made absolute by `place`; what does not fit stays as it is."""
        return value

    def mismatch(self, value: object, path: Path, report: Report, expected: str | None = None) -> None:
        report.fail(path, f"invalid type: {named(value)}, expected {expected or self.expected}")


class _Any(Kind):
    pass


class _Bool(Kind):
    expected = "a boolean"

    def check(self, value: object, path: Path, report: Report) -> None:
        if type(value) is not bool:
            self.mismatch(value, path, report)


class _Str(Kind):
    expected = "a string"

    def check(self, value: object, path: Path, report: Report) -> None:
        if not isinstance(value, str):
            self.mismatch(value, path, report)


class _Path(_Str):
    expected = "a path string"

    def rebase(self, value: object, place: Place) -> object:
        return place(value) if isinstance(value, str) else value


class _Float(Kind):
    expected = "a number"

    def check(self, value: object, path: Path, report: Report) -> None:
        if type(value) not in (int, float):
            self.mismatch(value, path, report)


class _OpenTable(Kind):
    expected = "a table"

    def check(self, value: object, path: Path, report: Report) -> None:
        if not isinstance(value, Mapping):
            self.mismatch(value, path, report)


class Whole(Kind):
    """An integer between two bounds."""

    def __init__(self, low: int = 0, high: int = _I64 - 1) -> None:
        self.low = low
        self.high = high

    def check(self, value: object, path: Path, report: Report) -> None:
        if type(value) is not int:
            self.mismatch(value, path, report, "an integer")
        elif not self.low <= value <= self.high:
            bounds = "not negative" if (self.low, self.high) == (0, _I64 - 1) else f"{self.low} to {self.high}"
            report.fail(path, f"invalid value: {named(value)}, expected an integer, {bounds}")


class Choice(Kind):
    """One of a few strings."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def check(self, value: object, path: Path, report: Report) -> None:
        if not isinstance(value, str):
            self.mismatch(value, path, report, "a string")
        elif value not in self.names:
            known = ", ".join(f"`{name}`" for name in self.names)
            report.fail(path, f"unknown variant `{value}`, expected {'one of ' if len(self.names) > 1 else ''}{known}")


class ListOf(Kind):
    """An array of one kind."""

    def __init__(self, item: Kind) -> None:
        self.item = item

    def check(self, value: object, path: Path, report: Report) -> None:
        if not isinstance(value, Sequence) or isinstance(value, str):
            self.mismatch(value, path, report, "an array")
            return
        for index, part in enumerate(value):
            self.item.check(part, (*path, index), report)

    def rebase(self, value: object, place: Place) -> object:
        return [self.item.rebase(part, place) for part in value] if isinstance(value, list) else value


class MapOf(Kind):
    """A table with free keys and values of one kind."""

    def __init__(self, item: Kind) -> None:
        self.item = item

    def check(self, value: object, path: Path, report: Report) -> None:
        if not isinstance(value, Mapping):
            self.mismatch(value, path, report, "a table")
            return
        for key, part in value.items():
            self.item.check(part, (*path, key), report)

    def rebase(self, value: object, place: Place) -> object:
        return {key: self.item.rebase(part, place) for key, part in value.items()} if isinstance(value, dict) else value


class Table(Kind):
    """A table with known keys; `required` ones must be there; others fit `rest`, or are unknown."""

    def __init__(self, keys: Mapping[str, Kind], required: tuple[str, ...] = (), rest: Kind | None = None) -> None:
        self.keys = keys
        self.required = required
        self.rest = rest

    def check(self, value: object, path: Path, report: Report) -> None:
        if not isinstance(value, Mapping):
            self.mismatch(value, path, report, "a table")
            return
        for key, part in value.items():
            kind = self.keys.get(key, self.rest)
            if kind is None:
                report.unknown.append((*path, key))
            else:
                kind.check(part, (*path, key), report)
        for key in self.required:
            if key not in value:
                report.fail(path, f"missing field `{key}`")

    def rebase(self, value: object, place: Place) -> object:
        if not isinstance(value, dict):
            return value
        made = dict(value)
        for key, part in value.items():
            kind = self.keys.get(key, self.rest)
            if kind is not None:
                made[key] = kind.rebase(part, place)
        return made


class ByType(Kind):
    """Different kinds for different TOML types (`str`, `bool`, `dict`, `list`); `words` says what is expected."""

    def __init__(self, kinds: Mapping[type, Kind], words: str) -> None:
        self.kinds = kinds
        self.words = words

    def check(self, value: object, path: Path, report: Report) -> None:
        kind = self.kinds.get(type(value))
        if kind is None:
            self.mismatch(value, path, report, self.words)
        else:
            kind.check(value, path, report)

    def rebase(self, value: object, place: Place) -> object:
        kind = self.kinds.get(type(value))
        return value if kind is None else kind.rebase(value, place)


ANY: Kind = _Any()
BOOL: Kind = _Bool()
STR: Kind = _Str()
PATH: Kind = _Path()
FLOAT: Kind = _Float()
INT: Kind = Whole(-_I64)
TABLE: Kind = _OpenTable()
