"""A session's line over WebSocket, against real sockets: frames, reuse, continuation, failures, fallback."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ContextWindowExceeded, ModelError
from engine.models import responses as r
from engine.models.base import Model, ModelRequest, ModelSession, SessionFacts, open_model_session
from engine.models.client import ResponsesClient
from engine.models.failures import Disconnected, EventTooLarge, IdleTimeout, in_band_failure
from engine.models.script_requests import ScriptedRequest
from engine.models.scripted import ScriptedModel
from engine.models.scripts import (
    cut,
    event,
    failed,
    http_error,
    reply,
    response,
    say,
    script,
    think,
    usage,
    wait,
)
from engine.models.serving import ScriptServer
from engine.models.websocket import ConnectTimeout, UpgradeRequired, websocket_url
from engine.models.websocket_session import ResponsesSession, _Past
from tests.models.exchanges import NO_PAUSE, collect, provider, request, served, user


def model(*responses: Any, **more: Any) -> ScriptedModel:
    return ScriptedModel(script(*responses, scope="model"), **more)


class Owners:
    """Runs the tasks a line starts."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.running = 0
        self._ended = trio.Event()

    def spawn(self, name: str, fn: Callable[[], Awaitable[object]]) -> None:
        self.running += 1
        self.nursery.start_soon(self._run, fn, name=name)

    async def _run(self, fn: Callable[[], Awaitable[object]]) -> None:
        try:
            await fn()
        finally:
            self.running -= 1
            self._ended.set()

    async def until_closed(self) -> None:
        """Returns when all of them have ended."""
        with trio.fail_after(5):
            while self.running:
                self._ended = trio.Event()
                await self._ended.wait()


@attrs.define
class Line:
    """A session's line, the server at its other end, and the tasks it has started."""

    session: ModelSession
    client: ResponsesClient
    server: ScriptServer
    owners: Owners


def facts(owners: Owners, **more: Any) -> SessionFacts:
    return SessionFacts(**{"spawn": owners.spawn, "input_form": lambda item: item, **more})


@asynccontextmanager
async def lined(scripted: ScriptedModel, *, acknowledge: bool = False, **fields: Any) -> AsyncIterator[Line]:
    wanted = {"supports_websockets": True, **fields}
    async with served(scripted, **wanted) as (client, server):
        async with trio.open_nursery() as nursery:
            owners = Owners(nursery)
            yield Line(client.session(facts(owners, acknowledge=acknowledge)), client, server, owners)
            nursery.cancel_scope.cancel()


def texts(events: list[r.ResponseEvent]) -> str:
    return "".join(found.delta for found in events if isinstance(found, r.TextDelta))


async def fails(session: Model, asked: ModelRequest | None = None) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await collect(session, asked)
    return caught.value


JsonObject = dict[str, Any]


def frame(scripted: ScriptedModel, number: int = -1) -> JsonObject:
    found = scripted.requests[number].frame
    assert found is not None
    return found


def window(asked: ModelRequest, number: int = 0) -> ModelRequest:
    return attrs.evolve(asked, headers={**asked.headers, "x-codex-window-id": f"t1:{number}"})


# --- one request ----------------------------------------------------------------------------------


async def test_a_request_is_one_frame_and_the_connection_stays() -> None:
    scripted = model(reply("Hello there", repeat=None))
    async with lined(scripted) as line:
        for _ in range(3):
            events = await collect(line.session)
            assert texts(events) == "Hello there"
            assert isinstance(events[-1], r.Completed)
        assert (line.server.accepted, line.server.upgraded, line.server.answered) == (1, 1, 3)
        assert line.session.websocket
        assert line.owners.running == 1
        sent = frame(scripted, 0)
        assert sent.pop("type") == "response.create"
        started = sent.pop("client_metadata")["x-codex-ws-stream-request-start-ms"]
        assert int(started) > 1_000_000_000_000
        assert sent == request().body


