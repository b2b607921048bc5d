"""Tables of a script file, read key by key: what is missing, of the wrong kind or left over is a located error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from engine.errors import ScriptError

__all__ = ["Table"]

T = TypeVar("T")
_NAMES: Final = {str: "a string", int: "an integer", bool: "true or false", dict: "a table", list: "an array"}


class Table:
    """A table that is read key by key; what nobody read is an error."""

    def __init__(self, content: Mapping[str, object], where: str) -> None:
        self._left = dict(content)
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def fail(self, message: str) -> ScriptError:
        """The error to raise for something wrong in this table."""
        return ScriptError(f"{self.where.rstrip('.: ')}: {message}")

    def drop(self, *keys: str) -> None:
        """Forgets keys that mean nothing here."""
        for key in keys:
            self._left.pop(key, None)

    def pop(self, key: str) -> object:
        """The value of a key that is there, of whatever kind."""
        return self._left.pop(key)

    def take(self, key: str, kind: type[T]) -> T:
        """The value of a key that must be there."""
        if key not in self._left:
            raise self.fail(f"`{key}` is missing")
        value = self._left.pop(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.fail(f"`{key}` must be {_NAMES[kind]}")
        return value

    def get(self, key: str, kind: type[T]) -> T | None:
        """The value of a key that may be there."""
        return self.take(key, kind) if key in self._left else None

    def number(self, key: str) -> float | None:
        """Seconds: an integer or a float, not negative."""
        if key not in self._left:
            return None
        value = self._left.pop(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise self.fail(f"`{key}` must be a number of seconds, 0 or more")
        return float(value)

    def count(self, key: str, least: int = 0) -> int | None:
        """An integer, at least `least`."""
        value = self.get(key, int)
        if value is not None and value < least:
            raise self.fail(f"`{key}` must be at least {least}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A string, or an array of strings."""
        if key not in self._left:
            return ()
        value = self._left.pop(key)
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return tuple(value)
        raise self.fail(f"`{key}` must be a string or an array of strings")

    def strings(self, key: str) -> dict[str, str]:
        """A table of strings; numbers are written out."""
        content = self.get(key, dict) or {}
        if not all(isinstance(value, str | int | float) for value in content.values()):
            raise self.fail(f"`{key}` must be a table of strings")
        return {str(name): str(value) for name, value in content.items()}

    def tables(self, key: str) -> list[Table]:
        """An array of tables."""
        found = []
        for position, value in enumerate(self.get(key, list) or []):
            where = f"{self.where}{key}[{position}]."
            if not isinstance(value, dict):
                raise ScriptError(f"{where.rstrip('.')}: must be a table")
            found.append(Table(value, where))
        return found

    def end(self) -> None:
        """Raises `ScriptError` if a key is left."""
        if self._left:
            raise self.fail(f"unknown key `{next(iter(self._left))}`")
