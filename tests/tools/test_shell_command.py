"""`shell_command`: replies byte for byte, events, time limits, interrupts."""

from __future__ import annotations

import re

import trio

from engine.protocol.events import ExecApprovalRequest, ExecCommandBegin, ExecCommandEnd, ExecCommandOutputDelta
from engine.protocol.settings import TruncationPolicy
from engine.tools.base import ToolOutput
from engine.tools.shell_command import ShellCommand
from tests.execution.processes import is_alive

from .bench import NOW_MS, Bench
from .test_exec_command import text_of

SHELL = ShellCommand()


def stable(output: ToolOutput) -> str:
    return re.sub(r"Wall time: [\d.]+ seconds", "Wall time: 0 seconds", text_of(output))


async def test_reply_and_events_of_a_success(bench: Bench) -> None:
    output = await bench.call(SHELL, {"command": "echo out; echo err >&2", "login": False})
    assert (stable(output), output.success) == ("Exit code: 0\nWall time: 0 seconds\nOutput:\nout\nerr\n", True)
    assert bench.of(ExecCommandBegin) == [
        ExecCommandBegin(
            "call",
            "turn-1",
            NOW_MS,
            command=("/bin/bash", "-c", "echo out; echo err >&2"),
            cwd=str(bench.cwd),
            parsed_cmd=({"type": "unknown", "cmd": "echo out; echo err >&2"},),
        )
    ]
    assert sorted(delta.stream for delta in bench.of(ExecCommandOutputDelta)) == ["stderr", "stdout"]
    (end,) = bench.of(ExecCommandEnd)
    assert end is bench.events[-1]
    assert (end.source, end.process_id, end.status, end.exit_code) == ("agent", None, "completed", 0)
    assert (end.stdout, end.stderr) == ("out\n", "err\n")
    assert end.aggregated_output == end.formatted_output == "out\nerr\n"


async def test_a_failure_reads_the_same_and_is_no_success(bench: Bench) -> None:
    output = await bench.call(SHELL, {"command": "echo no; exit 12", "login": False})
    assert (stable(output), output.success) == ("Exit code: 12\nWall time: 0 seconds\nOutput:\nno\n", False)
    assert [end.status for end in bench.of(ExecCommandEnd)] == ["failed"]


async def test_lines_are_counted_only_where_some_are_cut(bench: Bench) -> None:
    bench.turn(truncation=TruncationPolicy("bytes", 10))
    short = await bench.call(SHELL, {"command": "printf 'a\\nb\\n'", "login": False})
    assert stable(short) == "Exit code: 0\nWall time: 0 seconds\nOutput:\na\nb\n"
    long = await bench.call(SHELL, {"command": "seq 10", "login": False})
    assert stable(long) == (
        "Exit code: 0\nWall time: 0 seconds\nTotal output lines: 10\nOutput:\n1\n2\n3…11 chars truncated…9\n10\n"
    )
    assert bench.of(ExecCommandEnd)[1].formatted_output.startswith("Total output lines: 10\n\n1\n2\n3…")


async def test_time_limit_kills_the_tree(bench: Bench) -> None:
    script = "sleep 1000 & echo $! > pid; echo begin; wait"
    output = await bench.call(SHELL, {"command": script, "login": False, "timeout": 200})
    found = re.fullmatch(
        r"Exit code: 124\nWall time: [\d.]+ seconds\nOutput:\ncommand timed out after (\d+) milliseconds\nbegin\n",
        text_of(output),
    )
    assert found
    assert 200 <= int(found[1]) < 5000
    assert not output.success
    assert not is_alive(int((bench.cwd / "pid").read_text()))
    (end,) = bench.of(ExecCommandEnd)
    assert (end.exit_code, end.status, end.aggregated_output) == (124, "failed", "begin\n")
    assert end.formatted_output == f"command timed out after {found[1]} milliseconds\nbegin\n"


