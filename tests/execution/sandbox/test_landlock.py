"""Landlock alone: which policies it can express, and that it holds commands to them."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
from pathlib import Path

import attrs
import pytest

from engine.execution.sandbox import assembly
from engine.execution.sandbox.errors import SandboxUnavailable
from engine.execution.sandbox.landlock import (
    READ,
    LandlockSupport,
    Rule,
    encode_stage,
    landlock_rules,
    landlock_support,
    stage_source,
)
from engine.execution.sandbox.launcher import Sandbox
from engine.execution.sandbox.layout import Layout, Mount
from engine.execution.sandbox.seccomp import MACHINES
from engine.execution.supervisor import Supervisor
from engine.permissions.legacy import UNRESTRICTED

from .running import NOBODY, READ_ALL, Runner, policy, workspace_write

SUPPORT = LandlockSupport(7)
PYTHONS = (sys.executable, "/usr/bin/python3")


# --- what can be expressed ---------------------------------------------------------------------


def accesses(layout: Layout, support: LandlockSupport = SUPPORT) -> dict[str, int]:
    return {rule.path: rule.access for rule in landlock_rules(layout, support) if not rule.path.startswith("/dev/")}


def test_whole_trees_can_be_given() -> None:
    layout = Layout(whole_disk=False, mounts=(Mount("/alias", "read", "/usr/bin"), Mount("/ws", "write", "/ws")))
    assert accesses(layout) == {"/proc": READ, "/usr/bin": READ, "/ws": (1 << 16) - 1}
    assert accesses(Layout(whole_disk=True, mounts=())) == {"/": READ}


def test_what_commands_can_replace_by_a_link_gets_no_rule() -> None:
    mounts = (Mount("/ws", "write", "/ws"), Mount("/ws/a/b", "write", "/ws/a/b", loose=True))
    assert accesses(Layout(whole_disk=True, mounts=mounts)) == {"/": READ, "/ws": (1 << 16) - 1}


@pytest.mark.parametrize(
    "mount",
    [
        Mount("/ws/.git", "read", "/ws/.git"),
        Mount("/ws/.codex", "placeholder_folder"),
        Mount("/ws/plan", "placeholder_file"),
        Mount("/ws/key", "hidden_file"),
        Mount("/secret", "hidden_folder"),
    ],
)
def test_nothing_can_be_taken_away_again(mount: Mount) -> None:
    layout = Layout(whole_disk=True, mounts=(Mount("/ws", "write", "/ws"), mount))
    with pytest.raises(SandboxUnavailable, match=f"can't keep {mount.path} (unreadable|read-only)"):
        landlock_rules(layout, SUPPORT)


def test_a_kernel_without_it() -> None:
    with pytest.raises(SandboxUnavailable, match="switched off"):
        landlock_rules(Layout(whole_disk=True, mounts=()), LandlockSupport(0, "it is switched off"))


def test_versions() -> None:
    assert [LandlockSupport(abi).all_access.bit_length() for abi in (3, 4, 5, 6, 7)] == [15, 15, 16, 16, 16]
    assert len(LandlockSupport(5).weaknesses()) == len(LandlockSupport(6).weaknesses()) + 1


@pytest.mark.parametrize(("abi", "size"), [(3, "8"), (4, "16"), (5, "16"), (6, "24"), (7, "24")])
def test_the_stage_gets_what_the_kernel_knows(abi: int, size: str) -> None:
    data = encode_stage(
        ["a", "b c"],
        {"X": "1"},
        rules=[Rule("/ws", READ)],
        network=False,
        support=LandlockSupport(abi),
        machine=MACHINES["x86_64"],
    )
    fields = data.decode().split("\0")
    assert fields[1] == ("0" if abi < 4 else "3")
    assert fields[2] == ("0" if abi < 6 else "3")
    assert fields[3:5] == [size, "2"]
    assert fields[7:] == ["1", str(READ), "/ws", "2", "a", "b c", "X=1"]


# --- and enforced ------------------------------------------------------------------------------


@pytest.fixture
async def landlocked(processes: Supervisor, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Commands where bubblewrap does not work."""
    sandbox = Sandbox(processes)
    capability = await sandbox.capability()
    if capability.landlock.abi == 0:
        pytest.skip(f"no Landlock: {capability.landlock.problem}")
    sandbox._capability = attrs.evolve(
        capability,
        launchers=tuple(attrs.evolve(launcher, problem="forbidden") for launcher in capability.launchers),
    )
    python = next(filter(_everybody_can_run, PYTHONS), sys.executable)
    monkeypatch.setattr(assembly, "interpreter", lambda: python)
    return Runner(processes, sandbox, workspace, policy(READ_ALL))


def _everybody_can_run(program: str) -> bool:
    path = Path(os.path.realpath(program))
    return path.exists() and all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))


