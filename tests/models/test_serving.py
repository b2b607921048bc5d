"""The script server: paths, keep-alive, bad requests, clients that go away, stopping."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from engine.models.script_requests import ScriptedRequest
from engine.models.scripted import ScriptedModel
from engine.models.scripts import cut, delay, reply, response, say, wait
from engine.models.serving import ScriptServer, serve_script
from tests.models.exchanges import body


@asynccontextmanager
async def serving(model: ScriptedModel, **more: Any) -> AsyncIterator[tuple[ScriptServer, trio.SocketStream]]:
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[ScriptServer]) -> None:
            await serve_script(model, task_status=task_status, **more)

        server = await nursery.start(serve)
        async with await trio.open_tcp_stream(server.host, server.port) as stream:
            yield server, stream
        server.stop()


def http(method: str, path: str, content: Any = None, headers: Mapping[str, str] | None = None) -> bytes:
    data = b"" if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"content-length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def until(stream: trio.SocketStream, end: bytes) -> bytes:
    data = b""
    with trio.fail_after(5):
        while end not in data:
            more = await stream.receive_some(65536)
            if not more:
                break
            data += more
    return data


async def test_a_stream_is_chunked_and_the_connection_stays() -> None:
    async with serving(ScriptedModel([reply("hi", repeat=None)], ids="i")) as (server, stream):
        for number in (1, 2):
            await stream.send_all(http("POST", "/any/v1/responses?x=1", body()))
            data = await until(stream, b"\r\n0\r\n\r\n")
            assert data.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"content-type: text/event-stream" in data.lower()
            assert b"event: response.created\ndata: {" in data
            assert f'"id":"resp_i{number}"'.encode() in data
        assert (server.accepted, server.answered) == (1, 2)
        assert server.url == f"http://127.0.0.1:{server.port}/v1"


async def test_models_and_unknown_paths() -> None:
    async with serving(ScriptedModel(["a"])) as (_, stream):
        await stream.send_all(http("GET", "/v1/models"))
        data = await until(stream, b"}]")
        assert b'"id":"scripted"' in data
        await stream.send_all(http("GET", "/v1/responses"))
        data = await until(stream, b"}}")
        assert data.startswith(b"HTTP/1.1 404 Not Found")
        assert b"no such path: GET /v1/responses" in data


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b""])
async def test_a_body_that_is_no_object_is_a_bad_request(content: bytes) -> None:
    async with serving(ScriptedModel(["a"])) as (server, stream):
        await stream.send_all(http("POST", "/responses", content))
        assert (await until(stream, b"}}")).startswith(b"HTTP/1.1 400 Bad Request")
        await stream.send_all(http("POST", "/responses", body()))
        assert b"response.completed" in await until(stream, b"\r\n0\r\n\r\n")
        assert server.accepted == 1


async def test_an_exhausted_script_says_so() -> None:
    async with serving(ScriptedModel(["a"])) as (_, stream):
        await stream.send_all(http("POST", "/responses", body()))
        await until(stream, b"\r\n0\r\n\r\n")
        await stream.send_all(http("POST", "/responses", body()))
        data = await until(stream, b"has 1 response")
        assert data.startswith(b"HTTP/1.1 400")
        assert b"no answer left for request 2" in data


async def test_a_function_that_fails_does_not_end_the_server() -> None:
    def broken(_: ScriptedRequest) -> str:
        raise ZeroDivisionError("oops")

    async with serving(ScriptedModel([broken])) as (_, stream):
        for _ in range(2):
            await stream.send_all(http("POST", "/responses", body()))
            data = await until(stream, b"oops")
            assert data.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "nonsense", [b"nonsense\r\n\r\n", b"POST / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", b"\x16\x03\x01" * 9]
)
async def test_nonsense_is_refused_and_the_connection_closed(nonsense: bytes) -> None:
    async with serving(ScriptedModel(["a"])) as (_, stream):
        await stream.send_all(nonsense)
        data = await until(stream, b"never comes")
        assert data == b"" or data.startswith(b"HTTP/1.1 400")


async def test_a_cut_ends_without_the_last_chunk() -> None:
    async with serving(ScriptedModel([response(say("a"), cut())])) as (_, stream):
        await stream.send_all(http("POST", "/responses", body()))
        data = await until(stream, b"\r\n0\r\n\r\n")
        assert b"output_item.done" in data
        assert not data.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("step", [wait(), delay(3600)])
async def test_a_client_that_goes_away_ends_its_response(step: Any) -> None:
    model = ScriptedModel([response(say("a"), step, repeat=None)])
    async with serving(model, grace=5) as (_, stream):
        await stream.send_all(http("POST", "/responses", body()))
        await until(stream, b"output_item.done")
        await stream.aclose()
    assert model.waiting == 0


async def test_the_next_request_may_come_early() -> None:
    model = ScriptedModel([response(say("a"), wait()), reply("b")])
    async with serving(model) as (_, stream):
        await stream.send_all(http("POST", "/responses", body()))
        await model.until_waiting()
        await stream.send_all(http("POST", "/responses", body()))
        model.release()
        assert (await until(stream, b'"delta":"b"')).count(b"HTTP/1.1 200") == 2


async def test_expect_continue_is_answered() -> None:
    async with serving(ScriptedModel(["a"])) as (_, stream):
        whole = http("POST", "/responses", body(), {"expect": "100-continue"})
        head, _, rest = whole.partition(b"\r\n\r\n")
        await stream.send_all(head + b"\r\n\r\n")
        assert b"100" in await until(stream, b"\r\n\r\n")
        await stream.send_all(rest)
        assert b"response.completed" in await until(stream, b"\r\n0\r\n\r\n")


async def test_stopping_closes_idle_connections_and_lets_open_responses_end() -> None:
    model = ScriptedModel([response(say("a"), wait(), say("b"))])
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_script, model)
        async with (
            await trio.open_tcp_stream(server.host, server.port) as busy,
            await trio.open_tcp_stream(server.host, server.port) as idle,
        ):
            await busy.send_all(http("POST", "/responses", body()))
            await model.until_waiting()
            server.stop()
            assert await until(idle, b"x") == b""
            with pytest.raises(OSError):
                await trio.open_tcp_stream(server.host, server.port)
            model.release()
            assert b"response.completed" in await until(busy, b"\r\n0\r\n\r\n")
            assert await busy.receive_some(10) == b""


async def test_stopping_is_bounded_and_cancelling_is_immediate() -> None:
    model = ScriptedModel([response(wait(), repeat=None)])
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def serve(*, task_status: trio.TaskStatus[ScriptServer]) -> None:
                await serve_script(model, grace=0.05, task_status=task_status)

            first, second = await nursery.start(serve), await nursery.start(serve_script, model)
            async with (
                await trio.open_tcp_stream(first.host, first.port) as one,
                await trio.open_tcp_stream(second.host, second.port) as two,
            ):
                await one.send_all(http("POST", "/responses", body()))
                await two.send_all(http("POST", "/responses", body()))
                await model.until_waiting(2)
                first.stop()
                await until(one, b"never comes")
                nursery.cancel_scope.cancel()
    assert model.waiting == 0


async def test_a_port_that_is_taken() -> None:
    async with serving(ScriptedModel(["a"])) as (server, _):
        with pytest.raises(OSError):
            await serve_script(ScriptedModel(["b"]), port=server.port)
