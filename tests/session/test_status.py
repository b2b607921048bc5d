"""The status follows from the events, one by one."""

from __future__ import annotations

import pytest

from engine.models.scripts import reply, response, wait
from engine.protocol.events import (
    ErrorEvent,
    EventMsg,
    ShutdownComplete,
    TaskComplete,
    TaskStarted,
    TurnAborted,
    Warning,
)
from engine.session.status import PENDING, AgentStatus, is_final, status_after
from tests.session.conftest import Lab


@pytest.mark.parametrize(
    ("msg", "status", "final"),
    [
        (TaskStarted("t"), "running", False),
        (TaskComplete("t", "done"), {"completed": "done"}, True),
        (TaskComplete("t"), {"completed": None}, True),
        (TurnAborted("t", "interrupted"), "interrupted", False),
        (TurnAborted("t", "budget_limited"), "interrupted", False),
        (TurnAborted("t", "replaced"), {"errored": "Replaced"}, True),
        (TurnAborted("t", "review_ended"), {"errored": "Review ended"}, True),
        (ErrorEvent("boom", "other"), {"errored": "boom"}, True),
        (ErrorEvent("no", "thread_rollback_failed"), PENDING, False),
        (ShutdownComplete(), "shutdown", True),
        (Warning("x"), PENDING, False),
    ],
)
def test_each_event_leads_to_its_status(msg: EventMsg, status: AgentStatus, final: bool) -> None:
    after = status_after(PENDING, msg)
    assert (after, is_final(after)) == (status, final)


async def test_a_session_tells_its_status(lab: Lab) -> None:
    seen: list[AgentStatus] = []
    async with lab.session(response(wait()), reply("done")) as session:
        seen.append(session.status)
        turn = await session.start_turn("go")
        await lab.model.until_waiting()
        seen.append(session.status)
        await turn.interrupt()
        seen.append(session.status)
        await session.run("again")
        seen.append(session.status)
    seen.append(session.status)
    assert seen == ["pending_init", "running", "interrupted", {"completed": "done"}, "shutdown"]
