"""What is told of requests to the model: a span, the trace that the server may continue, and the rollout trace.

session.md 4.8, extensibility.md 9 and 10. What goes over the wire is told where that happens, in `engine/models`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
)
from typing import TYPE_CHECKING, Protocol, final

import attrs
import trio

from engine.models import responses
from engine.session.telling import learn_login

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.models.base import ModelRequest, ResponseStream
    from engine.models.compacting import CompactingModel
    from engine.session.tracing import CompactionRequestTrace, CompactionTrace, RequestTrace
    from engine.session.turn import TurnRun

__all__ = ["Answer", "ask", "ask_to_compact"]

UPSTREAM_ID = "x-request-id"


class Answer(Protocol):
    """A response as it streams; see `ResponseStream`."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the HTTP response, names in lower case."""
        ...

    def __aiter__(self) -> Answer: ...

    async def __anext__(self) -> responses.ResponseEvent: ...


def ask(
    turn: TurnRun, request: ModelRequest, *, compacts: bool = False, compaction: CompactionTrace | None = None
) -> AbstractAsyncContextManager[Answer]:
    """Sends a request of a turn, and tells what becomes of it where somebody listens. Raises as `Model.stream`.

    `compacts`: it is part of a compaction; of `compaction`, where it asks the server for it.
    """
    core = turn.core
    if core.trace is None and not core.telemetry.enabled:
        return turn.model.stream(request)
    return _told(turn, request, compacts, compaction)


@asynccontextmanager
async def _told(
    turn: TurnRun, request: ModelRequest, compacts: bool, compaction: CompactionTrace | None
) -> AsyncIterator[Answer]:
    traced: RequestTrace | CompactionRequestTrace | None = None
    if compaction is not None:
        traced = compaction.request(*_whom(turn, request), request)
    elif turn.core.trace is not None:
        traced = turn.core.trace.request(turn.id, *_whom(turn, request), request)
    with _telling(turn, request, traced, compacts=compacts) as request:
        async with turn.model.stream(request) as stream:
            learn_login(turn.core)
            if traced is not None:
                traced.upstream_id = stream.headers.get(UPSTREAM_ID)
            yield stream if traced is None else _Heard(stream, traced)


async def ask_to_compact(
    turn: TurnRun, model: CompactingModel, request: ModelRequest, compaction: CompactionTrace | None
) -> list[object]:
    """Asks the server to compact, by a request that is answered at once; tells it like `ask`. Raises `ModelError`."""
    core = turn.core
    if core.trace is None and not core.telemetry.enabled:
        return await model.compact(request)
    traced = None if compaction is None else compaction.request(*_whom(turn, request), request)
    with _telling(turn, request, traced, compacts=True) as request:
        output = await model.compact(request)
        learn_login(core)
        if traced is not None:
            traced.answered(output)
    return output


def _whom(turn: TurnRun, request: ModelRequest) -> tuple[str, str]:
    """The model that is asked, and its provider."""
    return str(request.body.get("model", "")), turn.provider.name or turn.provider.id


@contextmanager
def _telling(
    turn: TurnRun,
    request: ModelRequest,
    traced: RequestTrace | CompactionRequestTrace | None,
    *,
    compacts: bool,
) -> Iterator[ModelRequest]:
    """The request as it is to be sent in the block."""
    attributes: dict[str, str | bool] = {"turn.id": turn.id, "model": _whom(turn, request)[0]}
    if compacts:
        attributes["compaction"] = True
    with turn.core.telemetry.span("model_request", attributes):
        try:
            yield _with_trace(turn, request)
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

    def __init__(self, stream: ResponseStream, traced: RequestTrace | CompactionRequestTrace) -> None:
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
