"""What the rooms of the engine tell about their work: spans, counters, distributions and events (extensibility.md 9).

A handle never waits, never raises and never fails what it describes. Without an exporter it is `NO_TELEMETRY`, which
does nothing. Context variables carry the handle of the session that runs: deep code asks for `current()`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from engine.telemetry.trace import StartupTrace

__all__ = ["NO_TELEMETRY", "Attributes", "Beginning", "Telemetry", "carrying", "current"]

Attributes = Mapping[str, str | int | float | bool]

_NONE: Final[Attributes] = {}
_NO_CARRIER: Final[Mapping[str, str]] = {}


class Beginning(NamedTuple):
    """How a session started.

    - `facts`: what is known of it; `private` facts are in logs only
    - `steps`: the attributes of the span of a step, by its name
    - `carrier`: the trace it belongs to, as the W3C headers `traceparent` and `tracestate`; what the host said.
      `ambient`: the same as the process was started with, which counts where nothing else says anything
    """

    facts: Attributes
    startup: StartupTrace
    status: Literal["ok", "failed", "cancelled"] = "ok"
    private: Attributes = _NONE
    steps: Mapping[str, Attributes] = {}
    carrier: Mapping[str, str] = _NO_CARRIER
    ambient: Mapping[str, str] = _NO_CARRIER


class Telemetry(Protocol):
    """A handle: of an engine, or of one session, whose facts it adds to what it is told."""

    @property
    def enabled(self) -> bool:
        """Whether anybody listens; where not, nothing need be worked out for it."""
        ...

    def session(self, beginning: Beginning) -> Telemetry:
        """Tells a start, as the span `session_init` with one child for each step; the handle of the session.

        The spans of that handle belong to the same trace, its events and spans have the facts. The parent is what the
        carrier names, else the host's own span, where the start runs in one.
        """
        ...

    def learn(self, facts: Attributes, private: Attributes = _NONE) -> None:
        """Adds facts that were not known when the session started, or changed; they are on what follows."""
        ...

    def span(self, name: str, attributes: Attributes = _NONE) -> AbstractContextManager[None]:
        """A span around a block, below the one it is in. An `Exception` makes it failed, a cancellation `cancelled`."""
        ...

    def count(self, name: str, value: int = 1, tags: Attributes = _NONE) -> None:
        """Adds to a counter."""
        ...

    def measure(self, name: str, value: float, tags: Attributes = _NONE) -> None:
        """Adds a value to a distribution; names that end in `_ms` are milliseconds."""
        ...

    def event(self, name: str, attributes: Attributes = _NONE, texts: Mapping[str, str] | None = None) -> None:
        """Logs an event. `texts` are people's and models' words: logs hold them, traces only say how long they are."""
        ...

    def prompt(self, text: str, counts: Attributes = _NONE) -> None:
        """The event `codex.user_prompt`; the text itself only where configuration wants it logged."""
        ...

    def propagation(self) -> Mapping[str, str]:
        """The headers that let a server continue the trace, from the span that runs; none where no traces are sent."""
        ...


class _Nothing:
    enabled = False

    def session(self, beginning: Beginning) -> Telemetry:
        return self

    def learn(self, facts: Attributes, private: Attributes = _NONE) -> None:
        pass

    def span(self, name: str, attributes: Attributes = _NONE) -> AbstractContextManager[None]:
        return _NO_SPAN

    def count(self, name: str, value: int = 1, tags: Attributes = _NONE) -> None:
        pass

    def measure(self, name: str, value: float, tags: Attributes = _NONE) -> None:
        pass

    def event(self, name: str, attributes: Attributes = _NONE, texts: Mapping[str, str] | None = None) -> None:
        pass

    def prompt(self, text: str, counts: Attributes = _NONE) -> None:
        pass

    def propagation(self) -> Mapping[str, str]:
        return _NO_CARRIER


_NO_SPAN: Final[AbstractContextManager[None]] = nullcontext()

NO_TELEMETRY: Final[Telemetry] = _Nothing()

_current: ContextVar[Telemetry] = ContextVar("telemetry", default=NO_TELEMETRY)


def current() -> Telemetry:
    """The handle of the session whose turn runs here; `NO_TELEMETRY` outside of one."""
    return _current.get()


@contextmanager
def carrying(telemetry: Telemetry) -> Iterator[None]:
    """Makes a handle the `current()` one of a block and of the tasks it starts."""
    token = _current.set(telemetry)
    try:
        yield
    finally:
        _current.reset(token)
