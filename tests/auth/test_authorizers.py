"""Who asks at which provider, and what is tried after a 401."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.auth.authorizers import AccountAuthorizer, fixed_authorizer
from engine.auth.base import ANONYMOUS, NO_RECOVERY, RequestAuth
from engine.auth.errors import RefreshFailed
from engine.auth.manager import ExternalLogin
from engine.auth.record import AuthRecord
from engine.auth.storage import AuthFile
from engine.config.providers import ProviderAuth
from engine.errors import MissingCredential
from tests.auth.logins import chatgpt, managed, token_server
from tests.models.exchanges import provider

OPENAI = provider(id="openai", name="OpenAI", requires_openai_auth=True)


async def token(found: Any) -> str | None:
    auth: RequestAuth = await found.current()
    return auth.token


async def test_a_provider_without_login_sends_none() -> None:
    found = fixed_authorizer(provider(), {"OPENAI_API_KEY": "k"})
    assert found is not None
    assert await found.current() == ANONYMOUS
    assert dict(ANONYMOUS.headers()) == {}
    assert not await found.recovery(ANONYMOUS).next()


async def test_the_named_variable_is_read_at_request_time() -> None:
    env: dict[str, str] = {}
    asked = provider(env_key="MY_KEY", env_key_instructions="Get one at example.com.", requires_openai_auth=True)
    found = fixed_authorizer(asked, env)
    assert found is not None
    with pytest.raises(MissingCredential) as caught:
        await found.current()
    assert str(caught.value) == "Missing environment variable: `MY_KEY`. Get one at example.com."
    assert caught.value.variable == "MY_KEY"
    env["MY_KEY"] = "  "
    with pytest.raises(MissingCredential):
        await found.current()
    env["MY_KEY"] = "secret"
    assert await token(found) == "secret"
    assert found.recovery(RequestAuth("secret")) is NO_RECOVERY


async def test_a_literal_token() -> None:
    found = fixed_authorizer(provider(experimental_bearer_token="literal", requires_openai_auth=True), {})
    assert await token(found) == "literal"


def test_logins_and_commands_are_somebody_elses() -> None:
    assert fixed_authorizer(OPENAI, {}) is None
    assert fixed_authorizer(provider(auth=ProviderAuth("x")), {}) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "auth.json. Other ways"),
        ("{", "not valid JSON"),
        ("[]", "no JSON object"),
        (json.dumps({"OPENAI_API_KEY": None}), "auth.json. Other ways"),
        (json.dumps({"OPENAI_API_KEY": None, "tokens": {"id_token": "x"}}), "log in again"),
        (json.dumps({"auth_mode": "agentIdentity", "agent_identity": "x"}), "of the kind `agentIdentity`"),
    ],
)
async def test_a_missing_key_names_the_variable_and_the_other_ways(tmp_path: Path, content: Any, said: str) -> None:
    if content is not None:
        (tmp_path / "auth.json").write_text(content)
    async with managed(tmp_path) as manager:
        with pytest.raises(MissingCredential) as caught:
            await AccountAuthorizer(OPENAI, manager).current()
    text = str(caught.value)
    assert caught.value.variable == "OPENAI_API_KEY"
    for part in ("`openai`", "OPENAI_API_KEY", "--oss", "--model-provider scripted", said):
        assert part in text


async def test_a_login_that_is_not_allowed_says_so(tmp_path: Path) -> None:
    async with managed(tmp_path, api_key="k", forced_method="chatgpt") as manager:
        with pytest.raises(MissingCredential, match="`forced_login_method` asks for a ChatGPT login"):
            await AccountAuthorizer(OPENAI, manager).current()


async def test_a_key_has_no_recovery(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(AuthRecord(api_key="k"))
    async with managed(tmp_path) as manager:
        authorizer = AccountAuthorizer(OPENAI, manager)
        assert authorizer.recovery(await authorizer.current()) is NO_RECOVERY


async def test_reload_then_renew_then_nothing(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with token_server() as server, managed(tmp_path, server) as manager:
        authorizer = AccountAuthorizer(OPENAI, manager)
        refused = await authorizer.current()
        recovery = authorizer.recovery(refused)
        AuthFile(tmp_path).save(chatgpt("theirs", "r9"))
        assert await recovery.next()  # read again
        assert await token(authorizer) == "theirs"
        assert server.requests == []
        assert await recovery.next()  # renewed
        assert await token(authorizer) == "new"
        assert [one["refresh_token"] for one in server.requests] == ["r9"]
        assert not await recovery.next()
        assert len(server.requests) == 1


async def test_reading_the_same_again_is_no_reason_to_repeat(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with token_server() as server, managed(tmp_path, server) as manager:
        authorizer = AccountAuthorizer(OPENAI, manager)
        recovery = authorizer.recovery(await authorizer.current())
        assert await recovery.next()
        assert await token(authorizer) == "new"
        assert len(server.requests) == 1
        assert not await recovery.next()


async def test_somebody_renewed_it_already(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with token_server() as server, managed(tmp_path, server) as manager:
        authorizer = AccountAuthorizer(OPENAI, manager)
        refused = await authorizer.current()
        login = manager.cached
        assert login is not None
        await manager.refresh(login)
        assert await authorizer.recovery(refused).next()
        assert len(server.requests) == 1


async def test_a_lost_login_ends_the_recovery(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with token_server() as server, managed(tmp_path, server) as manager:
        server.answer = (401, {"code": "refresh_token_expired"})
        authorizer = AccountAuthorizer(OPENAI, manager)
        for _ in range(2):
            with pytest.raises(RefreshFailed):
                await authorizer.recovery(await authorizer.current()).next()
        assert len(server.requests) == 1


async def test_logged_out_meanwhile(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with managed(tmp_path) as manager:
        authorizer = AccountAuthorizer(OPENAI, manager)
        recovery = authorizer.recovery(await authorizer.current())
        AuthFile(tmp_path).delete()
        assert not await recovery.next()


async def test_the_host_is_asked_once(tmp_path: Path) -> None:
    async def external(previous: str | None) -> ExternalLogin:
        return ExternalLogin("second", "acc")

    async with managed(tmp_path, external=external) as manager:
        manager.use_tokens(ExternalLogin("first", "acc"))
        authorizer = AccountAuthorizer(OPENAI, manager)
        recovery = authorizer.recovery(await authorizer.current())
        assert await recovery.next()
        assert await token(authorizer) == "second"
        assert not await recovery.next()
    async with managed(tmp_path) as manager:
        manager.use_tokens(ExternalLogin("first", "acc"))
        authorizer = AccountAuthorizer(OPENAI, manager)
        assert authorizer.recovery(await authorizer.current()) is NO_RECOVERY
