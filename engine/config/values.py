"""Looking up a key where several may answer: the session, the selected legacy profile, the merge of all layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from engine.config.layers import MANAGED
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.config.layers import LayerStack

__all__ = ["Values", "select_profile"]

Table = Mapping[str, object]

_EMPTY: Table = {}


def select_profile(stack: LayerStack) -> tuple[str | None, Table]:
    """The legacy profile that `profile` selects, and its table. Raises `ConfigError` when no profile has that name."""
    name = stack.get("profile")
    if not isinstance(name, str):
        return None, _EMPTY
    table = stack.get("profiles", name)
    if not isinstance(table, dict):
        raise stack.error(f"config profile `{name}` not found", ("profile",))
    return name, table


class Values:
    """Looking up keys: what the session was started with beats the profile, which beats all other layers.

    Only an administrator's file beats what a session was started with; it stands above it in the merge.
    """

    def __init__(self, stack: LayerStack, profile_name: str | None, profile: Table) -> None:
        self.stack = stack
        self.profile = profile
        self._profile_name = profile_name
        given: Table = next((layer.table for layer in stack.layers if layer.name == "session"), _EMPTY)
        managed = {key for layer in stack.layers if layer.name in MANAGED for key in layer.table}
        self.session: Table = {key: value for key, value in given.items() if key not in managed}
        self._sources = (self.session, profile, stack.table)

    def get(self, key: str) -> object:
        return next((source[key] for source in self._sources if key in source), None)

    def text(self, key: str) -> str | None:
        return cast("str | None", self.get(key))

    def number(self, key: str) -> int | None:
        return cast("int | None", self.get(key))

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        return default if value is None else cast(bool, value)

    def path(self, key: str) -> Path | None:
        value = self.text(key)
        return None if value is None else Path(value)

    def table(self, key: str) -> Table:
        return cast(Table, self.stack.table.get(key) or _EMPTY)

    def strings(self, key: str) -> tuple[str, ...]:
        return tuple(cast("list[str]", self.get(key) or ()))

    def error(self, message: str, *path: str, kind: type[ConfigError] = ConfigError) -> ConfigError:
        if path[0] not in self.session and path[0] in self.profile and self._profile_name is not None:
            path = ("profiles", self._profile_name, *path)
        return self.stack.error(message, path, kind)