async def test_death_by_a_signal_is_an_execution_error_with_the_output(bench: Bench) -> None:
    output = await bench.call(SHELL, {"command": "echo last words; kill -9 $$", "login": False})
    text = "execution error: the command was killed by signal 9 (SIGKILL)\nOutput:\nlast words\n"
    assert output == ToolOutput(text, success=False)
    assert [end.exit_code for end in bench.of(ExecCommandEnd)] == [137]


async def test_folder_that_is_not_there(bench: Bench) -> None:
    output = await bench.call(SHELL, {"command": "true", "login": False, "workdir": "missing"})
    text = f"execution error: {bench.cwd}/missing: No such file or directory (os error 2)"
    assert output == ToolOutput(text, success=False)
    (end,) = bench.of(ExecCommandEnd)
    assert (end.exit_code, end.status, end.stderr, end.aggregated_output) == (-1, "failed", text, text)


async def test_a_refusal_is_bare_and_the_command_declined(bench: Bench) -> None:
    bench.turn(approval_policy="untrusted")
    output = await bench.call(SHELL, {"command": "touch made", "login": False})
    assert output == ToolOutput("exec command rejected by user", success=False)
    assert [type(event) for event in bench.events] == [ExecCommandBegin, ExecApprovalRequest, ExecCommandEnd]
    (end,) = bench.of(ExecCommandEnd)
    assert (end.exit_code, end.status) == (-1, "declined")
    assert end.aggregated_output == "exec command rejected by user"
    assert not (bench.cwd / "made").exists()


async def test_environment_is_the_policys_without_that_of_unified_exec(bench: Bench) -> None:
    output = await bench.call(SHELL, {"command": 'echo "$CODEX_CI"', "login": False})
    assert text_of(output).endswith("Output:\n\n")


async def test_interrupt_kills_the_command_and_keeps_what_it_wrote(bench: Bench) -> None:
    script = "echo $$ > pid; echo begin; exec sleep 1000"
    async with trio.open_nursery() as turn:
        turn.start_soon(bench.call, SHELL, {"command": script, "login": False, "timeout_ms": 100_000})
        await bench.seen(ExecCommandOutputDelta)
        turn.cancel_scope.cancel()
    assert not is_alive(int((bench.cwd / "pid").read_text()))
    (end,) = bench.of(ExecCommandEnd)
    assert (end.exit_code, end.status) == (-1, "failed")
    assert (end.stdout, end.stderr, end.aggregated_output) == ("begin\n", "aborted by user", "begin\n")


async def test_an_abort_while_asking_interrupts_the_turn(bench: Bench) -> None:
    bench.turn(approval_policy="untrusted")
    bench.approvals.decision = "abort"
    async with trio.open_nursery() as turn:
        turn.start_soon(bench.call, SHELL, {"command": "touch made", "login": False})
        while not bench.interrupts:
            await trio.testing.wait_all_tasks_blocked()
        turn.cancel_scope.cancel()
    assert bench.interrupts == 1
    assert [(end.exit_code, end.status) for end in bench.of(ExecCommandEnd)] == [(-1, "failed")]
    assert not (bench.cwd / "made").exists()


async def test_a_login_shell_may_be_forbidden(still: Bench) -> None:
    still.turn(allow_login_shell=False)
    text = "login shell is disabled by config; omit `login` or set it to false."
    assert await still.call(SHELL, {"command": "true", "login": True}) == ToolOutput(text, success=False)
    assert still.events == []


async def test_arguments_that_do_not_fit(still: Bench) -> None:
    output = await still.call(SHELL, {"command": ["ls"]})
    assert output == ToolOutput("failed to parse function arguments: expected a string, got list", success=False)


def test_hidden_one_is_not_told_and_runs_alone() -> None:
    hidden = ShellCommand(offered=False)
    assert hidden.spec() is None
    assert (hidden.parallel, SHELL.parallel) == (False, True)
