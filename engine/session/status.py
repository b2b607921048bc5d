"""What a session is doing, told from its events alone (session.md 3.9)."""

from __future__ import annotations

from engine.protocol.events import ErrorEvent, EventMsg, ShutdownComplete, TaskComplete, TaskStarted, TurnAborted

__all__ = ["PENDING", "AgentStatus", "is_final", "status_after"]

# `pending_init`, `running`, `interrupted`, `shutdown`, or `{"completed": text or None}`, `{"errored": text}`.
AgentStatus = str | dict[str, str | None]

PENDING: AgentStatus = "pending_init"

# Reasons of an abort after which the session still waits for its user.
_NOT_FINAL = ("interrupted", "budget_limited")


def status_after(status: AgentStatus, msg: EventMsg) -> AgentStatus:
    """The status after an event; most events change nothing."""
    match msg:
        case TaskStarted():
            return "running"
        case TaskComplete():
            return {"completed": msg.last_agent_message}
        case TurnAborted(reason=reason):
            return "interrupted" if reason in _NOT_FINAL else {"errored": reason.replace("_", " ").capitalize()}
        case ErrorEvent(codex_error_info=info) if info != "thread_rollback_failed":
            return {"errored": msg.message}
        case ShutdownComplete():
            return "shutdown"
    return status


def is_final(status: AgentStatus) -> bool:
    """Whether nothing more comes of the agent by itself."""
    return isinstance(status, dict) or status in ("shutdown", "not_found")
