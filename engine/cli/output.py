"""What `engine exec` shows of a session: the two ways share an interface; JSON lines are here, people are next door.

The mapping of events is loaded with the first event: the line that says a session is there waits for none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

from engine.cli.streams import Stdout

if TYPE_CHECKING:
    from engine.cli.jsonl import JsonLines
    from engine.cli.outcome import TurnOutcome
    from engine.protocol.events import Event
    from engine.session.session import Session

__all__ = ["Machine", "Output"]


class Output(Protocol):
    """What a run shows, in one of two ways."""

    @property
    def outcome(self) -> TurnOutcome: ...
    def started(self, session: Session) -> None: ...
    def event(self, event: Event) -> None: ...
    def finished(self, rollout: str | None) -> None: ...


@final
class Machine:
    """JSON lines on stdout."""

    def __init__(self, stdout: Stdout) -> None:
        self._stdout = stdout
        self._lines: JsonLines | None = None

    @property
    def outcome(self) -> TurnOutcome:
        """How the turn goes."""
        return self._mapping().outcome

    def started(self, session: Session) -> None:
        """The session is there."""
        # By hand, so that no codec is loaded before it; an id needs no escapes.
        self._stdout.line(b'{"type":"thread.started","thread_id":"%s"}' % session.thread_id.encode())

    def event(self, event: Event) -> None:
        """Writes the lines of an event."""
        from engine.protocol.codec import json_bytes

        for line in self._mapping().map(event):
            self._stdout.line(json_bytes(line))

    def finished(self, rollout: str | None) -> None:
        """Nothing is left to write."""

    def _mapping(self) -> JsonLines:
        if self._lines is None:
            from engine.cli.jsonl import JsonLines

            self._lines = JsonLines()
        return self._lines
