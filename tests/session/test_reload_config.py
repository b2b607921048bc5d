"""A running session and the user's configuration: what follows the file, what stays, what holds for one turn alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import engine
from engine.config.loading import load_config
from engine.config.reloading import with_user_layers
from engine.models.scripts import call, response, say
from engine.protocol.profiles import WorkspaceWrite
from engine.session.core import SessionCore
from tests.session.conftest import Lab, texts

BEFORE = """
model = "gpt-5.4"
approval_policy = "never"
[features]
goals = false
[sandbox_workspace_write]
writable_roots = ["/before"]
"""
AFTER = """
model = "gpt-5.5"
approval_policy = "on-request"
[features]
goals = true
[sandbox_workspace_write]
writable_roots = ["/after"]
[permissions.dev.filesystem]
":root" = "read"
"/data" = "write"
"""


def core_of(session: engine.Session) -> SessionCore:
    return session._core


def roots(session: engine.Session) -> tuple[str, ...]:
    policy = core_of(session).configuration.sandbox_policy
    assert isinstance(policy, WorkspaceWrite)
    return policy.writable_roots


async def test_what_is_looked_up_when_it_is_needed_follows_the_file(lab: Lab) -> None:
    file = lab.home / "config.toml"
    file.write_text(BEFORE)
    async with lab.open("a") as opened:
        async with opened.session(engine.SessionSettings(cwd=lab.cwd, sandbox="read-only")) as session:
            file.write_text(AFTER)
            await session.update(engine.SettingsUpdate(sandbox="workspace-write"))
            assert "/before" in roots(session)  # nobody asked to look again
            with pytest.raises(engine.InvalidRequest, match=r"requires a `.permissions.` table"):
                await session.update(engine.SettingsUpdate(permissions="dev"))
            await opened.reload_config()
            await session.update(engine.SettingsUpdate(sandbox="workspace-write"))
            assert "/after" in roots(session)
            await session.update(engine.SettingsUpdate(permissions="dev"))
            active = core_of(session).configuration.permissions.snapshot.active
            assert active is not None
            assert active.id == "dev"
            # What a start resolves stays for the session's life.
            configuration = core_of(session).configuration
            assert (session.model, configuration.approval_policy) == ("gpt-5.4", "never")
            assert not configuration.config.features["goals"]
            await session.run("x")
    assert lab.model.requests[0].body["model"] == "gpt-5.4"


async def test_a_bad_file_changes_nothing_and_is_said(lab: Lab) -> None:
    file = lab.home / "config.toml"
    file.write_text(BEFORE)
    async with lab.open("a") as opened, opened.session(lab.settings()) as session:
        before = core_of(session).configuration
        file.write_text("model = [\n")
        with pytest.raises(engine.ConfigError) as caught:
            await opened.reload_config()
        assert (caught.value.file, caught.value.line) == (str(file), 2)
        assert core_of(session).configuration is before
        await session.run("x")


async def test_a_session_that_the_change_does_not_suit_keeps_what_it_has(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    async with lab.open() as opened:
        arguments = {"mcp_servers.docs.url": "http://127.0.0.1:1/"}
        async with opened.session(lab.settings(config=arguments)) as odd, opened.session(lab.settings()) as plain:
            (lab.home / "config.toml").write_text("[mcp_servers.docs]\ncommand = 'docs'\n")
            await opened.reload_config()
            assert core_of(odd).configuration.config.raw == {"mcp_servers": {"docs": {"url": "http://127.0.0.1:1/"}}}
            assert core_of(plain).configuration.config.raw == {"mcp_servers": {"docs": {"command": "docs"}}}
    (record,) = (record for record in caplog.records if "keeps its configuration" in record.message)
    assert odd.thread_id in record.message
    assert "mcp_servers.docs" in record.message


async def test_all_sessions_see_a_change_that_was_written_with_reload(lab: Lab) -> None:
    edit = engine.ConfigEdit("sandbox_workspace_write.writable_roots", ["/written"])
    async with lab.open() as opened, opened.session(lab.settings()) as one, opened.session(lab.settings()) as two:
        await opened.write_config([edit])
        assert core_of(one).configuration.config.raw == {}
        await opened.write_config([edit], reload=True)
        for session in (one, two):
            await session.update(engine.SettingsUpdate(sandbox="workspace-write"))
            assert "/written" in roots(session)
            assert core_of(session).configuration.config.origins["sandbox_workspace_write.writable_roots.0"] == "user"


async def test_a_turn_that_runs_keeps_what_it_began_with(lab: Lab) -> None:
    reached, go_on = trio.Event(), trio.Event()

    @engine.tool()
    async def wait() -> str:
        """Waits."""
        reached.set()
        await go_on.wait()
        return "done"

    async with lab.open(response(call("wait")), "end", "next") as opened:
        async with opened.session(lab.settings(), tools=(wait,)) as session, session.turn("x") as turn:
            await reached.wait()
            run = core_of(session).active
            assert run is not None
            began = run.facts.configuration
            (lab.home / "config.toml").write_text(AFTER)
            await opened.reload_config()
            assert run.facts.configuration is began
            assert core_of(session).configuration is not began
            go_on.set()
            assert (await turn.result()).final_message == "end"


async def test_sessions_that_end_meanwhile_need_no_reload(lab: Lab) -> None:
    async with lab.open() as opened:
        session = await opened.start_session(lab.settings())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.aclose)
            nursery.start_soon(opened.reload_config)
        assert opened.sessions() == ()


def test_only_the_users_layers_are_new(tmp_path: Path) -> None:
    home, project = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    (project / ".codex").mkdir(parents=True)
    trusting = f"[projects.'{project}']\ntrust_level = 'trusted'\n"
    (home / "config.toml").write_text(trusting + "[history]\nmax_bytes = 1\n")
    (project / ".codex" / "config.toml").write_text("model = 'p'\n")
    env = {"HOME": str(tmp_path)}

    def load(**arguments: object) -> engine.Config:
        return load_config(home, cwd=project, env=env, system_folder=tmp_path / "etc", session=arguments)

    config = load(model_verbosity="low")
    (home / "config.toml").write_text("tui.theme = 'x'\n" + trusting)
    (project / ".codex" / "config.toml").write_text("model = 'q'\n")
    later = with_user_layers(config, engine.LayerStack(load().layers))
    assert [layer.name for layer in later.layers] == ["system", "user", "project", "session"]
    assert later.raw["model"] == "p"
    assert later.raw["model_verbosity"] == "low"
    assert "history" not in later.raw
    assert [thing.thing for thing in later.unsupported] == ["tui"]
    assert (later.model, later.history) == (config.model, config.history)
    assert later.origins["tui.theme"] == "user"


async def test_what_holds_for_one_turn_alone(lab: Lab) -> None:
    schema: dict[str, object] = {"type": "object", "properties": {}}
    async with lab.session(say("{}"), "b", "c", "d") as session:
        await session.run("one", engine.SettingsUpdate(output_schema=schema, environments=()))
        await session.run("two", engine.SettingsUpdate(reasoning_effort="high"))
        await session.run("three")
        await session.update(engine.SettingsUpdate(reasoning_effort=None))
        await session.run("four")
    bodies = [request.body for request in lab.model.requests]
    assert "text" in bodies[0]
    assert all("format" not in (body.get("text") or {}) for body in bodies[1:])  # type: ignore[operator]
    names = [{tool.get("name") for tool in body["tools"]} for body in bodies]  # type: ignore[attr-defined]
    assert "exec_command" not in names[0]
    assert all("exec_command" in found for found in names[1:])
    efforts = [(body["reasoning"] or {}).get("effort") for body in bodies]  # type: ignore[attr-defined]
    assert efforts == [efforts[0], "high", "high", efforts[0]]  # what is given with a turn holds from that turn on
    assert texts(lab.input(0))[-1] == "one"


async def test_settings_that_come_with_steering_are_for_the_next_turn(lab: Lab) -> None:
    reached, go_on = trio.Event(), trio.Event()

    @engine.tool()
    async def wait() -> str:
        """Waits."""
        reached.set()
        await go_on.wait()
        return "done"

    answers = (response(call("wait")), "end", "after")
    async with lab.session(*answers, tools=(wait,), model="gpt-5.4") as session:
        async with session.turn("x") as turn:
            await reached.wait()
            await session.start_turn("more", engine.SettingsUpdate(model="gpt-5.5", output_schema={"type": "object"}))
            go_on.set()
            await turn.result()
        await session.run("y")
    assert [request.body["model"] for request in lab.model.requests] == ["gpt-5.4", "gpt-5.4", "gpt-5.5"]
    assert all("format" not in (request.body.get("text") or {}) for request in lab.model.requests)  # type: ignore[operator]
