"""Going on with a stored thread: same id, same file, the history is there, settings are compared with the last turn."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine
from engine.models.scripts import reply, response, say, usage
from engine.protocol.events import SessionConfigured, Warning
from tests.session.conftest import Lab, texts


async def recorded(lab: Lab, model: str | None = None) -> engine.ThreadId:
    async with lab.session(response(say("one", phase="final_answer"), usage(10, 5)), model=model) as session:
        await session.run("first")
    return session.thread_id


async def test_a_resumed_thread_has_its_id_file_history_and_usage(lab: Lab) -> None:
    thread = await recorded(lab)
    before = lab.lines()
    async with lab.open(response(say("two"), usage(10, 5))) as opened:
        session = await opened.resume_session(thread, settings=lab.settings())
        assert session.thread_id == thread
        with session.events() as events:
            configured = (await anext(events)).msg
        assert isinstance(configured, SessionConfigured)
        assert configured.initial_messages is not None
        assert [msg.type for msg in configured.initial_messages][:2] == ["task_started", "user_message"]
        assert lab.lines() == before  # a resume adds nothing
        result = await session.run("second")
        assert result.total_usage.total_tokens == 30
        assert result.usage.total_tokens == 15
    assert texts(lab.input())[-3:] == ["first", "one", "second"]
    assert lab.kinds().count("session_meta") == 1
    assert lab.lines()[: len(before)] == before


@pytest.mark.parametrize("how", ["path", "last", "running"])
async def test_threads_are_found_by_path_by_last_and_while_they_run(lab: Lab, how: str) -> None:
    thread = await recorded(lab)
    async with lab.open(reply("x")) as opened:
        if how == "running":
            session = await opened.resume_session(thread)
            assert await opened.resume_session(thread) == session
            return
        (path,) = lab.rollouts()
        wanted: str | Path = path if how == "path" else "last"
        session = await opened.resume_session(wanted, settings=engine.SessionSettings(cwd=lab.cwd))
        assert session.thread_id == thread


async def test_the_cwd_of_the_last_turn_is_the_default(lab: Lab) -> None:
    thread = await recorded(lab)
    async with lab.open(reply("x")) as opened:
        session = await opened.resume_session(thread)
        await session.run("go")
    assert not any("<environment_context>" in text for text in texts(lab.input())[2:])


async def test_another_model_is_warned_about_once(lab: Lab) -> None:
    thread = await recorded(lab, model="gpt-5.4")
    async with lab.open(reply("x")) as opened:
        session = await opened.resume_session(thread, settings=lab.settings(model="gpt-5.2"))
        with session.events() as events:
            seen = [await anext(events) for _ in range(events.pending())]
    warnings = [event for event in seen if isinstance(event.msg, Warning)]
    assert [event.id for event in warnings] == ["auto-compact-0"]
    assert "recorded with model `gpt-5.4` but is resuming with `gpt-5.2`" in str(warnings[0].msg)


async def test_unknown_threads_fail_the_start_with_their_id(lab: Lab) -> None:
    unknown = "01900000-0000-7000-8000-000000000001"
    async with lab.open() as opened:
        with pytest.raises(engine.SessionStartError) as caught:
            await opened.resume_session(unknown)
        assert caught.value.stage == "stored_thread"
        assert isinstance(caught.value.cause, engine.ThreadNotFound)
        assert f"no rollout found for thread id {unknown}" in str(caught.value)
        with pytest.raises(engine.SessionStartError, match="invalid thread id"):
            await opened.resume_session("no-uuid")
        with pytest.raises(engine.SessionStartError, match="no stored thread"):
            await opened.resume_session("last", settings=lab.settings())


async def test_a_second_live_writer_of_a_thread_is_refused(lab: Lab) -> None:
    thread = await recorded(lab)
    async with lab.open() as opened:
        await opened.resume_session(thread)
        (path,) = lab.rollouts()
        with pytest.raises(engine.SessionStartError, match="already has a live local writer"):
            await opened.resume_session(path)


async def test_threads_in_memory_are_resumed_too(lab: Lab) -> None:
    store = engine.InMemoryThreadStore()
    async with lab.open(reply("one"), store=store) as opened, opened.session(lab.settings()) as session:
        await session.run("first")
    async with lab.open(reply("two"), store=store) as opened:
        resumed = await opened.resume_session(session.thread_id, settings=lab.settings())
        await resumed.run("second")
    assert texts(lab.input())[-3:] == ["first", "one", "second"]
    assert lab.rollouts() == []
