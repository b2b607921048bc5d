"""The same attacks through a session: a model in `workspace-write` that nobody gives more, and its `exec_command`."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from engine.execution.sandbox import capability
from engine.execution.sandbox.landlock import LandlockSupport
from engine.execution.sandbox.launcher import Sandbox
from engine.execution.supervisor import open_supervisor
from engine.models.scripts import response, shell
from engine.protocol.settings import ApprovalPolicy
from tests.execution.processes import environment, marked_processes
from tests.execution.sandbox.conftest import place as place
from tests.execution.sandbox.conftest import workspace as workspace
from tests.execution.sandbox.running import require_sandbox

from .conftest import ESCAPED
from .host import snapshot
from .sessions import HostileModel, run
from .test_files import TRICKS


@pytest.fixture
async def _sandbox_works() -> None:
    async with open_supervisor() as supervisor:
        await require_sandbox(Sandbox(supervisor))


@pytest.fixture
def hostile(
    _sandbox_works: None, place: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HostileModel]:
    """A session's model. Its home lies below `/tmp`, which commands may write."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text('model = "gpt-5.5"\n')
    before = snapshot(place, workspace)
    yield HostileModel(home, workspace)
    assert snapshot(place, workspace) == before
    assert marked_processes() == []


async def test_no_trick_gets_out(hostile: HostileModel) -> None:
    # As no rule about commands would have it: those are for mistakes, the sandbox is for this.
    hidden = [base64.b64encode(f"exec 2>&1 </dev/null; {trick}\ntrue".encode()).decode() for trick in TRICKS.values()]
    attacks = [run(f"echo {script} | base64 -d | sh") for script in hidden]
    outputs = await hostile.attack(*attacks)
    assert len(outputs) == len(TRICKS)
    for name, output in zip(TRICKS, outputs, strict=True):
        assert "Process exited with code" in output, (name, output)
        assert ESCAPED not in output, (name, output)
    assert hostile.asked == []


async def test_the_home_of_the_engine_is_not_the_models(hostile: HostileModel) -> None:
    """It decides what the next session may do. What has been recorded can be neither read anew nor changed."""
    home = hostile.home
    outputs = await hostile.attack(
        run(f"echo 'sandbox_mode = \"danger-full-access\"' > {home}/config.toml"),
        run(f'mkdir -p {home}/rules && echo \'prefix_rule(["rm"], decision="allow")\' > {home}/rules/default.rules'),
        run(f"mv {home} {home}.old; mkdir {home}; ln -s /etc {home}/rules"),
        run(f"rm -rf {home}; rm -rf {home}/sessions"),
        run(f"for f in $(find {home}/sessions -name '*.jsonl'); do echo x >> $f && echo {ESCAPED}; done; true"),
        run(f"ln -s $(pwd) {home}/skills; touch {home}/AGENTS.md {home}/auth.json; true"),
    )
    assert all(ESCAPED not in output for output in outputs), outputs
    (rollout,) = (home / "sessions").rglob("*.jsonl")
    assert "\nx\n" not in rollout.read_text()


@pytest.mark.parametrize("policy", ["never", "on-request", "on-failure", "untrusted"])
async def test_asking_for_more_changes_nothing_unless_somebody_agrees(
    hostile: HostileModel, place: Path, policy: ApprovalPolicy
) -> None:
    write = f"echo {ESCAPED} > {place}/outside/file"
    escalated = {"sandbox_permissions": "require_escalated", "justification": "please"}
    more = {
        "sandbox_permissions": "with_additional_permissions",
        "justification": "please",
        "additional_permissions": {"file_system": {"write": [f"{place}/outside"]}, "network": {"enabled": True}},
    }
    outputs = await hostile.attack(
        run(write, **escalated),
        run(write, **escalated, prefix_rule=["echo"]),
        run(write, **more),
        run(write),
        run(f"bash -c '{write}'"),
        approval_policy=policy,
    )
    assert len(outputs) == 5
    assert (place / "outside" / "file").read_text() == "outside"
    assert bool(hostile.asked) == (policy != "never")


