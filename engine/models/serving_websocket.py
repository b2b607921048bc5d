"""Serves a script over a WebSocket: `response.create` frames in, events out, as the other end of
`engine.models.websocket_session`.

A frame that goes on from the previous response is completed from memory, so that the script sees the whole input, as it
would over HTTP. Like a real server, this one remembers only the last response of the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final

import msgspec
import trio

from engine.errors import ModelError
from engine.models.script_player import Emit, End, Hold, Pause, Played, Text
from engine.protocol.wire import JsonObject

if TYPE_CHECKING:
    import h11
    from wsproto.connection import Connection
    from wsproto.events import Event

    from engine.models.scripted import ScriptedModel
    from engine.models.serving import ScriptServer

__all__ = ["ScriptWebSocket", "handshake"]

READ: Final = 64 * 1024
QUEUE: Final = 16  # frames that an impatient client may send ahead


def handshake(
    request: Mapping[str, str], more: Mapping[str, str]
) -> tuple[h11.InformationalResponse, Connection] | None:
    """The answer to an upgrade request (header names in lower case), with `more` headers; `None` if it is malformed."""
    import h11
    from wsproto.connection import Connection, ConnectionType
    from wsproto.extensions import PerMessageDeflate
    from wsproto.utilities import generate_accept_token

    key = request.get("sec-websocket-key")
    if not key or request.get("sec-websocket-version") != "13":
        return None
    headers = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-accept": generate_accept_token(key.encode()).decode(),
        **more,
    }
    deflate = PerMessageDeflate()
    offered = request.get("sec-websocket-extensions", "")
    accepted = deflate.accept(offered) if offered.partition(";")[0].strip() == deflate.name else None
    if accepted is not None:
        headers["sec-websocket-extensions"] = "; ".join(filter(None, (deflate.name, str(accepted))))
    answer = h11.InformationalResponse(status_code=101, headers=list(headers.items()), reason=b"Switching Protocols")
    return answer, Connection(ConnectionType.SERVER, extensions=[deflate] if accepted is not None else None)


class _Closed(Exception):
    """The connection is over."""


@final
class ScriptWebSocket:
    """One connection after its handshake. `headers` are those of the upgrade request."""

    def __init__(
        self,
        server: ScriptServer,
        model: ScriptedModel,
        stream: trio.SocketStream,
        protocol: Connection,
        headers: Mapping[str, str],
    ) -> None:
        self._server = server
        self._model = model
        self._stream = stream
        self._protocol = protocol
        self._headers = headers
        self._sending = trio.Lock()
        self._queue, self._frames = trio.open_memory_channel[str](QUEUE)
        self._known: tuple[str, list[object]] | None = None  # id and whole input, output included, of the last response

    async def run(self, early: bytes) -> None:
        """Serves until one side goes; `early` came with the handshake. The caller closes the stream."""
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                try:
                    await self._read(early)
                except (_Closed, trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                self._queue.close()
                nursery.cancel_scope.cancel()

            nursery.start_soon(read)
            try:
                while (frame := await self._next()) is not None:
                    await self._answer(frame)
                await self._close()
            except (_Closed, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            nursery.cancel_scope.cancel()

    async def _next(self) -> str | None:
        with trio.CancelScope() as scope:
            if self._server.stopping:
                return None
            self._server.idle.add(scope)
            try:
                return await self._frames.receive()
            except trio.EndOfChannel:
                return None
            finally:
                self._server.idle.discard(scope)
        return None

    async def _read(self, data: bytes) -> None:
        from wsproto import events

        parts: list[str] = []
        while True:
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                if isinstance(event, events.TextMessage):
                    parts.append(event.data)
                    if event.message_finished:
                        await self._queue.send("".join(parts))
                        parts.clear()
                elif isinstance(event, events.Ping):
                    await self._send(event.response())
                elif isinstance(event, events.CloseConnection):
                    await self._send(event.response())
                    raise _Closed
            data = await self._stream.receive_some(READ)
            if not data:
                raise _Closed

    async def _send(self, event: Event) -> None:
        from wsproto.utilities import LocalProtocolError

        async with self._sending:
            try:
                data = self._protocol.send(event)
            except LocalProtocolError:
                raise _Closed from None
            await self._stream.send_all(data)

    async def _text(self, value: JsonObject | str) -> None:
        from wsproto.events import TextMessage

        await self._send(TextMessage(data=value if isinstance(value, str) else msgspec.json.encode(value).decode()))

    async def _close(self) -> None:
        from wsproto.events import CloseConnection

        await self._send(CloseConnection(code=1000))
        raise _Closed

    async def _fail(self, status: int, error: object, headers: Mapping[str, str] | None = None) -> None:
        await self._text({"type": "error", "status": status, "error": error, "headers": dict(headers or {})})

    # --- frames ----------------------------------------------------------------------------------

    async def _answer(self, text: str) -> None:
        try:
            frame = msgspec.json.decode(text)
        except msgspec.DecodeError:
            frame = None
        kind = frame.get("type") if isinstance(frame, dict) else None
        if kind == "response.processed":
            self._server.processed.append(str(frame.get("response_id")))
        elif kind == "response.create":
            await self._create(frame)
        else:
            await self._fail(400, {"code": "invalid_request", "message": "the message is no known frame"})

    async def _create(self, frame: JsonObject) -> None:
        items = frame.get("input")
        whole: list[object] = list(items) if isinstance(items, list) else []
        previous = frame.get("previous_response_id")
        if previous is not None:
            if self._known is None or self._known[0] != previous:
                code = "previous_response_not_found"
                await self._fail(400, {"code": code, "message": f"Previous response with id '{previous}' not found."})
                return
            whole = [*self._known[1], *whole]
        self._known = None
        skipped = ("type", "generate", "previous_response_id")
        body = {name: value for name, value in frame.items() if name not in skipped} | {"input": whole}
        if frame.get("generate") is False:
            await self._warm(body, frame, whole)
            return
        self._server.answered += 1
        played = self._played(body, frame)
        if not 200 <= played.status < 300 or played.body:
            await self._fail(played.status, _error(played.body), _more(played.headers))
            return
        await self._play(played, whole)

    async def _warm(self, body: JsonObject, frame: JsonObject, whole: list[object]) -> None:
        """Prepares and generates nothing: no response of the script is used up."""
        self._server.warmed.append(frame)
        response_id = f"warm_{len(self._server.warmed)}"
        await self._text({"type": "response.created", "response": {"id": response_id}})
        await self._text({"type": "response.completed", "response": {"id": response_id}})
        self._known = (response_id, whole)

    def _played(self, body: JsonObject, frame: JsonObject) -> Played:
        try:
            return self._model.player.play(body, self._headers, frame)
        except ModelError as exc:
            text = exc.message
        except Exception as exc:  # a function in the script; its failure is its client's, not the server's
            text = f"the script failed: {exc!r}"
        return Played(400, {}, msgspec.json.encode({"error": {"message": text}}))

    async def _play(self, played: Played, whole: list[object]) -> None:
        headers = _more(played.headers)
        for action in played.actions:
            match action:
                case Emit(events):
                    for event in events:
                        if headers and event.get("type") == "response.created":
                            event = {**event, "headers": dict(headers)}
                        self._note(event, whole)
                        await self._text(event)
                case Text(text):
                    await self._text(text)
                case Pause(seconds):
                    await trio.sleep(seconds)
                case Hold():
                    await self._model.hold()
                case End(dropped):
                    if dropped:
                        raise _Closed
                    if self._known is None:
                        await self._close()

    def _note(self, event: JsonObject, whole: list[object]) -> None:
        if event.get("type") == "response.output_item.done":
            whole.append(event.get("item"))
        elif event.get("type") == "response.completed":
            response = event.get("response")
            if isinstance(response, dict):
                self._known = (str(response.get("id")), whole)


def _more(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in headers.items() if name != "content-type"}


def _error(body: bytes) -> object:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {"message": body.decode(errors="replace")}
    return value.get("error", value) if isinstance(value, dict) else {"message": str(value)}
