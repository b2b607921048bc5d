"""The permissions that configuration gives a directory, for commands beside a session (`sandbox`, `doctor`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from engine.config.loading import find_home, load_config
from engine.config.mcp_servers import ConfiguredServer
from engine.config.overrides import parse_override
from engine.config.permissions import PermissionOverrides
from engine.config.requirements import NO_REQUIREMENTS, Requirements
from engine.config.unsupported import Unsupported
from engine.errors import ConfigError, EngineError
from engine.permissions.constrained import ConstraintError
from engine.permissions.state import SessionPermissions
from engine.records import frozen
from engine.telemetry.settings import NOTHING_EXPORTED, OtelSettings

__all__ = ["ConfiguredPolicy", "configured_policy"]


@frozen
class ConfiguredPolicy:
    """Where things stand: the engine's home, the directory, what a session there would be allowed, and what to say.

    `unsupported` is what configuration asks for in vain, `unknown_keys` what it can't ask for at all. `servers` are the
    configured MCP servers.
    """

    home: Path
    cwd: str
    permissions: SessionPermissions
    warnings: tuple[str, ...] = ()
    unsupported: tuple[Unsupported, ...] = ()
    unknown_keys: tuple[str, ...] = ()
    otel: OtelSettings = NOTHING_EXPORTED
    requirements: Requirements = NO_REQUIREMENTS
    servers: tuple[ConfiguredServer, ...] = ()

    @property
    def name(self) -> str:
        """The profile's id, or what kind it is."""
        active = self.permissions.snapshot.active
        return active.id if active is not None else "by sandbox_mode"


def configured_policy(
    *,
    cwd: str | None,
    profile: str | None,
    overrides: tuple[str, ...],
    environment: Mapping[str, str],
) -> ConfiguredPolicy:
    """What holds in `cwd` (None: where the program was started), or under the profile with that id.

    Raises `EngineError` with a text for people.
    """
    try:
        directory = os.path.realpath(os.path.join(os.getcwd(), cwd or ""))
    except OSError as exc:
        raise EngineError(f"the current working directory is gone: {exc.strerror}") from exc
    if not os.path.isdir(directory):
        raise EngineError(f"the working directory {directory} does not exist")
    home = find_home(environment)
    try:
        config = load_config(
            home,
            cwd=directory,
            overrides=tuple(map(parse_override, overrides)),
            env=environment,
            permissions=PermissionOverrides(permissions=profile),
        )
    except ConstraintError as exc:
        raise ConfigError(str(exc)) from exc
    return ConfiguredPolicy(
        home,
        directory,
        config.permissions.session(),
        (*config.warnings, *filter(None, [config.unstable_warning])),
        config.unsupported,
        config.unknown_keys,
        config.otel,
        config.requirements,
        config.mcp_servers,
    )
