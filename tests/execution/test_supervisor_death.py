"""The death of the host or of its supervisor, by any means: nothing survives, and everybody is told."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from pathlib import Path

import pytest
import trio

from engine.errors import ProcessError
from engine.execution import _link, process
from engine.execution import supervisor as supervisor_module
from engine.execution.process import ExitStatus
from engine.execution.supervisor import Supervisor, open_supervisor

from .processes import (
    FAMILY,
    FAMILY_SIZE,
    environment,
    is_alive,
    output_of,
    read_all,
    read_pids,
    start_family,
    wait_ended,
)


async def test_a_killed_supervisor_is_an_error_for_what_runs_and_is_replaced() -> None:
    async with open_supervisor() as supervisor:
        family, pids = await start_family(supervisor)
        quick = await supervisor.spawn(["sleep", "1000"], cwd="/", env=environment())
        pid = supervisor.statistics().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(10):
            with pytest.raises(ProcessError, match="killed by signal 9"):
                await family.wait()
            with pytest.raises(ProcessError, match="killed by signal 9"):
                await quick.wait()
            assert await family.kill_tree()
        await wait_ended([*pids, quick.pid])
        await family.aclose()
        await quick.aclose()
        assert await output_of(supervisor, "echo", "again") == "again\n"
        assert supervisor.statistics().starts == 2


async def test_signals_that_end_programs_do_not_end_the_supervisor() -> None:
    async with open_supervisor() as supervisor:
        await output_of(supervisor, "true")
        pid = supervisor.statistics().pid
        assert pid is not None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
            os.kill(pid, number)
        assert await output_of(supervisor, "echo", "hi") == "hi\n"
        assert supervisor.statistics().pid == pid


async def test_a_supervisor_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_supervisor() as supervisor:
        family, pids = await start_family(supervisor)
        pid = supervisor.statistics().pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with trio.fail_after(10):
            with monkeypatch.context() as patched:
                patched.setattr(supervisor_module, "SPAWN_GRACE_S", 0.2)  # a healthy one may need more under load
                with pytest.raises(ProcessError, match="did not start true within"):
                    await supervisor.spawn(["true"], cwd="/", env=environment())
            with pytest.raises(ProcessError):
                await family.wait()
            await family.aclose()
        await wait_ended([pid, *pids])
        assert await output_of(supervisor, "echo", "again") == "again\n"


async def test_closing_is_bounded_when_the_supervisor_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "CLOSE_GRACE_S", 0.2)
    monkeypatch.setattr(process, "KILL_GRACE_S", 0.2)
    with trio.fail_after(10):
        async with open_supervisor() as supervisor:
            family, pids = await start_family(supervisor)
            pid = supervisor.statistics().pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            assert not await family.kill_tree()
            family.close_streams()
    await wait_ended([pid, *pids])


async def test_an_error_inside_the_supervisor_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nonsense(*_: object) -> bytes:
        return b"not a request"

    async with open_supervisor() as supervisor:
        running = await supervisor.spawn(["sleep", "1000"], cwd="/", env=environment())
        with monkeypatch.context() as patched:
            patched.setattr("engine.execution._request.Request.encode", nonsense)
            with pytest.raises(ProcessError, match="ValueError"):
                await supervisor.spawn(["true"], cwd="/", env=environment())
        await wait_ended([running.pid])
        await running.aclose()
        assert await output_of(supervisor, "echo", "again") == "again\n"


@pytest.mark.parametrize("pipes", range(5))
async def test_a_lack_of_file_descriptors_is_an_error(monkeypatch: pytest.MonkeyPatch, pipes: int) -> None:
    async with open_supervisor() as supervisor:
        make_pipe = os.pipe
        left = pipes

        def pipe() -> tuple[int, int]:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return make_pipe()

        async def attempt() -> None:
            async with await supervisor.spawn(["true"], cwd="/", env=environment(), stdin="pipe") as running:
                assert await running.wait() == ExitStatus(code=0)

        with monkeypatch.context() as patched:
            patched.setattr(os, "pipe", pipe)
            if pipes < 4:  # one for the supervisor's errors and three for the command
                with pytest.raises(ProcessError, match="Too many open files"):
                    await attempt()
            else:
                await attempt()
        await attempt()


async def test_an_interpreter_that_is_none_is_an_error() -> None:
    async with open_supervisor(python="/no/such/python") as supervisor:
        with pytest.raises(ProcessError, match="/no/such/python"):
            await supervisor.spawn(["true"], cwd="/", env=environment())
    async with open_supervisor(python="/bin/false") as supervisor:
        with pytest.raises(ProcessError, match=r"exited with code 1|is gone"):
            await supervisor.spawn(["true"], cwd="/", env=environment())


@pytest.mark.parametrize(
    ("executable", "frozen", "usable"),
    [
        ("/usr/bin/python3", False, True),
        ("/usr/bin/python3.13t", False, True),
        ("/Library/Python.app/Contents/MacOS/Python", False, True),
        ("/opt/app/python3", True, False),
        ("/opt/app/editor", False, False),
        ("/opt/app/pythonista-host.bin", False, False),
        ("", False, False),
    ],
)
def test_which_hosts_have_an_interpreter(
    monkeypatch: pytest.MonkeyPatch, executable: str, frozen: bool, usable: bool
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    assert _link.interpreter() == (executable if usable else None)


HOST = f"""
import os, signal, sys, trio
from engine.execution import _link
from engine.execution.supervisor import open_supervisor

