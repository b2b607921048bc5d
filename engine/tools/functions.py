"""Tools of the host: async functions with typed signatures, offered to the model and served in process.

On the wire they are dynamic tools (tools.md 1.7): the call is announced by `dynamic_tool_call_request`, its answer by
`dynamic_tool_call_response`.
"""

from __future__ import annotations

import inspect
import json
import re
import time
import types
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, final

import attrs

from engine.errors import ProtocolError, ToolDefinitionError
from engine.protocol.codec import decode, encode, json_bytes, json_value
from engine.protocol.events import DynamicToolCallRequest, DynamicToolCallResponse
from engine.protocol.items import InputImage, InputText
from engine.protocol.wire import JsonObject
from engine.records import frozen
from engine.tools import specs
from engine.tools.approvals import ToolApproval, agreed, decide
from engine.tools.base import ToolError, ToolInvocation, ToolOutput
from engine.tools.host_code import call_host

__all__ = ["FunctionHandler", "Tool", "tool"]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
_SCALARS: Mapping[object, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


@final
@frozen
class Tool:
    """A function the model may call. Made by `tool`; pass it to `Engine.start_session(tools=...)`.

    `parameters` is the JSON Schema of the arguments. A parallel tool may run beside others of the same response;
    one that `needs_approval` asks the session's approver first.
    """

    name: str
    description: str
    parameters: JsonObject
    function: Callable[..., Awaitable[object]]
    parallel: bool = True
    needs_approval: bool = False
    _types: Mapping[str, Any] = attrs.field(factory=dict, repr=False, alias="types")


def tool(
    *, name: str | None = None, parallel: bool = True, needs_approval: bool = False
) -> Callable[[Callable[..., Awaitable[object]]], Tool]:
    """Makes a `Tool` of an async function.

    Every parameter needs a type: `str`, `int`, `float`, `bool`, `Literal[...]`, `list[...]`, `dict[str, ...]`, an attrs
    class, or one of them `| None`. The docstring is the description; a `name: text` line in it describes a parameter.
    What the function returns goes to the model: text as it is, `InputText`/`InputImage` parts, else JSON. What it
    raises goes to the model as a failed output. Raises `ToolDefinitionError` where the function can't become a tool.
    """

    def make(function: Callable[..., Awaitable[object]]) -> Tool:
        made = name or str(getattr(function, "__name__", ""))
        if not _NAME.match(made):
            raise ToolDefinitionError(f"{made!r} is no tool name: 1 to 64 letters, digits, `_` or `-`")
        if not inspect.iscoroutinefunction(function):
            raise ToolDefinitionError(f"the tool {made!r} must be an async function")
        try:
            hints = typing.get_type_hints(function)
        except (NameError, TypeError) as exc:
            raise ToolDefinitionError(f"the types of tool {made!r} can't be resolved: {exc}") from exc
        doc = inspect.getdoc(function) or ""
        properties: dict[str, JsonObject] = {}
        required: list[str] = []
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise ToolDefinitionError(f"tool {made!r}: the parameter {parameter.name!r} can't be given by name")
            if parameter.name not in hints:
                raise ToolDefinitionError(f"tool {made!r}: the parameter {parameter.name!r} has no type")
            schema = _schema(hints[parameter.name], f"tool {made!r}: the parameter {parameter.name!r}")
            told = re.search(rf"^\s*{re.escape(parameter.name)}:\s*(.+)$", doc, re.MULTILINE)
            if told:
                schema["description"] = told[1].strip()
            properties[parameter.name] = schema
            if parameter.default is parameter.empty:
                required.append(parameter.name)
        parameters = specs.object_schema(properties, required)
        kinds = {key: hint for key, hint in hints.items() if key != "return"}
        return Tool(made, doc, parameters, function, parallel, needs_approval, types=kinds)

    return make


def _schema(kind: Any, where: str) -> JsonObject:
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return _literal(arguments)
    if origin in (list, Sequence) or (origin is tuple and arguments[1:] == (...,)):
        return {"type": "array", "items": _schema(arguments[0], where)}
    if origin in (dict, Mapping) and arguments[0] is str:
        return {"type": "object", "additionalProperties": _schema(arguments[1], where)}
    if kind is dict or kind is object:
        return {"type": "object"}
    if isinstance(kind, types.UnionType) or origin is typing.Union:
        members = [member for member in arguments if member is not type(None)]
        if len(members) == 1:
            return _schema(members[0], where)
        return {"anyOf": [_schema(member, where) for member in members]}
    if isinstance(kind, type) and attrs.has(kind):
        fields = [field for field in attrs.fields(attrs.resolve_types(kind)) if field.init]
        return specs.object_schema(
            {field.name: _schema(field.type, where) for field in fields},
            [field.name for field in fields if field.default is attrs.NOTHING],
        )
    raise ToolDefinitionError(f"{where} has the type {kind!r}, which has no JSON Schema here")


def _literal(values: Sequence[object]) -> JsonObject:
    kinds = {_SCALARS.get(type(value)) for value in values}
    return {**({"type": kinds.pop()} if len(kinds) == 1 and None not in kinds else {}), "enum": list(values)}


@frozen(eq=False)
class FunctionHandler:
    """Serves a `Tool` to the model."""

    tool: Tool
    namespace: None = None
    kind: Literal["function"] = "function"

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.tool.name

    @property
    def parallel(self) -> bool:
        """Whether it may run beside others."""
        return self.tool.parallel

    def spec(self) -> JsonObject:
        """What the model is told."""
        return specs.function_spec(self.tool.name, self.tool.description, self.tool.parameters)

    async def call(self, invocation: ToolInvocation) -> ToolOutput:
        """Decodes the arguments, asks where the tool wants that, calls the function, tells both ends."""
        context = invocation.context
        raw, arguments = self._arguments(invocation)
        if self.tool.needs_approval:
            await self._ask(invocation, raw)
        context.emit(DynamicToolCallRequest(invocation.call_id, context.turn_id, context.now_ms(), self.tool.name, raw))
        began = time.perf_counter()
        error: str | None = None
        output = ToolOutput("dynamic tool call was cancelled before receiving a response", success=False)
        try:
            output = _output(await call_host(self.tool.function, **arguments))
        except Exception as exc:
            error = str(exc) if isinstance(exc, ToolError) else f"{type(exc).__name__}: {exc}"
            output = ToolOutput(error, success=False)
        finally:
            seconds = time.perf_counter() - began
            context.emit(
                DynamicToolCallResponse(
                    invocation.call_id,
                    context.turn_id,
                    context.now_ms(),
                    self.tool.name,
                    raw,
                    content_items=_content_items(output),
                    success=output.success,
                    error=error,
                    duration={"secs": int(seconds), "nanos": int(seconds % 1 * 1e9)},
                )
            )
        return output

    def _arguments(self, invocation: ToolInvocation) -> tuple[JsonObject, dict[str, Any]]:
        try:
            raw = json_value(invocation.input or "{}")
        except ProtocolError as exc:
            raise ToolError(f"failed to parse function arguments: {exc}") from exc
        if not isinstance(raw, dict):
            raise ToolError("failed to parse function arguments: expected an object")
        kinds = self.tool._types
        unknown = sorted(raw.keys() - kinds.keys())
        if unknown:
            raise ToolError(f"failed to parse function arguments: unknown field `{unknown[0]}`")
        required = self.tool.parameters["required"]
        assert isinstance(required, list)
        for name in required:
            if name not in raw:
                raise ToolError(f"failed to parse function arguments: missing field `{name}`")
        arguments: dict[str, Any] = {}
        for name, value in raw.items():
            try:
                arguments[name] = decode(kinds[name], value)
            except ProtocolError as exc:
                raise ToolError(f"failed to parse function arguments: field `{name}`: {exc}") from exc
        return raw, arguments

    async def _ask(self, invocation: ToolInvocation, raw: JsonObject) -> None:
        context = invocation.context
        approvals = context.permissions.session
        key = json.dumps({"tool": self.tool.name, "arguments": raw}, sort_keys=True)
        async with approvals.asking(key):
            if approvals.remembers(key):
                return
            decision = await decide(
                context,
                ToolApproval(call_id=invocation.call_id, turn_id=context.turn_id, tool=self.tool.name, arguments=raw),
            )
            if not agreed(decision):
                raise ToolError(f"tool call rejected by user: {self.tool.name}")
            if decision == "approved_for_session":
                approvals.remember(key)


def _output(value: object) -> ToolOutput:
    match value:
        case ToolOutput():
            return value
        case str():
            return ToolOutput(value)
        case None:
            return ToolOutput("")
        case InputText() | InputImage():
            return ToolOutput((value,))
        case [*parts] if parts and all(isinstance(part, InputText | InputImage) for part in parts):
            return ToolOutput(tuple(part for part in parts if isinstance(part, InputText | InputImage)))
    return ToolOutput(json_bytes(encode(value)).decode())


def _content_items(output: ToolOutput) -> tuple[JsonObject, ...]:
    parts = (InputText(output.content),) if isinstance(output.content, str) else output.content
    return tuple(encode(part) for part in parts)
