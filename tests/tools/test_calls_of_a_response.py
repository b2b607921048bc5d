"""The calls of one response: which run beside each other, and that their outputs come in call order."""

from __future__ import annotations

import json
import os
import re

import trio

from engine.protocol.events import ExecCommandBegin, ItemStarted
from engine.protocol.items import CustomToolCall, FunctionCall, FunctionCallOutput
from engine.session.tool_calls import ResponseCalls
from engine.tools.exec_command import ExecCommand
from engine.tools.patches import ApplyPatch
from engine.tools.registry import ToolCall, ToolRegistry
from engine.tools.shell_command import ShellCommand

from .bench import Bench

REGISTRY = ToolRegistry([ExecCommand(), ShellCommand(offered=False), ApplyPatch()])


def command(call_id: str, cmd: str) -> FunctionCall:
    return FunctionCall("exec_command", arguments=json.dumps({"cmd": cmd, "login": False}), call_id=call_id)


async def run(bench: Bench, *made: ToolCall) -> list[tuple[str, object]]:
    """Call id and output of each."""
    async with trio.open_nursery() as nursery:
        calls = ResponseCalls(REGISTRY, bench.context, nursery)
        for call in made:
            calls.start(call)
    return [(output.call_id, output.output) for output in calls.take_outputs()]


async def test_two_commands_overlap_and_are_answered_in_call_order(bench: Bench) -> None:
    for name in ("there", "back"):
        os.mkfifo(bench.cwd / name)
    # Each needs the other one to run at the same time; the first one ends last.
    first = command("first", "echo ping > there; cat back; while kill -0 $(cat pid) 2>/dev/null; do :; done; echo 1")
    second = command("second", "echo $$ > pid; cat there; echo pong > back; echo 2")
    with trio.fail_after(20):
        outputs = await run(bench, first, second)
    assert [(call_id, str(output).partition("Output:\n")[2]) for call_id, output in outputs] == [
        ("first", "pong\n1\n"),
        ("second", "ping\n2\n"),
    ]


async def test_a_patch_waits_for_the_commands_before_it_and_holds_back_those_behind(bench: Bench) -> None:
    os.mkfifo(bench.cwd / "go")
    patch = "*** Begin Patch\n*** Update File: f.txt\n@@\n-one\n+two\n*** End Patch"
    calls = (
        command("slow", "cat go > f.txt"),
        CustomToolCall(call_id="patch", name="apply_patch", input=patch),
        command("after", "cat f.txt"),
    )

    def release() -> None:
        (bench.cwd / "go").write_text("one\n")

    outputs: list[tuple[str, object]] = []

    async def all_calls() -> None:
        outputs.extend(await run(bench, *calls))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(all_calls)
            await bench.seen(ExecCommandBegin)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(bench.of(ExecCommandBegin)) == 1
            assert bench.of(ItemStarted) == []
            await trio.to_thread.run_sync(release)
    assert [call_id for call_id, _ in outputs] == ["slow", "patch", "after"]
    assert str(outputs[1][1]).startswith('{"output":"Success.')
    assert str(outputs[2][1]).endswith("Output:\ntwo\n")
    kinds = [type(event) for event in bench.events if isinstance(event, ExecCommandBegin | ItemStarted)]
    assert kinds == [ExecCommandBegin, ItemStarted, ExecCommandBegin]


async def test_a_hidden_shell_command_runs_alone(bench: Bench) -> None:
    arguments = json.dumps({"command": "cat f.txt", "login": False})
    outputs = await run(
        bench,
        command("first", "echo x > f.txt"),
        FunctionCall("shell_command", arguments=arguments, call_id="second"),
    )
    assert str(outputs[1][1]).endswith("Output:\nx\n")


async def test_an_interrupt_answers_what_ran_and_the_commands_are_gone(bench: Bench) -> None:
    async with trio.open_nursery() as turn:
        calls = ResponseCalls(REGISTRY, bench.context, turn)
        arguments = json.dumps({"command": "sleep 1000", "login": False, "timeout_ms": 100_000})
        calls.start(command("first", "echo done"))
        calls.start(command("second", "sleep 1000"))
        await bench.seen(ExecCommandBegin, 2)
        calls.start(FunctionCall("shell_command", arguments=arguments, call_id="third"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        turn.cancel_scope.cancel()
    outputs = calls.take_outputs()
    assert str(outputs[0].output).endswith("Output:\ndone\n")
    assert str(outputs[1].output).startswith("aborted by user after 0.")
    assert isinstance(outputs[2], FunctionCallOutput)
    assert re.fullmatch(r"Wall time: \d+\.\d seconds\naborted by user", str(outputs[2].output))
    assert bench.supervisor.statistics().live == 0
