"""A WebSocket to a model server: text messages both ways, pings answered, one owner (session.md 4.8). Knows no JSON.

The handshake is an ordinary request of the HTTP client, so that proxies, TLS and certificates are the same; the frames
are wsproto's. `run` is the owner's task: it reads, answers pings between requests too, and closes in the end.
"""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final
from urllib.parse import urlsplit, urlunsplit

import trio

from engine.errors import ModelError
from engine.http import CLOSE, first_values, read_text, reason, without_secrets
from engine.models.failures import Disconnected, EventTooLarge, http_failure
from engine.models.sse import MAX_EVENT_BYTES

if TYPE_CHECKING:
    import httpx2
    from wsproto.connection import Connection
    from wsproto.events import Event, TextMessage
    from wsproto.extensions import Extension

__all__ = ["ConnectTimeout", "UpgradeRequired", "WebSocket", "open_websocket", "websocket_url"]

logger = logging.getLogger("engine")

READ: Final = 64 * 1024
INBOX: Final = 64  # messages; beyond that the server waits
CLOSE_NOTICE: Final = 0.2  # seconds for telling the server that we go
LARGE: Final = 128 * 1024  # characters of a message that is compressed in a thread, off the loop
MAX_ERROR_BODY: Final = 64 * 1024
UPGRADE_REQUIRED: Final = 426
BINARY: Final = "unexpected binary websocket event"
CLOSED: Final = "websocket closed by server before response.completed"


class UpgradeRequired(ModelError):
    """The server answered 426: it takes no WebSockets here. The same request over HTTPS will do."""


class ConnectTimeout(ModelError):
    """The connection did not come about in time; another try may help. The text is what clients know (4.11)."""

    def __init__(self) -> None:
        super().__init__("timeout waiting for child process to exit", retryable=True)


def websocket_url(url: str) -> str:
    """The same endpoint as a WebSocket URL: `ws` for `http`, `wss` for `https`."""
    parts = urlsplit(url)
    return urlunsplit(("wss" if parts.scheme in ("https", "wss") else "ws", *parts[1:]))


@final
class WebSocket:
    """An open connection. `headers` are those of the handshake's answer, names in lower case.

    `run` must be started at once by whoever owns it. One request at a time sends and receives.
    """

    def __init__(self, response: httpx2.Response, protocol: Connection) -> None:
        self.headers: Mapping[str, str] = first_values(response.headers)
        self._response = response
        self._stream = response.extensions["network_stream"]
        self._protocol = protocol
        self._sending = trio.Lock()
        self._deliver, self._inbox = trio.open_memory_channel[str](INBOX)
        self._parts: list[str] = []
        self._size = 0
        self._scope = trio.CancelScope()
        self._listening = False
        self._failure: ModelError | None = None

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._failure is None and not self._scope.cancel_called

    def drop(self) -> None:
        """Lets the connection go: its owner closes it soon. What is under way ends with an error."""
        self._fail(Disconnected("the websocket was given up"))
        self._scope.cancel(reason="the websocket was given up")

    def listen(self) -> None:
        """A request begins: from now on messages are kept. What came unasked before is of no interest."""
        self._listening = True
        while True:
            try:
                self._inbox.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return

    def rest(self) -> None:
        """The request is over: messages that come now are dropped."""
        self._listening = False

    async def send(self, text: str) -> None:
        """Sends one message. Raises `Disconnected`; cancelled, the connection is of no more use and must be dropped."""
        from wsproto.events import TextMessage

        await self._send(TextMessage(data=text), large=len(text) > LARGE)

    async def receive(self) -> str:
        """The next message. Raises why there is none any more: `Disconnected`, `EventTooLarge`."""
        try:
            return await self._inbox.receive()
        except trio.EndOfChannel:
            raise self._failure or Disconnected(CLOSED) from None

    def receive_nowait(self) -> str | None:
        """The next message if it is there already."""
        try:
            return self._inbox.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            return None

    async def run(self) -> None:
        """Reads until the connection ends, then closes it; raises nothing of its own. Cancelling it is closing."""
        try:
            with self._scope:
                try:
                    self._fail(await self._read())
                except Exception as exc:  # of the library, about what a server sent: never the end of a session
                    logger.exception("a websocket failed")
                    self._fail(Disconnected(f"websocket failed: {exc!r}"))
        finally:
            self._fail(Disconnected("the websocket is closed"))
            await self.aclose()

    async def aclose(self) -> None:
        """Closes the connection; bounded, also when cancelled."""
        from wsproto.events import CloseConnection

        with trio.move_on_after(CLOSE_NOTICE, shield=True):
            # In the middle of a frame, or where nobody reads, there is nothing to tell.
            if not self._sending.locked():
                try:
                    await self._send(CloseConnection(code=1000))
                except ModelError:
                    pass
        with trio.move_on_after(CLOSE, shield=True):
            await self._response.aclose()

    def _fail(self, failure: ModelError) -> None:
        if self._failure is None:
            self._failure = failure
        self._deliver.close()

    async def _read(self) -> ModelError:
        """Reads messages; returns why there are no more."""
        import httpcore2

        while True:
            try:
                data = await self._stream.read(READ)
            except (httpcore2.NetworkError, httpcore2.ProtocolError) as exc:
                return Disconnected(f"websocket connection lost: {reason(exc)}")
            if not data:
                return Disconnected(CLOSED)
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                failure = await self._handle(event)
                if failure is not None:
                    return failure

    async def _handle(self, event: Event) -> ModelError | None:
        from wsproto import events

        if isinstance(event, events.TextMessage):
            return await self._text(event)
        if isinstance(event, events.BytesMessage):
            return Disconnected(BINARY)
        try:
            if isinstance(event, events.Ping | events.CloseConnection):
                await self._send(event.response())
        except ModelError:
            pass  # the peer is gone, as reading is about to tell
        if isinstance(event, events.CloseConnection):
            return Disconnected(f"{CLOSED}: {event.reason}" if event.reason else CLOSED)
        return None

    async def _text(self, event: TextMessage) -> ModelError | None:
        self._parts.append(event.data)
        self._size += len(event.data)
        if self._size > MAX_EVENT_BYTES:
            return EventTooLarge(MAX_EVENT_BYTES)
        if not event.message_finished:
            return None
        text, self._parts, self._size = "".join(self._parts), [], 0
        if self._listening:
            try:
                await self._deliver.send(text)
            except trio.ClosedResourceError:
                pass  # dropped meanwhile
        return None

    async def _send(self, event: Event, *, large: bool = False) -> None:
        import httpcore2
        from wsproto.utilities import LocalProtocolError

        async with self._sending:
            try:
                if large:
                    # The lock keeps everybody else from the sending half meanwhile.
                    data = await trio.to_thread.run_sync(self._protocol.send, event)
                else:
                    data = self._protocol.send(event)
            except LocalProtocolError:
                raise self._failure or Disconnected(CLOSED) from None
            try:
                await self._stream.write(data)
            except (httpcore2.NetworkError, httpcore2.ProtocolError) as exc:
                raise Disconnected(f"websocket connection lost: {reason(exc)}") from exc


