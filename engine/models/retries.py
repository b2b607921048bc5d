"""Retries of the HTTP layer: which failures, how often, how long between (session.md 4.8)."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from engine.errors import ModelError
from engine.records import frozen

__all__ = ["BACKOFF_BASE", "Backoff", "HttpRetry", "with_retries"]

T = TypeVar("T")

BACKOFF_BASE: Final = 0.2  # seconds before the first retry


@frozen
class Backoff:
    """Seconds before retry n (from 1): 0.2 x 2^(n-1), times 0.9 to 1.1. `uniform` and `sleep` are seams for tests."""

    base: float = BACKOFF_BASE
    uniform: Callable[[float, float], float] = random.uniform
    sleep: Callable[[float], Awaitable[object]] = trio.sleep

    def delay(self, attempt: int) -> float:
        """The pause before retry number `attempt`."""
        return self.base * float(2 ** (attempt - 1)) * self.uniform(0.9, 1.1)


class HttpRetry(Exception):
    """One try failed, and may be repeated: 5xx, a timeout, the network. Carries the error to give up with."""

    def __init__(self, failure: ModelError) -> None:
        self.failure = failure
        super().__init__(str(failure))


async def with_retries(attempt: Callable[[], Awaitable[T]], limit: int, backoff: Backoff) -> T:
    """Runs `attempt` up to 1 + `limit` times, as long as it raises `HttpRetry`. Raises `ModelError`.

    Between tries it waits as long as the server asked for, else the backoff.
    """
    for number in range(1, limit + 1):
        try:
            return await attempt()
        except HttpRetry as exc:
            asked = exc.failure.delay
            pause = backoff.delay(number) if asked is None else asked
        await backoff.sleep(pause)
    try:
        return await attempt()
    except HttpRetry as exc:
        # The cause is the transport's exception, where there is one.
        raise exc.failure from exc.__cause__
