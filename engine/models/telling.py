"""What is told of what goes over the wire to model servers: requests, connections, the events that come back.

extensibility.md 9. Where the session sends no telemetry, each of these is one question. No text of a server is told: it
may hold what the user or the model wrote.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Literal, TypeVar

from engine.errors import ModelError
from engine.models.retries import HttpRetry
from engine.protocol.wire import JsonObject
from engine.telemetry.handle import Attributes, Telemetry, current

__all__ = ["FALLBACK", "EventTelling", "Transport", "telling_connect", "telling_request", "telling_send"]

T = TypeVar("T")

Transport = Literal["sse", "websocket"]

# A session gave WebSockets up: the counter and its tags.
FALLBACK: Final = ("codex.transport.fallback_to_http", {"from_wire_api": "responses_websocket"})
_TIMING: Final = "responsesapi.websocket_timing"
# The server's own times of a response, in milliseconds, by the names of their metrics.
_TIMES: Final = {
    "responses_duration_excl_engine_and_client_tool_time_ms": "codex.responses_api_overhead.duration_ms",
    "engine_service_total_ms": "codex.responses_api_inference_time.duration_ms",
    "engine_iapi_ttft_total_ms": "codex.responses_api_engine_iapi_ttft.duration_ms",
    "engine_service_ttft_total_ms": "codex.responses_api_engine_service_ttft.duration_ms",
    "engine_iapi_tbt_across_engine_calls_ms": "codex.responses_api_engine_iapi_tbt.duration_ms",
    "engine_service_tbt_across_engine_calls_ms": "codex.responses_api_engine_service_tbt.duration_ms",
}
_USAGE: Final = {
    "input_token_count": ("input_tokens",),
    "output_token_count": ("output_tokens",),
    "cached_token_count": ("input_tokens_details", "cached_tokens"),
    "reasoning_token_count": ("output_tokens_details", "reasoning_tokens"),
    "tool_token_count": ("total_tokens",),
}


async def telling_request(endpoint: str, send: Callable[[Callable[[int], None]], Awaitable[T]]) -> T:
    """One try of an HTTP request; raises as `send`, which is given what it is to call with the status of an answer."""
    telemetry = current()
    if not telemetry.enabled:
        return await send(_ignore)
    began = time.perf_counter()
    statuses: list[int] = []
    outcome: dict[str, str | int] = {"success": "false", "error.type": "Cancelled"}
    try:
        answer = await send(statuses.append)
        outcome = {"success": "true"}
        return answer
    except Exception as exc:
        outcome = _failure(exc)
        raise
    finally:
        took = _since(began)
        if statuses:
            outcome["http.response.status_code"] = statuses[-1]
        tags = {"success": outcome["success"], "status": str(statuses[-1]) if statuses else "none"}
        telemetry.count("codex.api_request", tags=tags)
        telemetry.measure("codex.api_request.duration_ms", took, tags)
        telemetry.event("codex.api_request", {**outcome, "endpoint": endpoint, "duration_ms": took})


def _ignore(status: int) -> None:
    pass


async def telling_connect(endpoint: str, connect: Callable[[], Awaitable[T]]) -> T:
    """One try to open a WebSocket; raises as `connect`."""
    telemetry = current()
    if not telemetry.enabled:
        return await connect()
    began = time.perf_counter()
    outcome: dict[str, str | int] = {"success": "false", "error.type": "Cancelled"}
    try:
        opened = await connect()
        outcome = {"success": "true"}
        return opened
    except Exception as exc:
        outcome = _failure(exc)
        raise
    finally:
        told = {**outcome, "endpoint": endpoint, "auth.connection_reused": False, "duration_ms": _since(began)}
        telemetry.event("codex.websocket_connect", told)


async def telling_send(send: Callable[[], Awaitable[None]], *, reused: bool) -> None:
    """One request over a WebSocket that is open, until it is sent; raises as `send`."""
    telemetry = current()
    if not telemetry.enabled:
        await send()
        return
    began = time.perf_counter()
    outcome: dict[str, str | int] = {"success": "false", "error.type": "Cancelled"}
    try:
        await send()
        outcome = {"success": "true"}
    except Exception as exc:
        outcome = _failure(exc)
        raise
    finally:
        took, tags = _since(began), {"success": outcome["success"]}
        telemetry.count("codex.websocket.request", tags=tags)
        telemetry.measure("codex.websocket.request.duration_ms", took, tags)
        told: dict[str, str | int] = {**outcome, "auth.connection_reused": reused, "duration_ms": took}
        telemetry.event("codex.websocket_request", told)


def _failure(exc: Exception) -> dict[str, str | int]:
    failure = exc.failure if isinstance(exc, HttpRetry) else exc
    told: dict[str, str | int] = {"success": "false", "error.type": type(failure).__name__}
    if isinstance(failure, ModelError) and failure.status is not None:
        told["http.response.status_code"] = failure.status
    return told


def _since(began: float) -> int:
    return int((time.perf_counter() - began) * 1000)


class EventTelling:
    """Tells the events of one response: each is counted; all but deltas are logged, too."""

    __slots__ = ("_event", "_metric", "_telemetry", "_waiting_since")

    def __init__(self, transport: Transport, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._event = f"codex.{transport}_event"
        self._metric = self._event if transport == "sse" else "codex.websocket.event"
        self._waiting_since = time.perf_counter()

    @classmethod
    def of(cls, transport: Transport) -> EventTelling | None:
        """For the session that runs; `None` where it sends no telemetry."""
        telemetry = current()
        return cls(transport, telemetry) if telemetry.enabled else None

    def wait(self) -> None:
        """The next events are waited for from now on."""
        self._waiting_since = time.perf_counter()

    def came(self, values: Iterable[JsonObject]) -> None:
        """Events came, the first of them after the wait, the rest together with it."""
        took = _since(self._waiting_since)
        for value in values:
            kind = value.get("type")
            if isinstance(kind, str):
                self._tell(kind, took, value)
            took = 0

    def broke(self, exc: Exception) -> None:
        """Nothing more will come, but should have."""
        took, tags = _since(self._waiting_since), {"kind": "unknown", "success": "false"}
        self._count(took, tags)
        told: dict[str, str | int] = {"success": "false", "error.type": type(exc).__name__, "duration_ms": took}
        self._telemetry.event(self._event, told)

    def _tell(self, kind: str, took: int, value: JsonObject) -> None:
        success = "false" if kind in ("response.failed", "error") else "true"
        self._count(took, {"kind": kind, "success": success})
        if kind == _TIMING:
            self._tell_times(value)
        if not kind.endswith(".delta"):
            told: dict[str, str | int] = {"event.kind": kind, "success": success, "duration_ms": took}
            self._telemetry.event(self._event, {**told, **_tokens(value)})

    def _count(self, took: int, tags: Attributes) -> None:
        self._telemetry.count(self._metric, tags=tags)
        self._telemetry.measure(f"{self._metric}.duration_ms", took, tags)

    def _tell_times(self, value: JsonObject) -> None:
        times = value.get("timing_metrics")
        for field, metric in _TIMES.items() if isinstance(times, Mapping) else ():
            took = times.get(field) if isinstance(times, Mapping) else None
            if isinstance(took, int | float) and not isinstance(took, bool) and took >= 0:
                self._telemetry.measure(metric, took)


def _tokens(value: JsonObject) -> dict[str, int]:
    """The usage that `response.completed` tells."""
    response = value.get("response")
    usage = response.get("usage") if isinstance(response, Mapping) else None
    if value.get("type") != "response.completed" or not isinstance(usage, Mapping):
        return {}
    found: dict[str, int] = {}
    for name, path in _USAGE.items():
        part: object = usage
        for key in path:
            part = part.get(key) if isinstance(part, Mapping) else None
        if isinstance(part, int):
            found[name] = part
    return found