async def test_the_handshake_carries_identity_and_frames_repeat_what_may_change() -> None:
    scripted = model("ok")
    headers = {
        "thread-id": "T",
        "session-id": "S",
        "x-client-request-id": "T",
        "x-codex-window-id": "T:0",
        "x-codex-turn-metadata": '{"turn_id":"1"}',
        "x-openai-subagent": "review",
        "traceparent": "00-1-2-01",
        "tracestate": "a=b",
    }
    asked = ModelRequest({**request().body, "client_metadata": {"x-codex-installation-id": "I"}}, headers)
    env = {"CODEX_INTERNAL_ORIGINATOR_OVERRIDE": "my_sdk"}
    fields: dict[str, Any] = {
        "http_headers": {"version": "1"},
        "query_params": {"api-version": "1 2"},
        "experimental_bearer_token": "token",
        "env": env,
    }
    async with lined(scripted, **fields) as line:
        await collect(line.session, asked)
        (seen,) = line.server.upgrades
    wanted = {
        **headers,
        "openai-beta": "responses_websockets=2026-02-06",
        "authorization": "Bearer token",
        "originator": "my_sdk",
        "version": "1",
        "upgrade": "websocket",
    }
    assert {name: seen.get(name) for name in wanted} == wanted
    assert seen["sec-websocket-extensions"].startswith("permessage-deflate")
    assert "content-type" not in seen
    metadata = frame(scripted)["client_metadata"]
    del metadata["x-codex-ws-stream-request-start-ms"]
    assert metadata == {
        "x-codex-installation-id": "I",
        "x-codex-window-id": "T:0",
        "x-codex-turn-metadata": '{"turn_id":"1"}',
        "x-openai-subagent": "review",
        "ws_request_header_traceparent": "00-1-2-01",
        "ws_request_header_tracestate": "a=b",
    }


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://host:1/v1/responses?a=b", "ws://host:1/v1/responses?a=b"),
        ("https://host/responses", "wss://host/responses"),
        ("wss://host/responses", "wss://host/responses"),
    ],
)
def test_urls(url: str, wanted: str) -> None:
    assert websocket_url(url) == wanted


async def test_large_messages_both_ways() -> None:
    text = "".join(random.Random(1).choices("abcdefgh \u00e9\u4e2d", k=400_000))
    scripted = model(lambda asked: asked.user_texts[-1])
    async with lined(scripted) as line:
        assert texts(await collect(line.session, request(user(text)))) == text


# --- continuation ---------------------------------------------------------------------------------


async def test_a_request_that_goes_on_sends_only_what_is_new() -> None:
    scripted = model(response(think("hm"), say("one")), "two", "three", ids="i")
    async with lined(scripted) as line:
        events = await collect(line.session, request(user("a")))
        came = [found.item for found in events if isinstance(found, r.ItemDone)]
        assert len(came) == 2
        raw = [one["item"] for one in _done(scripted)]
        await collect(line.session, request(user("a"), *raw, user("b")))
        sent = frame(scripted)
        assert sent["previous_response_id"] == "resp_i1"
        assert sent["input"] == [user("b")]
        assert scripted.requests[-1].user_texts == ("a", "b")
        # nothing new at all is a continuation too
        whole = [user("a"), *raw, user("b"), *[one["item"] for one in _done(scripted, 1)]]
        await collect(line.session, request(*whole))
        assert frame(scripted)["input"] == []
        assert frame(scripted)["previous_response_id"] == "resp_i2"
        assert line.server.upgraded == 1


def _done(scripted: ScriptedModel, number: int = 0) -> list[JsonObject]:
    """The finished items of an answer, made once more."""
    again = ScriptedModel(scripted.script, ids="i")
    for asked in list(scripted.requests)[: number + 1]:
        played = again.player.play(asked.body, asked.headers)
    found: list[JsonObject] = []
    for action in played.actions:
        found.extend(one for one in getattr(action, "events", ()) if one["type"] == "response.output_item.done")
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda body: {**body, "tools": []},
        lambda body: {**body, "model": "gpt-5.4"},
        lambda body: {**body, "instructions": "more"},
        lambda body: {**body, "input": [user("z"), *body["input"][1:]]},
        lambda body: {**body, "input": body["input"][:1]},
    ],
)
async def test_anything_else_sends_everything(change: Callable[[JsonObject], JsonObject]) -> None:
    scripted = model("one", "two", ids="i")
    async with lined(scripted) as line:
        await collect(line.session, request(user("a")))
        item = _done(scripted)[0]["item"]
        body = change(request(user("a"), item, user("b")).body)
        await collect(line.session, ModelRequest(body))
        assert "previous_response_id" not in frame(scripted)
        assert frame(scripted)["input"] == body["input"]
        assert line.server.upgraded == 1


