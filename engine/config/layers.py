"""Layers of configuration, lowest first: their merge, the origin of every value, and where a wrong one stands."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast

from engine.config.merge import Table, fingerprint, leaves, merge, normalise
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.config.source import TomlFile

__all__ = ["MANAGED", "PRECEDENCE", "Layer", "LayerName", "LayerStack", "Path", "dotted", "merged"]

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

# Lowest first (config.md 1). A user layer of a profile stands one above the user's own.
PRECEDENCE: Mapping[LayerName, int] = {
    "mdm": 0,
    "system": 10,
    "user": 20,
    "project": 25,
    "sessionFlags": 30,
    "session": 31,
    "legacyManagedConfigTomlFromFile": 40,
    "legacyManagedConfigTomlFromMdm": 50,
}
MANAGED: tuple[LayerName, ...] = ("legacyManagedConfigTomlFromFile", "legacyManagedConfigTomlFromMdm")

_WHERE: Mapping[str, str] = {"sessionFlags": "-c/--config override", "session": "the session's settings"}


def dotted(path: Path) -> str:
    """A path as people write it."""
    return ".".join(map(str, path))


class Layer:
    """One table and where it comes from; nobody changes it. Paths in it are absolute, older names of keys replaced.

    - `path`: its file, be it there or not; `file`: the file as it was read
    - `profile`: the name of a user layer that was chosen besides the user's own
    - `folder`: the `.codex` directory of a project layer, which may hold more than a configuration
    - `disabled`: why the layer takes no part; its table is then only to be looked at
    - `ignored`: keys of the file that such a layer may not set; they are not in the table
    """

    def __init__(
        self,
        name: LayerName,
        table: Table,
        file: TomlFile | None = None,
        *,
        path: str | None = None,
        profile: str | None = None,
        folder: str | None = None,
        disabled: str | None = None,
        ignored: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.table = normalise(table)
        self._loaded = table
        self.file = file
        self.path = file.path if file is not None else path
        self.profile = profile
        self.folder = folder
        self.disabled = disabled
        self.ignored = ignored

    @cached_property
    def version(self) -> str:
        """The fingerprint of the table as it was loaded, with the older names of keys (config.md 1.2)."""
        return fingerprint(self._loaded)

    @property
    def precedence(self) -> int:
        """Its place among the layers; the higher one wins."""
        return PRECEDENCE[self.name] + (self.profile is not None)

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
    """All layers of one load, lowest precedence first. `layers` take part; `everything` has the disabled ones too.

    Raises `ConfigError` for layers in another order.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        _check_order(layers)
        self.everything = tuple(layers)
        self.layers = tuple(layer for layer in layers if layer.disabled is None)

    @cached_property
    def table(self) -> Table:
        """The merge of all layers."""
        return merged(self.layers)

    def without(self, *names: LayerName) -> Table:
        """The merge of the layers that are none of `names`."""
        return merged([layer for layer in self.layers if layer.name not in names])

    @cached_property
    def origin_layers(self) -> Mapping[str, Layer]:
        """The layer that last wrote each leaf. Indices of a longer array that was replaced keep theirs."""
        made: dict[str, Layer] = {}
        for layer in self.layers:
            made.update(dict.fromkeys(leaves(layer.table), layer))
        return made

    @cached_property
    def origins(self) -> Mapping[str, LayerName]:
        """The names of those layers."""
        return {leaf: layer.name for leaf, layer in self.origin_layers.items()}

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


def merged(layers: Iterable[Layer]) -> Table:
    """The merge of some layers, lowest first."""
    made: Table = {}
    for layer in layers:
        made = merge(made, layer.table)
    return made


def _check_order(layers: Sequence[Layer]) -> None:
    outer: str | None = None
    for below, above in itertools.pairwise(layers):
        if below.precedence > above.precedence:
            raise ConfigError("config layers are not in correct precedence order")
    for layer in layers:
        if layer.folder is None:
            continue
        around = os.path.dirname(layer.folder)
        if outer is not None and not os.path.join(around, "").startswith(os.path.join(outer, "")):
            raise ConfigError("project layers are not ordered from root to cwd")
        outer = around
