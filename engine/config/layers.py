"""Layers of configuration, lowest first: their merge, the origin of every value, and where a wrong one stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast

from engine.config.merge import Table, fingerprint, leaves, merge
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.config.source import TomlFile

__all__ = ["Layer", "LayerName", "LayerStack", "Path", "dotted"]

# The wire names of layers (config.md 1), and `session` for what a session was started with.
LayerName = Literal[
    "mdm",
    "system",
    "user",
    "project",
    "sessionFlags",
    "session",
    "legacyManagedConfigTomlFromFile",
    "legacyManagedConfigTomlFromMdm",
]

Path = tuple[str | int, ...]

_WHERE: Mapping[str, str] = {"sessionFlags": "-c/--config override", "session": "the session's settings"}


def dotted(path: Path) -> str:
    """A path as people write it."""
    return ".".join(map(str, path))


class Layer:
    """One table and where it comes from. The table is normalised and its paths are absolute; nobody changes it."""

    def __init__(self, name: LayerName, table: Table, file: TomlFile | None = None) -> None:
        self.name = name
        self.table = table
        self.file = file

    @cached_property
    def version(self) -> str:
        """The fingerprint of the table (config.md 1.2)."""
        return fingerprint(self.table)

    @property
    def where(self) -> str:
        """The layer as messages name it, where it has no file."""
        return _WHERE.get(self.name, self.name)

    def holds(self, path: Path) -> bool:
        """Whether the layer has a value at `path`."""
        value: object = self.table
        for part in path:
            match value, part:
                case dict(), str() if part in value:
                    value = value[part]
                case list(), int() if part < len(value):
                    value = value[part]
                case _:
                    return False
        return True

    def error(self, message: str, path: Path, kind: type[ConfigError] = ConfigError) -> ConfigError:
        """The error for a value of this layer: with file, line and column where there is a file."""
        if self.file is None:
            return kind(f"{message} (set by {self.where})", key=dotted(path))
        line, column = self.file.locate(path) or (None, None)
        return kind(message, file=self.file.path, line=line, column=column, key=dotted(path))


class LayerStack:
    """All layers of one load, lowest precedence first."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)

    @cached_property
    def table(self) -> Table:
        """The merge of all layers."""
        return self.upto(len(self.layers))

    def upto(self, count: int) -> Table:
        """The merge of the lowest `count` layers."""
        made: Table = {}
        for layer in self.layers[:count]:
            made = merge(made, layer.table)
        return made

    @cached_property
    def origins(self) -> Mapping[str, LayerName]:
        """The layer that last wrote each leaf. Indices of a longer array that was replaced keep theirs."""
        made: dict[str, LayerName] = {}
        for layer in self.layers:
            for leaf in leaves(layer.table):
                made[leaf] = layer.name
        return made

    def error(self, message: str, path: Path, kind: type[ConfigError] = ConfigError) -> ConfigError:
        """The error for an effective value: it names the highest layer that set it, or no place for a default."""
        holder = self.holder(path)
        return kind(message, key=dotted(path)) if holder is None else holder.error(message, path, kind)

    def holder(self, path: Path) -> Layer | None:
        """The highest layer that has a value at `path`."""
        return next((layer for layer in reversed(self.layers) if layer.holds(path)), None)

    def get(self, *path: str) -> object:
        """The merged value at `path`, or None."""
        value: object = self.table
        for part in path:
            if not isinstance(value, dict):
                return None
            value = cast(Table, value).get(part)
        return value
