"""The same scenarios for `engine`, `engine.aio` and `engine.blocking`: same names, same types, same errors."""

from __future__ import annotations

import contextvars
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.models import scripts
from engine.protocol.inputs import TextInput
from tests.facades.styles import STYLES, Style

LABEL = contextvars.ContextVar("LABEL", default="unset")
FREE = engine.SessionSettings(sandbox="danger-full-access", approval_policy="never")


@pytest.fixture(params=STYLES, ids=lambda style: style.name)
def style(request: pytest.FixtureRequest) -> Style:
    chosen: Style = request.param
    return chosen


def test_turns_and_their_events(style: Style, tmp_path: Path) -> None:
    async def scenario(api: Style) -> None:
        model = engine.ScriptedModel(["one", "two"])
        async with api.open_engine(home=tmp_path, model=model) as host:
            assert host.home == tmp_path
            async with host.session(FREE) as session:
                assert host.sessions() == (session,)
                result = await session.run("first")
                assert result.final_message == "one"
                async with session.turn([TextInput("second")]) as turn:
                    kinds = [event.msg.type async for event in turn]
                    assert (await turn.result()).final_message == "two"
                    assert turn.pending() == 0
                assert (kinds[0], kinds[-1]) == ("task_started", "task_complete")
                assert session.status == {"completed": "two"}
                assert session.startup_trace.duration > 0
                assert session.model
                await session.durable()
                await session.flush()
                assert session.rollout_path is not None
                assert Path(session.rollout_path).exists()
            assert host.sessions() == ()

    style.run(scenario)


def test_an_engine_that_can_not_open(style: Style, tmp_path: Path) -> None:
    async def scenario(api: Style) -> None:
        (tmp_path / "config.toml").write_text("model = 3\n")
        with pytest.raises(engine.ConfigError, match=r"config\.toml:1"):
            async with api.open_engine(home=tmp_path):
                pytest.fail("it opened")

    style.run(scenario)


def test_a_start_that_fails(style: Style, tmp_path: Path) -> None:
    async def scenario(api: Style) -> None:
        async with api.open_engine(home=tmp_path, model=engine.ScriptedModel([])) as host:
            with pytest.raises(engine.SessionStartError) as caught:
                await host.resume_session("01890a5d-ac96-774b-bcce-b302099a8057")
            assert isinstance(caught.value.cause, engine.ThreadNotFound)
            assert host.sessions() == ()

    style.run(scenario)


def test_resuming_and_finding(style: Style, tmp_path: Path) -> None:
    async def scenario(api: Style) -> None:
        async with api.open_engine(home=tmp_path, model=engine.ScriptedModel(["a"])) as host:
            async with host.session(FREE) as session:
                await session.run("x")
                thread = session.thread_id
                assert await host.resume_session(thread) == session
        async with api.open_engine(home=tmp_path, model=engine.ScriptedModel(["b"])) as host:
            assert await host.find_thread(cwd=Path.cwd()) == thread
            assert await host.find_thread(name="no such name") is None
            session = await host.resume_session(thread, settings=FREE)
            assert (await session.run("y")).final_message == "b"
            await session.aclose()
            await session.aclose()
            await session.wait_closed()
            with pytest.raises(engine.SessionClosed):
                await session.run("z")

    style.run(scenario)


