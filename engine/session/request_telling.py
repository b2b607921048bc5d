"""What is told of requests to the model: a span, the trace that the server may continue, and the rollout trace.

session.md 4.8, extensibility.md 9 and 10. What goes over the wire is told where that happens, in `engine/models`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import TYPE_CHECKING, Protocol, final

import attrs
import trio

from engine.models import responses
from engine.session.telling import learn_login

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.models.base import ModelRequest, ResponseStream
    from engine.session.tracing import CompactionTrace, RequestTrace
    from engine.session.turn import TurnRun

__all__ = ["Answer", "CompactionTelling", "ask", "telling_compaction"]

UPSTREAM_ID = "x-request-id"


class Answer(Protocol):
    """A response as it streams; see `ResponseStream`."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the HTTP response, names in lower case."""
        ...

    def __aiter__(self) -> Answer: ...

    async def __anext__(self) -> responses.ResponseEvent: ...


def ask(turn: TurnRun, request: ModelRequest) -> AbstractAsyncContextManager[Answer]:
    """Sends a request of a turn, and tells what becomes of it where somebody listens. Raises as `Model.stream`."""
    core = turn.core
    if core.trace is None and not core.telemetry.enabled:
        return turn.model.stream(request)
    return _told(turn, request)


@asynccontextmanager
async def _told(turn: TurnRun, request: ModelRequest) -> AsyncIterator[Answer]:
    core, model = turn.core, str(request.body.get("model", ""))
    with core.telemetry.span("model_request", {"turn.id": turn.id, "model": model}):
        request = _with_trace(turn, request)
        traced = None
        if core.trace is not None:
            traced = core.trace.request(turn.id, model, turn.provider.name or turn.provider.id, request)
        try:
            async with turn.model.stream(request) as stream:
                learn_login(core)
                if traced is not None:
                    traced.upstream_id = stream.headers.get(UPSTREAM_ID)
                yield stream if traced is None else _Heard(stream, traced)
        except trio.Cancelled as exc:
            if traced is not None:
                traced.cancelled(exc.reason or "cancelled")
            raise
        except Exception as exc:
            if traced is not None:
                traced.failed(str(exc))
            raise
        finally:
            if traced is not None:
                traced.cancelled("nobody read to the end")  # unless it has ended


def _with_trace(turn: TurnRun, request: ModelRequest) -> ModelRequest:
    headers = turn.core.telemetry.propagation()
    return attrs.evolve(request, headers={**request.headers, **headers}) if headers else request


@final
class _Heard:
    """A response whose items are noted as they pass."""

    def __init__(self, stream: ResponseStream, traced: RequestTrace) -> None:
        self._stream = stream
        self._traced = traced

    @property
    def headers(self) -> Mapping[str, str]:
        return self._stream.headers

    def __aiter__(self) -> _Heard:
        return self

    async def __anext__(self) -> responses.ResponseEvent:
        event = await self._stream.__anext__()
        if isinstance(event, responses.ItemDone):
            self._traced.item(event.item)
        elif isinstance(event, responses.Completed):
            self._traced.completed(event.response_id, event.usage)
        return event


# --- compaction by the server ----------------------------------------------------------------------


@final
class CompactionTelling:
    """What is told of one request to compact."""

    def __init__(self, turn: TurnRun, traced: CompactionTrace | None) -> None:
        self._turn = turn
        self._traced = traced

    def sent(self, model: str, request: ModelRequest) -> ModelRequest:
        """The request as it is to be sent."""
        request = _with_trace(self._turn, request)
        if self._traced is not None:
            provider = self._turn.provider
            self._traced.requested(model, provider.name or provider.id, request)
        return request

    def answered(self, output: Sequence[object]) -> None:
        """The server compacted."""
        if self._traced is not None:
            self._traced.completed(output)


_UNTOLD: AbstractContextManager[None] = nullcontext()


def telling_compaction(
    turn: TurnRun, traced: CompactionTrace | None, model: str
) -> AbstractContextManager[CompactionTelling | None]:
    """Tells a request to compact that is made in the block; `None` where nobody listens."""
    if traced is None and not turn.core.telemetry.enabled:
        return _UNTOLD
    return _telling_compaction(turn, traced, model)


@contextmanager
def _telling_compaction(turn: TurnRun, traced: CompactionTrace | None, model: str) -> Iterator[CompactionTelling]:
    with turn.core.telemetry.span("model_request", {"turn.id": turn.id, "model": model, "compaction": True}):
        try:
            yield CompactionTelling(turn, traced)
        except BaseException as exc:
            if traced is not None:
                traced.failed(str(exc) or type(exc).__name__)
            raise
        finally:
            learn_login(turn.core)
