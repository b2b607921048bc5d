"""Command line overrides `-c a.b=value`: from text to a path and a value, and into a table (config.md 1.5)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from engine.errors import ConfigError

__all__ = ["overrides_table", "parse_override", "plain", "set_path", "split_path"]

_QUOTES = "\"'"


def parse_override(text: str) -> tuple[str, object]:
    """`"a.b=value"` as `("a.b", value)`: split at the first `=`, both sides trimmed.

    The value is TOML; what is no TOML is the text itself, without surrounding quotes. Raises `ConfigError` for a
    missing `=`, an empty path or path segment, and text that is no valid Unicode.
    """
    path, equals, value = text.partition("=")
    path, value = path.strip(), value.strip()
    if not equals:
        raise ConfigError(f"Invalid override (missing '='): {_printable(text)}")
    if not path:
        raise ConfigError(f"Empty key in override: {_printable(text)}")
    if any(0xD800 <= ord(char) <= 0xDFFF for char in text):
        raise ConfigError(f"Invalid override (not valid UTF-8): {_printable(text)}")
    split_path(path)
    return path, _value(value)


def split_path(path: str) -> list[str]:
    """The segments of a dotted path, split at every `.`; there is no quoting. Raises `ConfigError` for an empty one."""
    segments = path.split(".")
    if not all(segments):
        raise ConfigError(f"Empty segment in the key of an override: {_printable(path)}")
    return segments


def set_path(table: dict[str, object], path: Sequence[str], value: object) -> None:
    """Put `value` at `path`; tables on the way are made, a scalar in the way is replaced by a table."""
    for segment in path[:-1]:
        below = table.get(segment)
        if not isinstance(below, dict):
            below = table[segment] = {}
        table = below
    table[path[-1]] = value


def overrides_table(overrides: Iterable[tuple[str, object]]) -> dict[str, object]:
    """One table of all overrides; later ones overwrite earlier ones, and None means not given. Values are copied."""
    table: dict[str, object] = {}
    for path, value in overrides:
        if value is not None:
            set_path(table, split_path(path), plain(value))
    return table


def plain(value: object) -> object:
    """A caller's value as a TOML reader would give it: dicts, lists and scalars of its own, without None."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def _value(text: str) -> object:
    # The plain forms that a program passes are read without the TOML parser: its import costs more than all else here.
    if text in ("true", "false"):
        return text == "true"
    inner = text[1:-1]
    if len(text) >= 2 and text[0] == text[-1] == '"' and inner.isprintable() and not {'"', "\\"} & set(inner):
        return inner

    import tomllib

    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text.strip(_QUOTES)
    # A line break could end the value and begin another key.
    return parsed["value"] if len(parsed) == 1 else text.strip(_QUOTES)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
