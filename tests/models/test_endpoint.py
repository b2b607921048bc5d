"""Asking a provider for its models: who may, what is sent, and every way an answer is no catalogue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from engine.auth.authorizers import AccountAuthorizer
from engine.auth.record import AuthRecord
from engine.auth.storage import AuthFile
from engine.errors import ModelError
from engine.models.client import ResponsesClient
from engine.models.endpoint import ProviderModels
from engine.models.failures import Disconnected
from engine.models.scripted import ScriptedModel
from engine.models.serving import ScriptServer, serve_script
from tests.auth.logins import chatgpt, managed
from tests.models.exchanges import NO_PAUSE, provider


@asynccontextmanager
async def asking(home: Path, base: str, record: AuthRecord | None) -> AsyncIterator[ProviderModels]:
    if record is not None:
        AuthFile(home).save(record)
    asked = provider(base, id="openai", name="OpenAI", requires_openai_auth=True, query_params={"a": "b"})
    async with managed(home) as logins:
        authorizer = AccountAuthorizer(asked, logins)
        async with ResponsesClient(asked, authorizer=authorizer, env={}, backoff=NO_PAUSE, version="9.8.7") as client:
            yield ProviderModels(client)


@pytest.mark.parametrize(
    ("record", "online", "chatgpt_login"),
    [(None, False, False), (AuthRecord(api_key="k"), False, False), (chatgpt(), True, True)],
)
async def test_only_chatgpt_logins_ask(
    tmp_path: Path, record: AuthRecord | None, online: bool, chatgpt_login: bool
) -> None:
    async with asking(tmp_path, "http://127.0.0.1:1", record) as endpoint:
        assert await endpoint.access() == (online, chatgpt_login)


async def test_the_answer_and_its_tag(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        server: ScriptServer = await nursery.start(serve_script, ScriptedModel([]))
        server.models, server.models_etag = [{"slug": "m"}, {"odd": 1}], 'W/"x"'
        async with asking(tmp_path, server.url, chatgpt("tok")) as endpoint:
            assert await endpoint.fetch() == ([{"slug": "m"}, {"odd": 1}], 'W/"x"')
        server.stop()
    (headers,) = server.listed
    assert (headers["authorization"], headers["chatgpt-account-id"]) == ("Bearer tok", "acc")
    assert headers["user-agent"].startswith("codex_cli_rs/9.8.7 ")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{", "no JSON"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", "without a list of `models`"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno", "unexpected status 404 Not Found: no"),
        (b"", "error sending request"),
    ],
)
async def test_other_answers(tmp_path: Path, answer: bytes, text: str) -> None:
    seen = b""

    async def connection(stream: trio.SocketStream) -> None:
        nonlocal seen
        async with stream:
            seen = await stream.receive_some(65536)
            if answer:
                await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, connection, 0)
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        async with asking(tmp_path, url, chatgpt()) as endpoint:
            with pytest.raises(ModelError) as caught:
                await endpoint.fetch()
        nursery.cancel_scope.cancel()
    assert text in str(caught.value)
    assert seen.startswith(b"GET /v1/models?a=b&client_version=9.8.7 HTTP/1.1\r\n")


async def test_nobody_there(tmp_path: Path) -> None:
    async with asking(tmp_path, "http://127.0.0.1:1/v1?key=SECRET", chatgpt()) as endpoint:
        with pytest.raises(Disconnected) as caught:
            await endpoint.fetch()
    assert "SECRET" not in str(caught.value)
