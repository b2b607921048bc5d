"""Built-in and configured providers, and what makes one wrong or unusable."""

from __future__ import annotations

from typing import Any

import pytest

from engine.config.layers import Path
from engine.config.providers import (
    ProviderAuth,
    ProviderInfo,
    check_oss_provider,
    default_oss_model,
    find_provider,
    make_providers,
    pick_oss_provider,
)
from engine.errors import ConfigError, UnknownProvider


def fail(message: str, path: Path, kind: type[ConfigError] = ConfigError) -> ConfigError:
    return kind(message, key=".".join(map(str, path)))


def made(
    tables: dict[str, dict[str, Any]] | None = None, env: dict[str, str] | None = None, url: str | None = None
) -> dict[str, ProviderInfo]:
    return dict(make_providers(tables or {}, openai_base_url=url, env=env or {}, fail=fail))


def test_built_in_providers() -> None:
    providers = made()
    assert list(providers) == ["openai", "amazon-bedrock", "scripted", "lmstudio", "ollama"]
    openai = providers["openai"]
    assert (openai.name, openai.base_url, openai.requires_openai_auth, openai.supports_websockets) == (
        "OpenAI",
        None,
        True,
        True,
    )
    assert openai.http_headers.keys() == {"version"}
    assert openai.env_http_headers == {
        "OpenAI-Organization": "OPENAI_ORGANIZATION",
        "OpenAI-Project": "OPENAI_PROJECT",
    }
    assert openai.is_openai
    assert providers["ollama"].base_url == "http://localhost:11434/v1"
    assert providers["lmstudio"].base_url == "http://localhost:1234/v1"
    assert {providers[id].name for id in ("ollama", "lmstudio")} == {"gpt-oss"}
    assert providers["amazon-bedrock"].name == "Amazon Bedrock"


def test_the_base_url_of_openai() -> None:
    assert made(url="http://127.0.0.1:9/v1")["openai"].base_url == "http://127.0.0.1:9/v1"
    assert made(url="")["openai"].base_url is None


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({"CODEX_OSS_PORT": "9000"}, "http://localhost:9000/v1"),
        ({"CODEX_OSS_PORT": "9000", "CODEX_OSS_BASE_URL": "http://box/v1"}, "http://box/v1"),
        ({"CODEX_OSS_PORT": "many", "CODEX_OSS_BASE_URL": "  "}, "http://localhost:11434/v1"),
        ({"CODEX_OSS_PORT": "70000"}, "http://localhost:11434/v1"),
    ],
)
def test_where_local_servers_are(env: dict[str, str], url: str) -> None:
    assert made(env=env)["ollama"].base_url == url


def test_a_provider_of_ones_own() -> None:
    provider = made(
        {
            "mine": {
                "name": "Mine",
                "base_url": "https://x/v1",
                "env_key": "MINE",
                "request_max_retries": 500,
                "stream_max_retries": 101,
                "stream_idle_timeout_ms": 7,
                "query_params": {"v": "1"},
                "from_the_future": 1,
            }
        }
    )["mine"]
    assert (provider.request_max_retries, provider.stream_max_retries) == (100, 100)
    assert provider.stream_idle_timeout_ms == 7
    assert provider.query_params == {"v": "1"}
    defaults = made({"d": {"name": "D"}})["d"]
    assert defaults == ProviderInfo(id="d", name="D")
    assert (defaults.request_max_retries, defaults.stream_max_retries) == (4, 5)
    assert (defaults.stream_idle_timeout_ms, defaults.websocket_connect_timeout_ms) == (300_000, 15_000)
    assert "secret" not in repr(ProviderInfo(id="d", name="D", experimental_bearer_token="secret"))


def test_openai_is_told_by_its_name() -> None:
    assert made({"proxy": {"name": "OpenAI"}})["proxy"].is_openai
    assert not made({"openai2": {"name": "openai"}})["openai2"].is_openai


@pytest.mark.parametrize(
    ("name", "url", "azure"),
    [
        ("Azure", None, True),
        ("x", "https://a.openai.azure.com/v1", True),
        ("x", "https://a.WINDOWS.net/openai/", True),
        ("x", "https://example.com/v1", False),
    ],
)
def test_azure_is_told_by_name_or_host(name: str, url: str | None, azure: bool) -> None:
    assert ProviderInfo(id="x", name=name, base_url=url).is_azure_style is azure


