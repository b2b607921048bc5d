"""Commands that run to their end: limits of time and output, and that nothing is left of them."""

from __future__ import annotations

import os
import signal
import time

import pytest
import trio

from engine.errors import ProcessError
from engine.execution import oneshot, output
from engine.execution.oneshot import CommandResult, run_command
from engine.execution.process import SpawnError
from engine.execution.supervisor import Supervisor, open_supervisor

from .processes import FAMILY, environment, is_alive, marked_processes

MIB = 1024 * 1024


async def run(
    supervisor: Supervisor, script: str, *, timeout_ms: int | None = 10_000, on_output: oneshot.OnOutput | None = None
) -> CommandResult:
    return await run_command(
        supervisor, ["sh", "-c", script], cwd="/", env=environment(), timeout_ms=timeout_ms, on_output=on_output
    )


@pytest.mark.parametrize(
    ("script", "exit_code", "number"), [("exit 0", 0, None), ("exit 3", 3, None), ("kill -TERM $$", 143, 15)]
)
async def test_exit_codes(supervisor: Supervisor, script: str, exit_code: int, number: int | None) -> None:
    result = await run(supervisor, script)
    assert (result.exit_code, result.signal, result.timed_out) == (exit_code, number, False)


async def test_output_of_both_streams(supervisor: Supervisor) -> None:
    seen = {"stdout": b"", "stderr": b""}

    def note(name: str, data: bytes) -> None:
        seen[name] += data

    result = await run(supervisor, "cat; echo out; echo err >&2; printf '\\377'", on_output=note)
    assert (result.stdout, result.stderr) == (b"out\n\xff", b"err\n")
    assert (result.stdout_text, result.stderr_text) == ("out\n\ufffd", "err\n")
    assert result.aggregated_text == "out\n\ufffderr\n"
    assert seen == {"stdout": result.stdout, "stderr": result.stderr}
    assert "stdout" not in repr(result)


async def test_only_the_first_mebibyte_is_kept() -> None:
    sizes: list[int] = []
    async with open_supervisor() as supervisor:
        script = "head -c 3145728 /dev/zero; head -c 2097152 /dev/zero >&2"
        result = await run(supervisor, script, on_output=lambda _, data: sizes.append(len(data)))
    assert (len(result.stdout), len(result.stderr), len(result.aggregated_text)) == (MIB, MIB, MIB)
    assert sum(sizes) == 5 * MIB
    assert max(sizes) <= 8192


async def test_no_more_than_ten_thousand_deltas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert output.MAX_DELTAS == 10_000
    monkeypatch.setattr(oneshot, "MAX_DELTAS", 3)
    sizes: list[int] = []
    async with open_supervisor() as supervisor:
        result = await run(supervisor, "head -c 100000 /dev/zero", on_output=lambda _, data: sizes.append(len(data)))
    assert len(sizes) == 3
    assert len(result.stdout) == 100_000


async def test_a_timeout_kills_the_whole_tree(supervisor: Supervisor) -> None:
    started = time.monotonic()
    result = await run(supervisor, FAMILY, timeout_ms=200)
    assert (result.exit_code, result.signal, result.timed_out) == (124, None, True)
    assert result.stdout.count(b"\n") == 4
    assert result.duration_s >= 0.2
    assert time.monotonic() - started < 1.9  # the readers' grace is not waited for
    assert marked_processes() == []


async def test_output_that_comes_after_the_exit_is_waited_for(supervisor: Supervisor) -> None:
    result = await run(supervisor, "(sleep 0.2; echo late) & echo early")
    assert result.stdout == b"early\nlate\n"
    assert result.duration_s < 1.9


async def test_background_processes_are_waited_for_then_killed(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert oneshot.READER_GRACE_S == 2.0
    monkeypatch.setattr(oneshot, "READER_GRACE_S", 0.2)
    result = await run(supervisor, "sleep 1000 & setsid sleep 1000 & echo hi")
    assert (result.exit_code, result.stdout) == (0, b"hi\n")
    assert 0.2 <= result.duration_s < 1.9
    assert marked_processes() == []


async def test_daemons_with_closed_output_die_with_the_call(supervisor: Supervisor) -> None:
    result = await run(supervisor, "setsid sh -c 'setsid sleep 1000 & echo $!' 2>/dev/null | head -n 1; exit 5")
    result = await run(supervisor, "(setsid sleep 1000 >/dev/null 2>&1 & echo $!); exit 5")
    assert result.exit_code == 5
    assert result.duration_s < 1.9
    assert not is_alive(int(result.stdout))


async def test_end_of_output_is_not_the_end(supervisor: Supervisor) -> None:
    result = await run(supervisor, "exec >&- 2>&-; sleep 0.2; exit 4")
    assert result.exit_code == 4


async def test_cancellation_leaves_nothing(supervisor: Supervisor) -> None:
    lines = 0

    def count(_: str, data: bytes) -> None:
        nonlocal lines
        lines += data.count(b"\n")
        if lines == 4:
            scope.cancel()

    with trio.CancelScope() as scope:
        await run(supervisor, FAMILY, on_output=count)
    assert scope.cancelled_caught
    assert marked_processes() == []


async def test_an_error_of_the_callback_ends_the_command(supervisor: Supervisor) -> None:
    def fail(*_: object) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await run(supervisor, "echo x; sleep 1000", on_output=fail)
    assert marked_processes() == []


async def test_a_start_that_fails(supervisor: Supervisor) -> None:
    with pytest.raises(SpawnError, match="No such file or directory"):
        await run_command(supervisor, ["no-such-program"], cwd="/", env=environment())


async def test_the_death_of_the_supervisor_is_an_error() -> None:
    async with open_supervisor() as supervisor:

        def kill_it(*_: object) -> None:
            pid = supervisor.statistics().pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

        with trio.fail_after(10), pytest.raises(ProcessError, match="signal 9"):
            await run(supervisor, "echo x; sleep 1000", on_output=kill_it)
        assert (await run(supervisor, "echo again")).stdout == b"again\n"


async def test_without_a_timeout(supervisor: Supervisor) -> None:
    assert (await run(supervisor, "sleep 0.05", timeout_ms=None)).exit_code == 0