async def main():
    async with open_supervisor() as opened:
        command = await opened.spawn(["sh", "-c", {FAMILY!r}], cwd="/", env=dict(os.environ))
        if "fork" in sys.argv and (child := os.fork()) == 0:
            os.execlp("sleep", "sleep", "1000") if "exec" in sys.argv else signal.pause()
        text = b""
        while text.count(b"\\n") < {FAMILY_SIZE}:
            text += await command.stdout.receive_some()
        print(text.decode().replace("\\n", " "), opened.statistics().pid or "", flush=True)
        if "fork" in sys.argv:
            print(child, flush=True)
        if "interrupt" in sys.argv:
            os.kill(os.getpid(), signal.SIGINT)
        if "wait" in sys.argv:
            print(await command.kill_tree(), await command.wait(), flush=True)
            return
        await trio.sleep_forever()

if "thread" in sys.argv:
    _link.interpreter = lambda: None
if "ignore" in sys.argv:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
trio.run(main)
"""


async def start_host(supervisor: Supervisor, *arguments: str) -> process.Process:
    return await supervisor.spawn([sys.executable, "-c", HOST, *arguments], cwd=os.getcwd(), env=environment())


async def test_everything_dies_with_a_host_that_is_killed() -> None:
    async with open_supervisor() as supervisor:
        async with await start_host(supervisor) as host:
            pids = await read_pids(host.stdout, 1)
            assert len(pids) == FAMILY_SIZE + 1
            assert all(map(is_alive, pids))
            os.kill(host.pid, signal.SIGKILL)
            await wait_ended(pids)
            assert await host.wait() == ExitStatus(signal=9)


async def test_a_fork_of_the_host_does_not_keep_its_commands_alive() -> None:
    async with open_supervisor() as supervisor:
        async with await start_host(supervisor, "fork") as host:
            *pids, fork = await read_pids(host.stdout, 2)
            os.kill(host.pid, signal.SIGKILL)
            await wait_ended(pids)
            assert is_alive(fork)


@pytest.mark.parametrize(
    ("kind", "seen"), [("process", ExitStatus(signal=9)), ("thread", ExitStatus(code=None, signal=None))]
)
async def test_a_host_that_ignores_sigchld(kind: str, seen: ExitStatus) -> None:
    async with open_supervisor() as supervisor:
        async with await start_host(supervisor, kind, "ignore", "wait") as host:
            assert host.stderr is not None
            output = await read_all(host.stdout)
            assert output.splitlines()[1].decode() == f"True {seen}"
            assert await read_all(host.stderr) == b""
            assert await host.wait() == ExitStatus(code=0)
            assert host.tree_is_gone
    assert ExitStatus().returncode == -1


@pytest.mark.parametrize("kind", ["process", "thread"])
async def test_ctrl_c_in_the_host_leaves_nothing(kind: str) -> None:
    async with open_supervisor() as supervisor:
        async with await start_host(supervisor, kind, "interrupt") as host:
            assert host.stderr is not None
            pids = await read_pids(host.stdout, 1)
            errors = (await read_all(host.stderr)).decode().splitlines()
            assert errors[-1] == "KeyboardInterrupt"
            assert await host.wait() == ExitStatus(signal=2)
            assert host.tree_is_gone
            assert not any(map(is_alive, pids))


async def test_an_engine_inside_a_command_dies_with_it() -> None:
    async with open_supervisor() as supervisor:
        async with await start_host(supervisor) as host:
            pids = await read_pids(host.stdout, 1)
            assert await host.kill_tree()
            assert not any(map(is_alive, pids))


async def test_process_groups_have_to_do_without_proc_and_subreaper(tmp_path: Path) -> None:
    """The path of macOS, run here by a supervisor that takes itself to be there."""
    pretend = (
        "import sys; sys.platform = 'darwin'; sys.argv = sys.argv[3:]; "
        "exec(compile(open(sys.argv[0]).read(), sys.argv[0], 'exec'), "
        "{'__name__': '__main__', '__file__': sys.argv[0], '__package__': None})"
    )
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S -c "{pretend}" "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    script = "sleep 1000 & echo $!; (sleep 1000 & echo $!); echo $$; exec sleep 1000"  # no session of their own
    async with open_supervisor(python=str(wrapper)) as supervisor:
        assert await output_of(supervisor, "echo", "hi") == "hi\n"
        first = await supervisor.spawn(["sh", "-c", script], cwd="/", env=environment())
        first_pids = await read_pids(first.stdout, 3)
        assert await first.kill_tree()
        await wait_ended(first_pids)
        await first.aclose()
        third = await supervisor.spawn(["sh", "-c", script], cwd="/", env=environment())
        third_pids = await read_pids(third.stdout, 3)
        assert all(map(is_alive, third_pids))
        third.close_streams()
    await wait_ended(third_pids)
