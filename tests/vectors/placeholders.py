"""Compares recorded values with real ones: ids by first appearance, free texts not at all (README in `app_server/`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Comparison"]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"01900000-0000-7000-8000-[0-9]{12}")
_FREE = ("<free text>", "URL")
_PREFIX = "expected one of "


class Comparison:
    """Collects what differs. `older` compares with a recording of 0.131, which says less than 0.163 does."""

    def __init__(self, *, older: bool = False) -> None:
        self.older = older
        self.expected: dict[str, object] = {}
        self.got: dict[str, object] = {}
        self._forth: dict[str, str] = {}
        self._back: dict[str, str] = {}

    def differ(self, what: str, expected: object, got: object) -> None:
        """Notes a difference."""
        name = what
        while name in self.expected:
            name += "'"
        self.expected[name] = expected
        self.got[name] = got

    def same(self, what: str, expected: object, got: object) -> None:
        """Notes a difference unless `got` is what was recorded."""
        if not self.matches(expected, got):
            self.differ(what, expected, got)

    def same_lines(self, what: str, expected: Sequence[Mapping[str, Any]], got: Sequence[Mapping[str, Any]]) -> None:
        """Compares line by line and reports the first that differs, or the whole rest where the count differs."""
        if self.older:
            # 0.131 has no warning about an unknown model here; numbers then differ, so they are paired like ids.
            expected, got = _without_warnings(expected), _without_warnings(got)
        for at, (one, other) in enumerate(zip(expected, got, strict=False)):
            if not self.matches(one, other):
                self.differ(f"{what} line {at + 1}", one, other)
                return
        if len(expected) != len(got):
            at = min(len(expected), len(got))
            self.differ(f"{what} from line {at + 1}", list(expected[at:]), list(got[at:]))

    def pair(self, placeholder: str, real: str) -> bool:
        """Binds two ids to each other; false where either is bound to something else."""
        return (
            self._forth.setdefault(placeholder, real) == real
            and self._back.setdefault(real, placeholder) == placeholder
        )

    def matches(self, expected: object, got: object) -> bool:
        """Whether `got` is what was recorded, under the rules for placeholders."""
        match expected, got:
            case dict(), dict():
                unknown = got.keys() - expected.keys() - ({"cache_write_input_tokens"} if self.older else set())
                return not unknown and all(
                    key in got and self._member(key, value, got[key]) for key, value in expected.items()
                )
            case list(), list():
                return len(expected) == len(got) and all(map(self.matches, expected, got))
            case str(), str():
                return self._text(expected, got)
            case _:
                return type(expected) is type(got) and expected == got

    def _member(self, key: str, expected: object, got: object) -> bool:
        if self.older and key == "id" and _is_number(expected) and _is_number(got):
            return self.pair(str(expected), str(got))
        return self.matches(expected, got)

    def _text(self, expected: str, got: str) -> bool:
        if expected == got or expected in _FREE:
            return True
        if expected.startswith(_PREFIX):
            return got.startswith(_PREFIX)
        parts = re.split(rf"({_PLACEHOLDER.pattern}|<free text>)", expected)
        pattern = "".join(
            ".*" if part == "<free text>" else f"({_UUID.pattern})" if at % 2 else re.escape(part)
            for at, part in enumerate(parts)
        )
        found = re.fullmatch(pattern, got, re.DOTALL | re.IGNORECASE)
        ids = [part for part in parts[1::2] if part != "<free text>"]
        return found is not None and all(map(self.pair, ids, found.groups()))


def _is_number(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"item_\d+", value) is not None


def _without_warnings(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [line for line in lines if line.get("item", {}).get("type") != "error"]
