"""Tools of the host: schemas from signatures, arguments, results, approvals, events."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Literal

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ToolDefinitionError
from engine.protocol.events import DynamicToolCallRequest, DynamicToolCallResponse
from engine.protocol.items import InputImage, InputText
from engine.protocol.wire import JsonObject
from engine.tools.approvals import ToolApproval
from engine.tools.base import ToolError, ToolOutput
from engine.tools.functions import FunctionHandler, Tool, tool

from .bench import NOW_MS, Bench
from .test_exec_command import text_of


@attrs.frozen
class Place:
    """Where something is."""

    x: int
    y: float = 0.0
    tags: list[str] = attrs.field(factory=list)


@tool()
async def everything(
    text: str,
    place: Place,
    count: int = 1,
    ratio: float | None = None,
    flag: bool = False,
    mode: Literal["fast", "slow"] = "fast",
    level: Literal[1, 2] = 1,
    names: Sequence[str] = (),
    pairs: tuple[int, ...] = (),
    table: Mapping[str, int] | None = None,
    anything: object = None,
    either: int | str = 0,
) -> JsonObject:
    """Says back what it got.

    text: What to say.
    count:   How often.
    """
    await trio.lowlevel.checkpoint()
    return {"text": text, "x": place.x, "names": list(names), "either": either, "ratio": ratio}


def schema_of(made: Tool) -> JsonObject:
    properties = made.parameters["properties"]
    assert isinstance(properties, dict)
    return properties


def test_schema_is_made_of_the_signature() -> None:
    spec = FunctionHandler(everything).spec()
    assert {key: spec[key] for key in ("type", "name", "strict")} == {
        "type": "function",
        "name": "everything",
        "strict": False,
    }
    assert spec["description"] == "Says back what it got.\n\ntext: What to say.\ncount:   How often."
    assert spec["parameters"] == {
        "type": "object",
        "properties": {
            "anything": {"type": "object"},
            "count": {"type": "integer", "description": "How often."},
            "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "flag": {"type": "boolean"},
            "level": {"type": "integer", "enum": [1, 2]},
            "mode": {"type": "string", "enum": ["fast", "slow"]},
            "names": {"type": "array", "items": {"type": "string"}},
            "pairs": {"type": "array", "items": {"type": "integer"}},
            "place": {
                "type": "object",
                "properties": {
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "x": {"type": "integer"},
                    "y": {"type": "number"},
                },
                "required": ["x"],
                "additionalProperties": False,
            },
            "ratio": {"type": "number"},
            "table": {"type": "object", "additionalProperties": {"type": "integer"}},
            "text": {"type": "string", "description": "What to say."},
        },
        "required": ["text", "place"],
        "additionalProperties": False,
    }
    assert list(schema_of(everything)) == sorted(schema_of(everything))


def test_names_and_flags() -> None:
    @tool(name="other-name", parallel=False, needs_approval=True)
    async def function() -> None: ...

    handler = FunctionHandler(function)
    assert (handler.name, handler.parallel, handler.kind, handler.namespace) == ("other-name", False, "function", None)
    assert function.needs_approval
    assert function.description == ""
    assert FunctionHandler(everything).parallel


def test_mixed_literal_has_no_one_type() -> None:
    @tool()
    async def function(mode: Literal["a", 1]) -> None: ...

    assert schema_of(function) == {"mode": {"enum": ["a", 1]}}


async def nameless(x: int) -> None: ...


async def untyped(x) -> None: ...  # type: ignore[no-untyped-def]


async def spread(*x: int) -> None: ...


async def keywords(**x: int) -> None: ...


async def positional(x: int, /) -> None: ...


async def unknown_type(x: NoSuchType) -> None: ...  # type: ignore[name-defined]  # noqa: F821


async def unsupported(x: set[int]) -> None: ...


async def bare_list(x: list) -> None: ...  # type: ignore[type-arg]


async def fixed_tuple(x: tuple[int, str]) -> None: ...


async def odd_keys(x: dict[int, str]) -> None: ...


async def nested(x: list[complex]) -> None: ...


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (untyped, "the parameter 'x' has no type"),
        (spread, "the parameter 'x' can't be given by name"),
        (keywords, "the parameter 'x' can't be given by name"),
        (positional, "the parameter 'x' can't be given by name"),
        (unknown_type, "the types of tool 'unknown_type' can't be resolved"),
        (unsupported, "has no JSON Schema here"),
        (bare_list, "has no JSON Schema here"),
        (fixed_tuple, "has no JSON Schema here"),
        (odd_keys, "has no JSON Schema here"),
        (nested, "has the type <class 'complex'>"),
        (functools.partial(nameless, 1), "'' is no tool name"),
    ],
)
def test_what_can_not_become_a_tool(function: object, problem: str) -> None:
    with pytest.raises(ToolDefinitionError, match=problem.replace("(", r"\(")):
        tool()(function)  # type: ignore[arg-type]


def test_plain_functions_and_bad_names() -> None:
    def function() -> None: ...

    with pytest.raises(ToolDefinitionError, match="must be an async function"):
        tool()(function)  # type: ignore[arg-type]
    for name in ("", "a b", "a" * 65, "ä", "a\n"):
        with pytest.raises(ToolDefinitionError, match="is no tool name"):
            tool(name=name or " ")(nameless)


# --- calls -----------------------------------------------------------------------------------------


async def test_a_call_and_its_events(still: Bench) -> None:
    arguments = {"text": "hi", "place": {"x": 1}, "names": ["a"], "either": "b", "ratio": None}
    output = await still.call(FunctionHandler(everything), arguments)
    answer = {"text": "hi", "x": 1, "names": ["a"], "either": "b", "ratio": None}
    assert json.loads(text_of(output)) == answer
    request, response = still.events
    assert request == DynamicToolCallRequest("call", "turn-1", NOW_MS, "everything", arguments)
    assert isinstance(response, DynamicToolCallResponse)
    assert response.duration is not None
    assert response == DynamicToolCallResponse(
        "call",
        "turn-1",
        NOW_MS,
        "everything",
        arguments,
        content_items=({"type": "input_text", "text": text_of(output)},),
        success=True,
        duration=response.duration,
    )


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("text", "text"),
        (None, ""),
        (3, "3"),
        ({"a": [1]}, '{"a":[1]}'),
        ([], "[]"),
        (["a"], '["a"]'),
        (InputText("a"), (InputText("a"),)),
        ([InputText("a"), InputImage("data:")], (InputText("a"), InputImage("data:"))),
        (ToolOutput("no", success=False), "no"),
    ],
)
async def test_results(still: Bench, value: object, content: object) -> None:
    @tool()
    async def function() -> object:
        await trio.lowlevel.checkpoint()
        return value

    output = await still.call(FunctionHandler(function), "")
    assert output.content == content
    assert output.success is not (value == ToolOutput("no", success=False))
    assert [response.success for response in still.of(DynamicToolCallResponse)] == [output.success]


async def test_an_attrs_object_is_an_answer(still: Bench) -> None:
    @tool()
    async def function() -> Place:
        await trio.lowlevel.checkpoint()
        return Place(1)

    assert json.loads(text_of(await still.call(FunctionHandler(function), {}))) == {"x": 1, "y": 0.0, "tags": []}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("{", "not JSON"),
        ("3", "expected an object"),
        ("{}", "missing field `text`"),
        ('{"text": "a"}', "missing field `place`"),
        ('{"text": "a", "place": {}}', "field `place`: the field `x` is missing"),
        ('{"text": "a", "place": {"x": "1"}}', "field `place`: expected an integer, got str"),
        ('{"text": "a", "place": {"x": 1}, "b": 1, "a": 1}', "unknown field `a`"),
        ('{"text": "a", "place": {"x": 1}, "names": "abc"}', "field `names`: expected an array, got str"),
        ('{"text": "a", "place": {"x": 1}, "count": true}', "field `count`: expected an integer, got bool"),
        ('{"text": "a", "place": {"x": 1}, "mode": "medium"}', "field `mode`: "),
        ('{"text": "a", "place": {"x": 1}, "ratio": 1' + "0" * 400 + "}", "field `ratio`: int too large"),
    ],
)
async def test_arguments_that_do_not_fit_never_reach_the_function(still: Bench, arguments: str, problem: str) -> None:
    output = await still.call(FunctionHandler(everything), arguments)
    assert not output.success
    assert text_of(output).startswith("failed to parse function arguments: ")
    assert problem in text_of(output)
    assert still.events == []


async def test_an_exception_is_a_failed_output(still: Bench) -> None:
    @tool()
    async def function(kind: str) -> str:
        await trio.lowlevel.checkpoint()
        if kind == "told":
            raise ToolError("told as it is")
        if kind == "group":
            async with trio.open_nursery():
                raise KeyError("inside")
        raise LookupError("nothing here")

    handler = FunctionHandler(function)
    assert await still.call(handler, {"kind": "told"}) == ToolOutput("told as it is", success=False)
    output = await still.call(handler, {"kind": ""})
    assert output == ToolOutput("LookupError: nothing here", success=False)
    output = await still.call(handler, {"kind": "group"})
    assert text_of(output).startswith("ExceptionGroup: ")
    errors = [response.error for response in still.of(DynamicToolCallResponse)]
    assert errors[:2] == ["told as it is", "LookupError: nothing here"]


async def test_a_result_that_is_no_json_is_a_failed_output(still: Bench) -> None:
    @tool()
    async def function() -> object:
        await trio.lowlevel.checkpoint()
        return object()

    output = await still.call(FunctionHandler(function), {})
    assert (output.success, text_of(output).partition(":")[0]) == (False, "TypeError")


async def test_an_interrupt_cancels_the_function_and_is_told(still: Bench) -> None:
    cancelled: list[bool] = []

    @tool()
    async def function() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(True)
            raise

    async with trio.open_nursery() as turn:
        turn.start_soon(still.call, FunctionHandler(function), {})
        await still.seen(DynamicToolCallRequest)
        turn.cancel_scope.cancel()
    assert cancelled == [True]
    (response,) = still.of(DynamicToolCallResponse)
    assert (response.success, response.error) == (False, None)
    text = "dynamic tool call was cancelled before receiving a response"
    assert response.content_items == ({"type": "input_text", "text": text},)


async def test_approval_comes_before_the_call(still: Bench) -> None:
    calls: list[str] = []

    @tool(needs_approval=True)
    async def deploy(to: str) -> str:
        await trio.lowlevel.checkpoint()
        calls.append(to)
        return "done"

    handler = FunctionHandler(deploy)
    output = await still.call(handler, {"to": "moon"})
    assert output == ToolOutput("tool call rejected by user: deploy", success=False)
    assert still.approvals.asked == [
        ToolApproval(call_id="call", turn_id="turn-1", tool="deploy", arguments={"to": "moon"})
    ]
    assert still.events == []
    still.approvals.decision = "approved"
    assert await still.call(handler, {"to": "moon"}) == ToolOutput("done")
    assert calls == ["moon"]


async def test_a_call_approved_for_the_session_is_not_asked_about_again(still: Bench) -> None:
    @tool(needs_approval=True)
    async def deploy(to: str) -> str:
        await trio.lowlevel.checkpoint()
        return to

    handler = FunctionHandler(deploy)
    still.approvals.decision = "approved_for_session"
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(still.call, handler, {"to": "moon"})
    assert len(still.approvals.asked) == 1
    still.approvals.decision = "denied"
    assert await still.call(handler, {"to": "moon"}) == ToolOutput("moon")
    assert (await still.call(handler, {"to": "mars"})).success is False


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    arguments=st.dictionaries(st.sampled_from([*schema_of(everything), "other"]), _JSON | st.builds(lambda: {"x": 1}))
)
async def test_any_arguments_get_an_answer(still: Bench, arguments: dict[str, object]) -> None:
    output = await still.call(FunctionHandler(everything), arguments)
    assert output.success or text_of(output).startswith("failed to parse function arguments: ")
