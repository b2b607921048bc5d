"""One session's line to a Responses endpoint: a WebSocket kept between its turns, HTTPS once that failed
(session.md 4.8 and 2.6).

The connection is made by the first request (or the prewarm) and lent to one request at a time. After a response that
completed it goes back; then a request that only goes on where the last one ended sends no more than what is new. It is
given up with anything else: an error, a response that was left early, a new context window.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, final

import attrs
import msgspec
import trio

from engine.auth.base import RequestAuth
from engine.errors import ModelError
from engine.models.base import ModelRequest, ResponseStream, SessionFacts
from engine.models.failures import IdleTimeout, in_band_failure
from engine.models.telling import FALLBACK, EventTelling, telling_connect, telling_send
from engine.models.websocket import UpgradeRequired, WebSocket, open_websocket, websocket_url
from engine.protocol.wire import JsonObject
from engine.records import define, frozen
from engine.telemetry.handle import current

if TYPE_CHECKING:
    from engine.config.providers import ProviderInfo
    from engine.models.client import ResponsesClient

__all__ = ["ResponsesSession"]

logger = logging.getLogger("engine")

BETA: Final = "responses_websockets=2026-02-06"
WINDOW: Final = "x-codex-window-id"
TURN_STATE: Final = "x-codex-turn-state"
ACKNOWLEDGE_WITHIN: Final = 1.0  # seconds
BATCH: Final = 64  # messages handed on together
# Headers of a request that each frame repeats, because the handshake's are as old as the connection.
REPEATED: Final = (WINDOW, "x-openai-subagent", "x-codex-parent-thread-id", "x-codex-turn-metadata")
TRACE: Final = ("traceparent", "tracestate")


@frozen
class _Past:
    """The last exchange on a connection: what a request must repeat to be a continuation of it."""

    fields: Mapping[str, object]  # all of the body but `input`
    input: Sequence[JsonObject]  # what was sent, then what came back
    response_id: str

    def rest(self, body: JsonObject) -> Sequence[JsonObject] | None:
        """What of `body`'s input is new; `None` where it is no continuation."""
        items = body.get("input")
        known = len(self.input)
        if not isinstance(items, list) or items[:known] != list(self.input) or _without_input(body) != self.fields:
            return None
        return items[known:]


@define(eq=False)
class _Line:
    """A connection and what is known of it. `turn_state` is handed on once, to the turn that made the connection."""

    socket: WebSocket
    window: str | None
    turn_state: str | None
    url: str
    past: _Past | None = attrs.field(default=None, init=False)
    used: bool = attrs.field(default=False, init=False)

    def headers(self, *, first: bool) -> Mapping[str, str]:
        found = {name: value for name, value in self.socket.headers.items() if name != TURN_STATE}
        if first and self.turn_state is not None:
            found[TURN_STATE], self.turn_state = self.turn_state, None
        return found


