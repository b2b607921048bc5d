"""Getting at other processes, what the engine left open, and staying alive when the command is over."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import trio

from engine.execution.sandbox.launcher import Sandbox
from engine.execution.supervisor import open_supervisor
from engine.execution.terminals import TerminalCallbacks, TerminalManager
from tests.execution.processes import environment, is_alive, marked_processes
from tests.execution.sandbox.running import Runner, require_sandbox, workspace_write

from .conftest import Attacker

# Four processes, in sessions of their own and without parents, that ignore what they can.
STAYING = """
trap '' HUP INT TERM
setsid sleep 1000 &
(setsid setsid sleep 1000 &)
nohup sleep 1000 >/dev/null 2>&1 &
echo up
sleep 1000
"""
VICTIM = "1000.0625"  # seconds nobody else sleeps
SECRET = "the-secret-of-the-engine"


async def test_the_parent_and_its_neighbours_are_out_of_reach(attacker: Attacker) -> None:
    async with await attacker.supervisor.spawn(
        attacker.as_user(["sleep", VICTIM]), cwd="/", env={"PATH": os.environ["PATH"], "SECRET": SECRET}
    ) as victim:
        supervisor = attacker.supervisor.statistics().pid
        pids = [str(pid) for pid in (victim.pid, supervisor, os.getpid(), os.getppid())]
        await attacker.attack_in_python(
            """
import signal
ATTACH, SEIZE, TRACEME = 16, 0x4206, 0
me = os.getpid()
alive = set(map(int, filter(str.isdigit, os.listdir("/proc"))))
for pid in map(int, sys.argv[1:]):
    if pid not in alive:
        attempt("kill", os.kill, pid, signal.SIGCONT)
        attempt("signal 0", os.kill, pid, 0)
        attempt("pidfd", os.pidfd_open, pid)
        attempt("priority", os.setpriority, os.PRIO_PROCESS, pid, 10)
        attempt("affinity", os.sched_setaffinity, pid, {0})
    for request in (ATTACH, SEIZE):
        if libc.ptrace(request, pid, 0, 0) == 0:
            print("ESCAPED ptrace", pid)
for pid in (1, os.getppid()):
    for request in (ATTACH, SEIZE):
        if libc.ptrace(request, pid, 0, 0) == 0:
            print("ESCAPED ptrace", pid)
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 8)
    remote = (ctypes.c_uint64 * 2)(0x400000, 8)
    for name in ("process_vm_readv", "process_vm_writev"):
        if getattr(libc, name)(pid, vector, 1, remote, 1, 0) >= 0:
            print("ESCAPED", name)
if libc.ptrace(TRACEME, 0, 0, 0) == 0:
    print("ESCAPED traceme")
for pid in map(int, sys.argv[1:]):
    if pid not in alive:
        attempt("group", os.killpg, pid, signal.SIGCONT)
# Everybody who can be reached gets this, and must be one of ours. Nothing worse, in case the host can be.
os.kill(-1, signal.SIGCONT)
""",
            *pids,
        )
        assert victim.status is None
        assert all(is_alive(int(pid)) for pid in pids)
        await attacker.attack(
            f"""
            cat /proc/{victim.pid}/environ && echo ESCAPED
            ls /proc/{victim.pid}/root/ && echo ESCAPED
            cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -x {VICTIM.replace(".", "[.]")} && echo ESCAPED
            true
            """
        )
        assert victim.status is None


async def test_the_environment_of_the_engine_is_not_there(attacker: Attacker) -> None:
    os.environ["ENGINE_TEST_SECRET"] = SECRET
    try:
        result = await attacker.run(
            "/bin/sh",
            "-c",
            "env; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'; echo end",
            env={"PATH": os.environ["PATH"]},
        )
    finally:
        del os.environ["ENGINE_TEST_SECRET"]
    assert result.stdout_text.endswith("end\n")
    assert SECRET not in result.stdout_text


async def test_libraries_of_the_workspace_are_not_loaded_by_the_launcher(attacker: Attacker) -> None:
    """Variables of the loader come from the user's own environment, and may name folders that commands write."""
    library = attacker.cwd / "libevil.so"
    library.write_bytes(b"\x7fELF not really")
    for variable in ("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GCONV_PATH", "GLIBC_TUNABLES"):
        result = await attacker.run(
            "/bin/sh", "-c", "echo ran", env={"PATH": os.environ["PATH"], variable: str(library), "LD_DEBUG": "libs"}
        )
        assert "bwrap" not in result.stderr_text
        assert "libcap" not in result.stderr_text.split("/bin/sh")[0]


