"""Where each key and array element of a TOML text stands. Only for valid TOML, and only on the way to an error."""

from __future__ import annotations

import re
from bisect import bisect_right

from engine.config.layers import Path

__all__ = ["places"]

_SPACE = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'  # closing quotes may be preceded by up to two of the content
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")


class _Stop(Exception):
    """The text is not what this scanner understands; what is known so far must do."""


def places(text: str) -> dict[Path, tuple[int, int]]:
    """Line and column (from 1) of the first mention of each path: of keys their name, of array elements their value.

    `text` must be valid TOML with `\\n` line ends. Never raises.
    """
    scanner = _Scanner(text)
    try:
        scanner.document()
    except (_Stop, RecursionError):
        pass
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    made: dict[Path, tuple[int, int]] = {}
    for path, offset in scanner.offsets.items():
        line = bisect_right(starts, offset)
        made[path] = (line, offset - starts[line - 1] + 1)
    return made


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.offsets: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}  # arrays of tables: how many elements so far

    def document(self) -> None:
        table: Path = ()
        while True:
            self.skip(_SPACE)
            if self.at >= len(self.text):
                return
            if self.take("["):
                array = self.take("[")
                table = self.header(self.key(), array=array)
                self.expect("]]" if array else "]")
            else:
                self.pair(table)

    def header(self, key: list[tuple[str, int]], *, array: bool) -> Path:
        path: Path = ()
        for index, (name, offset) in enumerate(key):
            path = (*path, name)
            self.offsets.setdefault(path, offset)
            last = index == len(key) - 1
            if last and array:
                self.counts[path] = self.counts.get(path, 0) + 1
            if path in self.counts:
                path = (*path, self.counts[path] - 1)
                self.offsets.setdefault(path, offset)
        return path

    def pair(self, table: Path) -> None:
        path = table
        for name, offset in self.key():
            path = (*path, name)
            self.offsets.setdefault(path, offset)
        self.expect("=")
        self.value(path)

    def key(self) -> list[tuple[str, int]]:
        parts: list[tuple[str, int]] = []
        while True:
            self.skip(_BLANK)
            start = self.at
            bare = _BARE_KEY.match(self.text, start)
            if bare:
                self.at = bare.end()
                parts.append((bare[0], start))
            else:
                parts.append((self.quoted(), start))
            self.skip(_BLANK)
            if not self.take("."):
                return parts

    def quoted(self) -> str:
        import tomllib

        token = self.string()
        try:
            return next(iter(tomllib.loads(f"{token} = 0")))
        except ValueError:
            raise _Stop from None

    def string(self) -> str:
        found = _STRING.match(self.text, self.at)
        if found is None:
            raise _Stop
        self.at = found.end()
        return found[0]

    def value(self, path: Path) -> None:
        self.skip(_BLANK)
        here = self.text[self.at : self.at + 1]
        if here and here in "\"'":
            self.string()
        elif here == "[":
            self.array(path)
        elif here == "{":
            self.inline_table(path)
        else:
            found = _SCALAR.match(self.text, self.at)
            if found is None:
                raise _Stop
            self.at = found.end()

    def array(self, path: Path) -> None:
        self.expect("[")
        index = 0
        while True:
            self.skip(_SPACE)
            if self.take("]"):
                return
            self.offsets.setdefault((*path, index), self.at)
            self.value((*path, index))
            index += 1
            self.skip(_SPACE)
            self.take(",")

    def inline_table(self, path: Path) -> None:
        self.expect("{")
        while True:
            self.skip(_SPACE)
            if self.take("}"):
                return
            self.pair(path)
            self.skip(_SPACE)
            self.take(",")

    def skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()

    def take(self, token: str) -> bool:
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def expect(self, token: str) -> None:
        self.skip(_BLANK)
        if not self.take(token):
            raise _Stop
