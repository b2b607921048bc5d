"""`write_stdin`: talking to background terminals."""

from __future__ import annotations

import pytest
import trio

from engine.protocol.events import ExecCommandEnd, TerminalInteraction
from engine.tools.base import ToolOutput
from engine.tools.exec_command import ExecCommand
from engine.tools.write_stdin import WriteStdin

from .bench import Bench
from .test_exec_command import session_of, stable, text_of

EXEC = ExecCommand()
WRITE = WriteStdin()


async def test_a_conversation_with_cat(bench: Bench) -> None:
    started = await bench.call(EXEC, {"cmd": "cat", "login": False, "tty": True, "yield_time_ms": 250}, "first")
    session = session_of(started)
    output = await bench.call(WRITE, {"session_id": session, "chars": "hi\n"}, "second")
    assert stable(output) == (
        "Chunk ID: abcdef\nWall time: 0.0000 seconds\n"
        f"Process running with session ID {session}\nOriginal token count: 2\nOutput:\nhi\r\nhi\r\n"
    )
    output = await bench.call(WRITE, {"session_id": session, "chars": "\u0004"}, "third")
    assert "Process exited with code 0\n" in text_of(output)
    assert bench.of(TerminalInteraction) == [
        TerminalInteraction("first", str(session), "hi\n"),
        TerminalInteraction("first", str(session), "\u0004"),
    ]
    assert [(end.call_id, end.exit_code) for end in bench.of(ExecCommandEnd)] == [("first", 0)]
    output = await bench.call(WRITE, {"session_id": session}, "fourth")
    assert output == ToolOutput(f"write_stdin failed: Unknown process id {session}", success=False)
    assert len(bench.of(TerminalInteraction)) == 2


async def test_poll_returns_at_the_end_and_only_what_is_new(bench: Bench) -> None:
    (bench.cwd / "go").touch()
    script = "echo first; while [ -e go ]; do sleep 0.01; done; echo second; exit 7"
    session = session_of(await bench.call(EXEC, {"cmd": script, "login": False, "yield_time_ms": 250}))
    outputs: list[ToolOutput] = []

    async def poll() -> None:
        outputs.append(await bench.call(WRITE, {"session_id": session, "yield_time_ms": 1}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(poll)
        await bench.seen(TerminalInteraction)
        (bench.cwd / "go").unlink()
    assert stable(outputs[0]) == (
        "Chunk ID: abcdef\nWall time: 0.0000 seconds\nProcess exited with code 7\nOriginal token count: 2\n"
        "Output:\nsecond\n"
    )
    assert bench.of(TerminalInteraction) == [TerminalInteraction("call", str(session), "")]


async def test_output_is_limited_per_reply(bench: Bench) -> None:
    script = "read line; head -c 1000 /dev/zero | tr '\\0' x; cat"
    arguments = {"cmd": script, "login": False, "tty": True, "yield_time_ms": 250}
    session = session_of(await bench.call(EXEC, arguments))
    asked = {"session_id": session, "chars": "\n", "max_output_tokens": 10}
    output = await bench.call(WRITE, asked)
    assert "tokens truncated…" in text_of(output)


async def test_input_without_a_terminal_is_refused_and_not_announced(bench: Bench) -> None:
    session = session_of(await bench.call(EXEC, {"cmd": "sleep 1000", "login": False, "yield_time_ms": 250}))
    output = await bench.call(WRITE, {"session_id": session, "chars": "x"})
    assert output == ToolOutput(
        "write_stdin failed: stdin is closed for this session; rerun exec_command with tty=true to keep stdin open",
        success=False,
    )
    assert bench.of(TerminalInteraction) == []


async def test_unknown_session(bench: Bench) -> None:
    assert await bench.call(WRITE, {"session_id": 7}) == ToolOutput(
        "write_stdin failed: Unknown process id 7", success=False
    )
    assert bench.events == []


@pytest.mark.parametrize("arguments", ["{}", '{"session_id": "7"}', '{"session_id": 7.5}', '{"session_id": null}'])
async def test_arguments_that_do_not_fit(still: Bench, arguments: str) -> None:
    output = await still.call(WRITE, arguments)
    assert text_of(output).startswith("failed to parse function arguments: ")


async def test_an_interrupted_poll_leaves_the_command_and_its_output(bench: Bench) -> None:
    (bench.cwd / "go").touch()
    script = "while [ -e go ]; do sleep 0.01; done; echo late"
    session = session_of(await bench.call(EXEC, {"cmd": script, "login": False, "yield_time_ms": 250}))
    async with trio.open_nursery() as turn:
        turn.start_soon(bench.call, WRITE, {"session_id": session})
        await bench.seen(TerminalInteraction)
        turn.cancel_scope.cancel()
    assert [terminal.running for terminal in bench.terminals.terminals()] == [True]
    (bench.cwd / "go").unlink()
    assert text_of(await bench.call(WRITE, {"session_id": session})).endswith("Output:\nlate\n")
