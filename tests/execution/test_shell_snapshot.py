"""Shell snapshots of a session: made beside its commands, used when they are there, gone with it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from engine.execution.oneshot import run_command
from engine.execution.shell_snapshot import ShellSnapshots
from engine.execution.shells import Shell, ShellKind
from engine.execution.snapshot_folder import SnapshotFolder
from engine.execution.supervisor import Supervisor, open_supervisor
from engine.telemetry.handle import carrying
from tests.telemetry.recording import Recording

from .processes import environment

THREAD = "0198f7a2-0000-7000-8000-000000000001"
BASH = Shell(ShellKind.BASH, "/bin/bash")


@attrs.define(eq=False)
class Lab:
    """A session's snapshots over a home with a profile, and the tasks that keep them."""

    home: Path
    supervisor: Supervisor
    nursery: trio.Nursery
    snapshots: ShellSnapshots
    started: int = 0
    guarded: bool = True

    def files(self) -> list[str]:
        """What the folder of snapshots holds."""
        folder = self.home / "shell_snapshots"
        return sorted(os.listdir(folder)) if folder.is_dir() else []

    def wrapped(self, script: str, *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> list[str]:
        """The command line for a script in the folder the session works in."""
        where = str(cwd or self.home)
        given = env or self.snapshots.environment
        return list(
            self.snapshots.wrapped(
                [BASH.path, "-lc", script], cwd=where, session_cwd=where, env=given, guarded=lambda paths: self.guarded
            )
        )

    async def ready(self, cwd: Path | None = None) -> None:
        """Waits for the file of a folder."""
        self.wrapped(":", cwd=cwd)
        with trio.fail_after(20):
            await self.snapshots.settled()
        assert self.wrapped(":", cwd=cwd)[1] == "-c"

    async def output(self, argv: list[str], env: Mapping[str, str] | None = None) -> str:
        """What a command line writes."""
        given = env or self.snapshots.environment
        result = await run_command(self.supervisor, argv, cwd=str(self.home), env=given)
        return result.stdout_text


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with opened(tmp_path) as lab:
        yield lab
        assert lab.snapshots.folder.active <= {THREAD}
        lab.nursery.cancel_scope.cancel()
    assert lab.files() == []
    assert lab.snapshots.folder.active == set()


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[Lab]:
    (home / ".profile").write_text("export FROM=profile FORCED=profile CODEX_THREAD_ID=profile\n")
    env = {**environment(), "HOME": str(home), "CODEX_THREAD_ID": THREAD}

    def spawn(name: str, fn: object) -> None:
        lab.started += 1
        nursery.start_soon(fn, name=name)  # type: ignore[arg-type]

    async with open_supervisor() as supervisor, trio.open_nursery() as nursery:
        snapshots = ShellSnapshots(
            supervisor=supervisor,
            folder=SnapshotFolder.of(home),
            thread_id=THREAD,
            shell=BASH,
            environment=env,
            kept={"CODEX_THREAD_ID"},
            spawn=spawn,
            last_used=lambda thread: None,
        )
        lab = Lab(home, supervisor, nursery, snapshots)
        yield lab


async def test_commands_run_as_written_until_the_snapshot_is_there(lab: Lab) -> None:
    assert lab.wrapped("echo $FROM") == [BASH.path, "-lc", "echo $FROM"]
    await lab.ready()
    argv = lab.wrapped("echo $FROM $CODEX_THREAD_ID")
    assert argv[:2] == [BASH.path, "-c"]
    assert await lab.output(argv) == f"profile {THREAD}\n"
    (name,) = lab.files()
    assert name.startswith(f"{THREAD}.")
    assert name.endswith(".sh")
    assert lab.started == 1


async def test_what_a_command_is_given_counts_for_more_than_the_profile(lab: Lab) -> None:
    await lab.ready()
    env = {**lab.snapshots.environment, "FORCED": "command", "TERM": "dumb"}
    assert await lab.output(lab.wrapped("echo $FROM $FORCED $TERM", env=env), env) == "profile command dumb\n"


async def test_the_profile_is_not_read_again(lab: Lab) -> None:
    await lab.ready()
    (lab.home / ".profile").write_text("export FROM=changed\n")
    assert await lab.output(lab.wrapped("echo $FROM")) == "profile\n"


@pytest.mark.parametrize("argv", [["/bin/bash", "-c", "x"], ["/bin/bash"], ["/bin/bash", "-lc"]])
async def test_other_commands_than_scripts_of_login_shells_run_as_written(lab: Lab, argv: list[str]) -> None:
    cwd, env = str(lab.home), lab.snapshots.environment
    assert lab.snapshots.wrapped(argv, cwd=cwd, session_cwd=cwd, env=env, guarded=bool) == tuple(argv)
    assert lab.started == 0


async def test_commands_in_other_folders_run_as_written(lab: Lab) -> None:
    await lab.ready()
    argv, env = ("/bin/bash", "-lc", "x"), lab.snapshots.environment
    assert lab.snapshots.wrapped(argv, cwd="/", session_cwd=str(lab.home), env=env, guarded=bool) == argv
    assert lab.started == 1


async def test_a_profile_that_commands_may_write_is_not_run(lab: Lab) -> None:
    lab.guarded = False
    assert lab.wrapped("x") == [BASH.path, "-lc", "x"]
    assert lab.started == 0


async def test_a_session_that_moves_gets_another_one(lab: Lab) -> None:
    await lab.ready()
    other = lab.home / "other"
    other.mkdir()
    before = lab.files()
    await lab.ready(other)
    (after,) = lab.files()
    assert [after] != before
    assert lab.started == 2


@pytest.mark.parametrize(
    "profile",
    [
        "exit 0",
        "exec true",
        "kill -9 $$",
        "export UID",
        "export BIG=$(head -c 1100000 /dev/zero | tr '\\0' x)",
    ],
)
async def test_a_profile_that_can_not_be_kept_is_tried_once(lab: Lab, profile: str) -> None:
    (lab.home / ".profile").write_text(profile + "\n")
    lab.wrapped(":")
    with trio.fail_after(20):
        await lab.snapshots.settled()
    assert lab.wrapped("x") == [BASH.path, "-lc", "x"]
    assert (lab.started, lab.files()) == (1, [])


async def test_a_snapshot_is_counted(lab: Lab) -> None:
    recording = Recording()
    with carrying(recording):
        await lab.ready()
    assert recording.counts("codex.shell_snapshot") == [{"success": "true"}]
    assert recording.measures("codex.shell_snapshot.duration_ms") == [{"success": "true"}]


@pytest.mark.parametrize(("profile", "reason"), [("exit 3", "write_failed"), ("export UID", "validation_failed")])
async def test_why_there_is_none_is_counted(lab: Lab, profile: str, reason: str) -> None:
    (lab.home / ".profile").write_text(profile + "\n")
    recording = Recording()
    with carrying(recording):
        lab.wrapped(":")
        with trio.fail_after(20):
            await lab.snapshots.settled()
    (tags,) = recording.counts("codex.shell_snapshot")
    assert tags == {"success": "false", "failure_reason": reason}


async def test_a_home_that_can_not_be_written_is_no_fault(lab: Lab) -> None:
    (lab.home / "shell_snapshots").write_text("a file")
    lab.wrapped(":")
    with trio.fail_after(20):
        await lab.snapshots.settled()
    assert lab.wrapped("x")[1] == "-lc"
    (lab.home / "shell_snapshots").unlink()


async def test_the_end_of_a_session_lets_a_profile_end_that_holds_a_lock(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        os.mkfifo(tmp_path / "started")
        (tmp_path / ".profile").write_text("touch lock; echo here > started; sleep 0.3; rm lock\n")
        lab.wrapped(":")
        assert await trio.to_thread.run_sync((tmp_path / "started").read_text) == "here\n"
        assert (tmp_path / "lock").exists()
        lab.nursery.cancel_scope.cancel()
    assert not (tmp_path / "lock").exists()
    assert lab.files() == []


async def test_the_end_of_a_session_stops_a_profile_that_hangs(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        os.mkfifo(tmp_path / "started")
        (tmp_path / ".profile").write_text("echo here > started\nsleep 1000\n")
        lab.wrapped(":")
        assert await trio.to_thread.run_sync((tmp_path / "started").read_text) == "here\n"
        lab.nursery.cancel_scope.cancel()
    assert lab.files() == []
