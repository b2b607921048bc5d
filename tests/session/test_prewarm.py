"""The prepared connection never stands in the way: of the start, of its end, of a thread that is only looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

import engine
from engine.models.scripted import ScriptedModel
from engine.models.serving import ScriptServer, serve_script
from tests.session.conftest import Lab


def configured(url: str, **fields: object) -> dict[str, object]:
    table = {"name": "mock", "base_url": url, "supports_websockets": True, "request_max_retries": 0}
    return {"model_provider": "mock", "model_providers.mock": {**table, **fields}}


class Silent:
    """A server that takes connections and never answers."""

    def __init__(self) -> None:
        self.url = ""
        self.connected = trio.Event()
        self.gone = trio.Event()

    async def connection(self, stream: trio.SocketStream) -> None:
        async with stream:
            self.connected.set()
            try:
                while await stream.receive_some(65536):
                    pass
            except trio.BrokenResourceError:
                pass
            self.gone.set()


@asynccontextmanager
async def silent() -> AsyncIterator[Silent]:
    server = Silent()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, server.connection, 0)
        server.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        yield server
        nursery.cancel_scope.cancel()


async def test_a_start_is_ready_while_nobody_answers(lab: Lab) -> None:
    async with silent() as server, engine.open_engine(home=lab.home, config=configured(server.url)) as opened:
        with trio.fail_after(10):  # the connection may take 15 s
            session = await opened.start_session(lab.settings())
            await server.connected.wait()
            assert session.status == "pending_init"  # up, and without a turn yet
            await session.aclose()
            await server.gone.wait()


async def test_the_first_turn_gives_up_waiting_and_says_why_it_failed(lab: Lab) -> None:
    limits = {"websocket_connect_timeout_ms": 100, "stream_max_retries": 0, "stream_idle_timeout_ms": 200}
    async with silent() as server:
        config = configured(server.url, **limits)
        async with engine.open_engine(home=lab.home, config=config) as opened:
            async with opened.session(lab.settings()) as session:
                with trio.fail_after(10), pytest.raises(engine.TurnFailed) as caught:
                    await session.run("x")
    assert "idle timeout" in str(caught.value)  # over HTTPS, after the WebSocket was given up


async def test_without_a_key_no_connection_and_no_event(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("CODEX_ACCESS_TOKEN", raising=False)
    async with silent() as server:
        config = configured(server.url, requires_openai_auth=True)
        async with engine.open_engine(home=lab.home, config=config) as opened:
            async with opened.session(lab.settings()) as session:
                with session.events() as stream:
                    await session.aclose()
                    kinds = [event.msg.type async for event in stream]
        assert not server.connected.is_set()
    assert not {"error", "warning", "stream_error"} & set(kinds)


async def test_many_sessions_prepare_connections_of_their_own(lab: Lab) -> None:
    async with trio.open_nursery() as nursery:
        server: ScriptServer = await nursery.start(serve_script, ScriptedModel(["a"] * 4))
        async with engine.open_engine(home=lab.home, config=configured(server.url)) as opened:
            sessions = [await opened.start_session(lab.settings()) for _ in range(4)]
            async with trio.open_nursery() as turns:
                for session in sessions:
                    turns.start_soon(session.run, "x")
            threads = [headers["thread-id"] for headers in server.upgrades]
            assert sorted(threads) == sorted(session.thread_id for session in sessions)
        server.stop()
