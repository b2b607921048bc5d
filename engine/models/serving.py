"""Serves a script over HTTP and server-sent events, so that the network path is exercised by the same scripts.

`POST .../responses` answers from the script, `GET .../responses` may become a WebSocket, `GET .../models` lists one
model, everything else is 404. Connections are kept alive; each has a task of its own in the server's nursery.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final

import attrs
import msgspec
import trio

from engine.errors import ModelError
from engine.models.compression import decompressed
from engine.models.script_player import Action, Emit, End, Hold, Pause, Played, Text
from engine.models.scripted import ScriptedModel
from engine.models.sse import sse_bytes
from engine.protocol.wire import JsonObject

if TYPE_CHECKING:
    import h11

__all__ = ["ScriptServer", "serve_script"]

MAX_REQUEST_BODY: Final = 256 * 1024 * 1024
READ: Final = 64 * 1024
UPGRADE_REQUIRED: Final = 426  # how HTTPS is asked for
GRACE: Final = 2.0  # seconds open responses have after `stop`


@final
class ScriptServer:
    """A running server, as `serve_script` reports it. Counters are for tests.

    `websocket`: whether upgrades are taken, or the HTTP status they get; it may be changed while the server runs.
    `handshake` are more headers of an upgrade that is taken.
    """

    def __init__(self, host: str, port: int, accepting: trio.CancelScope, websocket: bool | int) -> None:
        self.host = host
        self.port = port
        self.accepted = 0  # connections so far
        self.answered = 0  # requests so far
        self.upgraded = 0  # WebSockets so far
        self.upgrades: list[Mapping[str, str]] = []  # headers of all requests for one, taken or not
        self.warmed: list[JsonObject] = []  # frames that asked to generate nothing
        self.processed: list[str] = []  # responses that clients said they have processed
        self.models: list[JsonObject] = []  # the entries of `GET .../models`
        self.models_etag: str | None = None
        self.listed: list[Mapping[str, str]] = []  # headers of all requests for them
        self.websocket = websocket
        self.handshake: Mapping[str, str] = {}
        self.idle: set[trio.CancelScope] = set()  # who waits for a request now
        self.stopping = False
        self._accepting = accepting

    @property
    def url(self) -> str:
        """The `base_url` of a provider that talks to this server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    def stop(self) -> None:
        """Stops: no new connections, idle ones are closed, open responses have the grace to end."""
        self.stopping = True
        self._accepting.cancel()
        for scope in self.idle:
            scope.cancel()


