"""The Responses client: HTTP requests, server-sent events back, connections kept between turns (session.md 4.6-4.8).

The HTTP library and the TLS context are loaded in a worker thread by the first request (or by `prepare`), never on the
loop. Connections return to the pool when a response was read to its end; a response that is given up early closes its
connection, because half a body is of no use to the next request.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
import trio

from engine.errors import ConfigError, ModelError
from engine.models.base import ModelRequest, ResponseStream
from engine.models.credentials import Credentials
from engine.models.failures import BODY_CUT, Disconnected, IdleTimeout, http_failure
from engine.models.identity import is_header_name, is_header_value, originator, user_agent
from engine.models.retries import Backoff, HttpRetry, with_retries
from engine.models.sse import SseParser, event_values
from engine.protocol.wire import JsonObject

if TYPE_CHECKING:
    import httpx2

    from engine.config.providers import ProviderInfo

__all__ = ["ModelRequest", "ResponsesClient"]

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
CONNECT_TIMEOUT: Final = 30.0  # seconds for TCP and TLS
KEEPALIVE: Final = 90.0  # seconds an idle connection is kept; a server that closes earlier is noticed before reuse
MAX_IDLE_CONNECTIONS: Final = 100
# How long a finished response may take to end its body, so that the connection can be used again; a new one costs more.
DRAIN: Final = 0.025
CLOSE: Final = 1.0  # seconds; closing sends nothing, so this is never reached
MAX_ERROR_BODY: Final = 64 * 1024
ERROR_BODY_TIMEOUT: Final = 10.0


class ResponsesClient:
    """A `Model` behind a Responses endpoint. Use as `async with ResponsesClient(provider, ...) as model`.

    One client serves any number of concurrent requests. `env` is read at request time; `api_key` (from the host) and
    `home` (for `auth.json`) matter only to providers that use OpenAI's login. `max_connections` bounds the pool
    (default: no bound); further requests then wait. Raises `ConfigError` for a `base_url` that is no URL.
    """

    def __init__(
        self,
        provider: ProviderInfo,
        *,
        home: Path | None = None,
        api_key: str | None = None,
        env: Mapping[str, str] | None = None,
        version: str | None = None,
        backoff: Backoff | None = None,
        max_connections: int | None = None,
    ) -> None:
        self._provider = provider
        self._env = os.environ if env is None else env
        self._credentials = Credentials(self._env, home, api_key)
        self._version = version
        self._backoff = backoff or Backoff()
        self._max_connections = max_connections
        self._idle = provider.stream_idle_timeout_ms / 1000
        self._url = responses_url(provider)
        self._shown_url = _without_secrets(self._url)
        self._setup = trio.Lock()
        self._http: httpx2.AsyncClient | None = None
        self._closed = False

    @property
    def provider(self) -> ProviderInfo:
        """The provider this client talks to."""
        return self._provider

    async def __aenter__(self) -> ResponsesClient:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes all connections; idempotent, bounded, also when cancelled. No request may be under way."""
        self._closed = True
        http, self._http = self._http, None
        if http is not None:
            with trio.move_on_after(CLOSE, shield=True):
                await http.aclose()

    async def prepare(self) -> None:
        """Does in a thread what the first request would wait for: loads the HTTP library and, for https, the CAs."""
        await self._ready()

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[ResponseStream]:
        """Sends the request and lends its answer; see `Model.stream`.

        Cancelled while sending: nothing is left. Cancelled while streaming: the connection is closed at once.
        """
        headers = await self._headers(request)  # first: without a key there is nothing to load
        http = await self._ready()
        body = msgspec.json.encode(request.body)
        response = await with_retries(
            lambda: self._send(http, headers, body), self._provider.request_max_retries, self._backoff
        )
        source = _HttpEvents(response, self._idle)
        stream: ResponseStream | None = None
        try:
            stream = ResponseStream(_lower(response.headers), source)
            yield stream
        finally:
            # Completed: read the end of the body, so that the connection can be used again. Else: close it now.
            await source.aclose(DRAIN if stream is not None and stream.completed else 0.0)

    async def _ready(self) -> httpx2.AsyncClient:
        if self._http is None:
            async with self._setup:
                if self._http is None:
                    if self._closed:
                        raise ModelError("the model client is closed")
                    self._http = await trio.to_thread.run_sync(self._make_http, abandon_on_cancel=True)
        return self._http

    def _make_http(self) -> httpx2.AsyncClient:
        import ssl
        from http.cookiejar import DefaultCookiePolicy

        import httpx2

        parts = urlsplit(self._url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        # A proxy never helps on the way to this machine. Without TLS on the way the certificates stay unread; a context
        # that trusts nobody takes their place.
        secure = parts.scheme == "https" or (not local and _proxied(self._env))
        context = httpx2.create_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        http = httpx2.AsyncClient(
            verify=context,
            trust_env=not local,
            timeout=httpx2.Timeout(connect=CONNECT_TIMEOUT, read=None, write=None, pool=None),
            limits=httpx2.Limits(
                max_connections=self._max_connections,
                max_keepalive_connections=MAX_IDLE_CONNECTIONS,
                keepalive_expiry=KEEPALIVE,
            ),
        )
        # One client serves many sessions: nothing a server sets in one may show up in another.
        http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        return http

    async def _headers(self, request: ModelRequest) -> dict[str, str]:
        name = originator(self._env)
        headers = {
            "accept": "text/event-stream",
            # A compressed stream arrives in lumps.
            "accept-encoding": "identity",
            "content-type": "application/json",
            "originator": name,
            "user-agent": user_agent(name, self._version or _package_version(), self._env),
        }
        _add(headers, self._provider.http_headers)
        _add(headers, {header: self._env.get(key, "") for header, key in self._provider.env_http_headers.items()})
        _add(headers, request.headers)
        token = await self._token()
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return headers

    async def _token(self) -> str | None:
        if self._credentials.needs_file(self._provider):
            return await trio.to_thread.run_sync(self._credentials.token, self._provider, abandon_on_cancel=True)
        return self._credentials.token(self._provider)

    async def _send(self, http: httpx2.AsyncClient, headers: Mapping[str, str], body: bytes) -> httpx2.Response:
        """One try. Returns a streaming 2xx response; raises `HttpRetry` or `ModelError`."""
        import httpx2

        try:
            request = http.build_request("POST", self._url, headers=headers, content=body)
        except httpx2.InvalidURL as exc:
            raise ModelError(f"the base_url of the provider `{self._provider.id}` can't be used: {exc}") from exc
        response: httpx2.Response | None = None
        try:
            # Waiting for the first byte is waiting for an event.
            with trio.move_on_after(self._idle):
                response = await http.send(request, stream=True)
        except httpx2.RequestError as exc:
            raise HttpRetry(Disconnected(f"error sending request for url ({self._shown_url}): {_reason(exc)}")) from exc
        if response is None:
            raise IdleTimeout()
        if 200 <= response.status_code < 300:
            return response
        failure = http_failure(
            response.status_code, _lower(response.headers), await _error_body(response), self._shown_url
        )
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
        self._seen = False
        self._ended = False

    async def receive(self) -> Sequence[JsonObject] | None:
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


def responses_url(provider: ProviderInfo) -> str:
    """The endpoint requests go to, with the provider's query parameters. Raises `ConfigError`."""
    base = provider.base_url or DEFAULT_BASE_URL
    try:
        parts = urlsplit(base)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bad port, an unfinished IPv6 address
        usable = False
    if not usable:
        raise ConfigError(
            f"`{base}` is no URL that starts with http:// or https://", key=f"model_providers.{provider.id}.base_url"
        )
    query = "&".join(filter(None, (parts.query, urlencode(provider.query_params))))
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + "/responses", query, ""))


