"""From what went wrong at a model server to `ModelError`: text, retryability, wire info (session.md 4.7, 4.8, 4.11)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from engine.errors import ContextWindowExceeded, ModelError, ProtocolError
from engine.models.rate_limits import snapshot_for_limit
from engine.protocol.codec import json_bytes, json_value
from engine.protocol.wire import JsonObject

__all__ = [
    "BODY_CUT",
    "Disconnected",
    "EventTooLarge",
    "IdleTimeout",
    "InvalidImage",
    "UsageLimitReached",
    "http_failure",
    "in_band_failure",
    "incomplete_failure",
    "response_failure",
    "retry_after",
]

MAX_SHOWN_BODY: Final = 1000  # bytes of an unknown error body that a message repeats
MAX_SERVER_DELAY: Final = 60.0  # seconds; a server that asks for more is not worth a silent wait
USAGE_LIMIT: Final = "usage_limit_exceeded"
CONNECTION_LIMIT: Final = "websocket_connection_limit_reached"
UNKNOWN_PREVIOUS: Final = "previous_response_not_found"
OVERLOADED_CODES: Final = frozenset({"server_is_overloaded", "slow_down"})

# The typographic apostrophe is part of the text that clients see (session.md 0).
HIGH_DEMAND: Final = "We’re currently experiencing high demand, which may cause temporary errors."
AT_CAPACITY: Final = "Selected model is at capacity. Please try a different model."
CYBER_POLICY: Final = "This request has been flagged for possible cybersecurity risk."
QUOTA_EXCEEDED: Final = "Quota exceeded. Check the plan and the billing details of your account."
NOT_INCLUDED: Final = "Your ChatGPT plan does not include this model or program. Upgrade the plan, or use an API key."
CLOUDFLARE_BLOCKED: Final = "Access blocked by Cloudflare: the server refuses connections from this network or region"

# A connection that breaks in the middle of a body (session.md 4.7, app_server.md 4.3).
BODY_CUT: Final = "Transport error: network error: error decoding response body"

_INVALID_IMAGE_TEXTS: Final = (
    "The image data you provided does not represent a valid image",
    "got empty base64-encoded bytes",
)
_TRY_AGAIN: Final = re.compile(r"try again in\s*(\d+(?:\.\d+)?)\s*(ms|seconds?|s)", re.IGNORECASE)
# Where Python's names differ from the ones clients know, or are missing in some versions.
_REASONS: Final[Mapping[int, str]] = {413: "Payload Too Large", 422: "Unprocessable Entity", 418: "I'm a teapot"}


class Disconnected(ModelError):
    """The stream ended, or the server could not be reached; retrying may help."""

    def __init__(self, message: str, *, delay: float | None = None) -> None:
        super().__init__(f"stream disconnected before completion: {message}", retryable=True, delay=delay)


class IdleTimeout(ModelError):
    """No event within the idle timeout."""

    def __init__(self, transport: str = "SSE") -> None:
        super().__init__(f"stream disconnected before completion: idle timeout waiting for {transport}", retryable=True)


class EventTooLarge(ModelError):
    """One server-sent event is larger than `limit` bytes; sending the request again would not make it smaller."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the server sent an event of more than {limit} bytes")


class InvalidImage(ModelError):
    """The server can't read an image in the input; the turn replaces it and goes on (session.md 4.11)."""


class UsageLimitReached(ModelError):
    """The account's usage limit is reached. `rate_limits` is a snapshot in core wire form, `resets_at` Unix seconds."""

    def __init__(self, message: str, *, rate_limits: JsonObject, plan_type: str | None, resets_at: int | None) -> None:
        self.rate_limits = rate_limits
        self.plan_type = plan_type
        self.resets_at = resets_at
        super().__init__(message, info=USAGE_LIMIT, status=429)


def _text(table: Mapping[str, object], key: str) -> str | None:
    value = table.get(key)
    return value if isinstance(value, str) else None