async def serve_script(
    model: ScriptedModel,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    grace: float = GRACE,
    websocket: bool | int = True,
    task_status: trio.TaskStatus[ScriptServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until `ScriptServer.stop` or cancellation; reports the server with its bound port once it listens.

    Cancelled: all connections are closed at once. Raises `OSError` when it can't listen.
    """
    # In a thread, because importing on the loop would stall whoever else runs there.
    await trio.to_thread.run_sync(_load)
    listeners = await trio.open_tcp_listeners(port, host=host)
    accepting = trio.CancelScope()
    address = listeners[0].socket.getsockname()
    server = ScriptServer(host, address[1], accepting, websocket)

    async def connection(stream: trio.SocketStream) -> None:
        server.accepted += 1
        await _Connection(server, model, stream).run()

    async with trio.open_nursery() as connections:
        with accepting:
            try:
                task_status.started(server)
                await trio.serve_listeners(connection, listeners, handler_nursery=connections)
            finally:
                for listener in listeners:
                    await trio.aclose_forcefully(listener)
        connections.cancel_scope.deadline = trio.current_time() + grace


def _load() -> None:
    import h11  # noqa: F401
    import wsproto.extensions  # noqa: F401


class _Gone(Exception):
    """The client is no longer there."""


class _Connection:
    """One connection: requests one after the other."""

    def __init__(self, server: ScriptServer, model: ScriptedModel, stream: trio.SocketStream) -> None:
        import h11

        self._server = server
        self._model = model
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)

    async def run(self) -> None:
        import h11

        try:
            while await self._one():
                self._http.start_next_cycle()
        except (_Gone, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except h11.RemoteProtocolError as exc:
            await self._refuse(exc)
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        import h11

        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        try:
            await self._answer(_json(error.error_status_hint, {"error": {"message": str(error)}}), close=True)
        except (_Gone, h11.LocalProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _one(self) -> bool:
        """One request and its answer; whether the connection can take another."""
        import h11

        request = await self._request()
        if request is None:
            return False
        body = await self._body()
        path = request.target.decode("ascii", "replace").partition("?")[0].rstrip("/")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers}
        if headers.get("upgrade", "").lower() == "websocket" and path.endswith("/responses"):
            return await self._upgrade(headers)
        self._server.answered += 1
        if headers.get("content-encoding") == "zstd":
            try:
                body = await trio.to_thread.run_sync(decompressed, body, MAX_REQUEST_BODY)
            except ValueError as exc:
                message = f"the request body is no Zstandard: {exc}"
                await self._answer(_json(400, {"error": {"message": message}}), close=True)
                return False
        if request.method == b"POST" and path.endswith("/responses"):
            played = self._played(body, headers)
            if 200 <= played.status < 300 and not played.body:
                if not await self._stream_out(played):
                    return False
            else:
                await self._answer(played)
        elif request.method == b"GET" and path.endswith("/models"):
            self._server.listed.append(headers)
            entry = {"id": "scripted", "object": "model", "created": 0, "owned_by": "scripted"}
            listing = _json(200, {"object": "list", "data": [entry], "models": self._server.models})
            if self._server.models_etag is not None:
                listing = attrs.evolve(listing, headers={**listing.headers, "etag": self._server.models_etag})
            await self._answer(listing)
        else:
            message = f"no such path: {request.method.decode('ascii', 'replace')} {path}"
            await self._answer(_json(404, {"error": {"message": message}}))
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE and not self._server.stopping

    async def _upgrade(self, headers: Mapping[str, str]) -> bool:
        """Becomes a WebSocket, or says no; whether the connection can take another request."""
        from engine.models.serving_websocket import ScriptWebSocket, handshake

        server = self._server
        server.upgrades.append(headers)
        accepted = handshake(headers, server.handshake)
        if server.websocket is not True or accepted is None:
            status = 400 if accepted is None else int(server.websocket) or UPGRADE_REQUIRED
            await self._answer(_json(status, {"error": {"message": "no websockets here"}}))
            return not server.stopping
        answer, protocol = accepted
        await self._send(answer)
        server.upgraded += 1
        await ScriptWebSocket(server, self._model, self._stream, protocol, headers).run(self._http.trailing_data[0])
        return False

    def _played(self, body: bytes, headers: Mapping[str, str]) -> Played:
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            value = None
        if not isinstance(value, dict):
            return _json(400, {"error": {"message": "the request body is not a JSON object"}})
        try:
            return self._model.player.play(value, headers)
        except ModelError as exc:
            text = exc.message
        except Exception as exc:  # a function in the script; its failure is its client's, not the server's
            text = f"the script failed: {exc!r}"
        # Status 400: the client shows the body as it is and does not ask again.
        return Played(400, {"content-type": "text/plain; charset=utf-8"}, text.encode())

    async def _request(self) -> h11.Request | None:
        import h11

        with trio.CancelScope() as scope:
            if self._server.stopping:
                return None
            self._server.idle.add(scope)
            try:
                while True:
                    event = self._http.next_event()
                    if event is h11.NEED_DATA:
                        await self._receive()
                    elif isinstance(event, h11.Request):
                        return event
                    else:
                        return None
            finally:
                self._server.idle.discard(scope)
        return None

    async def _body(self) -> bytes:
        import h11

        body = bytearray()
        while True:
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                await self._receive()
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_REQUEST_BODY:
                    raise h11.RemoteProtocolError("the request body is too large", error_status_hint=413)
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body)
            else:
                raise _Gone

    async def _receive(self) -> None:
        self._http.receive_data(await self._stream.receive_some(READ))

    async def _send(self, *events: h11.Event) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        if data:
            await self._stream.send_all(data)

    async def _answer(self, played: Played, *, close: bool = False) -> None:
        import h11

        headers = [(name, value) for name, value in played.headers.items() if name != "content-length"]
        headers.append(("content-length", str(len(played.body))))
        if close or self._server.stopping:
            headers.append(("connection", "close"))
        await self._send(
            h11.Response(status_code=played.status, headers=headers, reason=_reason(played.status)),
            h11.Data(data=played.body),
            h11.EndOfMessage(),
        )

    async def _stream_out(self, played: Played) -> bool:
        """The events of one response; false when the connection is to be dropped."""
        import h11

        # Headers and first events leave in one packet.
        pending: list[h11.Event] = [
            h11.Response(status_code=played.status, headers=list(played.headers.items()), reason=_reason(played.status))
        ]
        for action in played.actions:
            match action:
                case Emit(events):
                    pending.append(h11.Data(data=sse_bytes(events)))
                case Text(text):
                    pending.append(h11.Data(data=text.encode()))
                case Pause() | Hold():
                    await self._send(*pending)
                    pending.clear()
                    await self._idle(action)
                case End(dropped):
                    if dropped:
                        await self._send(*pending)
                        return False
                    break
        await self._send(*pending, h11.EndOfMessage())
        return True

    async def _idle(self, action: Action) -> None:
        """A pause or a hold, ended at once when the client goes away."""
        gone = False
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal gone
                try:
                    data = await self._stream.receive_some(READ)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    data = b""
                if data:
                    self._http.receive_data(data)  # an impatient client: the next request
                else:
                    gone = True
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            if isinstance(action, Pause):
                await trio.sleep(action.seconds)
            else:
                await self._model.hold()
            nursery.cancel_scope.cancel()
        if gone:
            raise _Gone


def _json(status: int, value: JsonObject) -> Played:
    return Played(status, {"content-type": "application/json"}, msgspec.json.encode(value))


def _reason(status: int) -> bytes:
    from http import HTTPStatus

    try:
        return HTTPStatus(status).phrase.encode("ascii", "replace")
    except ValueError:
        return b""
