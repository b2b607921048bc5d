"""The tool calls of one response: started as they arrive, answered in call order (tools.md 8.1-8.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import trio

from engine.protocol.items import CustomToolCallOutput, FunctionCallOutput
from engine.records import define
from engine.tools.base import FatalToolError, ToolContext, ToolOutput
from engine.tools.registry import ToolCall, ToolRegistry, dispatch, output_item

if TYPE_CHECKING:
    from engine.session.tracing import Ended, ThreadTrace

__all__ = ["ResponseCalls"]


@define(eq=False)
class _Running:
    call: ToolCall
    parallel: bool
    started: float
    done: trio.Event = attrs.field(factory=trio.Event)
    output: ToolOutput | None = None
    traced: bool = False


@define(eq=False)
class ResponseCalls:
    """Runs the calls of one response as children of `nursery`.

    Parallel calls share the turn; an exclusive one waits for all before it and holds back all after it. Calls take
    their turn in call order, so an exclusive call in the queue delays later parallel ones.
    """

    registry: ToolRegistry
    context: ToolContext
    nursery: trio.Nursery
    trace: ThreadTrace | None = None
    fatal: FatalToolError | None = None
    _calls: list[_Running] = attrs.field(factory=list, init=False)
    _recorded: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._calls)

    def start(self, call: ToolCall) -> None:
        """Starts a call; its output is in `take_outputs` once the nursery has closed."""
        running = _Running(call, self.registry.is_parallel(call), trio.current_time())
        before = list(self._calls)
        self._calls.append(running)
        self.nursery.start_soon(self._run, running, before, name=f"tool {call.name}")

    async def _run(self, running: _Running, before: list[_Running]) -> None:
        try:
            for earlier in before:
                if not (running.parallel and earlier.parallel):
                    await earlier.done.wait()
            if self.fatal is None:
                if self.trace is not None:
                    self.trace.tool_call_started(self.context.turn_id, running.call)
                    running.traced = True
                running.output = await dispatch(self.registry, running.call, self.context)
                self._trace_end(running, "completed" if running.output.success else "failed")
        except FatalToolError as exc:
            self.fatal = self.fatal or exc
            self._trace_end(running, "failed")
        except trio.Cancelled:
            running.output = ToolOutput(_aborted(running), success=False)
            self._trace_end(running, "cancelled")
            raise
        finally:
            running.done.set()

    def _trace_end(self, running: _Running, status: Ended) -> None:
        if self.trace is not None and running.traced:
            output = running.output
            item = None if output is None else output_item(running.call, output)
            self.trace.tool_call_ended(self.context.turn_id, running.call, status, item)

    def take_outputs(self) -> list[FunctionCallOutput | CustomToolCallOutput]:
        """The answers that are there and were not taken yet, in call order."""
        taken: list[Any] = []
        for running in self._calls[self._recorded :]:
            if running.output is None:
                break
            taken.append(output_item(running.call, running.output))
            self._recorded += 1
        return taken


def _aborted(running: _Running) -> str:
    seconds = max(0.1, trio.current_time() - running.started)
    if running.call.name == "shell_command":
        return f"Wall time: {seconds:.1f} seconds\naborted by user"
    return f"aborted by user after {seconds:.1f}s"
