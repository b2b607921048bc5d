"""`update_plan`: the model's to-do list, for people to watch (tools.md 1.6, 1.10)."""

from __future__ import annotations

from typing import Literal

from engine.protocol.events import PlanStep, PlanUpdate
from engine.protocol.wire import JsonObject, Wire
from engine.records import frozen
from engine.tools import specs
from engine.tools.base import ToolError, ToolInvocation, ToolOutput, parse_arguments

__all__ = ["UpdatePlan"]

_STATUSES = ("pending", "in_progress", "completed")
_DESCRIPTION = (
    "Shows the user your plan as a list of steps, and how far you are. Each call replaces the whole list. Keep exactly "
    "one step `in_progress` until all are `completed`."
)
_STEP = specs.object_schema(
    {
        "status": specs.enumeration(_STATUSES, "How far the step is."),
        "step": specs.string("What is to be done, in a few words."),
    },
    ["step", "status"],
)
_PARAMETERS = specs.object_schema(
    {
        "explanation": specs.string("Why the plan is as it is, or what changed. Optional."),
        "plan": specs.array(_STEP, "All steps, in order."),
    },
    ["plan"],
)


@frozen(kw_only=True)
class UpdatePlanArguments(Wire):
    """What the model sends."""

    plan: tuple[PlanStep, ...]
    explanation: str | None = None


@frozen(eq=False)
class UpdatePlan:
    """Serves `update_plan`."""

    name: str = "update_plan"
    namespace: None = None
    kind: Literal["function"] = "function"
    parallel: bool = False

    def spec(self) -> JsonObject:
        """What the model is told."""
        return specs.function_spec(self.name, _DESCRIPTION, _PARAMETERS)

    async def call(self, invocation: ToolInvocation) -> ToolOutput:
        """Tells subscribers the plan."""
        arguments = parse_arguments(invocation, UpdatePlanArguments)
        for step in arguments.plan:
            if step.status not in _STATUSES:
                expected = ", ".join(f"`{status}`" for status in _STATUSES)
                raise ToolError(
                    f"failed to parse function arguments: unknown variant `{step.status}`, expected one of {expected}"
                )
        plan = tuple(PlanStep(step.step, step.status) for step in arguments.plan)
        invocation.context.emit(PlanUpdate(arguments.explanation, plan))
        return ToolOutput("Plan updated")
