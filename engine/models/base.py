"""What a session talks to: `Model`, one request, and the stream of events that answers it (session.md 4.6, 4.7)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, final

import attrs

from engine.errors import ModelError
from engine.models.failures import Disconnected
from engine.models.responses import ResponseDecoder, ResponseEvent
from engine.protocol.wire import JsonObject
from engine.records import frozen

if TYPE_CHECKING:
    from engine.config.providers import ProviderInfo

__all__ = ["Model", "ModelRequest", "RawEvents", "ResponseStream"]


@frozen
class ModelRequest:
    """One request: the complete JSON body (session.md 4.6) and the session's own headers.

    The client adds what belongs to the provider (its headers, authorization) and to the transport.
    """

    body: JsonObject
    headers: Mapping[str, str] = attrs.field(factory=dict)


class Model(Protocol):
    """A provider that answers requests. One object serves all sessions of an engine at the same time."""

    @property
    def provider(self) -> ProviderInfo:
        """Whose limits apply: retries of the sampling layer, idle timeout, whether it is OpenAI."""
        ...

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[ResponseStream]:
        """Sends the request on entering; leaving gives everything up, also when cancelled.

        Retries of the HTTP layer happen inside. Raises `ModelError` when no stream came about, and
        `MissingCredential` when there is no key to send.
        """
        ...


class RawEvents(Protocol):
    """Where the events of one response come from: an HTTP body, a script."""

    async def receive(self) -> Sequence[JsonObject] | None:
        """The next events; `None` once the stream has ended in good order. Raises `ModelError`.

        An empty batch is allowed. Always a checkpoint.
        """
        ...


@final
class ResponseStream:
    """The events of one response, in order. Iteration ends after `Completed` and raises `ModelError` otherwise.

    `headers` are those of the HTTP response, names in lower case. Events that arrived before a failure come before it.
    Not for use after its context manager was left.
    """

    __slots__ = ("_decoder", "_error", "_ready", "_source", "headers")

    def __init__(self, headers: Mapping[str, str], source: RawEvents, *, deferred: bool = True) -> None:
        self.headers = headers
        self._source = source
        self._decoder = ResponseDecoder(deferred=deferred)
        self._ready: deque[ResponseEvent] = deque(self._decoder.open(headers))
        self._error: ModelError | None = None

    @property
    def turn_state(self) -> str | None:
        """The value of `x-codex-turn-state`, to be sent back within the same turn."""
        return self.headers.get("x-codex-turn-state")

    @property
    def completed(self) -> bool:
        """Whether `response.completed` was seen; the rest of the body is then of no interest."""
        return self._decoder.completed

    def __aiter__(self) -> ResponseStream:
        return self

    async def __anext__(self) -> ResponseEvent:
        while not self._ready:
            if self._decoder.completed:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            await self._fill()
        return self._ready.popleft()

    async def _fill(self) -> None:
        decoder = self._decoder
        try:
            batch = await self._source.receive()
            if batch is None:
                raise decoder.closed()
            for raw in batch:
                self._ready.extend(decoder.feed(raw))
        except Disconnected as exc:
            # A dropped connection ends the stream as a clean close does: a failure told before is the real one.
            self._error = decoder.failure or exc
        except ModelError as exc:
            self._error = exc
