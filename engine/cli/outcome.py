"""How a turn went, gathered from its events: final message, last error, usage, exit code (app_server.md 6.4, 6.5)."""

from __future__ import annotations

from typing import Literal

from engine.protocol.events import (
    ErrorEvent,
    Event,
    EventMsg,
    ItemCompleted,
    TaskComplete,
    TaskStarted,
    TokenCount,
    TurnAborted,
)
from engine.protocol.settings import TokenUsage
from engine.protocol.turn_items import AgentMessageItem, PlanItem, agent_text
from engine.records import define

__all__ = ["TurnOutcome", "affects_turn"]

# Errors about an operation beside the turn; they leave its status alone (app_server.md 4.3).
_BESIDE_THE_TURN = ("thread_rollback_failed", "active_turn_not_steerable")


def affects_turn(error: ErrorEvent) -> bool:
    """Whether this error makes the turn a failed one."""
    info = error.codex_error_info
    names = (info,) if isinstance(info, str) else tuple(info or ())
    return not any(name in _BESIDE_THE_TURN for name in names)


@define(eq=False)
class TurnOutcome:
    """Watches the events of one turn. `status` stays `running` until a terminal event came."""

    turn_id: str | None = None
    status: Literal["running", "completed", "failed", "aborted"] = "running"
    last_message: str | None = None
    last_plan: str | None = None
    error: str | None = None
    usage: TokenUsage | None = None
    """The thread's running total; `None` where no response reported any."""

    def belongs(self, event: Event) -> bool:
        """Whether the event is about this turn, or about the session as a whole."""
        return self.turn_id is None or event.id in ("", self.turn_id)

    def observe(self, msg: EventMsg) -> None:
        """Takes one event of the turn into account."""
        match msg:
            case TaskStarted(turn_id=turn_id):
                self.turn_id = self.turn_id or turn_id
            case ItemCompleted(item=AgentMessageItem() as item):
                self.last_message = agent_text(item)
            case ItemCompleted(item=PlanItem(text=text)):
                self.last_plan = text
            case TokenCount(info=info) if info is not None:
                self.usage = info.total_token_usage
            case ErrorEvent() if affects_turn(msg):
                self.error = msg.message
            case TaskComplete():
                self.status = "completed" if self.error is None else "failed"
            case TurnAborted():
                self.status = "aborted"

    @property
    def final_message(self) -> str | None:
        """The last agent message, else the last plan."""
        return self.last_message if self.last_message is not None else self.last_plan

    @property
    def exit_code(self) -> int:
        """0 for a completed turn, else 1."""
        return 0 if self.status == "completed" else 1
