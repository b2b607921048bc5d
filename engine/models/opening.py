"""The models of an engine: chosen by provider, one client each, shared by all sessions, closed with the engine."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import attrs
import trio

from engine.errors import ConfigError, ScriptError, UnknownProvider
from engine.http import HttpClients
from engine.models.address import endpoint_url
from engine.models.catalogue import BUNDLED, picker_models
from engine.records import frozen

if TYPE_CHECKING:
    from engine.auth.attestation import AttestationProvider
    from engine.auth.base import Authorizer
    from engine.auth.commands import RunCommand
    from engine.auth.manager import AuthManager, ExternalTokens
    from engine.config.model import Config
    from engine.config.providers import ProviderInfo
    from engine.models.base import Model
    from engine.models.catalogue import ModelInfo
    from engine.models.manager import ModelsManager, RefreshStrategy

__all__ = ["HostIdentity", "ModelPool", "open_model", "open_models"]

SCRIPTED: Final = "scripted"


@frozen(kw_only=True)
class HostIdentity:
    """What a host brings along for model servers, all optional.

    `api_key`: a key for providers with OpenAI's login. `external` is asked for new tokens where the host supplied the
    old ones. `attestation` vouches for each request.
    """

    api_key: str | None = attrs.field(default=None, repr=False)
    external: ExternalTokens | None = None
    attestation: AttestationProvider | None = None


@final
class ModelPool:
    """The models of one engine; made by `open_models`."""

    def __init__(
        self,
        config: Config,
        nursery: trio.Nursery,
        *,
        model: Model | None,
        home: Path,
        env: Mapping[str, str],
        host: HostIdentity,
        run: RunCommand | None,
        version: str | None,
    ) -> None:
        self._config = config
        self._nursery = nursery
        self._model = model
        self._home = home
        self._env = env
        self._host = host
        self._run = run
        self._version = version
        self._http = HttpClients(env)
        self._auth: AuthManager | None = None
        self._usable: list[ProviderInfo] = []
        self._opened: list[tuple[ProviderInfo, Model]] = []
        self._managers: list[tuple[Model, ModelsManager]] = []
        self._files: dict[Path, tuple[ModelInfo, ...]] = {}

    @property
    def http(self) -> HttpClients:
        """The HTTP clients that the engine's requests share."""
        return self._http

    @property
    def auth(self) -> AuthManager:
        """The engine's login; made when somebody first asks."""
        if self._auth is None:
            from engine.auth.manager import AuthManager
            from engine.auth.storage import LoginStore

            config = self._config
            self._auth = AuthManager(
                LoginStore(self._home, config.cli_auth_credentials_store),
                self._http,
                self._nursery,
                env=self._env,
                api_key=self._host.api_key,
                external=self._host.external,
                forced_method=config.forced_login_method,
                workspaces=config.forced_chatgpt_workspace_ids,
            )
        return self._auth

    async def account_plan(self) -> str | None:
        """The plan of the login, where one is known without asking anybody; reads the stored login once.

        An engine that can have no such login looks for a file at most.
        """
        host = self._host
        if self._auth is None and (host.api_key or not self._may_have_account()):
            await trio.lowlevel.checkpoint()
            return None
        login = await self.auth.known()
        return None if login is None else login.plan

    def _may_have_account(self) -> bool:
        if self._host.external is not None or self._env.get("CODEX_ACCESS_TOKEN"):
            return True
        mode = self._config.cli_auth_credentials_store
        return mode in ("keyring", "auto") or (mode == "file" and (self._home / "auth.json").exists())

    async def aclose(self) -> None:
        """Ends what is under way and closes what the pool opened; bounded, also when cancelled.

        A model that was passed in is its owner's.
        """
        if self._auth is not None:
            await self._auth.settle()
        await self._http.aclose()

    def get(self, config: Config, provider_id: str | None = None) -> Model:
        """The model behind a provider id (default: the configured one). Opens no connection; reads a script if that is
        what the provider answers from.

        Raises `UnknownProvider`, `ConfigError` for a provider this engine can't talk to, and `ScriptError`.
        """
        if self._model is not None:
            return self._model
        provider = _provider(config, config.model_provider_id if provider_id is None else provider_id)
        for known, model in self._opened:
            if known is provider or known == provider:
                return model
        _check(provider, config)
        made = self._open(provider, config)
        self._opened.append((provider, made))
        return made

    def provider(self, config: Config) -> ProviderInfo:
        """The configured provider, found fit to be asked; its client is made by whoever asks first.

        Raises as `get`.
        """
        if self._model is not None:
            return self._model.provider
        provider = _provider(config, config.model_provider_id)
        if provider.id == SCRIPTED:
            return self.get(config).provider  # a bad script fails here, not in the middle of a turn
        if provider not in self._usable:
            _check(provider, config)
            endpoint_url(provider)
            self._usable.append(provider)
        return provider

    def catalogue(self, config: Config) -> tuple[ModelInfo, ...]:
        """The models of the configured provider, as far as they are known without waiting.

        A file of the configuration's is read once. Raises `ConfigError` where that can't be used.
        """
        if config.model_catalog_json is not None:
            try:
                return self._of_file(config.model_catalog_json)
            except ConfigError as exc:
                raise config.placed(exc) from exc
        if not self._managers:
            return BUNDLED
        manager = self._manager_of(config)
        return BUNDLED if manager is None else manager.catalogue

    def _manager_of(self, config: Config) -> ModelsManager | None:
        provider = config.model_providers.get(config.model_provider_id)
        for model, manager in self._managers:
            if model.provider is provider or model.provider == provider:
                return manager
        return None

    def _of_file(self, path: Path) -> tuple[ModelInfo, ...]:
        found = self._files.get(path)
        if found is None:
            from engine.models.entries import read_catalogue

            found = self._files[path] = read_catalogue(path)
        return found

    def note_etag(self, provider: ProviderInfo, etag: str) -> None:
        """A response of the provider named the state of its catalogue."""
        model = next((model for known, model in self._opened if known is provider or known == provider), None)
        manager = None if model is None else self.manager(model)
        if manager is not None:
            manager.note_etag(etag)

    async def choices(
        self,
        config: Config,
        refresh: RefreshStrategy = "online_if_uncached",
        *,
        provider_id: str | None = None,
        hidden: bool = False,
    ) -> tuple[ModelInfo, ...]:
        """The models of a provider for somebody to choose from, best first. Raises as `get` and `catalogue`."""
        manager = self.manager(self.get(config, provider_id))
        if manager is None or config.model_catalog_json is not None:
            await trio.lowlevel.checkpoint()
            return picker_models(self.catalogue(config), hidden=hidden)
        catalogue = await manager.list(refresh)
        return picker_models(catalogue, chatgpt=manager.chatgpt, hidden=hidden)

    def wants_catalogue(self, config: Config) -> bool:
        """Whether there is anything to learn about the models of the configured provider, and nobody has begun to."""
        if self._model is not None or config.model_provider_id == SCRIPTED or config.model_catalog_json is not None:
            return False
        manager = self._manager_of(config)
        return manager is None or not manager.prepared

    def manager(self, model: Model) -> ModelsManager | None:
        """Who keeps the catalogue of the provider behind an open model; `None` where that is the built-in one."""
        for asked, manager in self._managers:
            if asked is model:
                return manager
        from engine.models.client import ResponsesClient

        if model is self._model or not isinstance(model, ResponsesClient):
            return None
        from engine.models.cache import ModelsCache
        from engine.models.endpoint import ProviderModels
        from engine.models.manager import ModelsManager

        endpoint, cache = ProviderModels(model), ModelsCache(self._home)
        made = ModelsManager(model.provider.id, endpoint, cache, self._nursery, version=model.version)
        self._managers.append((model, made))
        return made

    def _open(self, provider: ProviderInfo, config: Config) -> Model:
        if provider.id != SCRIPTED:
            from engine.models.client import ResponsesClient

            return ResponsesClient(
                provider,
                authorizer=self._authorizer(provider),
                attestation=self._host.attestation,
                http=self._http,
                env=self._env,
                version=self._version,
            )
        from engine.models.scripted import ScriptedModel

        if not provider.script:
            raise ScriptError(
                "the provider `scripted` answers from a script: pass `--script FILE`, "
                'or set `[model_providers.scripted] script = "FILE"`'
            )
        return ScriptedModel.from_file(config.cwd / Path(provider.script).expanduser(), provider=provider)

    def _authorizer(self, provider: ProviderInfo) -> Authorizer:
        from engine.auth.authorizers import AccountAuthorizer, fixed_authorizer

        fixed = fixed_authorizer(provider, self._env)
        if fixed is not None:
            return fixed
        if provider.auth is None:
            return AccountAuthorizer(provider, self.auth)
        if self._run is None:
            key = f"model_providers.{provider.id}.auth"
            raise ConfigError(f"`{key}` needs an engine that can run commands", key=key)
        from engine.auth.commands import CommandTokens

        return CommandTokens(provider.auth, self._run, home=str(self._home), env=self._env)