def _facts(folder: Path) -> dict[Path, tuple[int, ...]]:
    """What a read-only policy keeps as it is; reading itself moves the access time."""
    statuses = {path: path.lstat() for path in folder.rglob("*")}
    return {
        path: (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_ino,
            status.st_nlink,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        for path, status in statuses.items()
    }


@pytest.mark.parametrize("user", [None, NOBODY], ids=["as-is", "nobody"], indirect=True)
async def test_a_read_only_policy(landlocked: Runner, place: Path, user: int | None) -> None:
    landlocked.user = user
    if user is not None and not any(map(_everybody_can_run, PYTHONS)):
        pytest.skip("no Python that everybody can run")
    before = _facts(place)
    result = await landlocked.sh(
        "cat src/main.py; echo x > /dev/null && echo null; echo x > src/main.py; echo x > new; mkdir d; rm src/main.py;"
        "mv src other; ln src/main.py hard; ln -s x soft; chmod 777 src/main.py; touch -d yesterday src/main.py;"
        "truncate -s 0 src/main.py; mkfifo pipe; echo end"
    )
    assert result.stdout_text == "print()\nnull\nend\n"
    assert len(result.stderr_text.strip().splitlines()) == 11
    assert _facts(place) == before


async def test_what_a_command_is(landlocked: Runner) -> None:
    result = await landlocked.sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; ls /proc/self/fd; env")
    lines = result.stdout_text.splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    if os.geteuid() == 0:
        assert {value.strip("0") for name, value in status.items() if name.startswith("Cap")} == {""}
    assert "CODEX_SANDBOX_NETWORK_DISABLED=1" in lines
    assert {line for line in lines if line.isdigit()} == {"0", "1", "2", "3"}  # 3 is the listing's own


async def test_other_processes_and_the_network_are_out_of_reach(landlocked: Runner) -> None:
    async with await landlocked.supervisor.spawn(
        ["sleep", "1000"], cwd="/", env={"PATH": os.environ["PATH"]}
    ) as victim:
        script = (
            f"cat /proc/{victim.pid}/environ; kill -9 {victim.pid}; python3 -c 'import socket; socket.socket()';"
            f"ls /proc/{victim.pid}/root/; readlink /proc/{victim.pid}/exe"
        )
        result = await landlocked.sh(script)
        assert result.stdout_text == ""
        assert "PermissionError" in result.stderr_text
        if (await landlocked.sandbox.capability()).landlock.abi >= 6:
            assert victim.status is None


async def test_a_writable_root_without_metadata_rules(landlocked: Runner) -> None:
    ws = str(landlocked.cwd)
    free = [(f"{ws}/{name}", "write") for name in (".git", ".agents", ".codex")]
    for path, _ in free:
        os.makedirs(path, exist_ok=True)
    landlocked.policy = policy(READ_ALL, (ws, "write"), *((path, "write") for path, _ in free))
    result = await landlocked.sh("echo x > new && cat new; mv new newer; rm newer; echo x > ../outside/file")
    assert result.stdout_text == "x\n"
    assert result.stderr_text.count("Permission denied") == 1


async def test_an_empty_view(landlocked: Runner, place: Path) -> None:
    landlocked.policy = policy((":minimal", "read"), (f"{landlocked.cwd}/src", "read"))
    result = await landlocked.sh(f"cat src/main.py; cat {place}/outside/file; ls {place}; head -c1 /dev/zero | wc -c")
    assert result.stdout_text == "print()\n1\n"
    assert result.stderr_text.count("Permission denied") == 2


async def test_a_policy_that_keeps_only_the_network_away(landlocked: Runner, place: Path) -> None:
    landlocked.policy = UNRESTRICTED
    result = await landlocked.sh(f"echo x > {place}/outside/file; python3 -c 'import socket; socket.socket()'")
    assert (place / "outside" / "file").read_text() == "x\n"
    assert "PermissionError" in result.stderr_text


async def test_a_policy_it_can_not_express_runs_nothing(landlocked: Runner) -> None:
    landlocked.policy = workspace_write(landlocked.cwd)
    with pytest.raises(SandboxUnavailable) as caught:
        await landlocked.sh("touch ran")
    assert "forbidden" in str(caught.value)
    assert f"Landlock can't keep {landlocked.cwd}/.agents read-only" in str(caught.value)
    assert not (landlocked.cwd / "ran").exists()


async def test_a_program_that_is_missing(landlocked: Runner) -> None:
    result = await landlocked.run("/no/program")
    assert (result.exit_code, result.stderr_text) == (126, "sandbox: /no/program: No such file or directory\n")


async def test_where_python_can_not_be_started(landlocked: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "interpreter", lambda: None)
    with pytest.raises(SandboxUnavailable, match="needs a Python interpreter"):
        await landlocked.run("true")


def test_the_stage_imports_nothing_slow() -> None:
    assert "import json" not in stage_source()
    compile(stage_source(), "stage", "exec")


def test_support_is_what_the_kernel_says() -> None:
    found = landlock_support()
    assert (found.abi >= 3) == (found.problem is None)
    if sys.platform == "linux" and platform.release() >= "6.10" and shutil.which("bwrap"):
        assert found.abi == 0 or found.abi >= 4