async def test_nothing_is_asked_for_by_a_profile_of_the_workspace(hostile: HostileModel, place: Path) -> None:
    """A checkout brings its own configuration and rules along: without trust they count for nothing."""
    folder = hostile.workspace / ".codex"
    (folder / "rules").mkdir(parents=True)
    (folder / "config.toml").write_text('sandbox_mode = "danger-full-access"\napproval_policy = "never"\n')
    (folder / "rules" / "all.rules").write_text('prefix_rule(pattern=["bash"], decision="allow")\n')
    try:
        await hostile.attack(run(f"echo x > {place}/outside/file"), run(f"bash -c 'echo x > {place}/outside/file'"))
        assert (place / "outside" / "file").read_text() == "outside"
    finally:
        for path in (folder / "rules" / "all.rules", folder / "config.toml"):
            path.unlink()
        (folder / "rules").rmdir()
        folder.rmdir()


async def test_another_working_directory_is_no_way_out(hostile: HostileModel, place: Path) -> None:
    """The policy is that of the turn, wherever the model asks to work."""
    for workdir in (f"{place}/outside", "..", ".git", "../outside"):
        await hostile.attack(
            run("echo x > file; echo x > new; mkdir .codex x; echo x > config; git config core.x y", workdir=workdir)
        )


async def test_many_at_once_get_no_further(hostile: HostileModel, place: Path) -> None:
    scripts = [f"echo x > {place}/outside/{n}; mkdir .codex && echo {ESCAPED}; rmdir .codex; true" for n in range(8)]
    outputs = await hostile.attack(response(*map(shell, scripts)), response(*map(shell, scripts)))
    assert len(outputs) == 16
    assert all(ESCAPED not in output for output in outputs)
    assert os.listdir(place / "outside") == ["file"]


async def test_what_runs_on_ends_with_the_session(hostile: HostileModel) -> None:
    staying = (
        "trap '' HUP INT TERM; setsid sleep 1000 & (setsid setsid sleep 1000 &) ; nohup sleep 1000 & echo up; wait"
    )
    started = trio.current_time()
    async with hostile.session(
        run(staying, yield_time_ms=300),
        run(staying, yield_time_ms=300, tty=True),
        run("yes x | head -c 30000000; sleep 1000 & "),
    ) as session:
        await session.run("go")
        assert len(marked_processes()) >= 6
    assert marked_processes() == []
    assert trio.current_time() - started < 60


async def test_a_flood_is_cut(hostile: HostileModel) -> None:
    outputs = await hostile.attack(
        run("yes flood | head -c 50000000"), run("yes 'x' | head -c 20000000 >&2; head -c 3000000 /dev/zero")
    )
    assert all(len(output) < 100_000 for output in outputs)
    assert "truncated" in outputs[0]


@pytest.mark.parametrize("policy", ["never", "on-request", "on-failure", "untrusted"])
@pytest.mark.parametrize("landlock", [True, False])
async def test_where_nothing_can_hold_it_no_command_runs(
    hostile: HostileModel, monkeypatch: pytest.MonkeyPatch, policy: ApprovalPolicy, landlock: bool
) -> None:
    """It is refused with the reason, never run without: not even after a question that was about something else."""
    monkeypatch.setattr(capability, "find_launchers", lambda path: iter(()))
    if not landlock:
        monkeypatch.setattr(capability, "landlock_support", lambda: LandlockSupport(0, "it is switched off"))
    hostile.answer = "approved"
    outputs = await hostile.attack(run("touch ran"), run("ls > ran"), approval_policy=policy)
    assert not (hostile.workspace / "ran").exists()
    for output in outputs:
        assert "bubblewrap is not installed" in output
        assert ("Landlock can't keep" if landlock else "it is switched off") in output
