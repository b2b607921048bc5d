"""Retries of the HTTP layer."""

from __future__ import annotations

import pytest

from engine.errors import ModelError
from engine.models.failures import Disconnected
from engine.models.retries import Backoff, HttpRetry, with_retries


class Recorder:
    def __init__(self, *outcomes: Exception | str) -> None:
        self.outcomes = list(outcomes)
        self.pauses: list[float] = []
        self.tries = 0
        self.backoff = Backoff(uniform=lambda low, high: (low + high) / 2, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(round(seconds, 6))

    async def attempt(self) -> str:
        self.tries += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def again(delay: float | None = None) -> HttpRetry:
    return HttpRetry(Disconnected("x", delay=delay))


async def test_pauses_double() -> None:
    seen = Recorder(*(again() for _ in range(5)))
    with pytest.raises(Disconnected):
        await with_retries(seen.attempt, 4, seen.backoff)
    assert (seen.tries, seen.pauses) == (5, [0.2, 0.4, 0.8, 1.6])


async def test_the_servers_delay_replaces_the_backoff() -> None:
    seen = Recorder(again(3.0), again(), "done")
    assert await with_retries(seen.attempt, 4, seen.backoff) == "done"
    assert seen.pauses == [3.0, 0.4]


async def test_other_errors_are_not_repeated() -> None:
    seen = Recorder(ModelError("final"), "never")
    with pytest.raises(ModelError, match="final"):
        await with_retries(seen.attempt, 4, seen.backoff)
    assert (seen.tries, seen.pauses) == (1, [])


async def test_without_retries_there_is_one_try_and_the_cause_stays() -> None:
    cause = OSError("refused")
    error = again()
    error.__cause__ = cause
    seen = Recorder(error)
    with pytest.raises(Disconnected) as caught:
        await with_retries(seen.attempt, 0, seen.backoff)
    assert caught.value.__cause__ is cause
    assert seen.tries == 1


def test_the_jitter_is_ten_percent() -> None:
    delays = [Backoff().delay(1) for _ in range(200)]
    assert 0.18 <= min(delays) < max(delays) <= 0.22