async def test_descriptors_of_the_engine_are_not_there(attacker: Attacker) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(SECRET.encode())
        file.flush()
        copies = [os.dup(file.fileno()) for _ in range(5)]
        for fd in copies:
            os.set_inheritable(fd, True)
        try:
            result = await attacker.attack_in_python(
                """
fds = sorted(map(int, os.listdir("/proc/self/fd")))[:-1]
print("FDS", fds)
for fd in range(3, 1024):
    try:
        os.fstat(fd)
        print("ESCAPED", fd, os.readlink(f"/proc/self/fd/{fd}"))
    except OSError:
        pass
for fd in (0, 1, 2):
    print(os.readlink(f"/proc/self/fd/{fd}"))
for name in os.listdir("/proc/1/fd") if os.access("/proc/1/fd", os.R_OK) else ():
    try:
        os.open(f"/proc/1/fd/{name}", os.O_RDWR)
    except OSError:
        continue
"""
            )
        finally:
            for fd in copies:
                os.close(fd)
    assert "FDS [0, 1, 2]" in result.stdout_text


async def test_forks_against_the_timeout(attacker: Attacker) -> None:
    """As many processes as it is given, each replaced as soon as it ends, none of which wants to stop."""
    script = (
        "import os, signal, time\n"
        "for s in (1, 2, 3, 15): signal.signal(s, signal.SIG_IGN)\n"
        "for _ in range(60):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        while True:\n"
        "            pid = os.fork()\n"
        "            if pid: os._exit(0)\n"
        "            time.sleep(0.001)\n"
        "print('bombing', flush=True)\n"
        "time.sleep(1000)\n"
    )
    started = trio.current_time()
    result = await attacker.run("python3", "-I", "-S", "-c", script, timeout_ms=1000)
    assert result.timed_out
    assert trio.current_time() - started < 15
    assert marked_processes() == []


async def test_a_flood_of_output(attacker: Attacker) -> None:
    started = trio.current_time()
    result = await attacker.run("/bin/sh", "-c", "yes flood & yes more >&2 & exec yes x", timeout_ms=700)
    assert result.timed_out
    assert (len(result.stdout), len(result.stderr)) == (1 << 20, 1 << 20), result.stderr[:200]
    assert trio.current_time() - started < 15


async def test_what_runs_on_ends_with_the_session(workspace: Path) -> None:
    async with open_supervisor() as supervisor:
        runner = Runner(supervisor, Sandbox(supervisor), workspace, workspace_write(workspace))
        await require_sandbox(runner.sandbox)
        async with trio.open_nursery() as nursery:
            manager = TerminalManager(supervisor, nursery)
            for tty in (True, False):
                up = trio.Event()

                def hear(data: bytes, up: trio.Event = up) -> None:
                    if b"up" in data:
                        up.set()

                with await runner.sandbox.prepare(
                    [
                        "/bin/sh",
                        "-c",
                        STAYING,
                    ],
                    file_system=runner.policy,
                    network="restricted",
                    policy_cwd=str(workspace),
                    cwd=str(workspace),
                    env=environment(),
                    tty=tty,
                ) as command:
                    reply = await manager.exec_command(
                        command.argv,
                        cwd=str(workspace),
                        env=command.env,
                        call_id="c",
                        tty=tty,
                        yield_time_ms=1,
                        files=command.files,
                        callbacks=TerminalCallbacks(on_output=hear),
                    )
                assert reply.session_id is not None
                with trio.fail_after(20):
                    await up.wait()
            assert (workspace / ".codex").is_dir()
            assert len(marked_processes()) >= 4
            await manager.close()
            assert marked_processes() == []
    assert sorted(os.listdir(workspace)) == [".git", "src"]


async def test_a_tree_that_leaves_its_parents_ends_with_the_command(attacker: Attacker) -> None:
    result = await attacker.attack(
        "for i in 1 2 3 4 5; do (setsid sh -c 'setsid sleep 1000 & sleep 1000' >/dev/null 2>&1 &); done; echo started"
    )
    assert result.stdout_text == "started\n"
    assert marked_processes() == []