async def test_a_new_window_gets_a_new_connection() -> None:
    scripted = model("one", "two", "three", ids="i")
    async with lined(scripted) as line:
        await collect(line.session, window(request(user("a"))))
        item = _done(scripted)[0]["item"]
        await collect(line.session, window(request(user("a"), item), 1))
        assert "previous_response_id" not in frame(scripted)
        assert line.server.upgraded == 2
        await collect(line.session, window(request(user("a"), item), 1))
        assert line.server.upgraded == 2


async def test_items_that_requests_do_not_carry_are_no_part_of_what_is_known() -> None:
    scripted = model(response(think("hm"), say("one")), "two", ids="i")
    async with served(scripted, supports_websockets=True) as (client, _):
        async with trio.open_nursery() as nursery:
            form = {"input_form": lambda item: None if item["type"] == "reasoning" else {"text": item["id"]}}
            session = client.session(facts(Owners(nursery), **form))
            await collect(session, request(user("a")))
            await collect(session, request(user("a"), {"text": "msg_i1_1"}, user("b")))
            assert frame(scripted)["input"] == [user("b")]
            nursery.cancel_scope.cancel()


ITEM = st.fixed_dictionaries({"n": st.integers(0, 2)})


@given(st.lists(ITEM), st.lists(ITEM), st.lists(ITEM), st.booleans())
def test_what_is_sent_and_what_is_known_make_the_whole_input(
    sent: list[JsonObject], came: list[JsonObject], new: list[JsonObject], same: bool
) -> None:
    fields: JsonObject = {"model": "m"}
    past = _Past(fields, (*sent, *came), "r")
    body: JsonObject = {**fields, "input": [*sent, *came, *new]} | ({} if same else {"tools": []})
    rest = past.rest(body)
    assert rest == (new if same else None)
    if len(sent) > 0 and same:
        assert past.rest({**fields, "input": [{"n": 9}, *body["input"][1:]]}) is None


# --- prewarm --------------------------------------------------------------------------------------


async def test_prewarm_connects_and_the_first_request_goes_on_from_it() -> None:
    scripted = model("one")
    async with lined(scripted) as line:
        warm = ModelRequest({**request().body, "input": []}, request().headers)
        await line.session.prewarm(warm)
        (seen,) = line.server.warmed
        assert seen["generate"] is False
        assert seen["input"] == []
        await collect(line.session, request(user("a")))
        assert line.server.upgraded == 1
        assert frame(scripted)["previous_response_id"] == "warm_1"
        assert frame(scripted)["input"] == [user("a")]
        assert "generate" not in frame(scripted)


async def test_turn_state_goes_to_the_turn_that_connected() -> None:
    async with lined(model(reply("one", repeat=None))) as line:
        line.server.handshake = {"x-codex-turn-state": "S", "openai-model": "served"}
        await line.session.prewarm(request())
        for state in ("S", None, None):
            async with line.session.stream(request()) as stream:
                assert stream.turn_state == state
                assert await anext(stream) == r.ServerModel("served")
                async for _ in stream:
                    pass


async def test_prewarm_over_https_does_nothing() -> None:
    async with lined(model("one"), supports_websockets=False) as line:
        await line.session.prewarm(request())
        assert line.server.accepted == 0
        assert not line.session.websocket
        assert not line.session.fall_back()


