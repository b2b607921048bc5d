"""Finding tools, dispatching calls, and the items that answer them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import attrs
import pytest
import trio

from engine.errors import ProcessError
from engine.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
)
from engine.protocol.wire import JsonObject
from engine.tools.base import FatalToolError, ToolError, ToolInvocation, ToolOutput
from engine.tools.registry import ToolCall, ToolRegistry, dispatch, output_item

from .bench import Bench


@attrs.frozen(eq=False)
class Stub:
    """A tool that does what it is told."""

    name: str = "stub"
    act: Callable[[ToolInvocation], ToolOutput] = lambda invocation: ToolOutput(invocation.input)
    namespace: str | None = None
    kind: Literal["function", "custom"] = "function"
    parallel: bool = False
    hidden: bool = False

    def spec(self) -> JsonObject | None:
        return None if self.hidden else {"name": self.name, "kind": self.kind}

    async def call(self, invocation: ToolInvocation) -> ToolOutput:
        await trio.lowlevel.checkpoint()
        return self.act(invocation)


def function(name: str, namespace: str | None = None) -> FunctionCall:
    return FunctionCall(name, arguments="{}", call_id="call", namespace=namespace)


def custom(name: str) -> CustomToolCall:
    return CustomToolCall(call_id="call", name=name, input="text")


def raising(error: BaseException) -> Callable[[ToolInvocation], ToolOutput]:
    def act(_: ToolInvocation) -> ToolOutput:
        raise error

    return act


def test_specs_are_in_order_without_hidden_tools_and_the_same_list_each_time() -> None:
    registry = ToolRegistry([Stub("b"), Stub("hidden", hidden=True), Stub("a", kind="custom")])
    assert registry.specs() == [{"name": "b", "kind": "function"}, {"name": "a", "kind": "custom"}]
    assert registry.specs() is registry.specs()
    assert registry.find(function("hidden")) is registry.handlers[1]


def test_the_first_of_two_tools_with_one_name_wins(caplog: pytest.LogCaptureFixture) -> None:
    first, second, elsewhere = Stub("a"), Stub("a", kind="custom"), Stub("a", namespace="ns__")
    registry = ToolRegistry([first, second, elsewhere])
    assert registry.find(function("a")) is first
    assert registry.find(custom("a")) is first
    assert registry.find(function("a", "ns__")) is elsewhere
    assert len(registry.specs()) == 2
    assert "there are two tools named a; the first one is used" in caplog.text


def test_unknown_tools_run_alone() -> None:
    registry = ToolRegistry([Stub("shared", parallel=True), Stub("alone")])
    assert [registry.is_parallel(function(name)) for name in ("shared", "alone", "unknown")] == [True, False, False]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (function("foo"), "unsupported call: foo"),
        (function("foo", "mcp__x__"), "unsupported call: mcp__x__foo"),
        (custom("foo"), "unsupported custom tool call: foo"),
    ],
)
async def test_unknown_tool(still: Bench, call: ToolCall, text: str) -> None:
    assert await dispatch(ToolRegistry([Stub()]), call, still.context) == ToolOutput(text, success=False)


async def test_wrong_kind_of_payload_is_fatal(still: Bench) -> None:
    registry = ToolRegistry([Stub("apply_patch", kind="custom"), Stub("plan")])
    with pytest.raises(FatalToolError, match=r"\Atool apply_patch invoked with incompatible payload\Z"):
        await dispatch(registry, function("apply_patch"), still.context)
    with pytest.raises(FatalToolError, match="tool plan invoked with incompatible payload"):
        await dispatch(registry, custom("plan"), still.context)


async def test_input_is_arguments_or_text(still: Bench) -> None:
    registry = ToolRegistry([Stub("plain"), Stub("free", kind="custom")])
    assert await dispatch(registry, function("plain"), still.context) == ToolOutput("{}")
    assert await dispatch(registry, custom("free"), still.context) == ToolOutput("text")


async def test_errors_are_outputs(still: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for error, text in [
        (ToolError("told as it is"), "told as it is"),
        (ProcessError("no more processes"), "stub failed: no more processes"),
        (ZeroDivisionError("by zero"), "stub failed: ZeroDivisionError: by zero"),
    ]:
        registry = ToolRegistry([Stub(act=raising(error))])
        assert await dispatch(registry, function("stub"), still.context) == ToolOutput(text, success=False)
    assert [record.exc_info is not None for record in caplog.records] == [True]  # the defect alone is logged
    with pytest.raises(FatalToolError, match="the end"):
        await dispatch(ToolRegistry([Stub(act=raising(FatalToolError("the end")))]), function("stub"), still.context)


def test_output_items() -> None:
    image = InputImage("data:image/png;base64,")
    text = InputText("hi")
    assert output_item(function("a"), ToolOutput("plain", success=False)) == FunctionCallOutput("call", "plain")
    assert output_item(function("a"), ToolOutput((text,))) == FunctionCallOutput("call", "hi")
    assert output_item(function("a"), ToolOutput((image,))) == FunctionCallOutput("call", (image,))
    assert output_item(function("a"), ToolOutput((text, image))) == FunctionCallOutput("call", (text, image))
    assert output_item(custom("a"), ToolOutput("plain")) == CustomToolCallOutput("call", output="plain")
