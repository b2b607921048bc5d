"""The Responses client against real sockets: errors, retries, reuse of connections, cancellation, idle streams."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest
import trio

from engine.auth.authorizers import AccountAuthorizer
from engine.errors import ConfigError, ContextWindowExceeded, MissingCredential, ModelError
from engine.models import responses as r
from engine.models.address import endpoint_url
from engine.models.base import ModelRequest
from engine.models.client import ResponsesClient
from engine.models.failures import Disconnected, EventTooLarge, IdleTimeout
from engine.models.scripted import ScriptedModel
from engine.models.scripts import Script, cut, event, failed, http_error, reply, response, say, script, wait
from engine.models.sse import MAX_EVENT_BYTES, sse_bytes
from tests.auth.logins import managed
from tests.models.exchanges import (
    NO_PAUSE,
    SSE_HEAD,
    body,
    chunk,
    collect,
    provider,
    raw_server,
    request,
    served,
    user,
)

CREATED = sse_bytes([{"type": "response.created", "response": {"id": "r"}}])
COMPLETED = sse_bytes([{"type": "response.completed", "response": {"id": "r"}}])


def model(*responses: Any, **more: Any) -> ScriptedModel:
    return ScriptedModel(script(*responses, scope="model"), **more)


def texts(events: list[r.ResponseEvent]) -> str:
    return "".join(found.delta for found in events if isinstance(found, r.TextDelta))


async def fails(client: ResponsesClient) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await collect(client)
    return caught.value


# --- good answers ---------------------------------------------------------------------------------


async def test_an_answer_arrives_and_the_connection_is_used_again() -> None:
    async with served(model(reply("Hello there", repeat=None))) as (client, server):
        for _ in range(5):
            events = await collect(client)
            assert texts(events) == "Hello there"
            assert isinstance(events[-1], r.Completed)
        assert (server.accepted, server.answered) == (1, 5)


async def test_concurrent_answers_have_a_connection_each_and_all_return_to_the_pool() -> None:
    scripted = model(response(say("a"), wait(), repeat=None))
    async with served(scripted) as (client, server):
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(collect, client)
                await scripted.until_waiting(8)
                scripted.release()
        assert (server.accepted, server.answered) == (8, 24)


async def test_body_and_headers_as_the_server_sees_them() -> None:
    scripted = model("ok")
    env = {"ORG": "from env", "BLANK": " ", "CODEX_INTERNAL_ORIGINATOR_OVERRIDE": "my_sdk"}
    fields: dict[str, Any] = {
        "http_headers": {"X-Org": "static", "x-static": "yes", "bad name": "x", "x-bad-value": "a\nb"},
        "env_http_headers": {"x-org": "ORG", "x-blank": "BLANK", "x-absent": "ABSENT"},
        "query_params": {"api-version": "1 2", "b": "&"},
        "experimental_bearer_token": "token",
    }
    async with served(scripted, env=env, **fields) as (client, _):
        asked = ModelRequest(body(user("é")), {"thread-id": "T", "x-static": "session wins"})
        await collect(client, asked)
    (seen,) = scripted.requests
    assert seen.body == asked.body
    wanted = {
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "authorization": "Bearer token",
        "originator": "my_sdk",
        "thread-id": "T",
        "x-org": "from env",
        "x-static": "session wins",
    }
    assert {name: seen.headers.get(name) for name in wanted} == wanted
    assert seen.headers["user-agent"].startswith("my_sdk/")
    assert not {"bad name", "x-bad-value", "x-blank", "x-absent", "cookie"} & seen.headers.keys()


async def test_query_parameters_are_appended() -> None:
    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(SSE_HEAD + chunk(COMPLETED) + b"0\r\n\r\n")

    async with raw_server(answer, query_params={"api-version": "1 2", "b": "&"}) as (client, heads):
        await collect(client)
    assert heads[0].startswith(b"POST /v1/responses?api-version=1+2&b=%26 HTTP/1.1\r\n")


async def test_response_headers_are_there_before_the_events() -> None:
    headers = {"X-Codex-Turn-State": "state", "openai-model": "served"}
    async with served(model(response(say("a"), headers=headers))) as (client, _):
        async with client.stream(request()) as stream:
            assert stream.turn_state == "state"
            assert stream.headers["openai-model"] == "served"
            assert await anext(stream) == r.ServerModel("served")


async def test_cookies_of_a_server_are_not_kept() -> None:
    scripted = model(response(say("a"), headers={"set-cookie": "tracked=yes"}, repeat=None))
    async with served(scripted) as (client, _):
        await collect(client)
        await collect(client)
    assert "cookie" not in scripted.requests[1].headers


async def test_a_key_is_looked_up_when_a_request_needs_it() -> None:
    scripted, env = model(reply("ok", repeat=None)), dict[str, str]()
    async with served(scripted, env=env, env_key="SOME_KEY") as (client, server):
        with pytest.raises(MissingCredential) as caught:
            await collect(client)
        assert (caught.value.variable, server.accepted) == ("SOME_KEY", 0)
        env["SOME_KEY"] = "k"
        await collect(client)
    assert scripted.requests[0].headers["authorization"] == "Bearer k"


async def test_a_key_is_read_from_the_home(tmp_path: Any) -> None:
    scripted = model("ok")
    (tmp_path / "auth.json").write_text(json.dumps({"OPENAI_API_KEY": "stored"}))
    async with served(scripted) as (_, server):
        asked = provider(server.url, requires_openai_auth=True)
        async with managed(tmp_path) as logins:
            async with ResponsesClient(asked, env={}, authorizer=AccountAuthorizer(asked, logins)) as client:
                await collect(client)
    assert scripted.requests[0].headers["authorization"] == "Bearer stored"


async def test_prepare_does_not_connect() -> None:
    async with served(model("ok")) as (client, server):
        await client.prepare()
        assert server.accepted == 0
        await collect(client)


# --- errors of the server -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text", "info", "retryable", "status"),
    [
        (
            http_error(500, "boom"),
            "We’re currently experiencing high demand, which may cause temporary errors.",
            "internal_server_error",
            True,
            None,
        ),
        (http_error(400, "bad"), '{"error":{"message":"bad"}}', "other", False, 400),
        (
            http_error(401, "Incorrect API key"),
            "unexpected status 401 Unauthorized: Incorrect API key, url: URL/responses",
            {"http_connection_failed": {"http_status_code": 401}},
            True,
            401,
        ),
        (
            http_error(404, "no model"),
            "unexpected status 404 Not Found: no model, url: URL/responses",
            {"http_connection_failed": {"http_status_code": 404}},
            True,
            404,
        ),
        (
            http_error(429, "slow"),
            "exceeded retry limit, last status: 429 Too Many Requests",
            {"response_too_many_failed_attempts": {"http_status_code": 429}},
            False,
            429,
        ),
        (
            http_error(503, "busy", code="slow_down"),
            "Selected model is at capacity. Please try a different model.",
            "server_overloaded",
            False,
            None,
        ),
        (
            http_error(302, "moved", headers={"location": "http://127.0.0.1:9/"}),
            "unexpected status 302 Found: moved, url: URL/responses",
            {"http_connection_failed": {"http_status_code": 302}},
            True,
            302,
        ),
    ],
)
async def test_http_errors(answer: Any, text: str, info: object, retryable: bool, status: int | None) -> None:
    async with served(model(answer)) as (client, server):
        error = await fails(client)
        assert error.message == text.replace("URL", server.url)
        assert (error.info, error.retryable, error.status) == (info, retryable, status)
        assert server.answered == 1


@pytest.mark.parametrize(("status", "tries"), [(500, 3), (502, 3), (503, 3), (429, 1), (400, 1), (401, 1)])
async def test_the_http_layer_repeats_5xx_only(status: int, tries: int) -> None:
    async with served(model(*[http_error(status)] * 5), request_max_retries=2) as (client, server):
        await fails(client)
        assert (server.answered, server.accepted) == (tries, 1)


async def test_a_retry_that_succeeds_is_silent() -> None:
    async with served(model(http_error(500), http_error(503), "fine"), request_max_retries=2) as (client, _):
        assert texts(await collect(client)) == "fine"


async def test_a_failure_is_told_when_the_stream_closes() -> None:
    async with served(model(response(say("Half"), failed("context_length_exceeded", "long")))) as (client, _):
        async with client.stream(request()) as stream:
            seen = [await anext(stream) for _ in range(5)]
            assert (type(seen[-1]), texts(seen)) == (r.ItemDone, "Half")
            with pytest.raises(ContextWindowExceeded):
                await anext(stream)
            with pytest.raises(ContextWindowExceeded):
                await anext(stream)


async def test_a_failure_followed_by_an_open_connection_is_told_only_by_the_idle_timeout() -> None:
    broken = {"type": "response.failed", "response": {"error": {"code": "context_length_exceeded"}}}
    scripted = model(response(event(broken), wait()))
    async with served(scripted, stream_idle_timeout_ms=100) as (client, _):
        assert isinstance(await fails(client), IdleTimeout)


async def test_a_stream_that_ends_early() -> None:
    async with served(model(response(say("a"), cut("end")))) as (client, _):
        error = await fails(client)
    assert error.message == "stream disconnected before completion: stream closed before response.completed"
    assert error.retryable


async def test_a_connection_that_breaks() -> None:
    async with served(model(response(say("a"), cut("drop")), "whole")) as (client, server):
        error = await fails(client)
        assert error.message == (
            "stream disconnected before completion: Transport error: network error: error decoding response body"
        )
        assert error.retryable
        assert texts(await collect(client)) == "whole"
        assert server.accepted == 2


async def test_a_connection_that_breaks_after_a_failure_tells_the_failure() -> None:
    broken = {"type": "response.failed", "response": {"error": {"code": "context_length_exceeded"}}}
    async with served(model(response(event(broken), cut("drop")))) as (client, _):
        assert isinstance(await fails(client), ContextWindowExceeded)


async def test_nobody_listens_there() -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        backoff = NO_PAUSE.__class__(sleep=sleep)
        async with ResponsesClient(provider(url, request_max_retries=3), env={}, backoff=backoff) as client:
            error = await fails(client)
    assert error.message.startswith(
        f"stream disconnected before completion: error sending request for url ({url}/responses): "
    )
    assert "refused" in error.message.lower()
    assert (error.retryable, error.info, len(pauses)) == (True, "other", 3)


@pytest.mark.parametrize(
    "url", ["no url at all", "ftp://127.0.0.1/v1", "http://", "http://[::1/v1", "http://h:x/", "http://h:0"]
)
async def test_a_base_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ResponsesClient(provider(url))
    assert (caught.value.key, url in str(caught.value)) == ("model_providers.mock.base_url", True)


async def test_a_base_url_that_only_the_http_library_refuses() -> None:
    async with ResponsesClient(provider("http://127.0.0.1/\x01"), env={}, backoff=NO_PAUSE) as client:
        assert "can't be used" in (await fails(client)).message


@pytest.mark.parametrize(
    ("base", "url"),
    [
        (None, "https://api.openai.com/v1/responses?a=b+c"),
        ("https://h/v1/", "https://h/v1/responses?a=b+c"),
        ("https://h/v1?x=1", "https://h/v1/responses?x=1&a=b+c"),
    ],
)
def test_the_endpoint(base: str | None, url: str) -> None:
    assert endpoint_url(provider(base, query_params={"a": "b c"})) == url


async def test_secrets_in_the_url_are_not_shown() -> None:
    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 418 I'm a teapot\r\ncontent-length: 0\r\n\r\n")

    async with raw_server(answer, query_params={"key": "secret"}) as (client, _):
        assert "secret" not in (await fails(client)).message


# --- bad bytes ------------------------------------------------------------------------------------


async def test_garbage_between_events_is_ignored() -> None:
    garbage = b"event: x\ndata: {broken\n\n: note\n\n\x00\xff\xfe nonsense\n\ndata: [1]\n\ndata: \xff\n\n"

    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(SSE_HEAD + chunk(CREATED) + chunk(garbage) + chunk(COMPLETED) + b"0\r\n\r\n")

    async with raw_server(answer) as (client, _):
        events = await collect(client)
    assert [type(found) for found in events] == [r.RateLimits, r.Created, r.Completed]


async def test_a_page_instead_of_a_stream_says_what_came() -> None:
    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>")

    async with raw_server(answer) as (client, _):
        error = await fails(client)
    assert "stream closed before response.completed (the server answered with text/html" in error.message


@pytest.mark.parametrize("answer_bytes", [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"\x15\x03\x01\x00"])
async def test_an_answer_that_is_no_http(answer_bytes: bytes) -> None:
    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(answer_bytes)

    async with raw_server(answer, request_max_retries=1) as (client, heads):
        error = await fails(client)
    assert error.message.startswith("stream disconnected before completion: error sending request for url")
    assert error.retryable
    assert len(heads) == 2


async def test_an_endless_event_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_EVENT_BYTES >= 16 * 1024 * 1024
    monkeypatch.setattr("engine.models.sse.SseParser.__init__.__defaults__", (1000,))

    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(SSE_HEAD + chunk(b"data: "))
        while True:
            await stream.send_all(chunk(b"x" * 100))

    async with raw_server(answer) as (client, _):
        error = await fails(client)
    assert isinstance(error, EventTooLarge)
    assert not error.retryable


async def test_a_huge_error_body_is_read_up_to_a_limit() -> None:
    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(chunk(b"x" * 10_000))

    async with raw_server(answer) as (client, _):
        error = await fails(client)
    assert error.message.startswith("unexpected status 404 Not Found: " + "x" * 1000 + "...")


async def test_an_error_whose_body_breaks_is_told_with_what_came() -> None:
    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 100\r\n\r\nhalf")

    async with raw_server(answer) as (client, _):
        assert (await fails(client)).message.startswith("unexpected status 404 Not Found: half")


# --- time and cancellation ------------------------------------------------------------------------


async def test_an_idle_stream_is_given_up() -> None:
    scripted = model(response(say("a"), wait()), "next")
    async with served(scripted, stream_idle_timeout_ms=100) as (client, _):
        error = await fails(client)
        assert error.message == "stream disconnected before completion: idle timeout waiting for SSE"
        assert error.retryable
        assert texts(await collect(client)) == "next"


async def test_bytes_that_are_no_events_do_not_keep_a_stream_alive() -> None:
    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(SSE_HEAD + chunk(CREATED))
        while True:
            await stream.send_all(chunk(b": ping\n\n"))
            await trio.sleep(0.02)

    async with raw_server(answer, stream_idle_timeout_ms=150) as (client, _):
        assert isinstance(await fails(client), IdleTimeout)


async def test_a_server_that_never_answers_is_given_up_without_a_retry_of_the_http_layer() -> None:
    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        await trio.sleep_forever()

    async with raw_server(answer, stream_idle_timeout_ms=100, request_max_retries=3) as (client, heads):
        assert isinstance(await fails(client), IdleTimeout)
        assert len(heads) == 1


async def test_a_body_that_does_not_end_delays_nobody() -> None:
    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(SSE_HEAD + chunk(COMPLETED))
        await trio.sleep_forever()

    async with raw_server(answer) as (client, heads):
        with trio.fail_after(2):
            for _ in range(3):
                assert isinstance((await collect(client))[-1], r.Completed)
        assert len(heads) == 3


async def leave_by_an_error(client: ResponsesClient) -> None:
    async with client.stream(request()) as stream:
        async for _ in stream:
            raise ZeroDivisionError


async def test_leaving_early_closes_the_connection_and_leaks_nothing() -> None:
    scripted = model(response(say("a" * 200, chunk=1), wait(), repeat=None))
    async with served(scripted, max_connections=1) as (client, server):
        for _ in range(5):
            with trio.fail_after(2):
                async with client.stream(request()) as stream:
                    await anext(stream)
            with pytest.raises(ZeroDivisionError):
                await leave_by_an_error(client)
        assert server.accepted == 10


async def test_cancelled_requests_never_cost_a_pool_slot() -> None:
    before = open_files()
    await churn()
    assert not open_files() - before


def open_files() -> set[str]:
    """Numbers of the open file descriptors; nothing where the system does not tell."""
    return set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()


async def churn() -> None:
    rng = random.Random(7)
    script_ = Script(script(response(say("x" * 64, chunk=4, interval=0.001), repeat=None)).responses, scope="model")
    async with served(ScriptedModel(script_), max_connections=4) as (client, server):

        async def one() -> None:
            with trio.move_on_after(rng.uniform(0, 0.03)):
                await collect(client)

        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(one)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(collect, client)
        assert server.accepted > 4


async def test_cancelling_while_the_server_is_silent() -> None:
    entered = trio.Event()

    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        entered.set()
        await trio.sleep_forever()

    async with raw_server(answer) as (client, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, client)
            await entered.wait()
            nursery.cancel_scope.cancel()


async def test_a_closed_client_refuses() -> None:
    client = ResponsesClient(provider("http://127.0.0.1:1/v1"), env={}, backoff=NO_PAUSE)
    await client.aclose()
    await client.aclose()
    with pytest.raises(ModelError, match="closed"):
        await collect(client)


async def test_closing_works_while_cancelled() -> None:
    async with served(model(reply("a", repeat=None))) as (client, _):
        await collect(client)
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.aclose()


async def test_https_needs_a_trusted_certificate_and_says_so() -> None:
    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(b"not TLS")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, lambda stream: answer(stream, b""), 0)
        url = f"https://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        async with ResponsesClient(provider(url), env={}, backoff=NO_PAUSE) as client:
            error = await fails(client)
        nursery.cancel_scope.cancel()
    assert isinstance(error, Disconnected)
    assert "SSL" in error.message or "record" in error.message.lower()