async def test_a_model_without_sessions_is_used_as_it_is() -> None:
    async with trio.open_nursery() as nursery:
        plain = open_model_session(ScriptedModel(["one"]), facts(Owners(nursery)))
        assert texts(await collect(plain)) == "one"
        assert plain.provider.id == "scripted"
        assert not plain.websocket
        assert not plain.fall_back()
        await plain.prewarm(request())


# --- failures -------------------------------------------------------------------------------------


async def test_426_switches_to_https_at_once_and_for_good() -> None:
    scripted = model(reply("over https", repeat=None))
    async with lined(scripted) as line:
        line.server.websocket = 426
        assert texts(await collect(line.session)) == "over https"
        assert not line.session.websocket
        assert not line.session.fall_back()
        line.server.websocket = True
        await collect(line.session)
        assert len(line.server.upgrades) == 1
        assert line.server.upgraded == 0


@pytest.mark.parametrize("status", [404, 500, 503])
async def test_other_answers_to_the_handshake_are_mapped_and_nothing_is_switched(status: int) -> None:
    async with lined(model("one"), request_max_retries=3) as line:
        line.server.websocket = status
        error = await fails(line.session)
        assert error.retryable
        assert len(line.server.upgrades) == 1
        assert line.session.websocket
        if status == 404:
            url = line.server.url.replace("http:", "ws:")
            assert error.message == f"unexpected status 404 Not Found: no websockets here, url: {url}/responses"
        assert line.session.fall_back()
        assert texts(await collect(line.session)) == "one"


async def test_nobody_listens() -> None:
    async with ResponsesClient(provider("http://127.0.0.1:9/v1", supports_websockets=True), env={}) as client:
        async with trio.open_nursery() as nursery:
            error = await fails(client.session(facts(Owners(nursery))))
    assert isinstance(error, Disconnected)
    assert "error connecting to ws://127.0.0.1:9/v1/responses" in error.message


async def test_falling_back_drops_the_connection() -> None:
    async with lined(model(reply("x", repeat=None))) as line:
        await collect(line.session)
        assert line.session.fall_back()
        await line.owners.until_closed()
        await collect(line.session)
        assert line.server.accepted == 2
        assert line.server.upgraded == 1


async def test_in_band_errors_are_http_errors() -> None:
    scripted = model(
        http_error(429, "slow", kind="usage_limit_reached", plan_type="plus"),
        http_error(400, "bad"),
        http_error(500, "oops"),
        "fine",
    )
    async with lined(scripted, request_max_retries=3) as line:
        limit = await fails(line.session)
        assert limit.info == "usage_limit_exceeded"
        assert not limit.retryable
        bad = await fails(line.session)
        assert json.loads(bad.message) == {"error": {"message": "bad"}}
        assert not bad.retryable
        oops = await fails(line.session)
        assert oops.info == "internal_server_error"
        assert oops.retryable
        assert texts(await collect(line.session)) == "fine"
        assert line.server.upgraded == 4
        assert line.session.websocket


async def test_a_failure_is_told_at_once() -> None:
    scripted = model(response(say("a"), failed("context_length_exceeded")))
    async with lined(scripted) as line:
        assert isinstance(await fails(line.session), ContextWindowExceeded)
        await line.owners.until_closed()


@pytest.mark.parametrize("how", ["drop", "end"])
async def test_a_connection_that_ends_early(how: Any) -> None:
    scripted = model(response(say("a"), cut(how)), "b")
    async with lined(scripted) as line:
        error = await fails(line.session)
        assert isinstance(error, Disconnected)
        assert error.message == (
            "stream disconnected before completion: websocket closed by server before response.completed"
        )
        assert texts(await collect(line.session)) == "b"
        assert line.server.upgraded == 2


async def test_rate_limits_come_in_events_and_not_from_the_handshake() -> None:
    limits = {"type": "codex.rate_limits", "rate_limits": {"primary": {"used_percent": 5, "window_minutes": 1}}}
    scripted = model(response(event(limits), say("a"), usage(1, 2)))
    async with lined(scripted) as line:
        line.server.handshake = {"x-codex-primary-used-percent": "7"}
        events = await collect(line.session)
        snapshots = [found.snapshot for found in events if isinstance(found, r.RateLimits)]
        assert [one["primary"] for one in snapshots] == [{"used_percent": 5.0, "window_minutes": 1, "resets_at": None}]