@asynccontextmanager
async def open_models(
    config: Config,
    *,
    model: Model | None = None,
    home: Path | None = None,
    env: Mapping[str, str] | None = None,
    host: HostIdentity | None = None,
    run: RunCommand | None = None,
    version: str | None = None,
) -> AsyncIterator[ModelPool]:
    """A pool for the length of a block. `config` says where logins are kept and which are allowed.

    `model`: answers for every provider, instead of what configuration names. `env` is where keys and header values are
    read, at request time. `run` runs commands that print tokens.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        pool = ModelPool(
            config,
            nursery,
            model=model,
            home=home or config.home,
            env=os.environ if env is None else env,
            host=host or HostIdentity(),
            run=run,
            version=version,
        )
        try:
            yield pool
        except Exception as exc:
            failure = exc  # crosses no nursery: raised below, as it came
        finally:
            await pool.aclose()
            nursery.cancel_scope.cancel(reason="the engine is closing")
    if failure is not None:
        raise failure


def _check(provider: ProviderInfo, config: Config) -> None:
    try:
        provider.check_usable()
    except ConfigError as exc:
        raise config.placed(exc) from exc


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
    async with open_models(config, env=env, host=HostIdentity(api_key=api_key), version=version) as pool:
        yield pool.get(config, chosen)
