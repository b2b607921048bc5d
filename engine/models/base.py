"""What a session talks to: `Model`, its own line to it, one request, and the stream of events that answers it
(session.md 4.6-4.8)."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Literal, Protocol, final, runtime_checkable

import attrs
import trio

from engine.errors import ModelError
from engine.models.failures import Disconnected
from engine.models.responses import ResponseDecoder, ResponseEvent
from engine.protocol.wire import JsonObject
from engine.records import frozen

if TYPE_CHECKING:
    from engine.config.providers import ProviderInfo

__all__ = [
    "Model",
    "ModelRequest",
    "ModelSession",
    "ModelWithSessions",
    "RawEvents",
    "ResponseStream",
    "SessionFacts",
    "open_model_session",
]


@frozen
class ModelRequest:
    """One request: the complete JSON body (session.md 4.6) and the session's own headers.

    The client adds what belongs to the provider (its headers, authorization) and to the transport. `compress`: the body
    may be compressed, where the server is known to take that.
    """

    body: JsonObject
    headers: Mapping[str, str] = attrs.field(factory=dict)
    compress: bool = False


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


class ModelSession(Model, Protocol):
    """What one session talks to: a model, and what is kept between its requests. For one request at a time."""

    @property
    def websocket(self) -> bool:
        """Whether requests go over a WebSocket now."""
        ...

    def fall_back(self) -> bool:
        """From now on uses HTTPS; whether that is a change. For the life of the session."""
        ...

    async def prewarm(self, request: ModelRequest) -> None:
        """Connects and lets the server prepare for requests like this one, where that is possible. Raises `ModelError`;
        cancelled: the connection is closed."""
        ...


@frozen(kw_only=True, eq=False)
class SessionFacts:
    """What a model's session needs of the session it serves.

    `spawn(name, fn)` runs `fn` as a task that ends with the session; `fn` raises nothing of its own. `input_form` makes
    of an output item, as the server sent it, the item that later requests carry for it (`None`: they carry none).
    `acknowledge`: tell the server that a response was processed.
    """

    spawn: Callable[[str, Callable[[], Awaitable[object]]], None]
    input_form: Callable[[JsonObject], JsonObject | None]
    acknowledge: bool = False


@runtime_checkable
class ModelWithSessions(Model, Protocol):
    """A model that keeps something per session, e.g. a connection."""

    def session(self, facts: SessionFacts) -> ModelSession:
        """A line of its own for a session. Opens nothing yet."""
        ...


def open_model_session(model: Model, facts: SessionFacts) -> ModelSession:
    """The session's line to `model`; the model itself where it keeps nothing per session."""
    return model.session(facts) if isinstance(model, ModelWithSessions) else _PlainSession(model)


@final
class _PlainSession:
    """A model that keeps nothing per session."""

    __slots__ = ("_model",)
    websocket = False

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def provider(self) -> ProviderInfo:
        return self._model.provider

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[ResponseStream]:
        return self._model.stream(request)

    def fall_back(self) -> bool:
        return False

    async def prewarm(self, request: ModelRequest) -> None:
        await trio.lowlevel.checkpoint()


class RawEvents(Protocol):
    """Where the events of one response come from: an HTTP body, a WebSocket, a script."""

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

    def __init__(
        self, headers: Mapping[str, str], source: RawEvents, *, transport: Literal["http", "websocket"] = "http"
    ) -> None:
        self.headers = headers
        self._source = source
        # A WebSocket tells failures at once, and limits in events: its headers are as old as the connection.
        self._decoder = ResponseDecoder(deferred=transport == "http")
        self._ready: deque[ResponseEvent] = deque(self._decoder.open(headers, limits=transport == "http"))
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
