"""What a start refuses, and that it says where and why."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

import engine
from engine.models.scripts import reply, response, shell, wait
from engine.protocol.events import DeprecationNotice, Warning
from engine.session.startup import Start, Step, check_graph
from tests.session.conftest import Lab


async def test_a_cwd_that_is_no_directory_fails_the_start(lab: Lab) -> None:
    async with lab.open() as opened:
        for cwd, problem in ((lab.home / "nowhere", "does not exist"), (__file__, "is not a directory")):
            with pytest.raises(engine.SessionStartError, match=problem) as caught:
                await opened.start_session(engine.SessionSettings(cwd=cwd))
            assert (caught.value.stage, type(caught.value.cause)) == ("configuration", engine.InvalidRequest)
        assert opened.sessions() == ()


async def test_an_unknown_provider_fails_the_start_and_names_the_known_ones(lab: Lab) -> None:
    async with engine.open_engine(home=lab.home) as opened:
        with pytest.raises(engine.SessionStartError, match="Model provider `nobody` not found") as caught:
            await opened.start_session(lab.settings(model_provider="nobody"))
    assert isinstance(caught.value.cause, engine.UnknownProvider)


async def test_bad_configuration_has_file_line_column_and_key(lab: Lab) -> None:
    (lab.home / "config.toml").write_text('model = "x"\nhide_agent_reasoning = "yes"\n')
    with pytest.raises(engine.ConfigError) as caught:
        async with engine.open_engine(home=lab.home):
            pass
    error = caught.value
    assert (error.file, error.line, error.key) == (str(lab.home / "config.toml"), 2, "hide_agent_reasoning")


async def test_a_missing_key_names_the_variable_and_the_other_ways(lab: Lab) -> None:
    async with engine.open_engine(home=lab.home) as opened, opened.session(lab.settings()) as session:
        with pytest.raises(engine.TurnFailed) as caught:
            await session.run("go")
    assert isinstance(caught.value.__cause__, engine.MissingCredential)
    for hint in ("OPENAI_API_KEY", "--oss", "--model-provider scripted"):
        assert hint in str(caught.value)


async def test_sessions_end_with_their_engine(lab: Lab) -> None:
    async with lab.open(response(wait())) as opened:
        session = await opened.start_session(lab.settings())
        turn = await session.start_turn("go")
        await lab.model.until_waiting()
        assert opened.sessions() == (session,)
    await session.wait_closed()
    with pytest.raises(engine.TurnInterrupted):
        await turn.result()
    with pytest.raises(engine.EngineClosed):
        await opened.start_session()


async def test_errors_of_the_host_leave_the_engine_as_they_came(lab: Lab) -> None:
    async def fail(error: Exception) -> None:
        async with lab.open() as opened:
            await opened.start_session(lab.settings())
            raise error

    with pytest.raises(ZeroDivisionError):
        await fail(ZeroDivisionError())
    group = ExceptionGroup("of the host", [ValueError()])
    with pytest.raises(ExceptionGroup) as caught:
        await fail(group)
    assert caught.value is group


async def test_a_crash_is_kept_for_who_asks_and_the_others_live_on(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    crashed: list[tuple[engine.Session, Exception]] = []

    def note(session: engine.Session, error: Exception) -> None:
        crashed.append((session, error))

    async with lab.open(reply("fine"), on_crash=note) as opened:
        doomed = await opened.start_session(lab.settings())
        other = await opened.start_session(lab.settings())
        boom = RuntimeError("a bug of ours")

        def fail(*_: object) -> None:
            raise boom

        with monkeypatch.context() as patch:
            patch.setattr("engine.session.turn.context_items", fail)
            with pytest.raises(engine.SessionCrashed) as caught:
                await doomed.run("go")
        assert caught.value.__cause__ is boom
        with pytest.raises(engine.SessionCrashed):
            await doomed.wait_closed()
        with pytest.raises(engine.SessionCrashed):
            await doomed.run("again")
        assert crashed == [(doomed, boom)]
        assert (await other.run("go")).final_message == "fine"
    assert "ended by an error" in caplog.text


async def test_an_unwritable_home_does_not_stop_a_session(lab: Lab) -> None:
    (lab.home / "sessions").write_text("in the way")
    async with lab.session(reply("one"), reply("two")) as session:
        async with session.turn("first") as turn:
            events = [event.msg async for event in turn]
            assert (await turn.result()).final_message == "one"
        told = [msg for msg in events if "Failed to save the conversation transcript" in str(msg)]
        assert len(told) == 1
        (lab.home / "sessions").unlink()
        await session.run("second")
    assert lab.kinds().count("task_started") == 2
    assert lab.kinds()[0] == "session_meta"


@pytest.mark.parametrize("persistence", ["limited", "extended"])
async def test_a_transcript_that_cant_be_saved_at_the_end_is_told(lab: Lab, persistence: str) -> None:
    (lab.home / "sessions").write_text("in the way")
    async with lab.session(reply("one"), persistence=persistence) as session:
        await session.run("first")
        with session.events() as events:
            await session.aclose()
            last = [event.msg async for event in events][-2:]
    assert [msg.type for msg in last] == ["error", "shutdown_complete"]
    assert "Failed to shutdown thread persistence" in str(last[0])


async def test_a_cancelled_start_leaves_nothing(lab: Lab) -> None:
    async with lab.open() as opened:
        with trio.CancelScope() as scope:
            scope.cancel()
            await opened.start_session(lab.settings())
        assert scope.cancelled_caught
        assert opened.sessions() == ()
    assert lab.rollouts() == []


def test_a_graph_names_each_need_before_its_step() -> None:
    async def nothing(_: object) -> None:
        pass

    check_graph([Step("a", nothing), Step("b", nothing, needs=("a",))])
    for graph in ([Step("b", nothing, needs=("a",))], [Step("a", nothing), Step("a", nothing)]):
        with pytest.raises(ValueError, match="startup step"):
            check_graph(graph)


async def test_steps_that_wait_overlap_and_others_run_in_the_task_of_the_session(lab: Lab) -> None:
    there = {name: trio.Event() for name in ("one", "other")}
    tasks: dict[str, str] = {}

    def meeting(mine: str, others: str) -> Step:
        async def meet(start: Start) -> None:
            tasks[mine] = trio.lowlevel.current_task().name
            there[mine].set()
            await there[others].wait()

        return Step(mine, meet, needs=("session",), deadline=5)

    async def look(start: Start) -> None:
        tasks["look"] = trio.lowlevel.current_task().name

    async with lab.open() as opened:
        opened._graph = (
            *opened._graph,
            Step("look", look, needs=("configuration",)),
            meeting("one", "other"),
            meeting("other", "one"),
        )
        with trio.fail_after(5):
            async with opened.session(lab.settings()) as session:
                names = [span.name for span in session.startup_trace.spans]
    assert names.index("look") < names.index("one")
    assert tasks["look"].endswith("session_main")
    assert {tasks["one"], tasks["other"]} == {"one", "other"}


async def test_the_startup_trace_has_every_step(lab: Lab) -> None:
    async with lab.session() as session:
        names = [span.name for span in session.startup_trace.spans]
        assert {"configuration", "model", "shell", "thread_persistence", "session"} <= set(names)
        assert all(span.status == "ok" and span.duration >= 0 for span in session.startup_trace.spans)
        assert all(span.start + span.duration <= session.startup_trace.duration for span in session.startup_trace.spans)


async def test_the_startup_trace_has_the_background_as_far_as_it_has_got(lab: Lab) -> None:
    go_on = trio.Event()

    async def waits(start: Start) -> None:
        await go_on.wait()

    async def fails(start: Start) -> None:
        raise ValueError("no")

    async with lab.open() as opened:
        opened._graph = (
            *opened._graph,
            Step("slow", waits, needs=("session",), when="background"),
            Step("weak", fails, needs=("session",), when="background", on_failure="log"),
            Step("idle", waits, needs=("session",), when="background", applies=lambda start: False),
        )
        async with opened.session(lab.settings()) as session:
            ready = session.startup_trace.duration
            await trio.testing.wait_all_tasks_blocked()
            states = {span.name: span.status for span in session.startup_trace.background}
            assert states == {"slow": "running", "weak": "failed"}
            go_on.set()
            await trio.testing.wait_all_tasks_blocked()
            trace = session.startup_trace
            assert {span.name: span.status for span in trace.background} == {"slow": "ok", "weak": "failed"}
            assert trace.duration == ready
            assert all(span.start >= 0 for span in trace.background)


async def test_what_a_start_says_comes_in_its_order(lab: Lab, tmp_path: Path) -> None:
    """session.md 2.4, C3: aliases, warnings of the configuration and the settings, unstable features, on-failure."""
    (lab.home / "config.toml").write_text(
        "approval_policy = 'on-failure'\n[features]\ntelepathy = false\ncollab = true\ncode_mode = true\n"
        "[otel.span_attributes]\n'' = 'no name'\n"
    )
    (tmp_path / "requirements.toml").write_text("allowed_approval_policies = ['on-failure']\n")
    async with lab.open(system_folder=tmp_path) as opened:
        settings = engine.SessionSettings(cwd=lab.cwd, approval_policy="never")
        async with opened.session(settings) as session:
            with session.events() as events:
                said = [(await events.__anext__()).msg for _ in range(9)]
    kinds = [msg.type for msg in said]
    assert kinds == ["session_configured", *["deprecation_notice"] * 2, *["warning"] * 6]
    assert [msg.summary.split("`")[1] for msg in said if isinstance(msg, DeprecationNotice)] == [
        "[features].collab",
        "[features].telepathy",
    ]
    texts = [msg.message for msg in said if isinstance(msg, Warning)]
    expected = [
        "`features.code_mode` is not supported yet",
        "`features.collab` is not supported yet",
        "otel.span_attributes",
        "Configured value for `approval_policy` is disallowed by requirements",
        "Under-development features enabled: code_mode.",
        "`on-failure` approval policy is deprecated",
    ]
    assert [wanted for wanted, text in zip(expected, texts, strict=True) if wanted not in text] == []


async def test_a_start_that_fails_says_how_far_it_got(lab: Lab) -> None:
    async with lab.open() as opened:
        with pytest.raises(engine.SessionStartError) as caught:
            await opened.start_session(lab.settings(shell="/nowhere/bash"))
    trace = caught.value.startup_trace
    assert trace is not None
    assert [(span.name, span.status) for span in trace.spans][-1] == (caught.value.stage, "failed")


async def test_a_host_chooses_the_shell_of_its_session(lab: Lab) -> None:
    script = (response(shell("echo $0")), reply("done"))
    async with lab.session(*script, shell="/bin/sh") as session:
        await session.run("go")
    (output,) = (item["output"] for item in lab.input() if item["type"] == "function_call_output")
    assert "/bin/sh" in str(output)
    for wanted, problem in (("fish", "no shell that commands can be run with"), ("/nowhere/bash", "there is no shell")):
        async with lab.open() as opened:
            with pytest.raises(engine.SessionStartError, match=problem):
                await opened.start_session(lab.settings(shell=wanted))
            assert opened.sessions() == ()
