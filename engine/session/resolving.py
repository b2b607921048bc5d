"""What a session's settings come to: its configuration, its provider, its model (session.md 2.2).

Most sessions of a host start with the same settings in the same places; what they came to is used again for as long as
nothing that took part in it has changed on the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from engine.models.catalogue import find_model
from engine.permissions.view import DiskView
from engine.records import define
from engine.session.configuration import SessionConfiguration, permission_overrides

if TYPE_CHECKING:
    from engine.config.cache import Configurations
    from engine.config.providers import ProviderInfo
    from engine.models.catalogue import ModelInfo
    from engine.models.opening import ModelPool
    from engine.protocol.rollout_items import TurnContext
    from engine.session.environments import EnvironmentManager
    from engine.session.settings import SessionSettings

__all__ = ["Resolved", "SettingsResolver"]


@define(eq=False)
class Resolved:
    """What settings came to in a working directory. Shared by all sessions that start with them."""

    configuration: SessionConfiguration
    provider: ProviderInfo
    _model: tuple[tuple[ModelInfo, ...], str | None, ModelInfo] | None = None

    def model(self, slug: str | None, catalogue: tuple[ModelInfo, ...]) -> ModelInfo:
        """Metadata for the model `slug` (`None`: the default one of the catalogue)."""
        known = self._model
        if known is None or known[0] is not catalogue or known[1] != slug:
            known = self._model = (catalogue, slug, find_model(slug, self.configuration.config, catalogue))
        return known[2]


@define(eq=False)
class SettingsResolver:
    """Resolves the settings of an engine's sessions."""

    configurations: Configurations
    models: ModelPool
    environments: EnvironmentManager
    _known: list[tuple[SessionSettings, str, Resolved]] = attrs.field(factory=list)

    LIMIT = 16  # different settings and directories; a host has a handful

    async def resolve(self, settings: SessionSettings, cwd: str, *, last: TurnContext | None = None) -> Resolved:
        """What `settings` come to in the absolute `cwd`; `last` is the latest turn of a thread that is resumed.

        Raises `ConfigError`, `InvalidRequest`, `UnknownProvider`: an unknown provider fails the start, not the turn.
        """
        shared = last is None and _is_plain(settings)
        found = self._find(settings, cwd) if shared else None
        if found is not None:
            return found
        arguments = dict(settings.config)
        if settings.model_provider is not None:
            arguments["model_provider"] = settings.model_provider
        overrides = permission_overrides(settings, cwd, DiskView(self.configurations.environment))
        config = await self.configurations.get(arguments, cwd, overrides)
        provider = self.models.provider(config)
        configuration = SessionConfiguration.make(config, settings, cwd, environments=self.environments, last=last)
        made = Resolved(configuration, provider)
        if shared:
            if len(self._known) >= self.LIMIT:
                del self._known[0]
            self._known.append((settings, cwd, made))
        return made

    def _find(self, settings: SessionSettings, cwd: str) -> Resolved | None:
        for at, (known, where, made) in enumerate(self._known):
            if where == cwd and known == settings:
                if self.configurations.is_current(made.configuration.config):
                    return made
                del self._known[at]
                return None
        return None


def _is_plain(settings: SessionSettings) -> bool:
    """Whether equal settings mean the same, now and later: texts do, and nothing else is in them."""
    return (
        not settings.config
        and settings.workspace_roots is None
        and settings.environments is None
        and settings.shell is None
        and isinstance(settings.source, str)
        and isinstance(settings.sandbox, str | None)
        and isinstance(settings.approval_policy, str | None)
        and isinstance(settings.collaboration_mode, str | None)
    )