def in_band_failure(raw: Mapping[str, object], url: str) -> ModelError | None:
    """The error of an `error` event on a WebSocket; `None` where it is no failure of the request (session.md 4.8)."""
    error = raw.get("error")
    told = error if isinstance(error, dict) else {}
    code, message = _text(told, "code"), _text(told, "message") or ""
    if code == CONNECTION_LIMIT:
        return Disconnected(message or "the websocket has reached the limit of its life")
    status = next((value for key in ("status", "status_code") if type(value := raw.get(key)) is int), None)
    if status is None or 200 <= status < 300:
        return None
    if code == UNKNOWN_PREVIOUS:  # the next request goes out whole, over a new connection
        return Disconnected(message or "the server no longer knows the previous response")
    headers = raw.get("headers")
    named = {
        name.lower(): value if isinstance(value, str) else str(value)
        for name, value in (headers.items() if isinstance(headers, dict) else ())
        if isinstance(name, str) and isinstance(value, str | int | float) and not isinstance(value, bool)
    }
    return http_failure(status, named, json_bytes({"error": told}).decode(), url)


def response_failure(error: Mapping[str, object] | None) -> ModelError:
    """The error of a `response.failed` event; `error` is its `response.error`."""
    if error is None:
        return Disconnected("response.failed event received")
    code, message = _text(error, "code"), _text(error, "message") or ""
    match code:
        case "context_length_exceeded":
            return ContextWindowExceeded()
        case "insufficient_quota":
            return ModelError(QUOTA_EXCEEDED, info=USAGE_LIMIT)
        case "usage_not_included":
            return ModelError(NOT_INCLUDED, info=USAGE_LIMIT)
        case "cyber_policy":
            return ModelError(message if message.strip() else CYBER_POLICY, info="cyber_policy")
        case "invalid_prompt":
            return ModelError(message or "Invalid request.")
        case "server_is_overloaded" | "slow_down":
            return ModelError(AT_CAPACITY, info="server_overloaded")
    return Disconnected(message, delay=_delay_in(message) if code == "rate_limit_exceeded" else None)


def incomplete_failure(reason: str | None) -> ModelError:
    """The error of a `response.incomplete` event: final, because the same request would end the same way."""
    return ModelError(f"Incomplete response returned, reason: {reason or 'unknown'}")


def _delay_in(message: str) -> float | None:
    found = _TRY_AGAIN.search(message)
    if found is None:
        return None
    seconds = float(found[1])
    return seconds / 1000 if found[2].lower() == "ms" else seconds


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait; `None` if it names none, a date, or more than a minute."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds <= MAX_SERVER_DELAY else None


def http_failure(status: int, headers: Mapping[str, str], body: str, url: str) -> ModelError:
    """The error of an HTTP answer that is no stream. `headers` have lower-case names; `url` is shown as it is."""
    error = _error_in(body)
    code, message = _text(error, "code"), _text(error, "message") or ""
    if status == 503 and code in OVERLOADED_CODES:
        return ModelError(AT_CAPACITY, info="server_overloaded")
    if status == 400:
        return _bad_request(body, error, code, message)
    if status == 500:
        # No status: clients are told `null` for this one (app_server.md 4.3).
        return ModelError(HIGH_DEMAND, info="internal_server_error", retryable=True, delay=retry_after(headers))
    if status == 429:
        return _too_many(headers, error, code)
    return ModelError(
        _unexpected(status, headers, body, message, url),
        info={"http_connection_failed": {"http_status_code": status}},
        retryable=True,
        delay=retry_after(headers),
        status=status,
    )


def _error_in(body: str) -> Mapping[str, object]:
    try:
        value = json_value(body)
    except ProtocolError:
        return {}
    error = value.get("error") if isinstance(value, dict) else None
    return error if isinstance(error, dict) else {}


def _bad_request(body: str, error: Mapping[str, object], code: str | None, message: str) -> ModelError:
    if code == "cyber_policy":
        return ModelError(message if message.strip() else CYBER_POLICY, info="cyber_policy", status=400)
    param = _text(error, "param") or ""
    if any(text in body for text in _INVALID_IMAGE_TEXTS) or (code == "invalid_value" and param.endswith(".image_url")):
        return InvalidImage(body, status=400)
    return ModelError(body, status=400)


