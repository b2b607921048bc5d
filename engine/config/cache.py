"""The configurations of an engine's sessions: loaded in a thread, and used again while the disk says the same."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

import attrs
import trio

from engine.config.layers import LayerStack
from engine.config.loading import check_layers, load_config
from engine.config.model import Config
from engine.config.permissions import PermissionOverrides
from engine.config.sightings import Sightings
from engine.config.sources import SYSTEM_FOLDER, Sources, read_layers
from engine.permissions.view import DiskView
from engine.records import define

__all__ = ["Configurations"]


@define(eq=False)
class Configurations:
    """Configurations by what they were made of; what did not change is not read again.

    `base` are the overrides of all sessions, as dotted keys or tables; the rest is as `load_config` has it. The first
    configuration that is asked for is the engine's own: what holds for all sessions at once comes from there, and a
    later one that says otherwise has a warning.
    """

    home: Path
    environment: Mapping[str, str]
    base: Mapping[str, object]
    ignore_user_config: bool = False
    strict: bool = False
    profile: str | None = None
    system_folder: str = SYSTEM_FOLDER
    _made: dict[object, tuple[Sightings, Config]] = attrs.field(factory=dict)
    _seen: dict[int, Sightings] = attrs.field(factory=dict)
    """What `_made` came from, by the identity of the configuration."""
    _of_engine: Config | None = None

    LIMIT = 64  # different combinations of arguments and cwd; a host has a handful

    async def get(
        self, arguments: Mapping[str, object], cwd: str, permissions: PermissionOverrides | None = None
    ) -> Config:
        """The configuration of a session. Raises `ConfigError`."""
        key = (cwd, permissions, repr(sorted(arguments.items())))
        made = self._made.get(key)
        if made is None or not made[0].hold():
            made = await trio.to_thread.run_sync(self._load, arguments, cwd, permissions)
            self._of_engine = self._of_engine or made[1]
            if len(self._made) >= self.LIMIT:
                self._made.clear()
                self._seen.clear()
            replaced = self._made.get(key)
            if replaced is not None:
                self._seen.pop(id(replaced[1]), None)
            self._made[key] = made
            self._seen[id(made[1])] = made[0]
        return made[1]

    def is_current(self, config: Config) -> bool:
        """Whether the configuration, which came from `get`, would be the same if it were loaded now."""
        seen = self._seen.get(id(config))
        return seen is not None and seen.hold()

    async def of_directory(self, cwd: PathLike[str] | str | None) -> Config:
        """The configuration of a session in `cwd` (default: the process's) that says nothing itself."""
        return await self.get({}, _absolute(cwd))

    def sources(self, cwd: str | None) -> Sources:
        """Where the layers of all sessions come from."""
        view = DiskView(self.environment)
        return Sources(
            home=str(self.home),
            cwd=cwd,
            user_home=view.home,
            view=view,
            system_folder=self.system_folder,
            overrides=tuple(self.base.items()),
            ignore_user_file=self.ignore_user_config,
            profile=self.profile,
        )

    def read(self, cwd: PathLike[str] | str | None) -> LayerStack:
        """All layers as they stand now, checked. Blocks. Raises `ConfigError`."""
        stack = read_layers(self.sources(None if cwd is None else os.path.abspath(cwd)), Sightings()).stack
        check_layers(stack, strict=self.strict)
        return stack

    def _load(
        self, arguments: Mapping[str, object], cwd: str, permissions: PermissionOverrides | None
    ) -> tuple[Sightings, Config]:
        seen = Sightings()
        config = load_config(
            self.home,
            cwd=Path(cwd),
            overrides=tuple(self.base.items()),
            session=arguments,
            env=self.environment,
            ignore_user_file=self.ignore_user_config,
            profile=self.profile,
            strict=self.strict,
            permissions=permissions,
            system_folder=self.system_folder,
            sightings=seen,
        )
        if self._of_engine is not None:
            ignored = tuple(_ignored(config, self._of_engine))
            config = attrs.evolve(config, warnings=(*config.warnings, *ignored)) if ignored else config
        return seen, config


# What the login and the store of an engine were opened with, by key and field.
_ENGINE_WIDE = {
    "forced_login_method": "forced_login_method",
    "forced_chatgpt_workspace_id": "forced_chatgpt_workspace_ids",
    "cli_auth_credentials_store": "cli_auth_credentials_store",
    "durability": "durability",
}


def _ignored(config: Config, of_engine: Config) -> Iterator[str]:
    """Warnings about keys that come too late for an engine that is open."""
    for key, field in _ENGINE_WIDE.items():
        if getattr(config, field) != getattr(of_engine, field):
            yield (
                f"`{key}` holds for a whole engine, as it was opened with it; what this session's configuration has "
                "there is ignored."
            )


def _absolute(cwd: PathLike[str] | str | None) -> str:
    return os.path.abspath(os.getcwd() if cwd is None else cwd)