def test_tools_of_the_host_see_the_context_of_their_turn(style: Style, tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    def lookup(key: str) -> str:
        """Looks a key up."""
        seen.append((key, LABEL.get()))
        if key == "bad":
            raise LookupError("no such key")
        return key.upper()

    async def scenario(api: Style) -> None:
        model = engine.ScriptedModel(
            [scripts.response(scripts.call("lookup", key="good"), scripts.call("lookup", key="bad")), "done"]
        )
        async with api.open_engine(home=tmp_path, model=model) as host:
            async with host.session(FREE, tools=[api.tool(lookup)]) as session:
                LABEL.set("of the caller")
                assert (await session.run("go")).final_message == "done"
        outputs = [item["output"] for item in _input(model.requests[-1]) if item["type"] == "function_call_output"]
        assert outputs == ["GOOD", "LookupError: no such key"]

    style.run(scenario)
    assert sorted(seen) == [("bad", "of the caller"), ("good", "of the caller")]


def _input(request: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = request.body["input"]
    return items


@pytest.mark.parametrize("answer", ["approved", "denied", "broken"])
def test_the_approver_of_the_host_decides(style: Style, tmp_path: Path, answer: str) -> None:
    asked: list[engine.ApprovalRequest] = []
    ran: list[str] = []

    def approve(request: engine.ApprovalRequest) -> engine.Decision:
        asked.append(request)
        if answer == "broken":
            raise RuntimeError("the dialog was closed")
        return "approved" if answer == "approved" else "denied"

    def delete(key: str) -> str:
        """Deletes a key."""
        ran.append(key)
        return "gone"

    async def scenario(api: Style) -> None:
        model = engine.ScriptedModel([scripts.response(scripts.call("delete", key="k")), "done"])
        async with api.open_engine(home=tmp_path, model=model) as host:
            tools = [api.tool(delete, needs_approval=True)]
            async with host.session(FREE, tools=tools, approve=api.approver(approve)) as session:
                assert (await session.run("go")).final_message == "done"

    style.run(scenario)
    assert [type(request) for request in asked] == [engine.ToolApproval]
    assert ran == (["k"] if answer == "approved" else [])


def test_steering_and_interrupting(style: Style, tmp_path: Path) -> None:
    async def scenario(api: Style) -> None:
        # The interrupt may come before the first request, so responses are chosen by what they answer.
        after = scripts.response(scripts.say("after"), when=scripts.When(user_text="once again"))
        model = engine.ScriptedModel([after, scripts.response(scripts.wait(), repeat=None)])
        async with api.open_engine(home=tmp_path, model=model) as host, host.session(FREE) as session:
            turn = await session.start_turn("go")
            await turn.steer("more")
            assert await session.steer("and more", expected=turn.id) == turn.id
            with pytest.raises(engine.InvalidRequest, match="expected active turn id"):
                await session.steer("wrong", expected=engine.TurnId("other"))
            await session.interrupt()
            with pytest.raises(engine.TurnInterrupted):
                await turn.result()
            await turn.interrupt()
            with pytest.raises(engine.InvalidRequest, match="no active turn"):
                await turn.steer("late")
            assert (await session.run("once again")).final_message == "after"

    style.run(scenario)


def test_a_subscriber_hears_the_start_and_all_that_follows(style: Style, tmp_path: Path) -> None:
    async def scenario(api: Style) -> None:
        async with api.open_engine(home=tmp_path, model=engine.ScriptedModel(["a", "b"])) as host:
            session = await host.start_session(FREE)
            async with api.stream(session.events()) as stream, api.stream(session.events(buffer=2)) as narrow:
                await session.run("x")
                await session.aclose()
                kinds = [event.msg.type async for event in stream]
                assert kinds[0] == "session_configured"
                assert kinds[-1] == "shutdown_complete"
                assert kinds.count("task_complete") == 1
                with pytest.raises(engine.EventsLost):
                    async for _ in narrow:
                        pass

    style.run(scenario)


def test_settings_that_make_no_sense(style: Style, tmp_path: Path) -> None:
    async def scenario(api: Style) -> None:
        async with api.open_engine(home=tmp_path, model=engine.ScriptedModel([])) as host:
            async with host.session(FREE) as session:
                before = session.model
                with pytest.raises(engine.InvalidRequest):
                    await session.update(engine.SettingsUpdate(cwd="/does/not/exist/anywhere"))
                await session.update(engine.SettingsUpdate(model="gpt-5.4"))
                assert (before, session.model) != ("gpt-5.4", before)
                assert session.model == "gpt-5.4"
                with pytest.raises(engine.InvalidRequest):
                    await session.run("")

    style.run(scenario)


def test_a_command_of_the_user(style: Style, tmp_path: Path) -> None:
    async def scenario(api: Style) -> None:
        async with api.open_engine(home=tmp_path, model=engine.ScriptedModel([])) as host:
            async with host.session(FREE) as session, api.stream(session.events()) as stream:
                await session.run_shell("echo from the user")
                await session.aclose()
                ends = [event.msg async for event in stream if event.msg.type == "exec_command_end"]
        assert [end.aggregated_output for end in ends] == ["from the user\n"]

    style.run(scenario)


def test_compacting_and_rolling_back(style: Style, tmp_path: Path) -> None:
    model = engine.ScriptedModel([scripts.reply(text) for text in ("a", "the note", "b", "another note", "c")])

    async def scenario(api: Style) -> None:
        async with api.open_engine(home=tmp_path, model=model) as host:
            async with host.session(FREE) as session:
                await session.run("first")
                assert (await session.compact()).final_message is None
                await session.run("second")
                await session.rollback()
                turn = await session.start_compaction()
                kinds = [event.msg.type async for event in turn]
                assert "context_compacted" in kinds
                assert (await session.run("third")).final_message == "c"
                with pytest.raises(engine.InvalidRequest):
                    await session.rollback(0)

    style.run(scenario)
    asked = str(model.requests[-1].body["input"])
    assert "another note" in asked
    assert "second" not in asked


def test_hooks_of_the_host_may_stop_a_compaction(style: Style, tmp_path: Path) -> None:
    model = engine.ScriptedModel([scripts.reply(text) for text in ("a", "the note", "b")])
    asked: list[tuple[str, str]] = []

    def hook(when: str, facts: engine.CompactionFacts) -> str | None:
        asked.append((when, facts.trigger))
        return "not yet" if len(asked) == 1 else None

    async def scenario(api: Style) -> None:
        async with api.open_engine(home=tmp_path, model=model, compaction_hooks=api.compaction_hooks(hook)) as host:
            async with host.session(FREE) as session:
                await session.run("first")
                with pytest.raises(engine.TurnInterrupted):
                    await session.compact()
                await session.compact()
                assert (await session.run("second")).final_message == "b"

    style.run(scenario)
    assert asked == [("before", "manual"), ("before", "manual"), ("after", "manual")]
    assert "the note" in str(model.requests[-1].body["input"])


def test_forks_and_stored_threads(style: Style, tmp_path: Path) -> None:
    async def scenario(api: Style) -> None:
        model = engine.ScriptedModel([scripts.reply("a", repeat=None)])
        async with api.open_engine(home=tmp_path, model=model) as host:
            async with host.session(FREE) as session:
                await session.run("x")
                fork = await host.fork_session(session.thread_id, settings=FREE)
                await fork.run("y")
                await fork.aclose()
                await host.threads.rename(session.thread_id, "the first")
            page = await host.threads.list()
            assert {thread.thread_id for thread in page.threads} == {session.thread_id, fork.thread_id}
        async with api.open_threads(home=tmp_path) as threads:
            assert (await threads.read(session.thread_id)).name == "the first"
            assert await threads.archive(fork.thread_id) == (fork.thread_id,)
            with pytest.raises(engine.ThreadNotFound):
                await threads.read("01890a5d-ac96-774b-bcce-b302099a8057")

    style.run(scenario)


def test_objects_of_a_closed_engine_say_so(style: Style, tmp_path: Path) -> None:
    async def scenario(api: Style) -> None:
        async with api.open_engine(home=tmp_path, model=engine.ScriptedModel([])) as host:
            session = await host.start_session(FREE)
        await session.aclose()
        with pytest.raises((engine.EngineClosed, engine.SessionClosed)):
            await session.run("x")
        with pytest.raises(engine.EngineClosed):
            await host.start_session(FREE)

    style.run(scenario)


def test_an_exception_of_the_block_comes_out_as_it_is(style: Style, tmp_path: Path) -> None:
    async def scenario(api: Style) -> None:
        async with api.open_engine(home=tmp_path, model=engine.ScriptedModel([])) as host:
            await host.start_session(FREE)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        style.run(scenario)
