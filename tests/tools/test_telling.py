"""What is told of decisions about tool calls: which tool, by whom; of calls that end, fail or are cancelled."""

from __future__ import annotations

import pytest
import trio

from engine.protocol.items import CustomToolCall, FunctionCall
from engine.telemetry.handle import carrying
from engine.tools.base import FatalToolError, ToolOutput
from engine.tools.telling import tell_decision, tell_question, telling_call
from tests.telemetry.recording import Recording

CALL = FunctionCall(name="look", arguments='{"at": "it"}', call_id="c1")


async def test_a_decision_names_the_tool_whose_call_it_is_about() -> None:
    recording = Recording()

    async def run() -> ToolOutput:
        tell_question("command")
        tell_decision("command", "c1", "approved", "user")
        return ToolOutput("done")

    with carrying(recording):
        await telling_call("look", CALL, run)
        tell_decision("command", "c2", "denied", "config")
    first, second = recording.events("codex.tool_decision")
    assert (first["tool_name"], first["source"], first["decision"]) == ("look", "user", "approved")
    assert second["tool_name"] == "unknown"
    assert recording.counts("codex.approval.requested") == [{"kind": "command", "tool": "look"}]
    (result,) = recording.events("codex.tool_result")
    assert (result["success"], result["output"], result["arguments"]) == ("true", "done", '{"at": "it"}')


async def test_calls_that_do_not_answer() -> None:
    recording = Recording()

    async def die() -> ToolOutput:
        raise FatalToolError("no")

    async def hang() -> ToolOutput:
        await trio.sleep_forever()
        raise AssertionError("nobody wakes it")

    with carrying(recording):
        with pytest.raises(FatalToolError):
            await telling_call("look", CustomToolCall(name="look", input="raw", call_id="c1"), die)
        with trio.CancelScope() as scope:
            scope.cancel()
            await telling_call("look", CALL, hang)
    assert [event["success"] for event in recording.events("codex.tool_result")] == ["false", "false"]
    assert [event["arguments"] for event in recording.events("codex.tool_result")] == ["raw", '{"at": "it"}']
    assert [tags["success"] for tags in recording.counts("codex.tool.call")] == ["false", "false"]


async def test_without_telemetry_a_call_only_runs() -> None:
    async def run() -> ToolOutput:
        return ToolOutput("done")

    assert (await telling_call("look", CALL, run)).content == "done"
