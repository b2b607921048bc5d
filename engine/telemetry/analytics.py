"""The place of an analytics client in the engine, and what it would be told (extensibility.md 9).

There is none: the engine counts nothing for anybody. `analytics` in configuration is accepted and means nothing but
that metrics of `[otel]` may be sent; `engine doctor` says so.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

__all__ = ["NO_ANALYTICS", "AnalyticsClient", "Fact", "ThreadInitialized", "TurnEnded"]


class ThreadInitialized(NamedTuple):
    """A session started: `codex_thread_initialized`. `kind`: new, resumed or forked."""

    thread_id: str
    model: str
    ephemeral: bool
    kind: str


class TurnEnded(NamedTuple):
    """A turn ended: `codex_turn_event`. `kind`: regular, compact or user_shell."""

    thread_id: str
    turn_id: str
    kind: str
    model: str
    duration_ms: int
    completed: bool


Fact = ThreadInitialized | TurnEnded


class AnalyticsClient(Protocol):
    """Told facts as they come. `track` never waits, never raises, and holds no words of people or models."""

    @property
    def enabled(self) -> bool:
        """Whether anybody counts; where not, no fact need be put together."""
        ...

    def track(self, fact: Fact, /) -> None:
        """Takes note of a fact."""
        ...


class _Nobody:
    enabled = False

    def track(self, fact: Fact, /) -> None:
        pass


NO_ANALYTICS: Final[AnalyticsClient] = _Nobody()
