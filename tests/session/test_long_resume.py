"""Going on with long threads: handed out before their history is read, the first request waits for what it needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing

import engine
from engine.errors import StoreError
from engine.models.scripts import reply, response, say, usage
from engine.protocol.events import SessionConfigured, Warning
from engine.protocol.items import user_message
from engine.protocol.rollout_items import Compacted
from engine.thread_store import stored_tail
from engine.thread_store.local import LocalThreadStore
from engine.thread_store.stored_tail import StoredTail
from tests.session.conftest import Lab, texts

TURNS = 30


async def recorded(lab: Lab, *, compacted_after: int | None = None) -> Path:
    """A stored thread of many turns, maybe compacted once on the way."""
    answers = [response(say(f"answer {number}"), usage(10, 5)) for number in range(TURNS)]
    async with lab.session(*answers) as session:
        for number in range(TURNS):
            await session.run(f"question {number}")
            if number == compacted_after:
                replacement = (user_message("the summary"),)
                session._core.hub.persist([Compacted("the summary", replacement)])
    (path,) = lab.rollouts()
    return path


def window(lab: Lab) -> str:
    """The number of the context window in the last request."""
    return lab.model.requests[-1].headers["x-codex-window-id"].rpartition(":")[2]


def is_open(path: Path) -> bool:
    handles = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return any(os.path.exists(handle) and os.readlink(handle) == str(path) for handle in handles)


@pytest.fixture(params=["short", "long"])
def long(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether these threads count as long."""
    if request.param == "long":
        monkeypatch.setattr(stored_tail, "AT_ONCE", 2000)
        monkeypatch.setattr(stored_tail, "EVENTS_KEPT", 2000)
        monkeypatch.setattr(stored_tail, "LIGHT", 1000)
    return bool(request.param == "long")


async def test_the_first_turn_finds_the_whole_history(lab: Lab, long: bool) -> None:
    path = await recorded(lab)
    async with lab.open(reply("x"), reply("y")) as opened:
        session = await opened.resume_session(path, settings=lab.settings())
        core = session._core
        assert (core.past is None, core.previous_model is None, is_open(path)) == (False, False, long)
        first = await session.run("go")
        asked = [text for text in texts(lab.input()) if text.startswith("question")]
        assert asked == [f"question {number}" for number in range(TURNS)]
        assert texts(lab.input())[-1] == "go"
        assert not any("<environment_context>" in text for text in texts(lab.input())[4:])
        assert core.past is None
        assert first.total_usage.total_tokens == 15 * TURNS
        await session.run("on")
        assert texts(lab.input())[-3:] == ["go", "x", "on"]
    assert window(lab) == "0"


async def test_a_compacted_thread_gives_what_follows(lab: Lab, long: bool) -> None:
    path = await recorded(lab, compacted_after=20)
    async with lab.open(reply("x")) as opened:
        session = await opened.resume_session(path, settings=lab.settings())
        with session.events() as events:
            configured = (await anext(events)).msg
        assert isinstance(configured, SessionConfigured)
        assert configured.initial_messages is not None
        told = [msg.message for msg in configured.initial_messages if msg.type == "user_message"]  # type: ignore[union-attr]
        expected = [f"question {number}" for number in range(21, TURNS)]
        assert told == (expected[-len(told) :] if long else expected)
        assert told
        await session.run("go")
    assert [text for text in texts(lab.input()) if text.startswith(("the summary", "question", "go"))] == [
        "the summary",
        *expected,
        "go",
    ]
    assert window(lab) == "1"


async def test_what_a_session_does_before_its_first_turn_comes_behind_the_stored_part(lab: Lab, long: bool) -> None:
    path = await recorded(lab)
    async with lab.open(reply("x")) as opened:
        session = await opened.resume_session(path, settings=lab.settings())
        await session.run_shell("true")
        assert session._core.past is not None
        await session.run("go")
    seen = texts(lab.input())
    command = next(position for position, text in enumerate(seen) if "<user_shell_command>" in text)
    assert seen.index(f"answer {TURNS - 1}") < command < seen.index("go")