def test_the_script_of_the_scripted_provider() -> None:
    assert made({"scripted": {"script": "/s.toml"}})["scripted"].script == "/s.toml"
    assert made({"scripted": {"script": "/s.toml", "name": "Other"}})["scripted"].name == "Other"
    assert made()["scripted"].script is None


def test_an_auth_command() -> None:
    provider = made({"p": {"name": "P", "auth": {"command": "tok", "args": ["a"], "timeout_ms": 9}}})["p"]
    assert provider.auth == ProviderAuth("tok", ("a",), 9, 300_000, None)
    provider.check_usable()


def test_bedrock_takes_only_its_profile_and_is_refused_when_used() -> None:
    bedrock = made({"amazon-bedrock": {"aws": {"profile": "p", "region": "r"}}})["amazon-bedrock"]
    assert bedrock.aws == {"profile": "p", "region": "r"}
    with pytest.raises(ConfigError, match="`amazon-bedrock` is not supported yet by this engine"):
        bedrock.check_usable()
    made()["openai"].check_usable()


@pytest.mark.parametrize(
    ("tables", "key", "message"),
    [
        (
            {"openai": {"name": "x"}, "ok": {"name": "y"}, "lmstudio": {}},
            "model_providers.lmstudio",
            "model_providers contains reserved built-in provider IDs: `lmstudio`, `openai`. Built-in providers cannot "
            "be overridden. Rename your custom provider (for example, `openai-custom`).",
        ),
        ({"z": {"name": " "}}, "model_providers.z.name", "model_providers.z: provider name must not be empty"),
        ({"z": {}}, "model_providers.z", "model_providers.z: provider name must not be empty"),
        (
            {"z": {"name": "z", "wire_api": "chat"}},
            "model_providers.z.wire_api",
            '`wire_api = "chat"` is no longer supported.',
        ),
        (
            {"z": {"name": "z", "wire_api": "x"}},
            "model_providers.z.wire_api",
            "unknown variant `x`, expected `responses`",
        ),
        (
            {"z": {"name": "z", "auth": {"command": "  "}}},
            "model_providers.z.auth.command",
            "model_providers.z: provider auth.command must not be empty",
        ),
        (
            {"z": {"name": "z", "auth": {"command": "c"}, "requires_openai_auth": True, "env_key": "K"}},
            "model_providers.z.auth",
            "model_providers.z: provider auth cannot be combined with env_key, requires_openai_auth",
        ),
        (
            {"z": {"name": "z", "aws": {"profile": "p"}}},
            "model_providers.z.aws",
            "model_providers.z: provider aws is only supported for `amazon-bedrock`",
        ),
        (
            {"z": {"name": "z", "script": "s"}},
            "model_providers.z.script",
            "model_providers.z: `script` is only supported for `scripted`",
        ),
        (
            {"amazon-bedrock": {"aws": {}, "base_url": "x"}},
            "model_providers.amazon-bedrock.base_url",
            "model_providers.amazon-bedrock: only `aws.profile` and `aws.region` can be set",
        ),
    ],
)
def test_wrong_providers(tables: dict[str, dict[str, Any]], key: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(tables)
    assert caught.value.message.startswith(message)
    assert caught.value.key == key


def test_an_unknown_provider() -> None:
    with pytest.raises(UnknownProvider, match="Model provider `nope` not found"):
        find_provider("nope", made())
    with pytest.raises(UnknownProvider, match="`ollama-chat` is no longer supported"):
        find_provider("ollama-chat", made(), fail)


def test_picking_a_local_server() -> None:
    providers = made()
    assert pick_oss_provider("ollama", providers) == "ollama"
    assert pick_oss_provider(None, providers, listening=lambda url: "11434" in url) == "ollama"
    assert pick_oss_provider(None, providers, listening=lambda _: True) == "lmstudio"
    with pytest.raises(ConfigError, match=r"tried lmstudio \(http://localhost:1234/v1\) or ollama"):
        pick_oss_provider(None, providers, listening=lambda _: False)
    with pytest.raises(ConfigError, match=r"Invalid OSS provider 'x'\. Must be one of: lmstudio, ollama"):
        pick_oss_provider("x", providers)
    assert check_oss_provider("lmstudio") == "lmstudio"
    assert default_oss_model("ollama") == "gpt-oss:20b"
