"""The tool calls of one response: started as they arrive, answered in call order (tools.md 8.1-8.2)."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from engine.protocol.items import CustomToolCallOutput, FunctionCallOutput
from engine.records import define
from engine.tools.base import FatalToolError, ToolContext, ToolOutput
from engine.tools.registry import ToolCall, ToolRegistry, dispatch, output_item

__all__ = ["ResponseCalls"]


@define(eq=False)
class _Running:
    call: ToolCall
    parallel: bool
    started: float
    done: trio.Event = attrs.field(factory=trio.Event)
    output: ToolOutput | None = None


@define(eq=False)
class ResponseCalls:
    """Runs the calls of one response as children of `nursery`.

    Parallel calls share the turn; an exclusive one waits for all before it and holds back all after it. Calls take
    their turn in call order, so an exclusive call in the queue delays later parallel ones.
    """

    registry: ToolRegistry
    context: ToolContext
    nursery: trio.Nursery
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
                running.output = await dispatch(self.registry, running.call, self.context)
        except FatalToolError as exc:
            self.fatal = self.fatal or exc
        except trio.Cancelled:
            running.output = ToolOutput(_aborted(running), success=False)
            raise
        finally:
            running.done.set()

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
