"""Keys of providers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import MissingCredential
from engine.models.credentials import Credentials
from tests.models.exchanges import provider

OPENAI = provider(id="openai", name="OpenAI", requires_openai_auth=True)


def test_a_provider_without_login_sends_none() -> None:
    assert Credentials({"OPENAI_API_KEY": "k"}).token(provider()) is None


def test_the_named_variable_is_read_at_request_time() -> None:
    env: dict[str, str] = {}
    credentials = Credentials(env, api_key="host")
    asked = provider(env_key="MY_KEY", env_key_instructions="Get one at example.com.", requires_openai_auth=True)
    with pytest.raises(MissingCredential) as caught:
        credentials.token(asked)
    assert str(caught.value) == "Missing environment variable: `MY_KEY`. Get one at example.com."
    assert caught.value.variable == "MY_KEY"
    env["MY_KEY"] = "  "
    with pytest.raises(MissingCredential):
        credentials.token(asked)
    env["MY_KEY"] = "secret"
    assert credentials.token(asked) == "secret"


def test_a_literal_token() -> None:
    assert Credentials({}).token(provider(experimental_bearer_token="literal", requires_openai_auth=True)) == "literal"


def test_openai_takes_the_hosts_key_then_the_environment_then_the_file(tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text(json.dumps({"OPENAI_API_KEY": "stored"}))
    env = {"OPENAI_API_KEY": "environment"}
    assert Credentials(env, tmp_path, "host").token(OPENAI) == "host"
    assert Credentials(env, tmp_path).token(OPENAI) == "environment"
    assert Credentials({"OPENAI_API_KEY": " "}, tmp_path).token(OPENAI) == "stored"
    assert not Credentials(env, tmp_path).needs_file(OPENAI)
    assert Credentials({}, tmp_path).needs_file(OPENAI)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "auth.json. Other ways"),
        ("{", "not valid JSON"),
        ("[]", "no JSON object"),
        (json.dumps({"OPENAI_API_KEY": None}), "auth.json. Other ways"),
        (json.dumps({"OPENAI_API_KEY": None, "tokens": {"id_token": "x"}}), "ChatGPT login"),
    ],
)
def test_a_missing_key_names_the_variable_and_the_other_ways(tmp_path: Path, content: Any, said: str) -> None:
    if content is not None:
        (tmp_path / "auth.json").write_text(content)
    with pytest.raises(MissingCredential) as caught:
        Credentials({}, tmp_path).token(OPENAI)
    text = str(caught.value)
    assert caught.value.variable == "OPENAI_API_KEY"
    for part in ("`openai`", "OPENAI_API_KEY", "--oss", "--model-provider scripted", said):
        assert part in text


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "auth.json").mkdir()
    with pytest.raises(MissingCredential, match="can't be read"):
        Credentials({}, tmp_path).token(OPENAI)
