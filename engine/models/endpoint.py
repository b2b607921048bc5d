"""Asks a provider for its models: `GET {base}/models` (config.md 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, final
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
import trio

from engine.auth.base import RequestAuth
from engine.errors import EngineError, ModelError
from engine.http import first_values, read_text, reason, without_secrets
from engine.models.failures import Disconnected, http_failure

if TYPE_CHECKING:
    import httpx2

    from engine.models.client import ResponsesClient

__all__ = ["Access", "ModelsEndpoint", "ProviderModels", "ToldModels"]

TIMEOUT: Final = 10.0  # seconds for the whole request
MAX_BODY: Final = 16 * 1024 * 1024
MAX_ERROR_BODY: Final = 64 * 1024


class Access(NamedTuple):
    """Whether the provider may be asked with the identity there is, and whether that is a ChatGPT login."""

    online: bool
    chatgpt: bool


class ToldModels(NamedTuple):
    """An answer: the entries as they came, and the tag of this state of the catalogue."""

    models: list[object]
    etag: str | None


class ModelsEndpoint(Protocol):
    """Where a catalogue comes from."""

    async def access(self) -> Access:
        """Whether to ask at all. Makes no request to the provider; raises nothing of its own."""
        ...

    async def fetch(self) -> ToldModels:
        """Asks. Raises `EngineError`. Cancelled: nothing is left."""
        ...


@final
class ProviderModels:
    """The models of the provider behind a client."""

    def __init__(self, client: ResponsesClient) -> None:
        self._client = client

    async def access(self) -> Access:
        """Online for ChatGPT logins and for providers with a command that prints tokens; a plain key never asks."""
        try:
            auth = await self._client.authorizer.current()
        except EngineError:
            return Access(online=False, chatgpt=False)  # a turn will say why
        return Access(auth.backend or self._client.provider.auth is not None, auth.backend)

    async def fetch(self) -> ToldModels:
        """One request, and again after a 401 where that may help."""
        return await self._client.authorized(self._fetch)

    async def _fetch(self, auth: RequestAuth) -> ToldModels:
        import httpx2

        parts = urlsplit(self._client.url(auth, "models"))
        query = "&".join(filter(None, (parts.query, urlencode({"client_version": self._client.version}))))
        url = urlunsplit((*parts[:3], query, ""))
        shown = without_secrets(url)
        http = await self._client.http(url)
        headers = {"accept": "application/json", **await self._client.identity(auth, {})}
        told: tuple[int, Mapping[str, str], str] | None = None
        try:
            with trio.move_on_after(TIMEOUT):
                request = http.build_request("GET", url, headers=headers)
                response: httpx2.Response = await http.send(request, stream=True)
                limit = MAX_BODY if 200 <= response.status_code < 300 else MAX_ERROR_BODY
                told = response.status_code, first_values(response.headers), await read_text(response, limit, TIMEOUT)
        except httpx2.InvalidURL as exc:
            raise ModelError(f"`{shown}` can't be used: {exc}") from exc
        except httpx2.RequestError as exc:
            raise Disconnected(f"error sending request for url ({shown}): {reason(exc)}") from exc
        if told is None:
            raise Disconnected(f"{shown} did not answer within {TIMEOUT:g} s")
        status, answer, body = told
        if not 200 <= status < 300:
            raise http_failure(status, answer, body, shown)
        return ToldModels(_models(body, shown), answer.get("etag"))


def _models(body: str, shown: str) -> list[object]:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ModelError(f"{shown} answered with what is no JSON: {exc}") from None
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, list):
        raise ModelError(f"{shown} answered without a list of `models`")
    return models