@final
class ResponsesSession:
    """A `ModelSession` over WebSocket while that works, and over `client`'s HTTPS otherwise."""

    def __init__(self, client: ResponsesClient, facts: SessionFacts) -> None:
        self._client = client
        self._facts = facts
        self._idle = client.provider.stream_idle_timeout_ms / 1000
        self._websocket = client.provider.supports_websockets
        self._kept: _Line | None = None

    @property
    def provider(self) -> ProviderInfo:
        """The provider it talks to."""
        return self._client.provider

    @property
    def websocket(self) -> bool:
        """Whether requests go over a WebSocket now."""
        return self._websocket

    def fall_back(self) -> bool:
        """From now on uses HTTPS; whether that is a change."""
        changed, self._websocket = self._websocket, False
        self._give_up()
        return changed

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[ResponseStream]:
        """See `Model.stream`. A 426 on the way switches to HTTPS, and this request goes there."""
        line = await self._line(request)
        if line is None:
            async with self._client.stream(request) as stream:
                yield stream
            return
        async with self._exchange(line, request) as stream:
            yield stream

    async def prewarm(self, request: ModelRequest) -> None:
        """Connects and sends the request with `generate: false`. Over HTTPS there is nothing to warm."""
        line = await self._line(request)
        if line is None:
            await trio.lowlevel.checkpoint()
            return
        async with self._exchange(line, request, generate=False) as stream:
            async for _ in stream:
                pass

    # --- the connection --------------------------------------------------------------------------

    async def _line(self, request: ModelRequest) -> _Line | None:
        """The connection, taken out of the shelf or new; `None` over HTTPS. Raises `ModelError`."""
        if not self._websocket:
            return None
        kept, self._kept = self._kept, None
        if kept is not None:
            if kept.socket.usable and kept.window == request.headers.get(WINDOW):
                return kept
            kept.socket.drop()
        try:
            return await self._client.authorized(lambda auth: self._connect(request, auth))
        except UpgradeRequired:
            if self.fall_back():
                name, tags = FALLBACK
                current().count(name, tags=tags)
            return None

    @trio.lowlevel.enable_ki_protection  # an open connection always has its owner
    async def _connect(self, request: ModelRequest, auth: RequestAuth) -> _Line:
        client = self._client
        url = client.url(auth)
        headers = await client.identity(auth, {**request.headers, "openai-beta": BETA})
        http = await client.http(url)
        timeout = self.provider.websocket_connect_timeout_ms / 1000
        socket = await telling_connect("/responses", lambda: open_websocket(http, url, headers, timeout))
        try:
            self._facts.spawn("model connection", socket.run)
        except BaseException:
            await socket.aclose()
            raise
        return _Line(socket, request.headers.get(WINDOW), socket.headers.get(TURN_STATE), websocket_url(url))

    def _give_up(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.socket.drop()

    # --- one request -----------------------------------------------------------------------------

    @asynccontextmanager
    async def _exchange(
        self, line: _Line, request: ModelRequest, *, generate: bool = True
    ) -> AsyncIterator[ResponseStream]:
        socket, whole = line.socket, False
        try:
            frame = _frame(request, line.past, generate=generate)
            reused, line.past, line.used = line.used, None, True
            socket.listen()
            with trio.move_on_after(self._idle) as scope:
                text = msgspec.json.encode(frame).decode()
                await telling_send(lambda: socket.send(text), reused=reused)
            if scope.cancelled_caught:
                raise IdleTimeout("websocket")
            source = _Messages(line, self._idle)
            stream = ResponseStream(line.headers(first=generate), source, transport="websocket")
            yield stream
            if stream.completed and source.response_id is not None:
                line.past = self._past(request.body, source)
                if generate and self._facts.acknowledge:
                    await self._acknowledge(socket, source.response_id)
                whole = True
        finally:
            socket.rest()
            if not whole or not self._websocket or self._kept is not None:
                socket.drop()
            else:
                self._kept = line

    def _past(self, body: JsonObject, source: _Messages) -> _Past | None:
        sent = body.get("input")
        if not isinstance(sent, list) or not source.response_id:
            return None
        came = [form for item in source.items if (form := self._facts.input_form(item)) is not None]
        return _Past(_without_input(body), (*sent, *came), source.response_id)

    async def _acknowledge(self, socket: WebSocket, response_id: str) -> None:
        frame = {"type": "response.processed", "response_id": response_id}
        with trio.move_on_after(ACKNOWLEDGE_WITHIN) as scope:
            try:
                await socket.send(msgspec.json.encode(frame).decode())
            except ModelError as exc:
                logger.info("a response was processed, but the server could not be told: %s", exc)
        if scope.cancelled_caught:
            socket.drop()


class _Messages:
    """The messages that answer one request, as raw events."""

    def __init__(self, line: _Line, idle: float) -> None:
        self._socket = line.socket
        self._url = line.url
        self._idle = idle
        self._telling = EventTelling.of("websocket")
        self.items: list[JsonObject] = []
        self.response_id: str | None = None

    async def receive(self) -> Sequence[JsonObject] | None:
        telling = self._telling
        if telling is None:
            return await self._receive()
        telling.wait()
        try:
            values = await self._receive()
        except ModelError as exc:
            telling.broke(exc)
            raise
        telling.came(values or ())
        return values

    async def _receive(self) -> Sequence[JsonObject] | None:
        with trio.move_on_after(self._idle):
            batch: list[JsonObject] = []
            self._take(await self._socket.receive(), batch)
            while len(batch) < BATCH and (more := self._socket.receive_nowait()) is not None:
                self._take(more, batch)
            return batch
        raise IdleTimeout("websocket")

    def _take(self, text: str, batch: list[JsonObject]) -> None:
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return
        if not isinstance(value, dict):
            return
        kind = value.get("type")
        if kind == "error":
            failure = in_band_failure(value, self._url)
            if failure is not None:
                raise failure
        elif kind == "response.output_item.done":
            item = value.get("item")
            if isinstance(item, dict):
                self.items.append(item)
        elif kind == "response.completed":
            response = value.get("response")
            response_id = response.get("id") if isinstance(response, dict) else None
            self.response_id = response_id if isinstance(response_id, str) else None
        batch.append(value)


def _without_input(body: JsonObject) -> Mapping[str, object]:
    return {name: value for name, value in body.items() if name != "input"}


def _frame(request: ModelRequest, past: _Past | None, *, generate: bool) -> JsonObject:
    """The message that asks for a response: all of the body, or what goes on from `past`."""
    body = request.body
    frame: JsonObject = {"type": "response.create", **body}
    rest = None if past is None else past.rest(body)
    if past is not None and rest is not None:
        frame["input"] = list(rest)
        frame["previous_response_id"] = past.response_id
    if not generate:
        frame["generate"] = False
    told = body.get("client_metadata")
    metadata: JsonObject = dict(told) if isinstance(told, dict) else {}
    metadata |= {name: request.headers[name] for name in REPEATED if name in request.headers}
    metadata |= {f"ws_request_header_{name}": request.headers[name] for name in TRACE if name in request.headers}
    metadata["x-codex-ws-stream-request-start-ms"] = str(time.time_ns() // 1_000_000)
    frame["client_metadata"] = metadata
    return frame
