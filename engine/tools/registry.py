"""Which tools a session has, in the order the model is told about them, and how a call finds its tool.

tools.md 1.3 to 1.5.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import attrs

from engine.errors import EngineError
from engine.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    InputText,
    OutputContent,
)
from engine.protocol.wire import JsonObject
from engine.records import frozen
from engine.tools.base import FatalToolError, ToolContext, ToolError, ToolHandler, ToolInvocation, ToolOutput
from engine.tools.telling import telling_call

__all__ = ["ToolCall", "ToolRegistry", "dispatch", "output_item"]

logger = logging.getLogger("engine.tools")

ToolCall = FunctionCall | CustomToolCall


@frozen(eq=False)
class ToolRegistry:
    """The tools of a session. Of two with one name the first wins."""

    handlers: Sequence[ToolHandler]
    _by_name: dict[tuple[str | None, str], ToolHandler] = attrs.field(init=False)
    _specs: list[JsonObject] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        by_name: dict[tuple[str | None, str], ToolHandler] = {}
        specs: list[JsonObject] = []
        for handler in self.handlers:
            key = (handler.namespace, handler.name)
            if key in by_name:
                logger.warning("there are two tools named %s; the first one is used", handler.name)
                continue
            by_name[key] = handler
            spec = handler.spec()
            if spec is not None:
                specs.append(spec)
        object.__setattr__(self, "_by_name", by_name)
        object.__setattr__(self, "_specs", specs)

    def specs(self) -> list[JsonObject]:
        """The `tools` array of a request; the same list every time, so that prompt caches hold."""
        return self._specs

    def find(self, call: ToolCall) -> ToolHandler | None:
        """The tool a call names."""
        namespace = call.namespace if isinstance(call, FunctionCall) else None
        return self._by_name.get((namespace, call.name))

    def is_parallel(self, call: ToolCall) -> bool:
        """Whether the call may run beside others; an unknown tool runs alone."""
        handler = self.find(call)
        return handler is not None and handler.parallel


async def dispatch(registry: ToolRegistry, call: ToolCall, context: ToolContext) -> ToolOutput:
    """Runs one call. What goes wrong is an output the model can read; only `FatalToolError` and cancellation pass."""
    return await telling_call(_display_name(call), call, lambda: _dispatch(registry, call, context))


async def _dispatch(registry: ToolRegistry, call: ToolCall, context: ToolContext) -> ToolOutput:
    handler = registry.find(call)
    if handler is None:
        kind = "call" if isinstance(call, FunctionCall) else "custom tool call"
        return ToolOutput(f"unsupported {kind}: {_display_name(call)}", success=False)
    wanted = "function" if isinstance(call, FunctionCall) else "custom"
    if handler.kind != wanted:
        raise FatalToolError(f"tool {_display_name(call)} invoked with incompatible payload")
    invocation = ToolInvocation(
        call_id=call.call_id,
        name=call.name,
        input=call.arguments if isinstance(call, FunctionCall) else call.input,
        context=context,
        namespace=call.namespace if isinstance(call, FunctionCall) else None,
    )
    try:
        return await handler.call(invocation)
    except FatalToolError:
        raise
    except ToolError as exc:
        return ToolOutput(str(exc), success=False)
    except EngineError as exc:
        return ToolOutput(f"{_display_name(call)} failed: {exc}", success=False)
    except Exception as exc:
        logger.exception("tool %s failed", _display_name(call))
        return ToolOutput(f"{_display_name(call)} failed: {type(exc).__name__}: {exc}", success=False)


def _display_name(call: ToolCall) -> str:
    return f"{call.namespace or ''}{call.name}" if isinstance(call, FunctionCall) else call.name


def output_item(call: ToolCall, output: ToolOutput) -> FunctionCallOutput | CustomToolCallOutput:
    """The response item that answers a call."""
    content: OutputContent
    match output.content:
        case str() as text:
            content = text
        case (InputText(text=text),):
            content = text
        case parts:
            content = parts
    if isinstance(call, FunctionCall):
        return FunctionCallOutput(call.call_id, content)
    return CustomToolCallOutput(call.call_id, output=content)
