"""Logins and catalogues of whole engines: tokens of a host, the list of models, what a response says of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import engine
from engine.models.scripted import ScriptedModel
from engine.models.scripts import response, say, script
from engine.models.serving import ScriptServer, serve_script
from tests.session.conftest import Lab

TOLD = {"slug": "told", "visibility": "list", "priority": 1, "context_window": 1000}


async def tokens(previous: str | None) -> engine.ExternalLogin:
    await trio.lowlevel.checkpoint()
    return engine.ExternalLogin("from the host", "acc")


@asynccontextmanager
async def served(
    lab: Lab, *answers: Any, model_catalog_json: str | None = None, **arguments: Any
) -> AsyncIterator[tuple[engine.Engine, ScriptServer]]:
    """An engine with a provider that takes OpenAI's login."""
    lab.model = ScriptedModel(script(*answers))
    async with trio.open_nursery() as nursery:
        server: ScriptServer = await nursery.start(serve_script, lab.model)
        server.models, server.models_etag = [TOLD], "e1"
        table = {"name": "OpenAI", "base_url": server.url, "requires_openai_auth": True, "request_max_retries": 0}
        config: dict[str, object] = {"model_provider": "mine", "model_providers.mine": table}
        if model_catalog_json is not None:
            config["model_catalog_json"] = model_catalog_json
        async with engine.open_engine(home=lab.home, config=config, **arguments) as opened:
            yield opened, server
        server.stop()


async def until(condition: Any) -> None:
    """A server in the same loop and a file in a thread have no event to wait for."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


async def test_tokens_of_the_host_go_with_every_request(lab: Lab) -> None:
    async with served(lab, "a", auth=tokens) as (opened, _), opened.session(lab.settings()) as session:
        await session.run("x")
        login = await opened.login()
    assert login is not None
    assert (login.mode, login.account_id, login.external) == ("chatgptAuthTokens", "acc", True)
    (request,) = lab.model.requests
    assert request.headers["authorization"] == "Bearer from the host"
    assert request.headers["chatgpt-account-id"] == "acc"
    assert not (lab.home / "auth.json").exists()


async def test_the_host_vouches_over_the_public_api(lab: Lab) -> None:
    async def vouch(thread_id: str) -> str | None:
        await trio.lowlevel.checkpoint()
        return f"for {thread_id}" if thread_id else None

    async with served(lab, "a", api_key="k", attestation=vouch) as (opened, _):
        async with opened.session(lab.settings()) as session:
            await session.run("x")
            assert lab.model.requests[0].headers["x-oai-attestation"] == f"for {session.thread_id}"


async def test_models_are_listed_and_kept(lab: Lab) -> None:
    async with served(lab, auth=tokens) as (opened, server):
        assert "told" not in [model.slug for model in await opened.models("offline")]
        assert [model.slug for model in await opened.models()] == ["told"]
        assert [model.slug for model in await opened.models()] == ["told"]
        assert len(server.listed) == 1
        await opened.models("online")
        assert len(server.listed) == 2
        assert "gpt-5.5" in [model.slug for model in await opened.models(provider="lmstudio")]
        with pytest.raises(engine.UnknownProvider):
            await opened.models(provider="nobody")
    assert (lab.home / "models_cache.json").exists()


async def test_a_key_lists_what_is_built_in(lab: Lab) -> None:
    async with served(lab, api_key="k") as (opened, server):
        listed = [model.slug for model in await opened.models("online")]
        assert (listed[0], "codex-auto-review" in listed) == ("gpt-5.5", False)
        assert "codex-auto-review" in [model.slug for model in await opened.models(hidden=True)]
        assert server.listed == []


async def test_the_catalogue_comes_in_the_background_of_the_first_session(lab: Lab) -> None:
    async with served(lab, "a", auth=tokens) as (opened, server):
        async with opened.session(lab.settings(model="told")) as session:
            await until(lambda: (lab.home / "models_cache.json").exists())
            assert (await session.run("x")).final_message == "a"
        async with opened.session(lab.settings()):
            pass
        assert len(server.listed) == 1


async def test_another_tag_in_a_response_fetches_the_catalogue(lab: Lab) -> None:
    answers = [response(say("a"), headers={"x-models-etag": "e1"}), response(say("b"), headers={"x-models-etag": "e2"})]
    async with served(lab, *answers, auth=tokens) as (opened, server), opened.session(lab.settings()) as session:
        await until(lambda: len(server.listed) == 1)
        await session.run("x")
        server.models_etag = "e2"
        await session.run("y")
        await until(lambda: len(server.listed) == 2)


async def test_a_server_without_a_catalogue_is_no_event(lab: Lab) -> None:
    async with served(lab, "a", auth=tokens) as (opened, server):
        server.models = None  # type: ignore[assignment]
        async with opened.session(lab.settings()) as session:
            assert (await session.run("x")).final_message == "a"
            assert "gpt-5.5" in [model.slug for model in await opened.models("online")]


async def test_logging_in_and_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with engine.open_engine(home=tmp_path) as opened:
        assert await opened.login() is None
        with pytest.raises(engine.InvalidRequest):
            await opened.log_in(" ")
        await opened.log_in("k")
        login = await opened.login()
        assert login is not None
        assert (login.mode, login.record.api_key) == ("apikey", "k")
        assert (tmp_path / "auth.json").stat().st_mode & 0o777 == 0o600
        assert await opened.log_out()
        assert not await opened.log_out()
        assert await opened.login() is None


async def test_a_login_that_configuration_forbids(tmp_path: Path) -> None:
    async with engine.open_engine(home=tmp_path, api_key="k", config={"forced_login_method": "chatgpt"}) as opened:
        with pytest.raises(engine.LoginError, match="forced_login_method"):
            await opened.login()
        with pytest.raises(engine.InvalidRequest, match="API key login is disabled"):
            await opened.log_in("k")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"models": []}', "must contain at least one model"),
        ("[]", "must contain at least one model"),
        ("{", "failed to parse model_catalog_json path"),
        (None, "failed to read model_catalog_json path"),
    ],
)
async def test_a_catalogue_of_ones_own_that_is_none(lab: Lab, text: str | None, said: str) -> None:
    path = lab.home / "models.json"
    if text is not None:
        path.write_text(text)
    config = {"model_catalog_json": str(path)}
    async with engine.open_engine(home=lab.home, config=config, model=ScriptedModel(["a"])) as opened:
        with pytest.raises(engine.SessionStartError) as caught:
            await opened.start_session(lab.settings())
    assert (caught.value.stage, said in str(caught.value.cause)) == ("model", True)


async def test_a_catalogue_of_ones_own_is_never_refreshed(lab: Lab) -> None:
    path = lab.home / "models.json"
    path.write_text(json.dumps({"models": [{**TOLD, "slug": "own"}]}))
    async with served(lab, "a", auth=tokens, model_catalog_json=str(path)) as (opened, server):
        async with opened.session(lab.settings(model=None)) as session:
            await session.run("x")
        assert lab.model.requests[0].body["model"] == "own"
        assert [model.slug for model in await opened.models("online")] == ["own"]
        assert server.listed == []
