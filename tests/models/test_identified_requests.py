"""Requests of a login: where they go, what they carry, what a 401 sets off, compression, attestation."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.auth.authorizers import AccountAuthorizer
from engine.auth.base import RequestAuth
from engine.auth.commands import CommandTokens
from engine.auth.errors import TokenCommandFailed
from engine.auth.manager import AuthManager
from engine.auth.record import AuthRecord
from engine.auth.storage import AuthFile
from engine.config.providers import ProviderAuth
from engine.errors import ConfigError, MissingCredential, ModelError
from engine.execution.oneshot import CommandResult
from engine.models import responses as r
from engine.models.address import endpoint_url
from engine.models.base import ModelRequest
from engine.models.client import ResponsesClient
from engine.models.compression import compressed, decompressed
from engine.models.sse import sse_bytes
from tests.auth.logins import TokenServer, chatgpt, managed, token_server
from tests.models.exchanges import NO_PAUSE, SSE_HEAD, chunk, collect, provider, request

COMPLETED = sse_bytes([{"type": "response.completed", "response": {"id": "r"}}])
REFUSED = json.dumps({"error": {"message": "no", "code": "invalid_token"}}).encode()


@attrs.define
class Seen:
    """Requests as a server saw them: header names in lower case, and the body."""

    headers: list[dict[str, str]] = attrs.field(factory=list)
    bodies: list[bytes] = attrs.field(factory=list)
    url: str = ""

    @property
    def tokens(self) -> list[str]:
        return [one.get("authorization", "").removeprefix("Bearer ") for one in self.headers]


@asynccontextmanager
async def server(accepts: Callable[[str], bool]) -> AsyncIterator[Seen]:
    """A Responses endpoint that lets in whom `accepts(token)` says."""
    seen = Seen()

    async def connection(stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some(65536)
            head, _, body = data.partition(b"\r\n\r\n")
            lines = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
            headers = {name.lower(): value for name, value in lines}
            while len(body) < int(headers["content-length"]):
                body += await stream.receive_some(65536)
            seen.headers.append(headers)
            seen.bodies.append(body)
            if accepts(seen.tokens[-1]):
                await stream.send_all(SSE_HEAD + chunk(COMPLETED) + b"0\r\n\r\n")
            else:
                head = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(REFUSED)
                await stream.send_all(head + REFUSED)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, connection, 0)
        seen.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        yield seen
        nursery.cancel_scope.cancel()


def client(seen: Seen, manager: AuthManager, **more: Any) -> ResponsesClient:
    asked = provider(seen.url, id="openai", name="OpenAI", requires_openai_auth=True)
    return ResponsesClient(asked, authorizer=AccountAuthorizer(asked, manager), env={}, backoff=NO_PAUSE, **more)


@asynccontextmanager
async def logged_in(
    home: Path, record: AuthRecord, accepts: Callable[[str], bool]
) -> AsyncIterator[tuple[ResponsesClient, Seen, TokenServer]]:
    AuthFile(home).save(record)
    async with token_server() as tokens, server(accepts) as seen, managed(home, tokens) as manager:
        async with client(seen, manager) as found:
            yield found, seen, tokens


async def fails(model: ResponsesClient) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await collect(model)
    return caught.value


def test_a_chatgpt_login_is_served_by_another_host() -> None:
    openai = provider(None, id="openai")
    assert endpoint_url(openai) == "https://api.openai.com/v1/responses"
    assert endpoint_url(openai, backend=True) == "https://chatgpt.com/backend-api/codex/responses"
    assert endpoint_url(openai, "models", backend=True) == "https://chatgpt.com/backend-api/codex/models"
    own = provider("http://h/v1?a=b", query_params={"c": "d"})
    assert endpoint_url(own, "models", backend=True) == "http://h/v1/models?a=b&c=d"


def test_a_provider_that_needs_a_login_needs_somebody_to_ask() -> None:
    with pytest.raises(ConfigError, match="needs a login"):
        ResponsesClient(provider("http://h", requires_openai_auth=True), env={})


async def test_a_chatgpt_login_names_its_account(tmp_path: Path) -> None:
    async with logged_in(tmp_path, chatgpt("tok"), lambda token: True) as (model, seen, _):
        await collect(model)
    assert seen.headers[0]["authorization"] == "Bearer tok"
    assert seen.headers[0]["chatgpt-account-id"] == "acc"


async def test_a_401_renews_the_login_and_repeats_the_request(tmp_path: Path) -> None:
    async with logged_in(tmp_path, chatgpt(), lambda token: token == "new") as (model, seen, tokens):
        assert isinstance((await collect(model))[-1], r.Completed)
        assert seen.tokens == ["old", "new"]
        assert len(tokens.requests) == 1
        await collect(model)
        assert seen.tokens == ["old", "new", "new"]


async def test_many_401s_at_once_are_one_renewal(tmp_path: Path) -> None:
    async with logged_in(tmp_path, chatgpt(), lambda token: token == "new") as (model, seen, tokens):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(collect, model)
        assert len(tokens.requests) == 1
        assert seen.tokens.count("new") == 4


async def test_what_helps_nothing_ends_with_the_servers_answer(tmp_path: Path) -> None:
    async with logged_in(tmp_path, chatgpt(), lambda token: False) as (model, seen, tokens):
        error = await fails(model)
        assert error.status == 401
        assert error.retryable
        assert error.message.startswith("unexpected status 401 Unauthorized: no, url: http://127.0.0.1")
        assert seen.tokens == ["old", "new"]
        assert len(tokens.requests) == 1


async def test_a_login_that_is_lost_is_final(tmp_path: Path) -> None:
    async with logged_in(tmp_path, chatgpt(), lambda token: False) as (model, seen, tokens):
        tokens.answer = (401, {"error": {"code": "refresh_token_expired"}})
        for _ in range(2):
            error = await fails(model)
            assert (error.info, error.retryable) == ("unauthorized", False)
            assert "expired" in error.message
        assert len(tokens.requests) == 1
        assert len(seen.headers) == 2


async def test_a_token_server_that_is_down_is_worth_another_try(tmp_path: Path) -> None:
    async with logged_in(tmp_path, chatgpt(), lambda token: False) as (model, _, tokens):
        tokens.answer = (503, {})
        error = await fails(model)
        assert error.retryable
        assert "the login could not be renewed" in error.message


async def test_a_key_that_is_refused_is_asked_once(tmp_path: Path) -> None:
    async with logged_in(tmp_path, AuthRecord(api_key="k"), lambda token: False) as (model, seen, tokens):
        assert (await fails(model)).status == 401
        assert seen.tokens == ["k"]
        assert tokens.requests == []
        assert "chatgpt-account-id" not in seen.headers[0]


async def test_without_a_login_nothing_is_sent(tmp_path: Path) -> None:
    async with server(lambda token: True) as seen, managed(tmp_path) as manager, client(seen, manager) as model:
        with pytest.raises(MissingCredential):
            await collect(model)
        assert seen.headers == []


# --- tokens of commands --------------------------------------------------------------------------------


async def test_a_401_runs_the_command_once_more() -> None:
    runs = 0

    async def run(*_: object) -> CommandResult:
        nonlocal runs
        runs += 1
        await trio.lowlevel.checkpoint()
        if runs > 3:
            raise TokenCommandFailed("broken")
        return CommandResult(0, None, False, 0.0, f"t{runs}\n".encode(), b"")

    async with server(lambda token: token == "t2") as seen:
        authorizer = CommandTokens(ProviderAuth("x"), run, home="/", env={})
        async with ResponsesClient(provider(seen.url), authorizer=authorizer, env={}) as model:
            await collect(model)
            await collect(model)
            assert seen.tokens == ["t1", "t2", "t2"]
            authorizer.forget("t2")
            error = await fails(model)
            assert (error.info, error.message) == ("unauthorized", "broken")
            assert seen.tokens[3:] == ["t3"]
            assert runs == 4


async def test_a_command_that_fails_ends_the_turn() -> None:
    async def run(*_: object) -> CommandResult:
        await trio.lowlevel.checkpoint()
        return CommandResult(1, None, False, 0.0, b"", b"not today")

    async with server(lambda token: True) as seen:
        authorizer = CommandTokens(ProviderAuth("x"), run, home="/", env={})
        async with ResponsesClient(provider(seen.url), authorizer=authorizer, env={}) as model:
            error = await fails(model)
    assert (error.info, error.retryable) == ("unauthorized", False)
    assert error.message == "provider auth command `x` exited with status 1: not today"
    assert seen.headers == []


# --- compression ---------------------------------------------------------------------------------------


def unpacked(data: bytes) -> bytes:
    from backports.zstd import decompress

    return decompress(data)


@given(st.binary(max_size=2000))
def test_what_is_compressed_is_the_body(body: bytes) -> None:
    assert unpacked(compressed(body)) == body
    assert decompressed(compressed(body), len(body) or 1) == body


@given(st.binary(max_size=100))
def test_what_is_no_zstandard_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        decompressed(data, 1000)


def test_a_body_that_swells_is_refused() -> None:
    packed = compressed(bytes(10_000))
    for data, limit in ((packed, 9_999), (packed[:-1], 10_000)):
        with pytest.raises(ValueError, match="cut off, or too large"):
            decompressed(data, limit)


async def test_bodies_are_compressed_for_a_chatgpt_login_at_openai(tmp_path: Path) -> None:
    asked = ModelRequest(request().body, compress=True)
    async with logged_in(tmp_path, chatgpt(), lambda token: token == "new") as (model, seen, _):
        await collect(model, asked)
    for headers, body in zip(seen.headers, seen.bodies, strict=True):
        assert headers["content-encoding"] == "zstd"
        assert json.loads(unpacked(body)) == asked.body


@pytest.mark.parametrize("case", ["not wanted", "a key", "another provider"])
async def test_and_nowhere_else(tmp_path: Path, case: str) -> None:
    AuthFile(tmp_path).save(AuthRecord(api_key="k") if case == "a key" else chatgpt())
    async with server(lambda token: True) as seen, managed(tmp_path) as manager:
        name = "Other" if case == "another provider" else "OpenAI"
        asked = provider(seen.url, name=name, requires_openai_auth=True)
        async with ResponsesClient(asked, authorizer=AccountAuthorizer(asked, manager), env={}) as model:
            await collect(model, ModelRequest(request().body, compress=case != "not wanted"))
    assert "content-encoding" not in seen.headers[0]
    assert json.loads(seen.bodies[0]) == request().body


# --- attestation ---------------------------------------------------------------------------------------


async def test_the_host_vouches_for_each_request() -> None:
    answers: list[Any] = ['{"v":1}', None, ValueError("x"), "bad\nvalue"]
    threads: list[str] = []

    async def vouch(thread_id: str) -> str | None:
        threads.append(thread_id)
        await trio.lowlevel.checkpoint()
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert answer is None or isinstance(answer, str)
        return answer

    async with server(lambda token: True) as seen:
        async with ResponsesClient(provider(seen.url), attestation=vouch, env={}) as model:
            for _ in range(4):
                await collect(model)
    assert [one.get("x-oai-attestation") for one in seen.headers] == ['{"v":1}', None, None, None]
    assert threads == ["t1"] * 4


def test_an_identity_without_a_token_adds_nothing() -> None:
    assert dict(RequestAuth(None, "acc", backend=True).headers()) == {}
