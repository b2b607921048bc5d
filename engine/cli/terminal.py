"""Colour and safe text for a terminal: when to colour, how, and what must never reach one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import IO

from engine.records import frozen

__all__ = ["Palette", "colour_wanted", "plain"]

# Escape sequences (CSI, OSC, two-character ones) and every other control character but newline and tab.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """`text` without anything that moves the cursor or changes the terminal; lone carriage returns end a line."""
    text = _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _CONTROLS.sub("", text)


def colour_wanted(flag: str, stream: IO[str], environment: Mapping[str, str]) -> bool:
    """Whether to colour `stream`: `always`, `never`, or `auto` (a terminal that does not say no)."""
    if flag != "auto":
        return flag == "always"
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    return stream.isatty()


@frozen
class Palette:
    """Text in colour, or as it is."""

    on: bool

    def _wrap(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.on and text else text

    def bold(self, text: str) -> str:
        """Names and headings."""
        return self._wrap("1", text)

    def dim(self, text: str) -> str:
        """What matters less."""
        return self._wrap("2", text)

    def red(self, text: str) -> str:
        """Errors and removed lines."""
        return self._wrap("31", text)

    def green(self, text: str) -> str:
        """Successes and added lines."""
        return self._wrap("32", text)

    def yellow(self, text: str) -> str:
        """Warnings."""
        return self._wrap("33", text)

    def cyan(self, text: str) -> str:
        """The user, positions in a diff, bars."""
        return self._wrap("36", text)

    def magenta(self, text: str) -> str:
        """The model and its tools."""
        return self._wrap("35;1", text)
