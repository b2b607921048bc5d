"""The models of an engine: chosen by provider, one client each, shared by all sessions, closed with the engine."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

import attrs

from engine.errors import ConfigError, ScriptError, UnknownProvider
from engine.models.client import ResponsesClient

if TYPE_CHECKING:
    from engine.config.model import Config
    from engine.config.providers import ProviderInfo
    from engine.models.base import Model

__all__ = ["ModelPool", "open_model"]

SCRIPTED: Final = "scripted"


class ModelPool:
    """The models of one engine. Use as `async with ModelPool(...) as pool`.

    `model`: answers for every provider, instead of what configuration names. `api_key`: a key the host passes in for
    providers with OpenAI's login. `env` is where keys and header values are read, at request time.
    """

    def __init__(
        self,
        model: Model | None = None,
        *,
        home: Path | None = None,
        env: Mapping[str, str] | None = None,
        api_key: str | None = None,
        version: str | None = None,
    ) -> None:
        self._model = model
        self._home = home
        self._env = os.environ if env is None else env
        self._api_key = api_key
        self._version = version
        self._opened: list[tuple[ProviderInfo, Model]] = []

    async def __aenter__(self) -> ModelPool:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes what the pool opened; bounded, also when cancelled. A model that was passed in is its owner's."""
        opened, self._opened = self._opened, []
        for _, model in opened:
            if isinstance(model, ResponsesClient):
                await model.aclose()

    def get(self, config: Config, provider_id: str | None = None) -> Model:
        """The model behind a provider id (default: the configured one). Opens no connection; reads a script if that is
        what the provider answers from.

        Raises `UnknownProvider`, `ConfigError` for a provider this engine can't talk to, and `ScriptError`.
        """
        if self._model is not None:
            return self._model
        provider = _provider(config, config.model_provider_id if provider_id is None else provider_id)
        for known, model in self._opened:
            if known == provider:
                return model
        provider.check_usable()
        made = self._open(provider, config)
        self._opened.append((provider, made))
        return made

    def _open(self, provider: ProviderInfo, config: Config) -> Model:
        if provider.id != SCRIPTED:
            return ResponsesClient(
                provider, home=self._home or config.home, api_key=self._api_key, env=self._env, version=self._version
            )
        from engine.models.scripted import ScriptedModel

        if not provider.script:
            raise ScriptError(
                "the provider `scripted` answers from a script: pass `--script FILE`, "
                'or set `[model_providers.scripted] script = "FILE"`'
            )
        return ScriptedModel.from_file(config.cwd / Path(provider.script).expanduser(), provider=provider)


def _provider(config: Config, provider_id: str) -> ProviderInfo:
    from engine.config.providers import find_provider

    try:
        return find_provider(provider_id, config.model_providers)
    except UnknownProvider as exc:
        known = ", ".join(sorted(config.model_providers))
        raise UnknownProvider(f"{exc.message}; known providers: {known}", key=exc.key) from None


@asynccontextmanager
async def open_model(
    config: Config,
    *,
    provider: str | None = None,
    script: os.PathLike[str] | str | None = None,
    api_key: str | None = None,
    env: Mapping[str, str] | None = None,
    version: str | None = None,
) -> AsyncIterator[Model]:
    """The model that `config` names, for the length of a block; `provider` and `script` override it.

    `scripted` is chosen only by name: a script for any other provider is a `ConfigError`.
    """
    chosen = config.model_provider_id if provider is None else provider
    if script is not None:
        if chosen != SCRIPTED:
            raise ConfigError(
                f"a script is only for the provider `{SCRIPTED}`, and the provider is `{chosen}`: "
                f"add `--model-provider {SCRIPTED}`",
                key="model_provider",
            )
        scripted = attrs.evolve(_provider(config, chosen), script=os.fspath(script))
        config = attrs.evolve(config, model_providers={**config.model_providers, SCRIPTED: scripted})
    async with ModelPool(home=config.home, env=env, api_key=api_key, version=version) as pool:
        yield pool.get(config, chosen)