async def test_a_session_that_ends_without_a_turn_gives_the_file_back(lab: Lab, long: bool) -> None:
    path = await recorded(lab)
    async with lab.open() as opened:
        session = await opened.resume_session(path, settings=lab.settings())
        await session.aclose()
        assert not is_open(path)
    async with lab.open() as opened:
        with pytest.raises(engine.SessionStartError, match="unknown sandbox mode"):
            await opened.resume_session(path, settings=engine.SessionSettings(cwd=lab.cwd, sandbox="no such mode"))  # type: ignore[arg-type]
        assert not is_open(path)


async def test_a_file_that_is_removed_before_the_first_turn_is_still_read(lab: Lab, long: bool) -> None:
    path = await recorded(lab)
    async with lab.open(reply("x")) as opened:
        session = await opened.resume_session(path, settings=lab.settings())
        path.unlink()
        await session.run("go")
        assert "question 0" in texts(lab.input())


async def test_a_file_that_is_cut_before_the_first_turn_fails_that_turn(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_tail, "AT_ONCE", 2000)
    path = await recorded(lab)
    async with lab.open(reply("x")) as opened:
        session = await opened.resume_session(path, settings=lab.settings())
        os.truncate(path, 5000)
        with pytest.raises(engine.TurnFailed, match="was cut while it was being read"):
            await session.run("go")
        assert not lab.model.requests


# --- the number of the context window ------------------------------------------------------------


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> trio.Event:
    """Counting waits for it, and is needed."""
    monkeypatch.setattr(stored_tail, "AT_ONCE", 2000)
    opened = trio.Event()
    count = LocalThreadStore.count_generation

    async def wait_and_count(store: LocalThreadStore, tail: StoredTail) -> int:
        await opened.wait()
        return await count(store, tail)

    monkeypatch.setattr(LocalThreadStore, "count_generation", wait_and_count)
    return opened


async def test_only_the_first_request_waits_for_the_count(lab: Lab, gate: trio.Event) -> None:
    path = await recorded(lab, compacted_after=3)
    async with lab.open(reply("x"), reply("y")) as opened:
        session = await opened.resume_session(path, settings=lab.settings())
        async with session.turn("go") as turn:
            with trio.move_on_after(0.2):
                await turn.result()
            assert not lab.model.requests
            assert session.status == "running"
            gate.set()
            await turn.result()
        assert window(lab) == "1"
        await session.run("on")
        assert window(lab) == "1"


async def test_a_turn_that_waits_for_the_count_can_be_interrupted(lab: Lab, gate: trio.Event) -> None:
    path = await recorded(lab, compacted_after=3)
    async with lab.open(reply("x")) as opened:
        session = await opened.resume_session(path, settings=lab.settings())
        turn = await session.start_turn("go")
        await trio.testing.wait_all_tasks_blocked()
        await turn.interrupt()
        with pytest.raises(engine.TurnInterrupted):
            await turn.result()
        gate.set()
        await session.run("again")
        assert window(lab) == "1"


async def test_a_session_can_end_while_it_counts(lab: Lab, gate: trio.Event) -> None:
    path = await recorded(lab, compacted_after=3)
    async with lab.open() as opened:
        session = await opened.resume_session(path, settings=lab.settings())
        with trio.fail_after(5):
            await session.aclose()
    assert not is_open(path)


async def test_a_count_that_fails_is_told_and_costs_nothing_else(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_tail, "AT_ONCE", 2000)

    async def fail(store: LocalThreadStore, tail: StoredTail) -> int:
        raise StoreError("the disk is gone")

    monkeypatch.setattr(LocalThreadStore, "count_generation", fail)
    path = await recorded(lab, compacted_after=3)
    async with lab.open(reply("x")) as opened:
        session = await opened.resume_session(path, settings=lab.settings())
        with session.events() as events:
            await session.run("go")
            seen = [await anext(events) for _ in range(events.pending())]
    warnings = [event.msg.message for event in seen if isinstance(event.msg, Warning)]
    assert warnings == [
        "Failed to count the compactions of the thread; its context window has no right number: the disk is gone"
    ]
