"""Going on with a fork of a stored thread: a new id and file, the same history, the source untouched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

import engine
from engine.models.scripts import call, reply, response, say, usage
from engine.protocol.events import SessionConfigured, Warning
from engine.protocol.wire import JsonObject
from tests.session.conftest import Lab, texts


async def recorded(lab: Lab, *messages: str, model: str | None = None) -> engine.ThreadId:
    answers = [response(say(f"re: {message}", phase="final_answer"), usage(10, 5)) for message in messages]
    async with lab.session(*answers, model=model) as session:
        for message in messages:
            await session.run(message)
    return session.thread_id


def lines(path: Path) -> list[JsonObject]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def the_fork(lab: Lab, source: str) -> Path:
    (path,) = (path for path in lab.rollouts() if source not in path.name)
    return path


async def test_a_fork_has_its_own_id_and_file_and_the_history_of_its_source(lab: Lab) -> None:
    source = await recorded(lab, "first", "second")
    (path,) = lab.rollouts()
    before = path.read_bytes()
    async with lab.open(response(say("three"), usage(10, 5))) as opened:
        session = await opened.fork_session(source, settings=lab.settings())
        assert session.thread_id != source
        fork = the_fork(lab, source)  # it is there at once
        assert lines(fork)[0]["payload"]["forked_from_id"] == source  # type: ignore[index]
        assert len(lines(fork)) == len(before.splitlines()) + 1
        with session.events() as events:
            configured = (await anext(events)).msg
        assert isinstance(configured, SessionConfigured)
        assert configured.forked_from_id == source
        assert configured.thread_id == session.thread_id
        assert configured.initial_messages
        result = await session.run("third")
        assert result.total_usage.total_tokens == 45  # the total of the source goes on
    assert texts(lab.input())[-5:] == ["first", "re: first", "second", "re: second", "third"]
    assert path.read_bytes() == before
    async with lab.open(reply("four")) as opened:
        again = await opened.resume_session(session.thread_id, settings=lab.settings())
        await again.run("fourth")
    assert texts(lab.input())[-3:] == ["third", "three", "fourth"]


@pytest.mark.parametrize(("n", "kept"), [(1, ["first", "re: first", "go"]), (2, ["second", "re: second", "go"])])
async def test_a_fork_before_a_user_message(lab: Lab, n: int, kept: list[str]) -> None:
    source = await recorded(lab, "first", "second", "third")
    async with lab.open(reply("x")) as opened:
        session = await opened.fork_session(source, settings=lab.settings(), before=n)
        await session.run("go")
    assert texts(lab.input())[-3:] == kept


async def test_a_fork_through_a_turn(lab: Lab) -> None:
    source = await recorded(lab, "first", "second")
    started = [line["payload"] for line in lab.lines() if line["type"] == "event_msg"]
    turn = next(payload["turn_id"] for payload in started if payload["type"] == "task_started")  # type: ignore[index]
    async with lab.open(reply("x")) as opened:
        session = await opened.fork_session(source, settings=lab.settings(), through=str(turn))
        await session.run("go")
        assert texts(lab.input())[-3:] == ["first", "re: first", "go"]
        with pytest.raises(engine.SessionStartError, match="has no turn nope"):
            await opened.fork_session(source, settings=lab.settings(), through="nope")
    assert len(lab.rollouts()) == 2  # what failed left nothing


async def test_a_running_turn_is_told_as_interrupted(lab: Lab) -> None:
    held = trio.Event()

    @engine.tool()
    async def wait() -> str:
        """Waits."""
        held.set()
        await trio.Event().wait()
        return ""

    async with lab.open(response(call("wait")), reply("x")) as opened:
        async with opened.session(lab.settings(), tools=[wait]) as source:
            turn = await source.start_turn("first")
            await held.wait()
            fork = await opened.fork_session(source.thread_id, settings=lab.settings())
            told = [line["payload"] for line in lines(the_fork(lab, source.thread_id))][-2:]
            assert told[0]["role"] == "user"  # type: ignore[index]
            assert "<turn_aborted>" in json.dumps(told[0])
            assert told[1] == {"type": "turn_aborted", "turn_id": turn.id, "reason": "interrupted"}
            await fork.run("go")
            assert texts(lab.input())[-1] == "go"
            await turn.interrupt()


async def test_the_windows_of_a_fork_are_numbered_from_zero(lab: Lab) -> None:
    source = await recorded(lab, "first")
    (path,) = lab.rollouts()
    line = {"timestamp": "2025-01-01T00:00:00.000Z", "type": "compacted", "payload": {"message": "s"}}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    async with lab.open(reply("x"), reply("y")) as opened:
        fork = await opened.fork_session(source, settings=lab.settings())
        await fork.run("go")
        assert lab.model.requests[-1].headers["x-codex-window-id"] == f"{fork.thread_id}:0"
        await fork.aclose()
        again = await opened.resume_session(fork.thread_id, settings=lab.settings())
        await again.run("go")
        assert lab.model.requests[-1].headers["x-codex-window-id"] == f"{fork.thread_id}:1"


async def test_a_fork_is_not_warned_about_another_model(lab: Lab) -> None:
    source = await recorded(lab, "first", model="gpt-5.4")
    async with lab.open() as opened:
        fork = await opened.fork_session(source, settings=lab.settings(model="gpt-5.2"))
        with fork.events() as events:
            seen = [(await anext(events)).msg for _ in range(events.pending())]
    assert not [msg for msg in seen if isinstance(msg, Warning) and "recorded with model" in msg.message]


@pytest.mark.parametrize("stored", [True, False])
async def test_a_fork_that_is_stored_nowhere(lab: Lab, stored: bool) -> None:
    store = None if stored else engine.InMemoryThreadStore()
    async with lab.open(response(say("one"), usage(10, 5)), reply("two"), store=store) as opened:
        source = await opened.start_session(lab.settings())
        await source.run("first")
        files = lab.rollouts()
        fork = await opened.fork_session(source.thread_id, settings=lab.settings(ephemeral=True))
        with fork.events() as events:
            configured = (await anext(events)).msg
        assert isinstance(configured, SessionConfigured)
        assert (configured.forked_from_id, configured.rollout_path) == (source.thread_id, None)
        await fork.run("second")
        assert texts(lab.input())[-3:] == ["first", "one", "second"]
    assert lab.rollouts() == files


async def test_threads_in_memory_are_forked_too(lab: Lab) -> None:
    store = engine.InMemoryThreadStore()
    async with lab.open(reply("one"), reply("two"), store=store) as opened:
        source = await opened.start_session(lab.settings())
        await source.run("first")
        fork = await opened.fork_session(source.thread_id, settings=lab.settings())
        await fork.run("second")
        assert texts(lab.input())[-3:] == ["first", "one", "second"]
        found = await opened.threads.read(fork.thread_id)
        assert found.forked_from_id == source.thread_id


async def test_a_start_that_fails_after_the_fork_takes_it_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    source = await recorded(lab, "first")

    def broken(*arguments: object) -> object:
        raise engine.StoreError("no")

    async with lab.open() as opened:
        monkeypatch.setattr("engine.session.resume.restore", broken)
        with pytest.raises(engine.SessionStartError, match="no"):
            await opened.fork_session(source, settings=lab.settings())
    assert len(lab.rollouts()) == 1
    assert list(lab.home.rglob("*.part")) == []
