"""The Responses client: HTTP requests, server-sent events back, connections kept between turns (session.md 4.6-4.8).

The HTTP library and the TLS context are loaded in a worker thread by the first request (or by `prepare`), never on the
loop. Connections return to the pool when a response was read to its end; a response that is given up early closes its
connection, because half a body is of no use to the next request.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import trio

from engine.auth.attestation import ATTESTATION_HEADER, AttestationProvider
from engine.auth.authorizers import fixed_authorizer
from engine.auth.base import Authorizer, Recovery, RequestAuth
from engine.auth.errors import LoginError, RefreshFailed
from engine.errors import ConfigError, EngineError, ModelError
from engine.http import CLOSE, HttpClients, first_values, read_text, reason, without_secrets
from engine.models.address import endpoint_url
from engine.models.base import ModelRequest, ModelSession, ResponseStream, SessionFacts
from engine.models.compression import compressed
from engine.models.failures import BODY_CUT, Disconnected, IdleTimeout, http_failure
from engine.models.identity import is_header_name, is_header_value, originator, user_agent
from engine.models.retries import Backoff, HttpRetry, with_retries
from engine.models.sse import SseParser, event_values
from engine.models.telling import EventTelling, telling_request
from engine.protocol.wire import JsonObject

if TYPE_CHECKING:
    import httpx2

    from engine.config.providers import ProviderInfo

__all__ = ["ModelRequest", "ResponsesClient"]

logger = logging.getLogger("engine")

T = TypeVar("T")

# How long a finished response may take to end its body, so that the connection can be used again; a new one costs more.
DRAIN: Final = 0.025
MAX_ERROR_BODY: Final = 64 * 1024


class ResponsesClient:
    """A `Model` behind a Responses endpoint. Use as `async with ResponsesClient(provider, ...) as model`.

    One client serves any number of concurrent requests. `env` is read at request time; `authorizer` says who asks
    (default: what the environment and the provider's table give). `http` are clients to share; without it the client
    has its own. Raises `ConfigError` for a `base_url` that is no URL.
    """

    def __init__(
        self,
        provider: ProviderInfo,
        *,
        authorizer: Authorizer | None = None,
        attestation: AttestationProvider | None = None,
        http: HttpClients | None = None,
        env: Mapping[str, str] | None = None,
        version: str | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._provider = provider
        self._env = os.environ if env is None else env
        found = authorizer or fixed_authorizer(provider, self._env)
        if found is None:
            raise ConfigError(f"the provider `{provider.id}` needs a login, and there is nobody to ask for one")
        self._authorizer: Authorizer = found
        self._attestation = attestation
        self._version = version or _package_version()
        self._backoff = backoff or Backoff()
        self._idle = provider.stream_idle_timeout_ms / 1000
        self._own_http = http is None
        self._clients = http or HttpClients(self._env)
        endpoint_url(provider)  # a bad one fails here, not in the middle of a turn

    @property
    def provider(self) -> ProviderInfo:
        """The provider this client talks to."""
        return self._provider

    @property
    def version(self) -> str:
        """The version this program names itself with."""
        return self._version

    @property
    def authorizer(self) -> Authorizer:
        """Who asks."""
        return self._authorizer

    async def __aenter__(self) -> ResponsesClient:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes its own connections; idempotent, bounded, also when cancelled. No request may be under way."""
        if self._own_http:
            await self._clients.aclose()

    async def prepare(self) -> None:
        """Does in a thread what the first request would wait for: loads the HTTP library and, for https, the CAs."""
        await self.http(endpoint_url(self._provider))

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[ResponseStream]:
        """Sends the request and lends its answer; see `Model.stream`.

        Cancelled while sending: nothing is left. Cancelled while streaming: the connection is closed at once.
        """
        body = msgspec.json.encode(request.body)
        packed: bytes | None = None

        async def send(auth: RequestAuth) -> httpx2.Response:
            nonlocal packed
            url = self.url(auth)
            headers = await self.headers(request, auth)
            http = await self.http(url)
            if request.compress and auth.backend and self._provider.is_openai:
                if packed is None:
                    packed = await trio.to_thread.run_sync(compressed, body)
                headers["content-encoding"] = "zstd"
            content = packed if "content-encoding" in headers and packed is not None else body
            return await with_retries(
                lambda: telling_request("/responses", lambda note: self._send(http, url, headers, content, note)),
                self._provider.request_max_retries,
                self._backoff,
            )

        response = await self.authorized(send)
        source = _HttpEvents(response, self._idle)
        stream: ResponseStream | None = None
        try:
            stream = ResponseStream(first_values(response.headers), source)
            yield stream
        finally:
            # Completed: read the end of the body, so that the connection can be used again. Else: close it now.
            await source.aclose(DRAIN if stream is not None and stream.completed else 0.0)

    async def authorized(self, send: Callable[[RequestAuth], Awaitable[T]]) -> T:
        """Sends something with the current identity, and again after each step of the recovery from a 401.

        Raises what `send` raises, and `ModelError` (`unauthorized`) where the login is lost for good.
        """
        auth = await self._identify()  # first: without a key there is nothing to load
        recovery: Recovery | None = None
        while True:
            try:
                return await send(auth)
            except ModelError as exc:
                if exc.status != 401:
                    raise
                if recovery is None:
                    recovery = self._authorizer.recovery(auth)
                if not await self._recover(recovery):
                    raise
            auth = await self._identify()

    async def _identify(self) -> RequestAuth:
        try:
            return await self._authorizer.current()
        except LoginError as exc:
            raise ModelError(str(exc), info="unauthorized") from exc

    async def _recover(self, recovery: Recovery) -> bool:
        try:
            return await recovery.next()
        except RefreshFailed as exc:
            if exc.permanent:
                raise ModelError(str(exc), info="unauthorized") from exc
            raise Disconnected(str(exc)) from exc
        except LoginError as exc:
            raise ModelError(str(exc), info="unauthorized") from exc

    async def compact(self, request: ModelRequest) -> list[object]:
        """See `CompactingModel`: one request to `responses/compact`, with the retries of the HTTP layer."""
        from engine.models.compacting import request_compaction

        return await request_compaction(self, request, self._backoff)

    def session(self, facts: SessionFacts) -> ModelSession:
        """A session's own line: a WebSocket where the provider takes them, this client's HTTPS otherwise."""
        from engine.models.websocket_session import ResponsesSession

        return ResponsesSession(self, facts)

    def url(self, auth: RequestAuth, path: str = "responses") -> str:
        """Where requests of this identity go to."""
        return endpoint_url(self._provider, path, backend=auth.backend)

    async def http(self, url: str) -> httpx2.AsyncClient:
        """The HTTP client for `url`. Raises `ModelError` once it is closed."""
        try:
            return await self._clients.client_for(url)
        except EngineError:
            raise ModelError("the model client is closed") from None

    async def headers(self, request: ModelRequest, auth: RequestAuth) -> dict[str, str]:
        """The headers of an HTTP request: the program's, the provider's, the session's own, and who asks."""
        return {
            "accept": "text/event-stream",
            # A compressed stream arrives in lumps.
            "accept-encoding": "identity",
            "content-type": "application/json",
            **await self.identity(auth, request.headers),
        }

    async def identity(self, auth: RequestAuth, more: Mapping[str, str]) -> dict[str, str]:
        """What every request to the provider carries, whatever it asks for; `more` wins over the provider's headers."""
        name = originator(self._env)
        headers = {"originator": name, "user-agent": user_agent(name, self._version, self._env)}
        _add(headers, self._provider.http_headers)
        _add(headers, {header: self._env.get(key, "") for header, key in self._provider.env_http_headers.items()})
        _add(headers, more)
        headers.update(auth.headers())
        if self._attestation is not None:
            _add(headers, {ATTESTATION_HEADER: await self._vouched(self._attestation, more.get("thread-id", ""))})
        return headers

    async def _vouched(self, ask: AttestationProvider, thread_id: str) -> str:
        try:
            return await ask(thread_id) or ""
        except Exception as exc:  # the host's code
            logger.warning("the host could not vouch for a request: %r", exc)
            return ""

    async def _send(
        self,
        http: httpx2.AsyncClient,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        note_status: Callable[[int], None],
    ) -> httpx2.Response:
        """One try. Returns a streaming 2xx response; raises `HttpRetry` or `ModelError`."""
        import httpx2

        shown = without_secrets(url)
        try:
            request = http.build_request("POST", url, headers=headers, content=body)
        except httpx2.InvalidURL as exc:
            raise ModelError(f"the base_url of the provider `{self._provider.id}` can't be used: {exc}") from exc
        response: httpx2.Response | None = None
        try:
            # Waiting for the first byte is waiting for an event.
            with trio.move_on_after(self._idle):
                response = await http.send(request, stream=True)
        except httpx2.RequestError as exc:
            raise HttpRetry(Disconnected(f"error sending request for url ({shown}): {reason(exc)}")) from exc
        if response is None:
            raise IdleTimeout()
        note_status(response.status_code)
        if 200 <= response.status_code < 300:
            return response
        headers = first_values(response.headers)
        failure = http_failure(response.status_code, headers, await read_text(response, MAX_ERROR_BODY), shown)
        if response.status_code >= 500:
            raise HttpRetry(failure)
        raise failure


class _HttpEvents:
    """The body of one response as raw events. Owns the response."""

    def __init__(self, response: httpx2.Response, idle: float) -> None:
        self._response = response
        self._chunks = response.aiter_bytes()
        self._idle = idle
        self._parser = SseParser()
        self._telling = EventTelling.of("sse")
        self._seen = False
        self._ended = False

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
        import httpx2

        try:
            with trio.move_on_after(self._idle) as scope:
                while True:
                    arrived = self._parser.feed(await anext(self._chunks))
                    if arrived:
                        break
        except StopAsyncIteration:
            self._ended = True
            if self._seen:
                return None
            raise Disconnected("stream closed before response.completed" + self._wrong_type()) from None
        except (httpx2.RequestError, httpx2.StreamError) as exc:
            self._ended = True
            raise Disconnected(BODY_CUT) from exc
        if scope.cancelled_caught:
            self._ended = True
            raise IdleTimeout()
        self._seen = True
        return event_values(arrived)

    def _wrong_type(self) -> str:
        kind = self._response.headers.get("content-type", "")
        if not kind or kind.lower().startswith("text/event-stream"):
            return ""
        return f" (the server answered with {kind[:100]}, not with text/event-stream)"

    async def aclose(self, drain: float) -> None:
        """Ends the response: reads on for up to `drain` seconds, then closes. Shielded, bounded; frees its slot."""
        import httpx2

        if not self._ended:
            # With no time left the next read is cancelled, which unwinds the library's generators in order.
            with trio.move_on_after(drain, shield=True):
                try:
                    async for _ in self._chunks:
                        pass
                except (httpx2.RequestError, httpx2.StreamError):
                    pass
        with trio.move_on_after(CLOSE, shield=True):
            await self._response.aclose()


def _add(headers: dict[str, str], more: Mapping[str, str]) -> None:
    for name, value in more.items():
        value = value.strip()
        if value and is_header_name(name) and is_header_value(value):
            headers[name.lower()] = value


def _package_version() -> str:
    from engine import __version__

    return __version__
