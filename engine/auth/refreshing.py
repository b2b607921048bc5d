"""New tokens for old: one request to the token endpoint, and what its answers mean (config.md 15)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

import attrs
import msgspec
import trio

from engine.auth.errors import RefreshFailed
from engine.auth.record import AuthRecord, token_claims
from engine.errors import EngineError
from engine.http import HttpClients, read_text, reason, without_secrets

if TYPE_CHECKING:
    import httpx2

__all__ = ["TOKEN_URL_VARIABLE", "due", "renewed", "request_tokens", "token_url"]

TOKEN_URL: Final = "https://auth.openai.com/oauth/token"
TOKEN_URL_VARIABLE: Final = "CODEX_REFRESH_TOKEN_URL_OVERRIDE"
CLIENT_ID: Final = "app_EMoamEEZ73f0CkXaXp7hrann"
TIMEOUT: Final = 30.0  # seconds for the whole request
MAX_BODY: Final = 1024 * 1024
MAX_AGE: Final = 8 * 24 * 3600.0  # seconds after which a token that does not say when it ends is renewed

Reason = Literal["expired", "reused", "invalidated", "account", "other"]
AGAIN: Final = "Log out and log in again."
_PERMANENT: Final[Mapping[str, tuple[Reason, str]]] = {
    "refresh_token_expired": ("expired", f"The login has expired: its refresh token is too old. {AGAIN}"),
    "refresh_token_reused": ("reused", f"The login is no longer valid: its refresh token was used before. {AGAIN}"),
    "refresh_token_invalidated": ("invalidated", f"The login is no longer valid: it was revoked. {AGAIN}"),
}
UNKNOWN: Final = f"The login could not be renewed: the server refuses its refresh token. {AGAIN}"


def token_url(env: Mapping[str, str]) -> str:
    """Where tokens are renewed; the environment may name another place."""
    return env.get(TOKEN_URL_VARIABLE, "").strip() or TOKEN_URL


def due(record: AuthRecord, now: float) -> bool:
    """Whether the tokens of a managed login should be renewed before they are used. `now` is in Unix seconds.

    What the access token says of its end is what counts; only where it says nothing its age does.
    """
    if record.tokens is None:
        return False
    expires_at = token_claims(record.tokens.access_token).expires_at
    if expires_at is not None:
        return expires_at <= now
    refreshed_at = record.refreshed_at
    return refreshed_at is not None and refreshed_at < now - MAX_AGE


async def request_tokens(http: HttpClients, url: str, record: AuthRecord) -> Mapping[str, object]:
    """Asks for new tokens. Raises `RefreshFailed`. Cancelled: the server may have taken the refresh token."""
    import httpx2

    assert record.tokens is not None
    shown = without_secrets(url)
    asked = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": record.tokens.refresh_token}
    status, body = 0, ""
    try:
        with trio.move_on_after(TIMEOUT):
            client = await http.client_for(url)
            request = client.build_request("POST", url, json=asked)
            response: httpx2.Response = await client.send(request, stream=True)
            status, body = response.status_code, await read_text(response, MAX_BODY)
    except httpx2.InvalidURL as exc:
        raise RefreshFailed(f"the login could not be renewed: `{shown}` can't be used: {exc}", permanent=False) from exc
    except httpx2.RequestError as exc:
        said = f"the login could not be renewed: {shown} can't be reached: {reason(exc)}"
        raise RefreshFailed(said, permanent=False) from exc
    except EngineError as exc:
        raise RefreshFailed(f"the login could not be renewed: {exc}", permanent=False) from exc
    if status == 0:
        said = f"the login could not be renewed: {shown} did not answer within {TIMEOUT:g} s"
        raise RefreshFailed(said, permanent=False)
    content = _object(body)
    if 200 <= status < 300 and content is not None:
        return content
    if status == 401:
        why, text = _PERMANENT.get(_code(content or {}), ("other", UNKNOWN))
        raise RefreshFailed(text, permanent=True, reason=why)
    raise RefreshFailed(f"the login could not be renewed: {shown} answered with status {status}", permanent=False)


def renewed(record: AuthRecord, answer: Mapping[str, object], now: float) -> AuthRecord:
    """The login with what the server sent; what it left out stays as it was."""
    assert record.tokens is not None
    old = record.tokens

    def new(name: str, before: str) -> str:
        value = answer.get(name)
        return value if isinstance(value, str) and value else before

    tokens = attrs.evolve(
        old,
        id_token=new("id_token", old.id_token),
        access_token=new("access_token", old.access_token),
        refresh_token=new("refresh_token", old.refresh_token),
    )
    last = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return attrs.evolve(record, tokens=tokens, last_refresh=last)


def _object(body: str) -> Mapping[str, object] | None:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _code(content: Mapping[str, object]) -> str:
    """The code of an error: `error.code`, `error` itself, or `code`."""
    error = content.get("error")
    for value in (error.get("code") if isinstance(error, dict) else None, error, content.get("code")):
        if isinstance(value, str):
            return value
    return ""