async def open_websocket(http: httpx2.AsyncClient, url: str, headers: Mapping[str, str], timeout: float) -> WebSocket:
    """Connects within `timeout` seconds. Raises `UpgradeRequired`, `ConnectTimeout`, `ModelError` as the server says.

    Cancelled: nothing is left. There is no checkpoint after the connection is open.
    """
    import httpx2
    from wsproto.extensions import PerMessageDeflate

    shown = without_secrets(websocket_url(url))
    deflate = PerMessageDeflate()
    key = base64.b64encode(os.urandom(16)).decode()
    handshake = {
        **headers,
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": key,
        "sec-websocket-extensions": f"{deflate.name}; {deflate.offer()}",
    }
    response: httpx2.Response | None = None
    try:
        request = http.build_request("GET", url, headers=handshake)
        with trio.move_on_after(timeout):
            response = await http.send(request, stream=True)
    except httpx2.InvalidURL as exc:
        raise ModelError(f"`{shown}` can't be used: {exc}") from exc
    except httpx2.RequestError as exc:
        raise Disconnected(f"error connecting to {shown}: {reason(exc)}") from exc
    if response is None:
        raise ConnectTimeout()
    if response.status_code != 101:
        answer = first_values(response.headers)
        body = await read_text(response, MAX_ERROR_BODY, timeout)
        if response.status_code == UPGRADE_REQUIRED:
            raise UpgradeRequired(f"{shown} takes no websockets", status=UPGRADE_REQUIRED)
        raise http_failure(response.status_code, answer, body, shown)
    try:
        return WebSocket(response, _protocol(response, key, deflate))
    except ValueError as exc:
        with trio.move_on_after(CLOSE, shield=True):
            await response.aclose()
        raise Disconnected(f"{shown} gave a wrong answer to the websocket handshake: {exc}") from exc


def _protocol(response: httpx2.Response, key: str, deflate: Extension) -> Connection:
    """The frames' half of a connection, with what the server accepted. Raises `ValueError`."""
    from wsproto.connection import Connection, ConnectionType
    from wsproto.utilities import generate_accept_token

    if response.headers.get("sec-websocket-accept") != generate_accept_token(key.encode()).decode():
        raise ValueError("no valid Sec-WebSocket-Accept")
    accepted = response.headers.get("sec-websocket-extensions", "")
    if not accepted:
        return Connection(ConnectionType.CLIENT)
    if accepted.partition(";")[0].strip() != deflate.name:
        raise ValueError(f"the extension {accepted!r} was not offered")
    try:
        deflate.finalize(accepted)
    except IndexError:  # a parameter without its value
        raise ValueError(f"the extension is {accepted!r}") from None
    return Connection(ConnectionType.CLIENT, extensions=[deflate])
