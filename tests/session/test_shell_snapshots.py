"""Shell snapshots in sessions: used by commands behind the scenes, never shown, gone at the end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

import engine
from engine.models.scripts import reply, response, shell
from engine.protocol.events import ExecCommandBegin
from tests.session.conftest import Lab, collect


@pytest.fixture
def profile(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The profile of a user who works beside the lab's folder."""
    home = tmp_path / "user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("BASH_ENV", raising=False)
    file = home / ".profile"
    file.write_text("export FROM=profile\n")
    return file


def snapshots(lab: Lab) -> list[Path]:
    """The snapshot files of the lab's home."""
    return list(lab.home.glob("shell_snapshots/*"))


async def settled(session: engine.Session) -> None:
    """Returns once the snapshot of the session is there, or will not be."""
    kept = session._core.resources().snapshots()
    assert kept is not None
    with trio.fail_after(20):
        await kept.settled()


def outputs(lab: Lab) -> str:
    """What the model was told of its last call."""
    (output,) = [item["output"] for item in lab.input()[-1:] if "output" in item]
    return str(output)


async def test_later_commands_load_the_snapshot_and_events_show_the_command(lab: Lab, profile: Path) -> None:
    command = "echo $FROM-$TERM-$CODEX_THREAD_ID"
    async with lab.session(response(shell("true")), reply("one"), response(shell(command)), reply("two")) as session:
        await session.run("go")
        await settled(session)
        (file,) = snapshots(lab)
        profile.write_text("export FROM=changed\n")
        events = await collect(await session.start_turn("again"))
        assert f"profile-dumb-{session.thread_id}" in outputs(lab)
    (begin,) = [event for event in events if isinstance(event, ExecCommandBegin)]
    assert begin.command[1:] == ("-lc", command)
    assert file.name.startswith(f"{session.thread_id}.")
    assert snapshots(lab) == []


async def test_the_users_own_command_loads_it_too(lab: Lab, profile: Path) -> None:
    async with lab.session(reply("x")) as session:
        await session.run_shell("true")
        await settled(session)
        profile.write_text("export FROM=changed\n")
        await session.run_shell("echo got-$FROM")
        await session.run("go")
    assert "got-profile" in str(lab.input())


async def test_sandboxed_commands_load_it_where_they_can_not_write_the_profile(lab: Lab, profile: Path) -> None:
    answers = (response(shell("true")), reply("1"), response(shell("echo got-$FROM")), reply("2"))
    async with lab.open(*answers) as opened:
        settings = engine.SessionSettings(cwd=lab.cwd, sandbox="read-only")
        async with opened.session(settings) as session:
            await session.run("go")
            await settled(session)
            assert len(snapshots(lab)) == 1
            profile.write_text("export FROM=changed\n")
            await session.run("again")
            assert "got-profile" in outputs(lab)


async def test_a_profile_in_the_workspace_is_never_run_outside_the_sandbox(lab: Lab, profile: Path) -> None:
    trap = 'echo "touch escaped" >> ~/.profile'
    answers = (response(shell(trap)), reply("1"), response(shell("true")), reply("2"))
    async with lab.open(*answers) as opened:
        settings = engine.SessionSettings(cwd=profile.parent, sandbox="workspace-write")
        async with opened.session(settings) as session:
            await session.run("go")
            await session.run("again")
            assert snapshots(lab) == []


@pytest.mark.parametrize("how", ["off", "unused"])
async def test_nothing_is_made_without_need(lab: Lab, profile: Path, how: str) -> None:
    del profile
    answers = [response(shell("true")), reply("1")] if how == "off" else [reply("1")]
    async with lab.session(*answers, config={"features.shell_snapshot": how != "off"}) as session:
        await session.run("go")
        assert (session._core.resources().snapshots() is None) == (how == "off")
        await trio.lowlevel.checkpoint()
        assert not (lab.home / "shell_snapshots").exists()


async def test_a_session_stopped_by_force_leaves_no_file(lab: Lab, profile: Path) -> None:
    del profile
    async with lab.session(response(shell("true")), reply("1")) as session:
        await session.run("go")
        await settled(session)
        assert len(snapshots(lab)) == 1
        session._core.force_stop()
        with trio.fail_after(10):
            await session._core.closed.wait()
    assert snapshots(lab) == []


async def test_files_of_a_killed_engine_are_swept_with_the_next_snapshot(lab: Lab, profile: Path) -> None:
    del profile
    folder = lab.home / "shell_snapshots"
    folder.mkdir()
    async with lab.session(reply("stored")) as session:
        await session.run("go")
        stored = f"{session.thread_id}.1.sh"
    unknown = "0198f7a2-0000-7000-8000-000000000001.1.sh"
    for name in (stored, unknown, "junk"):
        (folder / name).write_text("")
    async with lab.session(response(shell("true")), reply("1")) as session:
        await session.run("go")
        await settled(session)
        assert {path.name for path in snapshots(lab)} > {stored}
        assert len(snapshots(lab)) == 2
    assert os.listdir(folder) == [stored]
