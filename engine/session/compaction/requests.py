"""Requests of a compaction: nothing of them is shown; retried, and made shorter until they fit (session.md 4.10)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from engine.errors import ContextWindowExceeded, ModelError
from engine.models import responses
from engine.protocol.items import ResponseItem
from engine.records import define, frozen
from engine.session.compaction.replacement import without_oldest
from engine.session.history import without_noise
from engine.session.request_telling import ask
from engine.session.retrying import Retries

if TYPE_CHECKING:
    from engine.models.base import ModelRequest
    from engine.session.tracing import CompactionTrace
    from engine.session.turn import TurnRun

__all__ = ["Answer", "Ask", "ask_within_window"]

T = TypeVar("T")

ONE_BY_ONE: Final = 8  # items left out singly; then twice as many each time, so that any history fits in a few requests


@frozen
class Answer:
    """The whole output of one response."""

    items: tuple[ResponseItem, ...]


async def ask_within_window(items: Sequence[ResponseItem], ask: Callable[[Sequence[ResponseItem]], Awaitable[T]]) -> T:
    """Asks with fewer and fewer of the oldest items, as long as the server says that they are too many.

    Raises what `ask` raises; `ContextWindowExceeded` once a single item is left.
    """
    left = list(items)
    refused = 0
    while True:
        try:
            return await ask(left)
        except ContextWindowExceeded:
            if len(left) <= 1:
                raise
        refused += 1
        step = 1 if refused <= ONE_BY_ONE else 2 ** (refused - ONE_BY_ONE)
        left = without_oldest(left, min(step, len(left) - 1))


@define(eq=False)
class Ask:
    """One request, and again after a stream that broke, up to `limit` times. Usage and limits are counted."""

    turn: TurnRun
    limit: int
    trace: CompactionTrace | None = None
    """Of the compaction, where the request asks the server for it."""

    async def run(self, request: ModelRequest) -> Answer:
        """The answer. Raises `ModelError`. Cancelled: the request is given up."""
        retries = Retries(self.turn, self.limit)
        while True:
            try:
                return await self._once(request)
            except ContextWindowExceeded:
                raise
            except ModelError as exc:
                pause = retries.after(exc)
            await trio.sleep(pause)

    async def _once(self, request: ModelRequest) -> Answer:
        turn = self.turn
        items: list[ResponseItem] = []
        async with ask(turn, request, compacts=True, compaction=self.trace) as stream:
            turn.note_response_headers(stream.headers)
            turn.count_tokens(None)
            async for event in stream:
                match event:
                    case responses.ItemDone():
                        items.append(without_noise(event.item))
                    case responses.RateLimits():
                        turn.note_rate_limits(event.snapshot)
                    case responses.ModelsEtag():
                        turn.core.services.models.note_etag(turn.model.provider, event.etag)
                    case responses.Completed():
                        turn.count_tokens(event.usage)
                    case _:
                        pass  # nothing of a compaction is shown while it is written
        return Answer(tuple(items))
