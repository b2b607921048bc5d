"""What follows a model request that failed: another try, after how long, and what the user is told (session.md 4.8)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from engine.errors import ModelError
from engine.models.failures import UsageLimitReached
from engine.models.telling import FALLBACK
from engine.protocol.events import StreamError, Warning
from engine.records import define

if TYPE_CHECKING:
    from engine.session.turn import TurnRun

__all__ = ["Retries", "backoff"]

BACKOFF_BASE = 0.2  # seconds; doubled each time, with 10 % jitter


def backoff(attempt: int) -> float:
    """Seconds before retry number `attempt` (from 1)."""
    return BACKOFF_BASE * float(2 ** (attempt - 1)) * random.uniform(0.9, 1.1)


@define(eq=False)
class Retries:
    """The tries of one request of a turn; up to `limit` retries, and as many again over HTTPS."""

    turn: TurnRun
    limit: int
    attempt: int = 0

    def after(self, exc: ModelError) -> float:
        """Seconds until the next try, which the user is told about. Raises `exc` where there is none."""
        turn = self.turn
        if isinstance(exc, UsageLimitReached):
            turn.note_rate_limits(exc.rate_limits)
            turn.count_tokens(None)
        if not exc.retryable:
            raise exc
        if self.attempt >= self.limit:
            if not turn.model.fall_back():
                raise exc
            name, tags = FALLBACK
            turn.core.telemetry.count(name, tags=tags)
            turn.emit(Warning(f"Falling back from WebSockets to HTTPS transport. {exc.message}"))
            self.attempt = 0
            return 0.0
        self.attempt += 1
        if self.attempt > 1 or not turn.model.websocket:  # a first broken WebSocket is nothing to tell
            turn.emit(
                StreamError(
                    f"Reconnecting... {self.attempt}/{self.limit}",
                    {"response_stream_disconnected": {"http_status_code": exc.status}},
                    exc.message,
                )
            )
        return exc.delay if exc.delay is not None else backoff(self.attempt)
