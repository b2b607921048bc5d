"""Model providers: the built-in ones, those of `[model_providers]`, and what makes one unusable (config.md 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import attrs

from engine.config.layers import Path
from engine.errors import ConfigError, UnknownProvider
from engine.protocol.wire import EMPTY
from engine.records import frozen

__all__ = [
    "OSS_PROVIDERS",
    "ProviderAuth",
    "ProviderInfo",
    "check_oss_provider",
    "default_oss_model",
    "find_provider",
    "make_providers",
    "pick_oss_provider",
]


class Fail(Protocol):
    """Makes the error for a key of the configuration, with the place where it was set."""

    def __call__(self, message: str, path: Path, kind: type[ConfigError] = ..., /) -> ConfigError: ...


RETRY_CAP = 100

_AZURE_HOSTS = (
    "openai.azure.",
    "cognitiveservices.azure.",
    "aoai.azure.",
    "azure-api.",
    "azurefd.",
    "windows.net/openai",
)


@frozen
class ProviderAuth:
    """A command that prints a bearer token. Times in milliseconds; an interval of 0 keeps the token until a 401."""

    command: str
    args: tuple[str, ...] = ()
    timeout_ms: int = 5000
    refresh_interval_ms: int = 300_000
    cwd: str | None = None


@frozen(kw_only=True)
class ProviderInfo:
    """Where a model is served and how to talk to it. Times in milliseconds, retries capped at 100.

    `base_url` is None where it depends on the kind of login. `env_key` names the variable with the key; it is read when
    a request is made. `script` belongs to the provider `scripted` alone.
    """

    id: str
    name: str
    base_url: str | None = None
    env_key: str | None = None
    env_key_instructions: str | None = None
    experimental_bearer_token: str | None = attrs.field(default=None, repr=False)
    auth: ProviderAuth | None = None
    aws: Mapping[str, str] | None = None
    wire_api: str = "responses"
    query_params: Mapping[str, str] = EMPTY  # type: ignore[assignment]
    http_headers: Mapping[str, str] = attrs.field(default=EMPTY, repr=False)
    env_http_headers: Mapping[str, str] = EMPTY  # type: ignore[assignment]
    request_max_retries: int = 4
    stream_max_retries: int = 5
    stream_idle_timeout_ms: int = 300_000
    websocket_connect_timeout_ms: int = 15_000
    requires_openai_auth: bool = False
    supports_websockets: bool = False
    script: str | None = None

    @property
    def is_openai(self) -> bool:
        """Told by the name, not by the id."""
        return self.name == "OpenAI"

    @property
    def is_azure_style(self) -> bool:
        """An Azure endpoint of the Responses API, told by name or host (session.md 4.6)."""
        if self.name.lower() == "azure":
            return True
        url = (self.base_url or "").lower()
        return any(host in url for host in _AZURE_HOSTS)

    def check_usable(self) -> None:
        """Raise `ConfigError` if this engine can't talk to the provider. Call it before the first request."""
        if self.id == "amazon-bedrock":
            raise ConfigError(
                "the provider `amazon-bedrock` is not supported yet by this engine; choose another `model_provider`",
                key="model_provider",
            )


# Local servers: id, port, model to start with.
OSS_PROVIDERS: Mapping[str, tuple[int, str]] = {
    "lmstudio": (1234, "openai/gpt-oss-20b"),
    "ollama": (11434, "gpt-oss:20b"),
}
_RESERVED = ("openai", *OSS_PROVIDERS)

_CHAT_REMOVED = (
    '`wire_api = "chat"` is no longer supported. Remove it, or set `wire_api = "responses"`: the endpoint must speak '
    "the Responses API."
)
_OLLAMA_CHAT_REMOVED = (
    '`ollama-chat` is no longer supported. Use `model_provider = "ollama"` with a version of Ollama that speaks the '
    "Responses API."
)


def make_providers(
    tables: Mapping[str, Mapping[str, object]], *, openai_base_url: str | None, env: Mapping[str, str], fail: Fail
) -> Mapping[str, ProviderInfo]:
    """Built-in and configured providers by id. `tables` is `[model_providers]`, well typed.

    `env` gives the ports of local servers, nothing else: keys are read when a request is made. Raises what `fail`
    makes.
    """
    reserved = sorted(id for id in tables if id in _RESERVED)
    if reserved:
        raise fail(
            "model_providers contains reserved built-in provider IDs: "
            + ", ".join(f"`{id}`" for id in reserved)
            + ". Built-in providers cannot be overridden. Rename your custom provider (for example, `openai-custom`).",
            ("model_providers", reserved[0]),
        )
    made = _built_in(openai_base_url, env)
    for id, table in tables.items():
        _check(id, table, fail)
        fields = dict(table)
        if id == "scripted":
            made[id] = attrs.evolve(made[id], **_fields({"name": "Scripted", **fields}))
        elif id == "amazon-bedrock":
            made[id] = attrs.evolve(made[id], aws=cast("Mapping[str, str] | None", fields.get("aws")))
        else:
            made[id] = ProviderInfo(id=id, **_fields(fields))
    return made


