"""`update_plan`."""

from __future__ import annotations

import pytest

from engine.permissions.profiles import read_only
from engine.protocol.events import PlanStep, PlanUpdate
from engine.tools.base import ToolOutput
from engine.tools.update_plan import UpdatePlan

from .bench import Bench
from .test_exec_command import text_of

PLAN = UpdatePlan()


async def test_a_plan_is_told(still: Bench) -> None:
    steps = [{"step": "look", "status": "completed"}, {"step": "leap", "status": "in_progress"}]
    assert await still.call(PLAN, {"plan": steps, "explanation": "so"}) == ToolOutput("Plan updated")
    assert await still.call(PLAN, {"plan": []}) == ToolOutput("Plan updated")
    assert still.events == [
        PlanUpdate("so", (PlanStep("look", "completed"), PlanStep("leap", "in_progress"))),
        PlanUpdate(None, ()),
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("{}", "the field `plan` is missing"),
        ('{"plan": "look"}', "expected an array, got str"),
        ('{"plan": [{"step": "look"}]}', "the field `status` is missing"),
        (
            '{"plan": [{"step": "look", "status": "done"}]}',
            "unknown variant `done`, expected one of `pending`, `in_progress`, `completed`",
        ),
    ],
)
async def test_arguments_that_do_not_fit(still: Bench, arguments: str, problem: str) -> None:
    output = await still.call(PLAN, arguments)
    assert text_of(output) == f"failed to parse function arguments: {problem}"
    assert still.events == []


async def test_a_plan_runs_nothing_and_needs_no_permissions(still: Bench) -> None:
    still.turn(profile=read_only())
    assert (await still.call(PLAN, {"plan": []})).success
