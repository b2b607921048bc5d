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
