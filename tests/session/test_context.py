"""What the model is told besides the conversation: at first everything, later only what changed (session.md 4.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

import engine
from engine.config.loading import load_config
from engine.models.catalogue import look_up
from engine.models.scripts import reply
from engine.protocol.settings import CollaborationMode, CollaborationSettings
from engine.session.collaboration import MODES
from engine.session.configuration import SessionConfiguration
from engine.session.context import TurnFacts, context_items, turn_context
from engine.session.environments import EnvironmentSelection, RemoteEnvironment, TurnEnvironment
from engine.session.history import request_form
from tests.session.conftest import Lab


def parts(lab: Lab, request: int = -1) -> list[tuple[str, str]]:
    """Role and text of every content part of a request."""
    return [
        (str(item["role"]), str(part["text"]))
        for item in lab.input(request)
        if item.get("type") == "message"
        for part in item["content"]  # type: ignore[attr-defined]
    ]


def tools(lab: Lab) -> list[str]:
    """The names of the tools of the last request."""
    offered: Any = lab.model.requests[-1].body["tools"]
    return [tool["name"] for tool in offered]


def tagged(lab: Lab, start: str, request: int = -1) -> list[str]:
    return [text for _, text in parts(lab, request) if text.startswith(start)]


# --- AGENTS.md -----------------------------------------------------------------------------------


async def test_agents_md_comes_before_the_environment_in_one_message(lab: Lab) -> None:
    (lab.home / "AGENTS.md").write_text("\nfrom home\n")
    (lab.cwd / "AGENTS.md").write_text("from repo\n")
    async with lab.session(reply("x")) as session:
        await session.run("go")
    user: Any = [item for item in lab.input() if item.get("role") == "user"]
    first, second = user[0]["content"]
    assert first["text"] == (
        f"# AGENTS.md instructions for {lab.cwd}\n\n<INSTRUCTIONS>\nfrom home\n\n--- project-doc ---\n\nfrom repo\n\n"
        "</INSTRUCTIONS>"
    )
    assert second["text"].startswith("<environment_context>\n")


async def test_agents_md_is_said_once_and_read_again_by_the_next_session(lab: Lab) -> None:
    file = lab.cwd / "AGENTS.md"
    file.write_text("first")
    async with lab.open(reply("1"), reply("2"), reply("3"), reply("4")) as host:
        async with host.session(lab.settings()) as session:
            await session.run("go")
            file.write_text("second")
            await session.run("more")
            thread = session.thread_id
        assert [text.split("\n")[3] for text in tagged(lab, "# AGENTS.md")] == ["first"]
        resumed = await host.resume_session(thread, settings=lab.settings())
        await resumed.run("again")
        assert [text.split("\n")[3] for text in tagged(lab, "# AGENTS.md")] == ["first"], "it is in the history"
        await resumed.aclose()
        async with host.session(lab.settings()) as other:
            await other.run("go")
        assert [text.split("\n")[3] for text in tagged(lab, "# AGENTS.md")] == ["second"]


@pytest.mark.parametrize("limit", [0, 4])
async def test_the_limit_is_about_project_files(lab: Lab, limit: int) -> None:
    (lab.home / "AGENTS.md").write_text("mine is long")
    (lab.cwd / "AGENTS.md").write_text("theirs")
    async with lab.open(reply("x"), config={"project_doc_max_bytes": limit}) as host:
        async with host.session(lab.settings()) as session:
            await session.run("go")
    (said,) = tagged(lab, "# AGENTS.md")
    assert ("mine is long" in said, "thei" in said, "theirs" in said) == (True, limit == 4, False)


# --- collaboration modes and personality ---------------------------------------------------------


async def test_a_mode_is_said_when_it_is_chosen_and_when_it_changes(lab: Lab) -> None:
    async with lab.session(*[reply(str(number)) for number in range(4)], reasoning_effort="high") as session:
        await session.run("go")
        assert tagged(lab, "<collaboration_mode>") == []
        async with session.turn("plan it", engine.SettingsUpdate(collaboration_mode="plan")) as turn:
            started = [event.msg async for event in turn if event.msg.type == "task_started"]
            await turn.result()
        assert [getattr(msg, "collaboration_mode_kind", None) for msg in started] == ["plan"]
        assert tagged(lab, "<collaboration_mode>") == [f"<collaboration_mode>\n{MODES['plan']}\n</collaboration_mode>"]
        assert lab.model.requests[-1].body["reasoning"] == {"effort": "medium"}
        await session.run("go on")
        assert len(tagged(lab, "<collaboration_mode>")) == 1
        await session.run("do it", engine.SettingsUpdate(collaboration_mode="default"))
        assert tagged(lab, "<collaboration_mode>")[1:] == [
            f"<collaboration_mode>\n{MODES['default']}\n</collaboration_mode>"
        ]
        assert lab.model.requests[-1].body["reasoning"] == {"effort": "high"}, "the effort from before"


async def test_a_mode_with_all_it_sets(lab: Lab) -> None:
    mode = CollaborationMode("plan", CollaborationSettings("gpt-5.2", "low", "Plan in verse."))
    async with lab.session(reply("x"), collaboration_mode=mode) as session:
        await session.run("go")
    body = lab.model.requests[-1].body
    assert (body["model"], body["reasoning"]["effort"]) == ("gpt-5.2", "low")  # type: ignore[index]
    assert tagged(lab, "<collaboration_mode>") == ["<collaboration_mode>\nPlan in verse.\n</collaboration_mode>"]


async def test_the_block_of_the_mode_can_be_left_out(lab: Lab) -> None:
    async with lab.open(reply("x"), config={"include_collaboration_mode_instructions": False}) as host:
        async with host.session(lab.settings(collaboration_mode="plan")) as session:
            await session.run("go")
    assert tagged(lab, "<collaboration_mode>") == []


async def test_an_unknown_mode_or_personality_is_refused(lab: Lab) -> None:
    async with lab.session() as session:
        with pytest.raises(engine.InvalidRequest, match="unknown collaboration mode 'dream'; known are default, plan"):
            await session.update(engine.SettingsUpdate(collaboration_mode="dream"))
        with pytest.raises(engine.InvalidRequest, match="unknown personality 'rude'"):
            await session.update(engine.SettingsUpdate(personality="rude"))


async def test_a_resumed_thread_keeps_its_mode_and_its_personality(lab: Lab) -> None:
    async with lab.open(reply("1"), reply("2"), reply("3")) as host:
        async with host.session(lab.settings(collaboration_mode="plan", personality="friendly")) as session:
            await session.run("go")
        resumed = await host.resume_session(session.thread_id, settings=lab.settings())
        await resumed.run("more")
        assert lab.model.requests[-1].body["reasoning"] == {"effort": "medium"}
        assert len(tagged(lab, "<collaboration_mode>")) == len(tagged(lab, "<personality_spec>")) == 1
        await resumed.aclose()
        contexts = [line["payload"] for line in lab.lines() if line["type"] == "turn_context"]
        assert [context["collaboration_mode"]["mode"] for context in contexts] == ["plan", "plan"]  # type: ignore[index]
        assert [context["personality"] for context in contexts] == ["friendly", "friendly"]  # type: ignore[index]
        other = await host.resume_session(session.thread_id, settings=lab.settings(collaboration_mode="default"))
        await other.run("more")
        assert MODES["default"] in tagged(lab, "<collaboration_mode>")[-1]
        await other.aclose()


async def test_the_personality_is_said_where_it_is_not_the_usual_one(lab: Lab) -> None:
    async with lab.session(reply("1"), reply("2"), reply("3")) as session:
        await session.run("go")
        assert tagged(lab, "<personality_spec>") == []
        await session.run("go", engine.SettingsUpdate(personality="friendly"))
        assert [text.split("\n")[1][:8] for text in tagged(lab, "<personality_spec>")] == ["Be warm "]
        await session.run("go", engine.SettingsUpdate(personality="friendly"))
        assert len(tagged(lab, "<personality_spec>")) == 1


async def test_no_personality_without_the_feature(lab: Lab) -> None:
    async with lab.open(reply("x"), config={"features.personality": False}) as host:
        async with host.session(lab.settings(personality="friendly")) as session:
            await session.run("go")
    assert tagged(lab, "<personality_spec>") == []


# --- environments --------------------------------------------------------------------------------


async def test_without_an_environment_there_is_nothing_to_work_in(lab: Lab) -> None:
    (lab.cwd / "AGENTS.md").write_text("be kind")
    async with lab.session(reply("1"), reply("2"), environments=()) as session:
        await session.run("go")
        assert tools(lab) == ["update_plan"]
        assert tagged(lab, "# AGENTS.md") == []
        (said,) = tagged(lab, "<environment_context>")
        assert "<cwd>" not in said
        await session.run("go", engine.SettingsUpdate(environments=[EnvironmentSelection("local")]))
        assert "exec_command" in tools(lab)


async def test_a_turn_selects_for_itself_a_session_for_good(lab: Lab) -> None:
    async with lab.session(*[reply(str(number)) for number in range(3)]) as session:
        await session.run("go", engine.SettingsUpdate(environments=[]))
        assert tools(lab) == ["update_plan"]
        await session.run("go")
        assert len(tools(lab)) > 1
        await session.update(engine.SettingsUpdate(environments=[]))
        await session.run("go")
        assert tools(lab) == ["update_plan"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["local", "local"], "duplicate turn environment id `local`"),
        (["nowhere"], "unknown turn environment id `nowhere`"),
        (["far"], "the environment `far` .* is remote, and this version of the engine runs commands only on this"),
    ],
)
async def test_selections_that_make_no_sense(lab: Lab, ids: list[str], message: str) -> None:
    selections = [EnvironmentSelection(id) for id in ids]
    async with lab.open(environments=[RemoteEnvironment("far", "ws://far.example")]) as host:
        with pytest.raises(engine.SessionStartError, match=message):
            await host.start_session(lab.settings(environments=selections))
        async with host.session(lab.settings()) as session:
            update = engine.SettingsUpdate(environments=selections)
            with pytest.raises(engine.InvalidRequest, match=message):
                await session.run("go", update)
            with pytest.raises(engine.InvalidRequest, match=message):
                await session.update(update)
    assert not lab.model.requests


async def test_the_first_environment_follows_the_cwd(lab: Lab, tmp_path: Path) -> None:
    selected = [EnvironmentSelection("local", lab.cwd)]
    async with lab.session(reply("x"), reply("y"), environments=selected) as session:
        with pytest.raises(engine.InvalidRequest, match="its cwd is the session's"):
            await session.run("go", engine.SettingsUpdate(environments=[EnvironmentSelection("local", tmp_path)]))
        await session.run("go")
        assert f"  <cwd>{lab.cwd}</cwd>\n" in tagged(lab, "<environment_context>")[0]
        await session.run("go", engine.SettingsUpdate(cwd=tmp_path))
    assert f"  <cwd>{tmp_path}</cwd>\n" in tagged(lab, "<environment_context>")[1]


def test_several_environments_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    config = load_config(tmp_path, cwd=tmp_path, env={})
    facts = TurnFacts(
        turn_id="t",
        configuration=SessionConfiguration.make(config, engine.SessionSettings(), str(tmp_path)),
        model="gpt-5.4",
        model_info=look_up("gpt-5.4"),
        instructions="",
        environments=(TurnEnvironment("local", "/a"), TurnEnvironment("far", "/b")),
        shell_name="bash",
        current_date="2026-01-02",
        timezone="Etc/UTC",
        truncation=look_up("gpt-5.4").truncation_policy,
        effort=None,
        summary="auto",
    )
    now = turn_context(facts)
    said = context_items(facts, now, None, None)[-1]
    assert request_form(said)["content"][-1]["text"] == (  # type: ignore[index]
        "<environment_context>\n"
        "  <environments>\n"
        '    <environment id="local">\n'
        "      <cwd>/a</cwd>\n"
        "      <shell>bash</shell>\n"
        "    </environment>\n"
        '    <environment id="far">\n'
        "      <cwd>/b</cwd>\n"
        "      <shell>bash</shell>\n"
        "    </environment>\n"
        "  </environments>\n"
        "  <current_date>2026-01-02</current_date>\n"
        "  <timezone>Etc/UTC</timezone>\n"
        "</environment_context>"
    )
    assert context_items(attrs.evolve(facts), now, now, None) == []
