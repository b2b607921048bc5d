"""The dotted paths by which callers name a key to change: `a.b`, or `a."with.dots".c` (config.md 16)."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["KeyPathError", "format_key_path", "parse_key_path"]

_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


class KeyPathError(ValueError):
    """A text that names no key."""


def parse_key_path(text: str) -> tuple[str, ...]:
    """The segments of a path. A segment in double quotes may hold anything, with `\\` before a quote or backslash.

    A bare segment may hold anything but a dot. Raises `KeyPathError`.
    """
    if not text.strip():
        raise KeyPathError("keyPath must not be empty")
    segments: list[str] = []
    at = 0
    while True:
        segment, at = _segment(text, at)
        if not segment:
            raise KeyPathError("keyPath segments must not be empty")
        segments.append(segment)
        if at >= len(text):
            return tuple(segments)
        at += 1


def format_key_path(segments: Sequence[str]) -> str:
    """A path that `parse_key_path` reads as these segments."""
    return ".".join(part if part and _BARE.issuperset(part) else f'"{_escaped(part)}"' for part in segments)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _segment(text: str, at: int) -> tuple[str, int]:
    """The segment at `at`, and where the dot after it stands. Bare text may follow a quoted part, not precede it."""
    made = ""
    if text.startswith('"', at):
        made, at = _quoted(text, at + 1)
    end = text.find(".", at)
    end = len(text) if end < 0 else end
    bare = text[at:end]
    if '"' in bare:
        raise KeyPathError("invalid quoted keyPath segment")
    return made + bare, end


def _quoted(text: str, at: int) -> tuple[str, int]:
    """The segment whose opening quote stands before `at`, and where it ends."""
    made: list[str] = []
    while at < len(text):
        char = text[at]
        if char == '"':
            return "".join(made), at + 1
        if char == "\\":
            at += 1
            if at >= len(text):
                raise KeyPathError("unterminated escape in keyPath")
            char = text[at]
        made.append(char)
        at += 1
    raise KeyPathError("unterminated quoted keyPath segment")
