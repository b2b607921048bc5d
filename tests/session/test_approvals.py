"""Permissions of a session as its host sees them: modes, questions, answers, changes on the way, interrupts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

import engine
from engine.models.scripts import CallFunction, call, custom, reply, response
from engine.protocol.events import ExecApprovalRequest, ExecCommandBegin, RequestPermissions, Warning
from engine.protocol.settings import GranularApproval
from engine.thread_store.verifying import verify_index
from tests.session.conftest import Lab, collect, texts, types


@attrs.define(eq=False)
class Host:
    """An approver: answers by `answer`, keeps what it was asked, or thinks for ever if it has no answer."""

    answer: Callable[[engine.ApprovalRequest], engine.Decision] | None = None
    asked: list[engine.ApprovalRequest] = attrs.field(factory=list)
    asking: trio.Event = attrs.field(factory=trio.Event)
    given_up: int = 0

    async def __call__(self, request: engine.ApprovalRequest, /) -> engine.Decision:
        self.asked.append(request)
        self.asking.set()
        if self.answer is None:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                self.given_up += 1
                raise
        assert self.answer is not None
        await trio.testing.wait_all_tasks_blocked()  # so that whoever else wants to ask has come as far
        return self.answer(request)


def yes(request: engine.ApprovalRequest) -> engine.Decision:
    return "approved"


@asynccontextmanager
async def started(
    lab: Lab, host: Host, *answers: object, config: Mapping[str, object] | None = None, **settings: object
) -> AsyncIterator[engine.Session]:
    """A session in `workspace-write` below which nothing else can be written; `outside` lies beside it."""
    keys = {"exclude_slash_tmp": True, "exclude_tmpdir_env_var": True}
    everything = {"sandbox_workspace_write": keys, **(config or {})}
    given = {"sandbox": "workspace-write", "approval_policy": "on-request", **settings}
    async with lab.open(*answers, config=everything) as opened:
        wanted = engine.SessionSettings(cwd=lab.cwd, **given)  # type: ignore[arg-type]
        async with opened.session(wanted, approve=host) as session:
            yield session


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


def run(command: str, **more: object) -> CallFunction:
    return call("exec_command", cmd=command, login=False, **more)


def outputs(lab: Lab) -> list[str]:
    """The outputs of tool calls that the last request has."""
    return [str(item["output"]) for item in lab.input() if str(item.get("type", "")).endswith("_output")]


async def test_the_host_is_asked_before_a_command_leaves_the_sandbox(lab: Lab, outside: Path) -> None:
    host = Host(yes)
    escalated = run(f"touch {outside}/b", sandbox_permissions="require_escalated", justification="Touch it?")
    async with started(lab, host, response(run(f"touch {outside}/a")), response(escalated), reply("done")) as session:
        async with session.turn("go") as turn:
            events = await collect(turn)
    assert sorted(path.name for path in outside.iterdir()) == ["b"]
    (asked,) = host.asked
    assert isinstance(asked, engine.CommandApproval)
    assert (asked.command[-1], asked.cwd, asked.reason) == (f"touch {outside}/b", str(lab.cwd), "Touch it?")
    kinds = [kind for kind in types(events) if kind in ("exec_approval_request", "exec_command_begin")]
    assert kinds == ["exec_command_begin", "exec_approval_request", "exec_command_begin"]
    (told,) = [event for event in events if isinstance(event, ExecApprovalRequest)]
    assert told.available_decisions == (
        "approved",
        {"approved_execpolicy_amendment": {"proposed_execpolicy_amendment": ["touch", f"{outside}/b"]}},
        "abort",
    )
    assert "Read-only file system" in outputs(lab)[0]


async def test_a_refusal_is_told_to_the_model_alone(lab: Lab, outside: Path) -> None:
    host = Host(lambda request: "denied")
    escalated = run(f"touch {outside}/b", sandbox_permissions="require_escalated")
    async with started(lab, host, response(escalated), reply("done")) as session:
        async with session.turn("go") as turn:
            events = await collect(turn)
        result = await turn.result()
    assert result.final_message == "done"
    assert "exec command rejected by user" in outputs(lab)[0]
    assert not [event for event in events if isinstance(event, Warning | ExecCommandBegin)]
    assert not list(outside.iterdir())


async def test_abort_interrupts_the_turn(lab: Lab, outside: Path) -> None:
    host = Host(lambda request: "abort")
    escalated = run(f"touch {outside}/b", sandbox_permissions="require_escalated")
    async with started(lab, host, response(escalated), reply("next")) as session:
        with pytest.raises(engine.TurnInterrupted):
            await session.run("go")
        assert (await session.run("more")).final_message == "next"
    assert len(outputs(lab)) == 1, "the call that was given up has its answer"
    assert not list(outside.iterdir())


async def test_an_interrupt_while_the_host_is_asked_leaves_nothing(lab: Lab, outside: Path) -> None:
    host = Host()
    escalated = run(f"touch {outside}/b", sandbox_permissions="require_escalated")
    patch = custom("apply_patch", f"*** Begin Patch\n*** Add File: {outside}/p\n+x\n*** End Patch\n")
    async with started(lab, host, response(escalated), response(patch), reply("next")) as session:
        for _ in range(2):
            host.asking = trio.Event()
            turn = await session.start_turn("go")
            with trio.fail_after(10):
                await host.asking.wait()
            await session.interrupt()
            with pytest.raises(engine.TurnInterrupted):
                await turn.result()
        assert (len(host.asked), host.given_up) == (2, 2)
        assert (await session.run("more")).final_message == "next"
    assert not list(outside.iterdir())


async def test_calls_of_one_response_with_the_same_command_ask_once(lab: Lab, outside: Path) -> None:
    host = Host(lambda request: "approved_for_session")
    same = run(f"echo x >> {outside}/b", sandbox_permissions="require_escalated")
    async with started(lab, host, response(same, same, same), response(same), reply("done")) as session:
        await session.run("go")
    assert len(host.asked) == 1
    assert (outside / "b").read_text() == "x\n" * 4


async def test_settings_change_between_turns(lab: Lab, outside: Path) -> None:
    host = Host(yes)
    touch = run(f"touch {outside}/a")
    async with started(lab, host, *[response(touch), reply("done")] * 3) as session:
        await session.run("sandboxed")
        assert not list(outside.iterdir())
        await session.run("unsandboxed", engine.SettingsUpdate(sandbox="danger-full-access"))
        assert [path.name for path in outside.iterdir()] == ["a"]
        (outside / "a").unlink()
        assert any("`danger-full-access`" in text for text in texts(lab.input()))
        await session.update(engine.SettingsUpdate(sandbox="workspace-write", approval_policy="on-failure"))
        await session.run("asked after it failed")
    assert [path.name for path in outside.iterdir()] == ["a"]
    (asked,) = host.asked
    assert isinstance(asked, engine.CommandApproval)
    assert asked.reason == "command failed; retry without sandbox?"


async def test_a_turn_keeps_the_permissions_it_started_with(lab: Lab, outside: Path) -> None:
    """A change while a command is asked about is for the next turn."""
    sessions: list[engine.Session] = []
    host = Host(yes)

    @engine.tool(name="change")
    async def change() -> str:
        await sessions[0].update(engine.SettingsUpdate(sandbox="danger-full-access"))
        return "changed"

    keys = {"exclude_slash_tmp": True, "exclude_tmpdir_env_var": True}
    touch = run(f"touch {outside}/a")
    async with lab.open(
        *[response(call("change")), response(touch), reply("1"), response(touch), reply("2")],
        config={"sandbox_workspace_write": keys},
    ) as opened:
        settings = engine.SessionSettings(cwd=lab.cwd, sandbox="workspace-write", approval_policy="on-request")
        async with opened.session(settings, approve=host, tools=[change]) as session:
            sessions.append(session)
            await session.run("go")
            assert not list(outside.iterdir())
            await session.run("go")
            assert [path.name for path in outside.iterdir()] == ["a"]


async def test_permissions_are_granted_for_a_turn_or_the_session(lab: Lab, outside: Path) -> None:
    scopes: list[engine.Decision] = ["approved", "approved_for_session"]
    host = Host(lambda request: scopes.pop(0))
    ask = call("request_permissions", permissions={"file_system": {"write": [str(outside)]}}, reason="to save it")
    touch = run(f"touch {outside}/a")
    async with started(
        lab,
        host,
        *[response(ask), response(touch), reply("1")],  # for the turn
        *[response(touch), reply("2")],  # gone
        *[response(ask), reply("3")],  # for the session
        *[response(touch), reply("4")],
        config={"features": {"request_permissions_tool": True}},
    ) as session:
        async with session.turn("one") as turn:
            events = await collect(turn)
        assert (outside / "a").exists()
        (outside / "a").unlink()
        await session.run("two")
        assert not (outside / "a").exists()
        await session.run("three")
        await session.run("four")
    assert (outside / "a").exists()
    (told,) = [event for event in events if isinstance(event, RequestPermissions)]
    assert (told.reason, told.cwd) == ("to save it", str(lab.cwd))
    assert [type(request) for request in host.asked] == [engine.PermissionsApproval] * 2


@pytest.mark.parametrize(("trust", "writes"), [(None, False), ("trusted", True), ("untrusted", True)])
async def test_the_mode_of_a_new_session_follows_trust(lab: Lab, trust: str | None, writes: bool) -> None:
    if trust is not None:
        (lab.home / "config.toml").write_text(f'[projects."{lab.cwd}"]\ntrust_level = "{trust}"\n')
    host = Host(yes)
    async with lab.open(response(run("echo > made")), reply("done")) as opened:
        settings = engine.SessionSettings(cwd=lab.cwd)
        async with opened.session(settings, approve=host) as session:
            await session.run("go")
    assert (lab.cwd / "made").exists() is writes
    assert len(host.asked) == (1 if trust == "untrusted" else 0)


async def test_a_reviewer_that_is_not_there_is_said_and_the_host_is_asked(lab: Lab, outside: Path) -> None:
    host = Host(yes)
    escalated = run(f"touch {outside}/b", sandbox_permissions="require_escalated")
    async with started(lab, host, response(escalated), reply("done")) as session:
        with session.events() as stream:
            await session.update(engine.SettingsUpdate(approvals_reviewer="auto_review"))
            with trio.fail_after(10):
                async for event in stream:
                    if isinstance(event.msg, Warning):
                        assert "reviewed automatically" in event.msg.message
                        break
        await session.run("go")
    assert len(host.asked) == 1


async def test_granular_refuses_the_kinds_it_does_not_let_through(lab: Lab, outside: Path) -> None:
    host = Host(yes)
    policy = GranularApproval(sandbox_approval=False, rules=True, mcp_elicitations=False)
    async with started(
        lab, host, response(run(f"touch {outside}/a")), response(run("rm -rf x")), reply("done"), approval_policy=policy
    ) as session:
        await session.run("go")
    assert host.asked == []
    denied, dangerous = outputs(lab)
    assert "Read-only file system" in denied
    assert "AskForApproval::Granular.sandbox_approval is false" in dangerous


async def test_rules_that_allow_are_told_and_hold(lab: Lab, outside: Path) -> None:
    (lab.home / "rules").mkdir()
    (lab.home / "rules" / "own.rules").write_text('prefix_rule(pattern=["touch"], decision="allow")\n')
    host = Host()
    async with started(lab, host, response(run(f"touch {outside}/a")), reply("done")) as session:
        await session.run("go")
    assert (outside / "a").exists()
    assert any('- ["touch"]' in text for text in texts(lab.input()))
    assert host.asked == []


async def test_what_is_recorded_of_a_workspace_is_what_the_index_has(lab: Lab, outside: Path) -> None:
    """Writable roots are a list in the index and in the file: `engine threads verify` finds no difference."""
    roots = {"sandbox_workspace_write": {"writable_roots": [str(outside)]}}
    async with started(lab, Host(), reply("done"), config=roots) as session:
        await session.run("go")
    report = verify_index(lab.home)
    assert (report.threads, report.problems) == (1, ())