def _without_secrets(url: str) -> str:
    """The URL as messages show it: no query, no user; either may hold a key."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _add(headers: dict[str, str], more: Mapping[str, str]) -> None:
    for name, value in more.items():
        value = value.strip()
        if value and is_header_name(name) and is_header_value(value):
            headers[name.lower()] = value


def _lower(headers: httpx2.Headers) -> dict[str, str]:
    """Names in lower case; the first value wins."""
    found: dict[str, str] = {}
    for name, value in headers.multi_items():
        found.setdefault(name.lower(), value)
    return found


def _proxied(env: Mapping[str, str]) -> bool:
    return any(env.get(name) or env.get(name.upper()) for name in ("https_proxy", "http_proxy", "all_proxy"))


def _reason(exc: Exception) -> str:
    """The innermost message: what the operating system or the TLS layer said."""
    said = type(exc).__name__
    found: BaseException | None = exc
    while isinstance(found, Exception):
        if isinstance(found, ExceptionGroup):
            found = found.exceptions[0]
        said = str(found) or said
        # The library raises its own `from None`; the context is still there.
        found = found.__cause__ or found.__context__
    return said


async def _error_body(response: httpx2.Response) -> str:
    """What an error answer says, up to 64 KiB; what did not arrive is left out. Closes the response."""
    import httpx2

    body = bytearray()
    try:
        with trio.move_on_after(ERROR_BODY_TIMEOUT) as scope:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) >= MAX_ERROR_BODY:
                    scope.cancel()  # and not `break`, which would leave the library's generators hanging
    except (httpx2.RequestError, httpx2.StreamError):
        pass
    finally:
        with trio.move_on_after(CLOSE, shield=True):
            await response.aclose()
    return bytes(body[:MAX_ERROR_BODY]).decode(errors="replace")


def _package_version() -> str:
    from engine import __version__

    return __version__
