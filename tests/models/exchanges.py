"""Requests, answers and servers that the tests of models share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from engine.config.providers import ProviderInfo
from engine.http import HttpClients
from engine.models.base import Model, ModelRequest
from engine.models.client import ResponsesClient
from engine.models.responses import ResponseEvent
from engine.models.retries import Backoff
from engine.models.scripted import ScriptedModel
from engine.models.serving import ScriptServer, serve_script
from engine.protocol.wire import JsonObject

NO_PAUSE = Backoff(base=0.0)


def user(text: str) -> JsonObject:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def assistant(text: str) -> JsonObject:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def function_call(call_id: str = "c1", arguments: str = "{}") -> JsonObject:
    return {"type": "function_call", "call_id": call_id, "name": "exec_command", "arguments": arguments}


def output(text: str, call_id: str = "c1") -> JsonObject:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def body(*items: JsonObject, tools: tuple[str, ...] = ("exec_command",), model: str = "gpt-5.5") -> JsonObject:
    offered = [{"type": "function", "name": name} for name in tools]
    return {"model": model, "input": list(items) or [user("hi")], "tools": offered, "stream": True}


def request(*items: JsonObject, thread: str = "t1", **more: Any) -> ModelRequest:
    return ModelRequest(body(*items, **more), {"thread-id": thread})


async def collect(model: Model, asked: ModelRequest | None = None) -> list[ResponseEvent]:
    """All events of one response; raises what iteration raises."""
    found = []
    async with model.stream(asked or request()) as stream:
        async for event in stream:
            found.append(event)
    return found


def provider(base_url: str | None = None, **fields: Any) -> ProviderInfo:
    defaults: dict[str, Any] = {"id": "mock", "name": "mock", "request_max_retries": 0}
    return ProviderInfo(**{**defaults, "base_url": base_url, **fields})


@asynccontextmanager
async def served(
    model: ScriptedModel, *, env: Mapping[str, str] | None = None, max_connections: int | None = None, **fields: Any
) -> AsyncIterator[tuple[ResponsesClient, ScriptServer]]:
    """A client that talks over loopback to a server that answers from the model's script."""
    async with trio.open_nursery() as nursery:
        server: ScriptServer = await nursery.start(serve_script, model)
        http = HttpClients(env or {}, max_connections=max_connections)
        client = ResponsesClient(
            provider(server.url, **fields),
            env={} if env is None else env,
            backoff=NO_PAUSE,
            http=http,
        )
        async with http, client:
            yield client, server
        server.stop()


@asynccontextmanager
async def raw_server(
    answer: Callable[[trio.SocketStream, bytes], Any], **fields: Any
) -> AsyncIterator[tuple[ResponsesClient, list[bytes]]]:
    """A client whose server is `answer(stream, request head)`, once per connection; the heads it saw are listed."""
    heads: list[bytes] = []

    async def connection(stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                more = await stream.receive_some(65536)
                if not more:
                    return
                data += more
            heads.append(data.partition(b"\r\n\r\n")[0])
            try:
                await answer(stream, data)
            except trio.BrokenResourceError:
                pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, connection, 0)
        port = listeners[0].socket.getsockname()[1]
        url = f"http://127.0.0.1:{port}/v1"
        async with ResponsesClient(provider(url, **fields), env={}, backoff=NO_PAUSE) as client:
            yield client, heads
        nursery.cancel_scope.cancel()


SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