async def test_idle_while_receiving() -> None:
    scripted = model(response(say("a"), wait()))
    async with lined(scripted, stream_idle_timeout_ms=60) as line:
        error = await fails(line.session)
        assert isinstance(error, IdleTimeout)
        assert error.message.endswith("idle timeout waiting for websocket")
        await line.owners.until_closed()


async def test_a_response_that_is_left_early_costs_its_connection() -> None:
    scripted = model(response(say("a"), wait()), "b")
    async with lined(scripted) as line:
        async with line.session.stream(request()) as stream:
            await anext(stream)
        await line.owners.until_closed()
        assert texts(await collect(line.session)) == "b"
        assert line.server.upgraded == 2


async def test_cancelling_a_response_costs_its_connection() -> None:
    scripted = model(response(say("a"), wait()), "b")
    async with lined(scripted) as line:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(collect, line.session)
                await scripted.until_waiting()
                scope.cancel()
        await line.owners.until_closed()
        assert texts(await collect(line.session)) == "b"


async def test_two_requests_at_once_do_not_share_a_connection() -> None:
    scripted = model(response(say("a"), wait(), repeat=None))
    async with lined(scripted) as line:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, line.session)
            nursery.start_soon(collect, line.session)
            await scripted.until_waiting(2)
            scripted.release()
        assert line.server.upgraded == 2


async def test_the_server_may_close_between_turns() -> None:
    scripted = model(reply("a", repeat=None))
    async with served(scripted, supports_websockets=True) as (client, server):
        async with trio.open_nursery() as nursery:
            owners = Owners(nursery)
            session = client.session(facts(owners))
            await collect(session)
            server.stop()
            await owners.until_closed()
            error = await fails(session)
            assert "error connecting to" in error.message


async def test_the_owner_closes_with_the_session() -> None:
    async with served(model("a"), supports_websockets=True) as (client, server):
        async with trio.open_nursery() as nursery:
            owners = Owners(nursery)
            await collect(client.session(facts(owners)))
            assert owners.running == 1
            nursery.cancel_scope.cancel()
        assert owners.running == 0
        assert server.upgraded == 1


async def test_processed_responses_are_acknowledged_if_wanted() -> None:
    for wanted in (True, False):
        scripted = model("a", "b", ids="i")
        async with lined(scripted, acknowledge=wanted) as line:
            await line.session.prewarm(request())
            await collect(line.session)
            await collect(line.session)  # one after the other, so that the first is there
            assert line.server.processed[:1] == (["resp_i1"] if wanted else [])


async def test_the_server_forgot_the_previous_response() -> None:
    scripted = model("one", "two", ids="i")
    async with lined(scripted) as line:
        await collect(line.session, request(user("a")))
        kept = line.session._kept  # type: ignore[attr-defined]
        kept.past = attrs.evolve(kept.past, response_id="resp_lost")
        item = _done(scripted)[0]["item"]
        error = await fails(line.session, request(user("a"), item, user("b")))
        assert error.retryable
        assert texts(await collect(line.session, request(user("a"), item, user("b")))) == "two"
        assert "previous_response_id" not in frame(scripted)


# --- servers that misbehave ------------------------------------------------------------------------

Act = Callable[[trio.SocketStream, bytes], Awaitable[None]]


def accepted(head: bytes, *more: bytes) -> bytes:
    (key,) = [one.split(b":")[1].strip() for one in head.split(b"\r\n") if one.lower().startswith(b"sec-websocket-key")]
    token = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    lines = [b"HTTP/1.1 101 Switching Protocols", b"upgrade: websocket", b"connection: upgrade", *more]
    return b"\r\n".join([*lines, b"sec-websocket-accept: " + token]) + b"\r\n\r\n"


