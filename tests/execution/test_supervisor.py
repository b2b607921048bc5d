"""Commands under a supervisor: start, streams, exit, and the end of their trees."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import statistics
import time
from pathlib import Path

import pytest
import trio

from engine.errors import EngineClosed, ProcessError
from engine.execution import process
from engine.execution.process import ExitStatus, SpawnError, TerminalSize
from engine.execution.supervisor import Supervisor, SupervisorStatistics, open_supervisor

from .processes import (
    environment,
    is_alive,
    marked_processes,
    output_of,
    read_all,
    read_pids,
    start_family,
)

# --- start and exit ----------------------------------------------------------------------------


async def test_no_process_before_the_first_spawn_and_none_after_the_block() -> None:
    async with open_supervisor() as supervisor:
        assert supervisor.statistics() == SupervisorStatistics("none", None, starts=0, spawned=0, live=0)
        assert await output_of(supervisor, "echo", "hi") == "hi\n"
        before = supervisor.statistics()
        assert (before.kind, before.starts, before.spawned, before.live) == ("process", 1, 1, 0)
        await output_of(supervisor, "true")
        assert supervisor.statistics().pid == before.pid
    assert before.pid is not None
    assert not is_alive(before.pid)
    with pytest.raises(EngineClosed):
        await supervisor.spawn(["true"], cwd="/", env={})


@pytest.mark.parametrize(
    ("script", "status", "returncode"),
    [
        ("exit 0", ExitStatus(code=0), 0),
        ("exit 3", ExitStatus(code=3), 3),
        ("exit 255", ExitStatus(code=255), 255),
        ("kill -9 $$", ExitStatus(signal=9), 137),
        ("kill -TERM $$", ExitStatus(signal=15), 143),
        ("kill -PIPE $$", ExitStatus(signal=13), 141),
        ("kill -INT $$", ExitStatus(signal=2), 130),
    ],
)
async def test_exit_status(supervisor: Supervisor, script: str, status: ExitStatus, returncode: int) -> None:
    async with await supervisor.spawn(["sh", "-c", script], cwd="/", env=environment()) as running:
        assert await running.wait() == status
        assert running.status == status
        assert status.returncode == returncode


async def test_a_command_sees_its_environment_and_cwd_and_nothing_else(tmp_path: Path) -> None:
    async with open_supervisor() as supervisor:
        async with await supervisor.spawn(
            ["/usr/bin/env"], cwd=str(tmp_path), env={"A": "1", "B": "x=y\nz", "C": ""}
        ) as running:
            assert await read_all(running.stdout) == b"A=1\nB=x=y\nz\nC=\n"
        async with await supervisor.spawn(["/bin/pwd"], cwd=str(tmp_path), env={}) as running:
            assert (await read_all(running.stdout)).decode() == f"{tmp_path.resolve()}\n"


async def test_programs_are_looked_up_in_the_commands_own_path_and_cwd(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("tool", "bin/tool"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name}\n")
        (tmp_path / name).chmod(0o755)
    found = []
    for program, path in [("tool", str(tmp_path / "bin")), ("./tool", "/bin"), ("tool", ":/bin")]:
        env = {"PATH": path}
        async with await supervisor.spawn([program], cwd=str(tmp_path), env=env) as running:
            found.append((await read_all(running.stdout)).decode())
    assert found[:2] == ["bin/tool\n", "tool\n"]


async def test_a_script_without_interpreter_line_runs_in_sh(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("echo from $0 $1\n")
    (tmp_path / "script").chmod(0o755)
    async with open_supervisor() as supervisor:
        assert await output_of(supervisor, str(tmp_path / "script"), "x") == f"from {tmp_path}/script x\n"


@pytest.mark.parametrize(
    ("argv", "cwd", "number", "subject"),
    [
        (["no-such-program"], "/", errno.ENOENT, "no-such-program"),
        (["/no/such/program"], "/", errno.ENOENT, "/no/such/program"),
        (["/etc/passwd"], "/", errno.EACCES, "/etc/passwd"),
        (["true"], "/no/such/folder", errno.ENOENT, "/no/such/folder"),
        (["true"], "/etc/passwd", errno.ENOTDIR, "/etc/passwd"),
        (["true", "x" * 200_000], "/", errno.E2BIG, "true"),
        (["true", "a\0b"], "/", errno.EINVAL, "true"),
        (["true", "\ud800"], "/", errno.EILSEQ, "true"),
        ([], "/", errno.EINVAL, "(empty command)"),
    ],
)
async def test_a_start_that_fails_says_why(
    supervisor: Supervisor, argv: list[str], cwd: str, number: int, subject: str
) -> None:
    with pytest.raises(SpawnError) as caught:
        await supervisor.spawn(argv, cwd=cwd, env=environment())
    assert (caught.value.errno, caught.value.subject) == (number, subject)
    assert str(caught.value) == f"{subject}: {caught.value.strerror} (os error {number})"
    assert supervisor.statistics().live == 0
    assert await output_of(supervisor, "echo", "still there") == "still there\n"


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
async def test_bad_variable_names_are_refused(supervisor: Supervisor, name: str) -> None:
    with pytest.raises(SpawnError):
        await supervisor.spawn(["true"], cwd="/", env={name: "x"})


async def test_an_environment_larger_than_the_socket_buffer(supervisor: Supervisor) -> None:
    env = {f"V{number}": "x" * 100_000 for number in range(12)}
    async with await supervisor.spawn(["/usr/bin/env"], cwd="/", env=env) as running:
        output = await read_all(running.stdout)
    assert output.count(b"x") == 1_200_000


async def test_many_commands_at_once(supervisor: Supervisor) -> None:
    outputs: dict[int, str] = {}

    async def one(number: int) -> None:
        outputs[number] = await output_of(supervisor, "sh", "-c", f"sleep 0.1; echo {number}")

    started = time.monotonic()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(one, number)
    assert outputs == {number: f"{number}\n" for number in range(20)}
    assert time.monotonic() - started < 1.9  # one after the other would be longer
    assert supervisor.statistics().starts == 1


# --- streams -----------------------------------------------------------------------------------


async def test_standard_input_is_empty_or_a_pipe(supervisor: Supervisor) -> None:
    assert await output_of(supervisor, "cat") == ""
    async with await supervisor.spawn(["cat"], cwd="/", env=environment(), stdin="pipe") as running:
        assert running.stdin is not None
        await running.stdin.send_all(b"one\n")
        assert await running.stdout.receive_some() == b"one\n"
        await running.stdin.aclose()
        assert await read_all(running.stdout) == b""
        assert await running.wait() == ExitStatus(code=0)


async def test_standard_error_is_apart_or_merged_in_order(supervisor: Supervisor) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done"
    async with await supervisor.spawn(["sh", "-c", script], cwd="/", env=environment()) as running:
        assert running.stderr is not None
        assert await read_all(running.stdout) == b"out 1\nout 2\nout 3\n"
        assert await read_all(running.stderr) == b"err 1\nerr 2\nerr 3\n"
    async with await supervisor.spawn(["sh", "-c", script], cwd="/", env=environment(), stderr="stdout") as running:
        assert running.stderr is None
        assert await read_all(running.stdout) == b"out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"


async def test_a_terminal_is_the_controlling_one_and_has_a_size(supervisor: Supervisor) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && stty size </dev/tty"
    async with await supervisor.spawn(
        ["sh", "-c", script], cwd="/", env=environment(), tty=TerminalSize(rows=33, columns=101)
    ) as running:
        assert running.stderr is None
        assert await read_all(running.stdout) == b"33 101\r\n"
        assert await running.wait() == ExitStatus(code=0)


@pytest.mark.parametrize(("key", "status"), [(b"\x04", ExitStatus(code=0)), (b"\x03", ExitStatus(signal=2))])
async def test_control_keys_of_a_terminal(supervisor: Supervisor, key: bytes, status: ExitStatus) -> None:
    async with await supervisor.spawn(["cat"], cwd="/", env=environment(), tty=TerminalSize()) as running:
        assert running.stdin is not None
        await running.stdin.send_all(b"hi\n")
        seen = b""
        while seen.count(b"hi\r\n") < 2:
            seen += await running.stdout.receive_some()
        await running.stdin.aclose()  # leaves the terminal open
        await running.stdin.send_all(key)
        rest = await read_all(running.stdout)
        assert rest in (b"", b"^C")
        assert await running.wait() == status


async def test_commands_get_no_file_descriptor_but_their_own(supervisor: Supervisor) -> None:
    inheritable = os.dup(2)
    os.set_inheritable(inheritable, True)
    try:
        listing = await output_of(supervisor, "sh", "-c", "ls /proc/$$/fd")
    finally:
        os.close(inheritable)
    assert set(listing.split()) <= {"0", "1", "2", "10", "255"}  # the shell's own copies are above


async def test_commands_start_with_default_signals() -> None:
    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        async with open_supervisor() as supervisor:
            status = await output_of(supervisor, "cat", "/proc/self/status")
    finally:
        signal.signal(signal.SIGUSR1, previous)
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig") and "/" not in line)
    internal = 0b11 << 31  # 32 and 33: glibc's own, which its posix_spawn leaves ignored
    assert (int(masks["SigBlk"], 16), int(masks["SigIgn"], 16) & ~internal) == (0, 0)


# --- the end of trees --------------------------------------------------------------------------


async def test_killing_a_tree_reaches_every_descendant(supervisor: Supervisor) -> None:
    family, pids = await start_family(supervisor)
    assert all(map(is_alive, pids))
    assert await family.kill_tree()
    assert not any(map(is_alive, pids))
    assert family.tree_is_gone
    assert await family.wait() == ExitStatus(signal=9)
    assert await family.kill_tree()
    await family.aclose()
    await family.aclose()


async def test_a_tree_that_is_killed_is_not_somebody_elses() -> None:
    async with open_supervisor() as supervisor:
        first, first_pids = await start_family(supervisor)
        second, second_pids = await start_family(supervisor)
        await first.aclose()
        assert not any(map(is_alive, first_pids))
        assert all(map(is_alive, second_pids))
        await second.aclose()
        assert not any(map(is_alive, second_pids))


async def test_what_a_finished_command_left_behind_dies_with_it(supervisor: Supervisor) -> None:
    script = "setsid sh -c 'setsid sleep 1000 >/dev/null 2>&1 & echo $!' &"
    async with await supervisor.spawn(["sh", "-c", script], cwd="/", env=environment()) as running:
        (pid,) = await read_pids(running.stdout, 1)
        assert await running.wait() == ExitStatus(code=0)
        assert is_alive(pid)
        gone_before = running.tree_is_gone
    assert (gone_before, running.tree_is_gone) == (False, True)
    assert not is_alive(pid)


async def test_a_finished_command_without_offspring_needs_no_killing() -> None:
    async with open_supervisor() as supervisor:
        async with await supervisor.spawn(["true"], cwd="/", env=environment()) as running:
            await running.wait()
            assert running.tree_is_gone


async def test_an_orphan_that_resets_its_limits_is_found_by_its_session() -> None:
    script = "ulimit -S -x unlimited; (sleep 1000 >/dev/null 2>&1 & echo $!)"
    async with open_supervisor() as supervisor:
        async with await supervisor.spawn(["bash", "-c", script], cwd="/", env=environment()) as running:
            (pid,) = await read_pids(running.stdout, 1)
            await running.wait()
        assert not is_alive(pid)


async def test_a_tree_that_forks_all_the_time_is_killed(supervisor: Supervisor) -> None:
    script = 'echo x; while :; do setsid sh -c "sleep 0.01; setsid sleep 1000 &" >/dev/null 2>&1 & sleep 0.003; done'
    async with await supervisor.spawn(["sh", "-c", script], cwd="/", env=environment()) as running:
        await running.stdout.receive_some()
        while len(marked_processes()) < 20:
            await trio.lowlevel.checkpoint()
    assert running.tree_is_gone
    assert marked_processes() == []


async def test_stopped_processes_are_killed_too(supervisor: Supervisor) -> None:
    async with await supervisor.spawn(["sh", "-c", "echo $$; kill -STOP $$"], cwd="/", env=environment()) as running:
        (pid,) = await read_pids(running.stdout, 1)
    assert not is_alive(pid)


async def test_leaving_the_block_kills_what_runs() -> None:
    async with open_supervisor() as supervisor:
        family, pids = await start_family(supervisor)
        family.close_streams()
    assert not any(map(is_alive, pids))
    with pytest.raises(ProcessError):
        await family.wait()
    assert family.tree_is_gone


async def test_cancelling_the_block_kills_what_runs(supervisor: Supervisor) -> None:
    with trio.CancelScope() as scope:
        family, pids = await start_family(supervisor)
        async with family:
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not any(map(is_alive, pids))


async def test_a_cancelled_spawn_returns_its_process_or_leaves_none(supervisor: Supervisor) -> None:
    await output_of(supervisor, "true")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def start() -> None:
                nursery.start_soon(cancel_soon)
                running = await supervisor.spawn(["sleep", "1000"], cwd="/", env=environment())
                async with running:
                    started.append(running)
                    await trio.lowlevel.checkpoint()

            async def cancel_soon() -> None:
                scope.cancel()

            started: list[process.Process] = []
            await start()
    assert len(started) == 1
    assert started[0].tree_is_gone
    with trio.CancelScope() as scope:
        scope.cancel()
        await supervisor.spawn(["sleep", "1000"], cwd="/", env=environment())
    assert scope.cancelled_caught
    assert supervisor.statistics().live == 0


# --- the block ---------------------------------------------------------------------------------


async def test_exceptions_of_the_block_pass_through_as_they_are() -> None:
    cause = KeyError("cause")
    with pytest.raises(LookupError) as caught:  # noqa: PT012
        async with open_supervisor() as supervisor:
            await output_of(supervisor, "true")
            raise LookupError("mine") from cause
    assert caught.value.__cause__ is cause
    assert caught.value.__context__ is None or caught.value.__context__ is cause
    group = ExceptionGroup("mine", [ValueError()])
    with pytest.raises(ExceptionGroup) as caught_group:
        async with open_supervisor():
            raise group
    assert caught_group.value is group


async def test_nothing_of_the_host_changes(tmp_path: Path) -> None:
    def state() -> object:
        subreaper = ctypes.c_int()
        ctypes.CDLL(None).prctl(37, ctypes.byref(subreaper), 0, 0, 0)  # PR_GET_CHILD_SUBREAPER
        return (
            os.getcwd(),
            subreaper.value,
            {number: signal.getsignal(number) for number in signal.valid_signals()},
            signal.pthread_sigmask(signal.SIG_BLOCK, []),
            Path("/proc/self/limits").read_text(),
        )

    before = state()
    async with open_supervisor() as supervisor:
        async with await supervisor.spawn(["sleep", "1000"], cwd=str(tmp_path), env=environment()):
            assert state() == before


async def test_latency() -> None:
    """Not a benchmark: only that nobody waits for a timer. Budgets are generous, the machine may be busy."""
    async with open_supervisor() as supervisor:
        times = []
        for _ in range(50):
            started = time.perf_counter()
            await output_of(supervisor, "true")
            times.append(time.perf_counter() - started)
    assert times[0] < 1
    assert statistics.median(times) < 0.02
