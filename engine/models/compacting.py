"""Asks a provider to compact a conversation: `POST {base}/responses/compact`, answered at once (session.md 4.10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import msgspec
import trio

from engine.auth.base import RequestAuth
from engine.errors import ContextWindowExceeded, ModelError
from engine.http import first_values, read_text, reason, without_secrets
from engine.models.base import ModelRequest
from engine.models.failures import Disconnected, IdleTimeout, http_failure
from engine.models.retries import Backoff, HttpRetry, with_retries
from engine.models.telling import telling_request

if TYPE_CHECKING:
    import httpx2

    from engine.models.client import ResponsesClient

__all__ = ["CompactingModel", "request_compaction"]

MAX_BODY: Final = 64 * 1024 * 1024
MAX_ERROR_BODY: Final = 64 * 1024


@runtime_checkable
class CompactingModel(Protocol):
    """A model that can compact a conversation itself."""

    async def compact(self, request: ModelRequest) -> list[object]:
        """The items that stand in place of the request's `input`. Raises `ModelError`. Cancelled: nothing is left."""
        ...


async def request_compaction(client: ResponsesClient, request: ModelRequest, backoff: Backoff) -> list[object]:
    """One request, repeated as the HTTP layer repeats, and after a 401 where that may help."""

    async def send(auth: RequestAuth) -> list[object]:
        body = dict(request.body)
        if not auth.backend:
            body.pop("service_tier", None)  # a plain key pays by use
        content = msgspec.json.encode(body)
        url = client.url(auth, "responses/compact")
        headers = {
            "accept": "application/json",
            "accept-encoding": "identity",
            "content-type": "application/json",
            **await client.identity(auth, request.headers),
        }
        http = await client.http(url)
        idle = client.provider.stream_idle_timeout_ms / 1000
        return await with_retries(
            lambda: telling_request("/responses/compact", lambda note: _post(http, url, headers, content, idle, note)),
            client.provider.request_max_retries,
            backoff,
        )

    return await client.authorized(send)


async def _post(
    http: httpx2.AsyncClient,
    url: str,
    headers: dict[str, str],
    content: bytes,
    idle: float,
    note_status: Callable[[int], None],
) -> list[object]:
    import httpx2

    shown = without_secrets(url)
    response: httpx2.Response | None = None
    try:
        request = http.build_request("POST", url, headers=headers, content=content)
        with trio.move_on_after(idle):
            response = await http.send(request, stream=True)
        if response is None:
            raise HttpRetry(IdleTimeout())
        note_status(response.status_code)
        good = 200 <= response.status_code < 300
        body = await read_text(response, MAX_BODY if good else MAX_ERROR_BODY, idle)
    except httpx2.InvalidURL as exc:
        raise ModelError(f"`{shown}` can't be used: {exc}") from exc
    except httpx2.RequestError as exc:
        raise HttpRetry(Disconnected(f"error sending request for url ({shown}): {reason(exc)}")) from exc
    if good:
        return _output(body, shown)
    if response.status_code < 500 and _error_code(body) == "context_length_exceeded":
        raise ContextWindowExceeded()
    failure = http_failure(response.status_code, first_values(response.headers), body, shown)
    if response.status_code >= 500:
        raise HttpRetry(failure)
    raise failure


def _error_code(body: str) -> object:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    error = content.get("error") if isinstance(content, dict) else None
    return error.get("code") if isinstance(error, dict) else None


def _output(body: str, shown: str) -> list[object]:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ModelError(f"{shown} answered with what is no JSON: {exc}") from None
    output = content.get("output") if isinstance(content, dict) else None
    if not isinstance(output, list):
        raise ModelError(f"{shown} answered without a list `output`")
    return output