def frame_bytes(opcode: int, data: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
    head = bytes([opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0)])
    if len(data) < 126:
        return head + bytes([len(data)]) + data
    if len(data) < 65536:
        return head + b"\x7e" + len(data).to_bytes(2, "big") + data
    return head + b"\x7f" + len(data).to_bytes(8, "big") + data


COMPLETED = json.dumps({"type": "response.completed", "response": {"id": "r"}}).encode()


@asynccontextmanager
async def against(act: Act, **fields: Any) -> AsyncIterator[ModelSession]:
    """A session whose server accepts the connection, reads the request head and then acts."""

    async def connection(stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some(65536)
            try:
                await act(stream, data)
            except trio.BrokenResourceError:
                pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, connection, 0)
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        asked = provider(url, supports_websockets=True, **fields)
        async with ResponsesClient(asked, env={}, backoff=NO_PAUSE) as client, trio.open_nursery() as inner:
            yield ResponsesSession(client, facts(Owners(inner)))
            inner.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


async def quiet(stream: trio.SocketStream) -> None:
    """Reads until the client goes."""
    while await stream.receive_some(65536):
        pass


def answering(*frames: bytes, more: tuple[bytes, ...] = ()) -> Act:
    async def act(stream: trio.SocketStream, head: bytes) -> None:
        await stream.send_all(accepted(head, *more))
        await stream.receive_some(65536)
        for one in frames:
            await stream.send_all(one)
        await quiet(stream)

    return act


async def test_messages_in_pieces_and_pings() -> None:
    pieces = (frame_bytes(1, COMPLETED[:5], fin=False), frame_bytes(9, b"p"), frame_bytes(0, COMPLETED[5:]))
    pong: list[bytes] = []
    answered = trio.Event()

    async def act(stream: trio.SocketStream, head: bytes) -> None:
        await stream.send_all(accepted(head))
        await stream.receive_some(65536)
        await stream.send_all(b"".join(pieces))
        pong.append(await stream.receive_some(65536))
        answered.set()
        await quiet(stream)

    async with against(act) as session:
        assert isinstance((await collect(session))[-1], r.Completed)
        with trio.fail_after(5):
            await answered.wait()
    assert pong[0][0] == 0x8A


async def test_pings_are_answered_between_turns() -> None:
    pong = trio.Event()

    async def act(stream: trio.SocketStream, head: bytes) -> None:
        await stream.send_all(accepted(head))
        await stream.receive_some(65536)
        await stream.send_all(frame_bytes(1, COMPLETED))
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(frame_bytes(9, b"p"))
        assert (await stream.receive_some(65536))[0] == 0x8A
        pong.set()
        await quiet(stream)

    async with against(act) as session:
        await collect(session)
        with trio.fail_after(5):
            await pong.wait()


async def test_compressed_messages() -> None:
    packer = zlib.compressobj(wbits=-15)
    packed = (packer.compress(COMPLETED) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    act = answering(frame_bytes(1, packed, rsv1=True), more=(b"sec-websocket-extensions: permessage-deflate",))
    async with against(act) as session:
        assert isinstance((await collect(session))[-1], r.Completed)


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ((frame_bytes(2, b"x"),), "unexpected binary websocket event"),
        ((frame_bytes(8, (1011).to_bytes(2, "big") + b"going away"),), "before response.completed: going away"),
        ((b"\xff\xff\xff",), "before response.completed"),
        ((frame_bytes(1, b"\xff"),), "before response.completed"),
        ((frame_bytes(1, b"x", rsv1=True),), "before response.completed"),
    ],
)
async def test_frames_that_end_a_response(frames: tuple[bytes, ...], said: str) -> None:
    async with against(answering(*frames)) as session:
        error = await fails(session)
        assert error.retryable
        assert said in error.message


async def test_messages_that_are_no_events_are_ignored() -> None:
    nonsense = [b"", b"{", b"[1]", b'"x"', b'{"type":5}', b'{"type":"error"}', b'{"type":"error","status":200}']
    act = answering(*(frame_bytes(1, one) for one in nonsense), frame_bytes(1, COMPLETED))
    async with against(act) as session:
        assert isinstance((await collect(session))[-1], r.Completed)


