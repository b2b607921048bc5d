"""What is told of tool calls and of decisions about them (extensibility.md 9); nothing where nobody listens."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

from engine.protocol.items import FunctionCall, InputText
from engine.telemetry.handle import Telemetry, current

if TYPE_CHECKING:
    from engine.tools.base import ToolOutput
    from engine.tools.registry import ToolCall

__all__ = ["tell_decision", "tell_question", "telling_call"]

_tool: ContextVar[str] = ContextVar("tool", default="unknown")


async def telling_call(name: str, call: ToolCall, run: Callable[[], Awaitable[ToolOutput]]) -> ToolOutput:
    """Runs a call, with its span and its result; raises as `run`."""
    telemetry = current()
    if not telemetry.enabled:
        return await run()
    began = time.perf_counter()
    token = _tool.set(name)
    try:
        with telemetry.span("tool.call", {"tool_name": name, "call_id": call.call_id}):
            output: ToolOutput | None = None
            try:
                output = await run()
            finally:
                _tell_result(telemetry, name, call, output, (time.perf_counter() - began) * 1000)
        return output
    finally:
        _tool.reset(token)


def _tell_result(telemetry: Telemetry, name: str, call: ToolCall, output: ToolOutput | None, took_ms: float) -> None:
    """How a call ended; without an output, it was cancelled or ended its turn."""
    success = "true" if output is not None and output.success else "false"
    tags = {"tool": name, "success": success}
    telemetry.count("codex.tool.call", tags=tags)
    telemetry.measure("codex.tool.call.duration_ms", took_ms, tags)
    telemetry.event(
        "codex.tool_result",
        {"tool_name": name, "call_id": call.call_id, "duration_ms": int(took_ms), "success": success},
        {
            "arguments": call.arguments if isinstance(call, FunctionCall) else call.input,
            "output": "" if output is None else _text(output),
        },
    )


def _text(output: ToolOutput) -> str:
    if isinstance(output.content, str):
        return output.content
    return "\n".join(part.text for part in output.content if isinstance(part, InputText))


def tell_question(kind: str) -> None:
    """The user is asked whether something may be done."""
    current().count("codex.approval.requested", tags={"kind": kind, "tool": _tool.get()})


def tell_decision(kind: str, call_id: str, decision: str, source: Literal["user", "config"]) -> None:
    """It was decided, by the user or by what the configuration says, whether something may be done."""
    telemetry = current()
    if telemetry.enabled:
        told = {"tool_name": _tool.get(), "kind": kind, "call_id": call_id, "decision": decision, "source": source}
        telemetry.event("codex.tool_decision", told)
