"""`exec_command`: replies byte for byte, events, refusals, interrupts."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import trio

from engine.permissions.profiles import read_only
from engine.protocol.events import ExecApprovalRequest, ExecCommandBegin, ExecCommandEnd, ExecCommandOutputDelta
from engine.protocol.settings import TruncationPolicy
from engine.protocol.wire import JsonObject
from engine.tools.approvals import CommandApproval
from engine.tools.base import ToolOutput
from engine.tools.exec_command import ExecCommand
from engine.tools.patch_safety import READ_ONLY
from tests.execution.processes import is_alive

from .bench import NOW_MS, Bench

EXEC = ExecCommand()


def text_of(output: ToolOutput) -> str:
    assert isinstance(output.content, str)
    return output.content


def stable(output: ToolOutput) -> str:
    """The reply without what differs from run to run."""
    text = re.sub(r"\AChunk ID: [0-9a-f]{6}\n", "Chunk ID: abcdef\n", text_of(output))
    return re.sub(r"Wall time: \d+\.\d{4} seconds", "Wall time: 0.0000 seconds", text)


def session_of(output: ToolOutput) -> int:
    found = re.search(r"^Process running with session ID (\d+)$", text_of(output), re.MULTILINE)
    assert found, output
    return int(found[1])


async def test_reply_and_events_of_a_command_that_ends(bench: Bench) -> None:
    output = await bench.call(EXEC, {"cmd": "echo one; exit 3", "login": False})
    assert stable(output) == (
        "Chunk ID: abcdef\nWall time: 0.0000 seconds\nProcess exited with code 3\nOriginal token count: 1\n"
        "Output:\none\n"
    )
    argv = ("/bin/bash", "-c", "echo one; exit 3")
    parsed: tuple[JsonObject, ...] = ({"type": "unknown", "cmd": "echo one; exit 3"},)
    begin, delta, end = bench.events
    assert isinstance(begin, ExecCommandBegin)
    process_id = begin.process_id
    assert begin == ExecCommandBegin(
        "call",
        "turn-1",
        NOW_MS,
        command=argv,
        cwd=str(bench.cwd),
        parsed_cmd=parsed,
        source="unified_exec_startup",
        process_id=process_id,
    )
    assert process_id is not None
    assert 1000 <= int(process_id) < 100_000
    assert delta == ExecCommandOutputDelta("call", "stdout", base64.b64encode(b"one\n").decode())
    assert isinstance(end, ExecCommandEnd)
    assert end == ExecCommandEnd(
        "call",
        "turn-1",
        NOW_MS,
        command=argv,
        cwd=str(bench.cwd),
        exit_code=3,
        duration=end.duration,
        status="failed",
        parsed_cmd=parsed,
        source="unified_exec_startup",
        stdout="one\n",
        aggregated_output="one\n",
        formatted_output="one\n",
        process_id=process_id,
    )
    assert end.duration.keys() == {"secs", "nanos"}
    assert bench.later == []


async def test_reply_without_output_ends_behind_the_heading(bench: Bench) -> None:
    output = await bench.call(EXEC, {"cmd": "true", "login": False})
    assert stable(output).endswith("\nProcess exited with code 0\nOriginal token count: 0\nOutput:\n")
    assert output.success
    assert [end.status for end in bench.of(ExecCommandEnd)] == ["completed"]


async def test_reply_of_a_command_that_runs_on_and_its_events_afterwards(bench: Bench) -> None:
    (bench.cwd / "go").touch()
    script = "echo first; while [ -e go ]; do sleep 0.01; done; echo second"
    output = await bench.call(EXEC, {"cmd": script, "login": False, "yield_time_ms": 250})
    session = session_of(output)
    assert stable(output) == (
        "Chunk ID: abcdef\nWall time: 0.0000 seconds\n"
        f"Process running with session ID {session}\nOriginal token count: 2\nOutput:\nfirst\n"
    )
    assert [event.process_id for event in bench.of(ExecCommandBegin)] == [str(session)]
    # The turn is over; its background terminal is not, and says so under the call that started it.
    bench.open = False
    (bench.cwd / "go").unlink()
    (end,) = await bench.seen(ExecCommandEnd)
    assert (end.call_id, end.turn_id, end.exit_code) == ("call", "turn-1", 0)
    assert end.aggregated_output == "first\nsecond\n"
    assert end in bench.later
    second = bench.of(ExecCommandOutputDelta)[-1]
    assert (second.call_id, base64.b64decode(second.chunk)) == ("call", b"second\n")
    assert second in bench.later


async def test_output_is_cut_to_what_was_asked_for_within_the_turns_budget(bench: Bench) -> None:
    many = "head -c 1000 /dev/zero | tr '\\0' x"
    output = await bench.call(EXEC, {"cmd": many, "login": False, "max_output_tokens": 50})
    body = text_of(output).partition("Output:\n")[2]
    assert body == f"Total output lines: 1\n\n{'x' * 100}…200 tokens truncated…{'x' * 100}"
    assert "Original token count: 250\n" in text_of(output)
    bench.turn(truncation=TruncationPolicy("bytes", 40))
    output = await bench.call(EXEC, {"cmd": many, "login": False, "max_output_tokens": 50})
    assert text_of(output).endswith(f"\n\n{'x' * 20}…240 tokens truncated…{'x' * 20}")
    assert [len(end.aggregated_output) for end in bench.of(ExecCommandEnd)] == [1000, 1000]
    assert bench.of(ExecCommandEnd)[1].formatted_output.startswith("Total output lines: 1\n\nxxx")


async def test_environment_is_that_of_unified_exec(bench: Bench) -> None:
    script = 'echo "$TERM-$LANG-$PAGER-$CODEX_CI-$NO_COLOR"'
    output = await bench.call(EXEC, {"cmd": script, "login": False})
    assert text_of(output).endswith("Output:\ndumb-C.UTF-8-cat-1-1\n")


@pytest.mark.parametrize(
    ("workdir", "expected"), [("", ""), (None, ""), ("sub", "/sub"), ("sub/../sub/.", "/sub"), ("./", "")]
)
async def test_workdir_is_resolved_on_the_turns_folder(bench: Bench, workdir: str | None, expected: str) -> None:
    (bench.cwd / "sub").mkdir()
    output = await bench.call(EXEC, {"cmd": "pwd", "login": False, "workdir": workdir})
    assert text_of(output).endswith(f"Output:\n{bench.cwd}{expected}\n")
    assert bench.of(ExecCommandBegin)[0].cwd == f"{bench.cwd}{expected}"


async def test_absolute_workdir_replaces_the_turns_folder(bench: Bench) -> None:
    assert text_of(await bench.call(EXEC, {"cmd": "pwd", "login": False, "workdir": "/"})).endswith("Output:\n/\n")


async def test_shell_is_the_one_asked_for_or_sh(bench: Bench) -> None:
    await bench.call(EXEC, {"cmd": "true", "login": False, "shell": "/bin/sh"})
    await bench.call(EXEC, {"cmd": "true", "login": False, "shell": "/no/fish"})
    await bench.call(EXEC, {"cmd": "true", "shell": "bash"})
    found = shutil.which("bash")
    commands = [begin.command for begin in bench.of(ExecCommandBegin)]
    assert commands[:2] == [("/bin/sh", "-c", "true")] * 2
    assert commands[2][1:] == ("-lc", "true")
    assert commands[2][0] in (found, "/bin/bash", "/usr/bin/bash")


async def test_login_shell_is_the_default_where_it_is_allowed(bench: Bench) -> None:
    await bench.call(EXEC, {"cmd": "true"})
    bench.turn(allow_login_shell=False)
    await bench.call(EXEC, {"cmd": "true"})
    output = await bench.call(EXEC, {"cmd": "true", "login": True})
    assert output == ToolOutput("login shell is disabled by config; omit `login` or set it to false.", success=False)
    assert [begin.command[1] for begin in bench.of(ExecCommandBegin)] == ["-lc", "-c"]


async def test_terminal_gives_the_command_a_tty(bench: Bench) -> None:
    output = await bench.call(EXEC, {"cmd": "tty >/dev/null && echo yes", "login": False, "tty": True})
    assert text_of(output).endswith("Output:\nyes\r\n")


async def test_folder_that_is_not_there_is_a_wrapped_error_without_events(bench: Bench) -> None:
    output = await bench.call(EXEC, {"cmd": "echo 'a b'", "login": False, "workdir": "missing"})
    message = f"Failed to create unified exec process: {bench.cwd}/missing: No such file or directory (os error 2)"
    assert output == ToolOutput(
        "exec_command failed for `/bin/bash -c 'echo '\"'\"'a b'\"'\"''`: "
        f'CreateProcess {{ message: "Rejected(\\"{message}\\")" }}',
        success=False,
    )
    assert bench.events == []


async def test_supervisor_that_dies_is_a_failed_process(bench: Bench) -> None:
    async def kill_the_supervisor() -> None:
        await bench.seen(ExecCommandBegin)
        pid = bench.supervisor.statistics().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    outputs: list[ToolOutput] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill_the_supervisor)
        outputs.append(await bench.call(EXEC, {"cmd": "sleep 1000", "login": False}))
    assert not outputs[0].success
    assert text_of(outputs[0]).startswith(
        "exec_command failed for `/bin/bash -c 'sleep 1000'`: ProcessFailed { message: "
    )
    assert [end.status for end in bench.of(ExecCommandEnd)] == ["failed"]


async def test_untrusted_policy_asks_and_a_refusal_is_wrapped(bench: Bench) -> None:
    bench.turn(approval_policy="untrusted")
    output = await bench.call(EXEC, {"cmd": "touch made", "login": False, "justification": "to see"})
    assert output == ToolOutput(
        "exec_command failed for `/bin/bash -c 'touch made'`: "
        'CreateProcess { message: "Rejected(\\"exec command rejected by user\\")" }',
        success=False,
    )
    argv = ("/bin/bash", "-c", "touch made")
    assert bench.approvals.asked == [
        CommandApproval(
            call_id="call",
            turn_id="turn-1",
            command=argv,
            cwd=str(bench.cwd),
            reason="to see",
            sandboxed=False,
            proposed_amendment=("touch", "made"),
        )
    ]
    assert [type(event) for event in bench.events] == [ExecApprovalRequest]
    assert not (bench.cwd / "made").exists()
    bench.approvals.decision = "approved"
    assert (await bench.call(EXEC, {"cmd": "touch made", "login": False})).success
    assert (bench.cwd / "made").exists()


@pytest.mark.parametrize("policy", ["never", "on-request", "on-failure"])
async def test_other_policies_run_without_asking(bench: Bench, policy: str) -> None:
    bench.turn(approval_policy=policy)
    arguments: dict[str, object] = {"cmd": "true", "login": False, "prefix_rule": ["true"]}
    if policy == "on-request":
        arguments["sandbox_permissions"] = "require_escalated"  # of no sandbox
    assert "Process exited with code 0" in text_of(await bench.call(EXEC, arguments))
    assert bench.approvals.asked == []


async def test_a_read_only_turn_writes_nothing_by_patches_in_scripts_neither(bench: Bench) -> None:
    bench.turn(profile=read_only())
    patch = "apply_patch <<'EOF'\n*** Begin Patch\n*** Add File: a\n+a\n*** End Patch\nEOF\n"
    refused = await bench.call(EXEC, {"cmd": patch})
    assert refused == ToolOutput(READ_ONLY, success=False)
    assert bench.events == []
    denied = text_of(await bench.call(EXEC, {"cmd": "touch made", "login": False}))
    assert "Read-only file system" in denied
    assert "Wall time: 0.0000 seconds\nProcess exited with code 1\n" in denied
    assert [end.status for end in bench.of(ExecCommandEnd)] == ["failed"]
    assert list(bench.cwd.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ("", "the field `cmd` is missing"),
        ('{"cmd": 3}', "expected a string"),
        ('{"cmd": "a", "yield_time_ms": "10"}', "expected a number"),
        ('{"cmd": "a", "yield_time_ms": -1}', "`yield_time_ms` must be a number from 0 to 2^53, got -1"),
        ('{"cmd": "a", "yield_time_ms": 1e300}', "`yield_time_ms` must be a number from 0 to 2^53, got 1e+300"),
        ('{"cmd": "a", "max_output_tokens": true}', "expected a number"),
        ('{"cmd": "a", "tty": "yes"}', "expected a boolean"),
        ('{"cmd": "a", "prefix_rule": "git"}', "expected an array"),
        ('{"cmd": "a", "sandbox_permissions": "root"}', "unknown variant `root` for `sandbox_permissions`"),
    ],
)
async def test_arguments_that_do_not_fit(still: Bench, arguments: str, problem: str) -> None:
    output = await still.call(EXEC, arguments)
    assert not output.success
    assert text_of(output).startswith("failed to parse function arguments: ")
    assert problem in text_of(output)


async def test_other_environment_is_unknown(still: Bench) -> None:
    output = await still.call(EXEC, {"cmd": "true", "environment_id": "moon"})
    assert output == ToolOutput("unknown turn environment id `moon`", success=False)


async def interrupted(bench: Bench, script: str, pid_file: Path) -> None:
    """Runs a script that writes its pid, and cancels the call once it has."""
    async with trio.open_nursery() as turn:
        turn.start_soon(bench.call, EXEC, {"cmd": script, "login": False, "yield_time_ms": 30_000})
        await bench.seen(ExecCommandOutputDelta)
        assert is_alive(int(pid_file.read_text()))
        turn.cancel_scope.cancel()


async def test_interrupt_kills_the_command_and_its_end_is_told(bench: Bench) -> None:
    pid_file = bench.cwd / "pid"
    await interrupted(bench, "echo $$ > pid; echo begin; exec sleep 1000", pid_file)
    assert not is_alive(int(pid_file.read_text()))
    (end,) = bench.of(ExecCommandEnd)
    assert (end.exit_code, end.status, end.aggregated_output) == (137, "failed", "begin\n")
    assert bench.terminals.terminals() == ()
    assert bench.later == []


async def test_after_the_fence_nothing_is_told(bench: Bench) -> None:
    pid_file = bench.cwd / "pid"
    async with trio.open_nursery() as turn:
        turn.start_soon(bench.call, EXEC, {"cmd": "echo $$ > pid; echo begin; exec sleep 1000", "login": False})
        await bench.seen(ExecCommandOutputDelta)
        bench.open = False
        turn.cancel_scope.cancel()
    assert not is_alive(int(pid_file.read_text()))
    assert bench.of(ExecCommandEnd) == []