async def test_a_message_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.models.websocket.MAX_EVENT_BYTES", 1000)
    act = answering(frame_bytes(1, b"x" * 600, fin=False), frame_bytes(0, b"x" * 600, fin=False))
    async with against(act) as session:
        assert isinstance(await fails(session), EventTooLarge)


@pytest.mark.parametrize(
    "more",
    [
        (b"sec-websocket-extensions: something-else",),
        (b"sec-websocket-extensions: permessage-deflate; server_max_window_bits=99",),
        (b"sec-websocket-extensions: permessage-deflate; client_max_window_bits",),
    ],
)
async def test_a_handshake_that_accepts_what_was_not_offered(more: tuple[bytes, ...]) -> None:
    async with against(answering(more=more)) as session:
        error = await fails(session)
        assert "wrong answer to the websocket handshake" in error.message
        assert error.retryable


async def test_a_handshake_for_somebody_else() -> None:
    async def act(stream: trio.SocketStream, head: bytes) -> None:
        await stream.send_all(accepted(b"sec-websocket-key: other"))
        await quiet(stream)

    async with against(act) as session:
        assert "Sec-WebSocket-Accept" in (await fails(session)).message


async def test_connecting_is_bounded() -> None:
    async def act(stream: trio.SocketStream, head: bytes) -> None:
        await quiet(stream)

    async with against(act, websocket_connect_timeout_ms=50) as session:
        error = await fails(session)
        assert isinstance(error, ConnectTimeout)
        assert error.message == "timeout waiting for child process to exit"
        assert error.retryable


async def test_sending_is_bounded() -> None:
    async def act(stream: trio.SocketStream, head: bytes) -> None:
        await stream.send_all(accepted(head))
        await trio.sleep_forever()

    noise = "".join(random.Random(2).choices("0123456789abcdefghijklmnop", k=12_000_000))
    async with against(act, stream_idle_timeout_ms=400) as session:
        error = await fails(session, request(user(noise)))
        assert isinstance(error, IdleTimeout)
        assert session.websocket


async def test_cancelling_the_handshake_leaves_nothing() -> None:
    reached = trio.Event()
    gone = trio.Event()

    async def act(stream: trio.SocketStream, head: bytes) -> None:
        reached.set()
        await quiet(stream)
        gone.set()

    async with against(act) as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, session)
            await reached.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await gone.wait()


# --- what servers say ------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ERROR = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from([200, 400, 401, 403, 404, 429, 500, 503]) | JSON,
        "status_code": st.sampled_from([400, 500]) | JSON,
        "error": st.fixed_dictionaries({}, optional={"code": st.text(max_size=5) | JSON, "message": JSON}) | JSON,
        "headers": st.dictionaries(st.text(max_size=5), JSON, max_size=3) | JSON,
    },
)


@given(ERROR)
def test_an_error_event_is_nothing_or_a_model_error(raw: JsonObject) -> None:
    found = in_band_failure(raw, "ws://x")
    assert found is None or isinstance(found, ModelError)


def test_the_limit_of_a_connection_is_worth_another_try() -> None:
    error: JsonObject = {"code": "websocket_connection_limit_reached", "message": "60 minutes are over"}
    found = in_band_failure({"type": "error", "status": 400, "error": error}, "ws://x")
    assert found is not None
    assert found.retryable
    assert found.message == "stream disconnected before completion: 60 minutes are over"


def test_in_band_headers_count() -> None:
    raw: JsonObject = {"status_code": 429, "error": {"message": "m"}, "headers": {"Retry-After": "2", "x": [1], "y": 3}}
    found = in_band_failure(raw, "ws://x")
    assert found is not None
    assert found.delay == 2.0


def test_upgrade_required_is_not_retried() -> None:
    assert not UpgradeRequired("x", status=426).retryable


def test_requests_over_http_have_no_frame() -> None:
    assert ScriptedRequest({}, {}).frame is None