def _too_many(headers: Mapping[str, str], error: Mapping[str, object], code: str | None) -> ModelError:
    kind = _text(error, "type")
    if kind == "usage_limit_reached":
        return _usage_limit(headers, error)
    if "usage_not_included" in (kind, code):
        return ModelError(NOT_INCLUDED, info=USAGE_LIMIT, status=429)
    if "insufficient_quota" in (kind, code):
        return ModelError(QUOTA_EXCEEDED, info=USAGE_LIMIT, status=429)
    tracking = _request_id(headers) or headers.get("cf-ray")
    # Not retried, unless the server itself says when to come back.
    delay = retry_after(headers)
    return ModelError(
        "exceeded retry limit, last status: 429 Too Many Requests" + (f", request id: {tracking}" if tracking else ""),
        info={"response_too_many_failed_attempts": {"http_status_code": 429}},
        retryable=delay is not None,
        delay=delay,
        status=429,
    )


def _request_id(headers: Mapping[str, str]) -> str | None:
    return headers.get("x-request-id") or headers.get("x-oai-request-id")


def _unexpected(status: int, headers: Mapping[str, str], body: str, message: str, url: str) -> str:
    shown = message or body.strip() or "Unknown error"
    if not message and len(shown.encode()) > MAX_SHOWN_BODY:
        shown = shown.encode()[:MAX_SHOWN_BODY].decode(errors="ignore") + "..."
    text = f"unexpected status {_status_line(status)}: {shown}"
    if status == 403 and "cloudflare" in body.lower() and "blocked" in body.lower():
        text = f"{CLOUDFLARE_BLOCKED} (status {_status_line(status)})"
    parts = {
        "url": url,
        "cf-ray": headers.get("cf-ray"),
        "request id": _request_id(headers),
        "auth error": headers.get("x-openai-authorization-error"),
        "auth error code": _auth_error_code(headers.get("x-error-json")),
    }
    return text + "".join(f", {name}: {value}" for name, value in parts.items() if value)


def _status_line(status: int) -> str:
    from http import HTTPStatus  # only on the way to an error

    try:
        return f"{status} {_REASONS.get(status) or HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} <unknown status code>"


def _auth_error_code(encoded: str | None) -> str | None:
    try:
        return _text(_error_in(base64.b64decode(encoded or "", validate=True).decode()), "code")
    except ValueError:  # not base64, not ASCII, not UTF-8
        return None


def _usage_limit(headers: Mapping[str, str], error: Mapping[str, object]) -> ModelError:
    plan = _text(error, "plan_type")
    resets = error.get("resets_at")
    resets_at = resets if type(resets) is int else None
    promotion = headers.get("x-codex-promo-message", "").strip()
    way_out = promotion or _WAYS_OUT.get(plan or "", "")
    when = _local_time(resets_at)
    advice = f"{way_out}, or try again {when}." if way_out else f"Try again {when}."
    return UsageLimitReached(
        f"You've hit your usage limit. {advice}",
        rate_limits=snapshot_for_limit(headers, headers.get("x-codex-active-limit")),
        plan_type=plan,
        resets_at=resets_at,
    )


_UPGRADE: Final = "Upgrade your plan"
_BUY: Final = "Buy more credits, upgrade your plan"
_ASK: Final = "Ask the owner of your workspace for more"
_WAYS_OUT: Final[Mapping[str, str]] = {
    "free": _UPGRADE,
    "go": _UPGRADE,
    "plus": _BUY,
    "pro": "Buy more credits",
    "prolite": _BUY,
    "team": _ASK,
    "business": _ASK,
    "self_serve_business_usage_based": _ASK,
    "enterprise_cbp_usage_based": _ASK,
}


def _local_time(resets_at: int | None) -> str:
    try:
        when = None if resets_at is None else datetime.fromtimestamp(resets_at).astimezone()
    except (OverflowError, OSError, ValueError):
        when = None
    if when is None:
        return "later"
    today = datetime.now().astimezone().date()
    return f"at {when:%H:%M}" if when.date() == today else f"on {when:%Y-%m-%d} at {when:%H:%M}"
