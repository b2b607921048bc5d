"""HTTP clients that the engine's own requests share: loaded in a worker thread when first needed, one set of CAs.

Rooms that talk to servers (models, auth) lend them from an `HttpClients`; nothing is imported or built before the first
request, and nothing of it on the loop.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

import trio

from engine.errors import EngineError

if TYPE_CHECKING:
    import ssl

    import httpx2

__all__ = ["CLOSE", "HttpClients", "first_values", "read_text", "reason", "without_secrets"]

CONNECT_TIMEOUT: Final = 30.0  # seconds for TCP and TLS
KEEPALIVE: Final = 90.0  # seconds an idle connection is kept; a server that closes earlier is noticed before reuse
MAX_IDLE_CONNECTIONS: Final = 100
CLOSE: Final = 1.0  # seconds; closing sends nothing, so this is never reached
BODY_TIMEOUT: Final = 10.0
LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")


class HttpClients:
    """The clients of one engine. Use as `async with HttpClients(env) as http`; `env` says whether there is a proxy.

    `max_connections` bounds the pool of each client (default: no bound); further requests then wait.
    """

    def __init__(self, env: Mapping[str, str] | None = None, *, max_connections: int | None = None) -> None:
        self._env = os.environ if env is None else env
        self._max_connections = max_connections
        self._setup = trio.Lock()
        self._clients: dict[tuple[bool, bool], httpx2.AsyncClient] = {}
        self._trusted: ssl.SSLContext | None = None
        self._closed = False

    async def __aenter__(self) -> HttpClients:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes all connections; idempotent, bounded, also when cancelled. No request may be under way."""
        self._closed = True
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            with trio.move_on_after(CLOSE, shield=True):
                await client.aclose()

    async def client_for(self, url: str) -> httpx2.AsyncClient:
        """The client for requests to `url`. Made in a thread the first time; raises `EngineError` once closed."""
        parts = urlsplit(url)
        local = parts.hostname in LOCAL_HOSTS
        # A proxy never helps on the way to this machine. Without TLS on the way the certificates stay unread; a context
        # that trusts nobody takes their place.
        kind = (local, parts.scheme in ("https", "wss") or (not local and _proxied(self._env)))
        client = self._clients.get(kind)
        if client is None:
            async with self._setup:
                client = self._clients.get(kind)
                if client is None:
                    if self._closed:
                        raise EngineError("the HTTP client is closed")
                    client = await trio.to_thread.run_sync(self._make, *kind, abandon_on_cancel=True)
                    self._clients[kind] = client
        return client

    def _make(self, local: bool, secure: bool) -> httpx2.AsyncClient:
        import ssl
        from http.cookiejar import DefaultCookiePolicy

        import httpx2

        if secure and self._trusted is None:
            self._trusted = httpx2.create_ssl_context()
        context = self._trusted if secure and self._trusted is not None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

        class ShownURL(httpx2.URL):
            """A URL that shows neither query nor user where the library logs its requests: both may hold a key."""

            def __str__(self) -> str:
                return without_secrets(super().__str__())

        async def hide(request: httpx2.Request) -> None:
            request.url = ShownURL(request.url)

        client = httpx2.AsyncClient(
            event_hooks={"request": [hide]},
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
        client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        return client


def _proxied(env: Mapping[str, str]) -> bool:
    return any(env.get(name) or env.get(name.upper()) for name in ("https_proxy", "http_proxy", "all_proxy"))


def first_values(headers: httpx2.Headers) -> dict[str, str]:
    """Headers with names in lower case; the first value wins."""
    found: dict[str, str] = {}
    for name, value in headers.multi_items():
        found.setdefault(name.lower(), value)
    return found


def without_secrets(url: str) -> str:
    """The URL as messages show it: no query, no user; either may hold a key."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def reason(exc: Exception) -> str:
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


async def read_text(response: httpx2.Response, limit: int, timeout: float = BODY_TIMEOUT) -> str:
    """The body up to `limit` bytes; what does not arrive within `timeout` seconds is left out. Closes the response."""
    import httpx2

    body = bytearray()
    try:
        with trio.move_on_after(timeout) as scope:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) >= limit:
                    scope.cancel()  # and not `break`, which would leave the library's generators hanging
    except (httpx2.RequestError, httpx2.StreamError):
        pass
    finally:
        with trio.move_on_after(CLOSE, shield=True):
            await response.aclose()
    return bytes(body[:limit]).decode(errors="replace")
