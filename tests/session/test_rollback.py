"""Rollbacks: the history without its last turns, now and after a resume; the file keeps everything."""

from __future__ import annotations

import pytest
import trio

import engine
from engine.models import scripts
from engine.models.scripts import reply
from tests.session.conftest import Lab, texts


async def test_the_last_turn_is_gone_now_and_after_a_resume(lab: Lab) -> None:
    async with lab.session(reply("a"), reply("b"), reply("c")) as session:
        await session.run("first")
        await session.run("second")
        with session.events() as stream:
            await session.rollback()
            kinds = [(await anext(stream)).msg.type for _ in range(stream.pending())]
        assert kinds == ["token_count", "thread_rolled_back"]
        await session.run("third")
        live = lab.input()
        assert [text for text in texts(live) if text in ("first", "a", "second", "b", "third")] == [
            "first",
            "a",
            "third",
        ]
        thread = session.thread_id
    assert lab.kinds().count("thread_rolled_back") == 1
    assert "second" in lab.rollouts()[0].read_text()
    async with lab.open(reply("d")) as opened:
        session = await opened.resume_session(thread, settings=lab.settings())
        await session.run("fourth")
    assert lab.input()[: len(live)] == live


async def test_more_turns_than_there_are(lab: Lab) -> None:
    async with lab.session(reply("a"), reply("b")) as session:
        await session.run("first")
        await session.rollback(7)
        await session.run("second")
    assert "first" not in texts(lab.input())


async def test_a_compaction_can_be_rolled_back_over(lab: Lab) -> None:
    async with lab.session(reply("a"), reply("the note"), reply("b"), reply("c")) as session:
        await session.run("first")
        await session.compact()
        await session.run("second")
        await session.rollback(1)
        await session.run("third")
    said = texts(lab.input())
    assert said[0] == "first"
    assert "second" not in said


async def test_what_can_not_be_rolled_back(lab: Lab) -> None:
    async with lab.session(scripts.response(scripts.wait())) as session:
        with pytest.raises(engine.InvalidRequest, match="num_turns must be >= 1"):
            await session.rollback(0)
        async with session.turn("first"):
            with pytest.raises(engine.InvalidRequest, match="Cannot rollback while a turn is in progress"):
                await session.rollback()
    async with lab.session(ephemeral=True) as session:
        with pytest.raises(engine.InvalidRequest, match="requires persisted thread history"):
            await session.rollback()
        await trio.lowlevel.checkpoint()


LIMITS = {"model_context_window": 10_000, "model_auto_compact_token_limit": 8000}


@engine.tool()
async def look() -> str:
    """Looks."""
    return "seen"


async def test_what_a_dropped_turn_compacted_comes_back(lab: Lab) -> None:
    within = scripts.response(scripts.call("look"), scripts.usage(input=9000))
    answers = [reply("a"), within, reply("the note"), reply("b"), reply("c"), reply("d")]
    async with lab.session(*answers, tools=(look,), config=LIMITS) as session:
        await session.run("first")
        await session.run("second")
        assert session._core.generation == 1
        await session.rollback()
        await session.run("third")
        live = lab.input()
        said = texts(live)
        assert [text for text in said if text in ("first", "a", "second", "b", "third")] == ["first", "a", "third"]
        assert session._core.generation == 2
        thread = session.thread_id
    async with lab.open(reply("e")) as opened:
        session = await opened.resume_session(thread, settings=lab.settings(config=LIMITS))
        await session.run("fourth")
        assert session._core.generation == 2
    assert lab.input()[: len(live)] == live


async def test_what_was_compacted_before_a_dropped_turn_comes_back(lab: Lab) -> None:
    full = scripts.response(scripts.say("a"), scripts.usage(input=9000))
    async with lab.session(full, reply("the note"), reply("b"), reply("c"), config=LIMITS) as session:
        await session.run("first")
        await session.run("second")
        assert session._core.generation == 1
        await session.rollback()
        assert texts(list(session._core.history.for_request(images=True)))[-2:] == ["first", "a"]
        await session.run("third")
    said = texts(lab.input())
    assert [text for text in said if text in ("first", "a", "second", "b", "third")] == ["first", "a", "third"]


async def test_both_sides_of_a_compaction_can_be_dropped(lab: Lab) -> None:
    async with lab.session(reply("a"), reply("the note"), reply("b"), reply("c")) as session:
        await session.run("first")
        await session.compact()
        await session.run("second")
        await session.rollback(2)
        await session.run("third")
    assert not {"first", "second", "a", "b"} & set(texts(lab.input()))
