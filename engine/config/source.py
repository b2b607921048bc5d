"""Reading one TOML file: its table, and for every error the place in the file."""

from __future__ import annotations

import os
import re
import stat
from functools import cached_property

from engine.config.layers import Path
from engine.config.merge import Table
from engine.errors import ConfigError

__all__ = ["TomlFile", "parse_toml", "read_text", "read_toml"]

_PLACE = r" \(at (?:line (\d+), column (\d+)|end of document)\)$"
_BOM = "\ufeff"


class TomlFile:
    """A parsed document. `text` is without a byte order mark and with `\\n` line ends.

    `within` is the key of the table that holds the configuration, where that is not all of the document.
    """

    def __init__(self, path: str, text: str, table: Table, within: Path = ()) -> None:
        self.path = path
        self.text = text
        self.table = table
        self.within = within

    @cached_property
    def _places(self) -> dict[Path, tuple[int, int]]:
        from engine.config.locate import places

        return places(self.text)

    def locate(self, path: Path) -> tuple[int, int] | None:
        """Line and column (from 1, in characters) of a key or array element, or of the nearest table around it."""
        whole = (*self.within, *path)
        for end in range(len(whole), 0, -1):
            place = self._places.get(whole[:end])
            if place is not None:
                return place
        return None


def read_toml(path: str) -> TomlFile | None:
    """The document at `path`; None if there is no such file. Raises `ConfigError`.

    Blocks for as long as the disk does; call it before a nursery opens, or in a thread.
    """
    text = read_text(path)
    return None if text is None else parse_toml(text, path)


def read_text(path: str) -> str | None:
    """The text of a file that must be valid UTF-8; None if there is no such file. Raises `ConfigError`."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise ConfigError("is a directory, not a file", file=path)
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            raise ConfigError("is not a regular file", file=path)
        with open(path, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise ConfigError(f"can't be read: {exc.strerror or exc}", file=path) from exc
    except ValueError as exc:
        raise ConfigError(f"is no path: {exc}", file=path.replace("\0", "\\0")) from exc
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        before = data[: exc.start].decode("utf-8")
        line, column = _place_at(before, len(before))
        raise ConfigError(f"is not UTF-8: byte 0x{data[exc.start]:02x}", file=path, line=line, column=column) from exc
    return text.removeprefix(_BOM)


def parse_toml(text: str, path: str) -> TomlFile:
    """`text` as a document that came from `path`. Raises `ConfigError` with line and column."""
    import tomllib

    text = text.replace("\r\n", "\n")
    try:
        table = tomllib.loads(text)
    except RecursionError as exc:
        raise ConfigError("invalid TOML: nested too deeply", file=path) from exc
    except ValueError as exc:
        message = str(exc)
        found = re.search(_PLACE, message)
        if found is None:
            raise ConfigError(f"invalid TOML: {message}", file=path) from exc
        place = (int(found[1]), int(found[2])) if found[1] else _place_at(text, len(text))
        raise ConfigError(
            f"invalid TOML: {message[: found.start()]}", file=path, line=place[0], column=place[1]
        ) from exc
    return TomlFile(path, text, table)


def _place_at(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1