def _built_in(openai_base_url: str | None, env: Mapping[str, str]) -> dict[str, ProviderInfo]:
    from engine import __version__

    made = [
        ProviderInfo(
            id="openai",
            name="OpenAI",
            base_url=openai_base_url or None,
            http_headers={"version": __version__},
            env_http_headers={
                "OpenAI-Organization": "OPENAI_ORGANIZATION",
                "OpenAI-Project": "OPENAI_PROJECT",
            },
            requires_openai_auth=True,
            supports_websockets=True,
        ),
        ProviderInfo(id="amazon-bedrock", name="Amazon Bedrock"),
        ProviderInfo(id="scripted", name="Scripted"),
    ]
    url, port = env.get("CODEX_OSS_BASE_URL", "").strip(), env.get("CODEX_OSS_PORT", "").strip()
    for id, (default_port, _) in OSS_PROVIDERS.items():
        chosen = port if is_port(port) else default_port
        made.append(ProviderInfo(id=id, name="gpt-oss", base_url=url or f"http://localhost:{chosen}/v1"))
    return {provider.id: provider for provider in made}


def is_port(text: str) -> bool:
    """Whether a variable names a port."""
    return text.isascii() and text.isdigit() and int(text) < 65536


def _fields(table: Mapping[str, object]) -> dict[str, Any]:
    known = {field.name for field in attrs.fields(ProviderInfo)} - {"id", "aws"}
    made: dict[str, Any] = {key: value for key, value in table.items() if key in known}
    for key in ("request_max_retries", "stream_max_retries"):
        value = made.get(key)
        if isinstance(value, int):
            made[key] = min(value, RETRY_CAP)
    auth = made.get("auth")
    if isinstance(auth, Mapping):
        made["auth"] = ProviderAuth(**{**auth, "args": tuple(auth.get("args", ()))})
    return made


def _check(id: str, table: Mapping[str, object], fail: Fail) -> None:
    where: Path = ("model_providers", id)
    name = table.get("name", "Scripted" if id == "scripted" else "")
    if id == "amazon-bedrock":
        foreign = [key for key in table if key != "aws"]
        if foreign:
            raise fail(
                "model_providers.amazon-bedrock: only `aws.profile` and `aws.region` can be set", (*where, foreign[0])
            )
        return
    if not isinstance(name, str) or not name.strip():
        raise fail(f"model_providers.{id}: provider name must not be empty", (*where, "name") if name else where)
    wire_api = table.get("wire_api", "responses")
    if wire_api == "chat":
        raise fail(_CHAT_REMOVED, (*where, "wire_api"))
    if wire_api != "responses":
        raise fail(f"unknown variant `{wire_api}`, expected `responses`", (*where, "wire_api"))
    if "aws" in table:
        raise fail(f"model_providers.{id}: provider aws is only supported for `amazon-bedrock`", (*where, "aws"))
    if "script" in table and id != "scripted":
        raise fail(f"model_providers.{id}: `script` is only supported for `scripted`", (*where, "script"))
    auth = table.get("auth")
    if isinstance(auth, Mapping):
        if not str(auth["command"]).strip():
            raise fail(f"model_providers.{id}: provider auth.command must not be empty", (*where, "auth", "command"))
        keys = ("env_key", "experimental_bearer_token", "requires_openai_auth")
        conflicts = [key for key in keys if table.get(key)]
        if conflicts:
            raise fail(
                f"model_providers.{id}: provider auth cannot be combined with {', '.join(conflicts)}", (*where, "auth")
            )


def find_provider(id: str, providers: Mapping[str, ProviderInfo], fail: Fail | None = None) -> ProviderInfo:
    """The provider with this id. Raises `UnknownProvider` (or what `fail` makes of the text)."""
    found = providers.get(id)
    if found is not None:
        return found
    message = _OLLAMA_CHAT_REMOVED if id == "ollama-chat" else f"Model provider `{id}` not found"
    if fail is None:
        raise UnknownProvider(message, key="model_provider")
    raise fail(message, ("model_provider",), UnknownProvider)


def check_oss_provider(id: str) -> str:
    """`id` itself, if it names a local server. Raises `ConfigError`."""
    if id not in OSS_PROVIDERS:
        raise ConfigError(
            f"Invalid OSS provider '{id}'. Must be one of: {', '.join(OSS_PROVIDERS)}", key="oss_provider"
        )
    return id


def pick_oss_provider(
    configured: str | None,
    providers: Mapping[str, ProviderInfo],
    *,
    listening: Callable[[str], bool] | None = None,
) -> str:
    """The provider id that `--oss` means: the configured one (`oss_provider`), else the first that answers.

    `listening(base_url)` tells whether somebody listens there; LM Studio is asked first. Raises `ConfigError` when
    nothing was chosen and nobody answers.
    """
    if configured is not None:
        return check_oss_provider(configured)
    for id in OSS_PROVIDERS:
        base_url = providers[id].base_url
        if listening is not None and base_url and listening(base_url):
            return id
    tried = " or ".join(f"{id} ({providers[id].base_url})" for id in OSS_PROVIDERS)
    raise ConfigError(
        f"no local model server answers: tried {tried}. Start one, or set `oss_provider` to one of: "
        f"{', '.join(OSS_PROVIDERS)}",
        key="oss_provider",
    )


def default_oss_model(id: str) -> str:
    """The model to ask a local server for when none is named."""
    return OSS_PROVIDERS[check_oss_provider(id)][1]
