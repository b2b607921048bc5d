"""Compaction in a session: by hand and by itself, between and within turns, where it fails, and after a resume."""

from __future__ import annotations

import json

import pytest
import trio

import engine
from engine.models import scripts
from engine.models.scripts import reply, response, say, usage
from engine.protocol.events import Warning
from engine.session.compaction.texts import ACCURACY_WARNING, NO_ROOM_WARNING, SUMMARIZE, SUMMARY_PREFIX
from tests.session.conftest import Lab, collect, texts, types

SUMMARY = f"{SUMMARY_PREFIX}\nthe note"
LIMIT = {"model_context_window": 10_000, "model_auto_compact_token_limit": 900}
OVERFLOW = scripts.response(scripts.failed("context_length_exceeded", "too long"))


@engine.tool()
async def look(at: str) -> str:
    """Looks at something."""
    return f"seen {at}"


def full(text: str, tokens: int = 1000) -> object:
    return response(say(text), usage(input=tokens))


async def test_by_hand(lab: Lab) -> None:
    async with lab.session(reply("a"), full("the note", 500), reply("b")) as session:
        await session.run("first")
        with session.events() as stream:
            result = await session.compact()
            assert result.final_message is None
            kinds = [event.msg.type for event in [await anext(stream) for _ in range(stream.pending())]]
        assert kinds == [
            *["task_started", "item_started"],
            *["token_count", "token_count", "token_count"],  # of before, with the summary, of the new history
            *["item_completed", "context_compacted", "warning", "task_complete"],
        ]
        request = lab.model.requests[-1]
        assert request.body["tools"] == []
        assert request.body["parallel_tool_calls"] is False
        assert texts(lab.input())[-1] == SUMMARIZE
        assert request.headers["x-codex-window-id"].endswith(":0")
        await session.run("second")
    assert lab.model.requests[-1].headers["x-codex-window-id"].endswith(":1")
    said = texts(lab.input())
    assert said[:2] == ["first", SUMMARY]
    assert said[-1] == "second"
    assert any("<environment_context>" in text for text in said[2:])  # told again, all of it
    kinds = lab.kinds()
    assert kinds.count("compacted") == 1
    (compacted,) = (line["payload"] for line in lab.lines() if line["type"] == "compacted")
    assert isinstance(compacted, dict)
    assert compacted["message"] == SUMMARY


async def test_a_resumed_thread_goes_on_with_what_is_left(lab: Lab) -> None:
    async with lab.session(reply("a"), reply("the note")) as session:
        await session.run("first")
        await session.compact()
        thread = session.thread_id
    async with lab.open(reply("b")) as opened:
        session = await opened.resume_session(thread, settings=lab.settings())
        await session.run("second")
    assert texts(lab.input())[:2] == ["first", SUMMARY]
    assert lab.model.requests[-1].headers["x-codex-window-id"].endswith(":1")


async def test_before_the_input_of_a_full_window(lab: Lab) -> None:
    async with lab.session(full("a"), reply("the note"), reply("b"), config=LIMIT) as session:
        await session.run("first")
        async with session.turn("second") as turn:
            kinds = types(await collect(turn))
        assert kinds.index("context_compacted") < kinds.index("user_message")
    assert texts(lab.input(1))[-1] == SUMMARIZE
    assert "second" not in texts(lab.input(1))
    assert texts(lab.input())[:2] == ["first", SUMMARY]
    assert texts(lab.input())[-1] == "second"


async def test_within_a_turn_the_context_comes_before_its_message(lab: Lab) -> None:
    call = response(scripts.call("look", at="it"), usage(input=1000))
    async with lab.session(call, reply("the note"), reply("done"), tools=(look,), config=LIMIT) as session:
        assert (await session.run("go")).final_message == "done"
    said = texts(lab.input())
    assert said[-2:] == ["go", SUMMARY]
    assert any("<environment_context>" in text for text in said[:-2])
    kinds = lab.kinds()
    assert kinds[kinds.index("compacted") + 1] == "turn_context"


async def test_not_within_a_turn_that_is_over(lab: Lab) -> None:
    async with lab.session(full("a"), config=LIMIT) as session:
        await session.run("go")
    assert len(lab.model.requests) == 1


async def test_the_model_before_writes_the_summary_for_a_smaller_one(lab: Lab) -> None:
    async with lab.session(full("a", 150_000), reply("the note"), reply("b"), model="gpt-5.4") as session:
        await session.run("first")
        await session.run("second", engine.SettingsUpdate(model="small-model"))  # its window is that of unknown models
    assert [request.body["model"] for request in lab.model.requests][-1] == "small-model"


async def test_a_failure_leaves_the_history_and_records_no_input(lab: Lab) -> None:
    answers = (full("a"), scripts.response(scripts.http_error(400, "no")), reply("the note"), reply("b"))
    async with lab.session(*answers, config=LIMIT) as session:
        await session.run("first")
        with pytest.raises(engine.TurnFailed):
            await session.run("never heard")
        assert (await session.run("third")).final_message == "b"
    assert "never heard" not in json.dumps(lab.lines())
    assert texts(lab.input())[:2] == ["first", SUMMARY]


async def test_a_summary_that_does_not_fit_drops_the_oldest(lab: Lab) -> None:
    async with lab.session(reply("a"), OVERFLOW, OVERFLOW, reply("the note"), reply("b")) as session:
        await session.run("first")
        before = len(texts(lab.input()))
        await session.compact()
        assert len(lab.input(2)) == len(lab.input(1)) - 1
        assert len(lab.input(3)) == len(lab.input(1)) - 2
        assert before
        await session.run("second")
    assert texts(lab.input())[:2] == ["first", SUMMARY]


async def test_a_thread_that_can_not_be_summarised_goes_on(lab: Lab) -> None:
    answers = [reply("a"), *[OVERFLOW] * 4, reply("b")]
    async with lab.session(*answers) as session:
        await session.run("first")
        with session.events() as stream:
            with pytest.raises(engine.TurnFailed, match="ran out of room"):
                await session.compact()
            seen = [(await anext(stream)).msg for _ in range(stream.pending())]
        assert NO_ROOM_WARNING in [msg.message for msg in seen if isinstance(msg, Warning)]
        assert types(seen)[-2:] == ["error", "task_complete"]
        assert (await session.run("second")).final_message == "b"
    assert texts(lab.input())[:2] == ["first", f"{SUMMARY_PREFIX}\n(no summary available)"]


async def test_a_cut_stream_is_tried_again(lab: Lab) -> None:
    async with lab.session(reply("a"), scripts.response(scripts.cut()), reply("the note"), reply("b")) as session:
        await session.run("first")
        await session.compact()
        await session.run("second")
    assert texts(lab.input())[1] == SUMMARY


async def test_input_while_compacting_is_refused(lab: Lab) -> None:
    async with lab.session(reply("a"), scripts.response(scripts.wait()), reply("b")) as session:
        await session.run("first")
        async with trio.open_nursery() as nursery:

            async def interrupted() -> None:
                with pytest.raises(engine.TurnInterrupted):
                    await session.compact()

            with session.events() as stream:
                nursery.start_soon(interrupted)
                async for event in stream:
                    if event.msg.type == "item_started":
                        break
                with pytest.raises(engine.InvalidRequest, match="cannot steer a compact turn"):
                    await session.run("second")
                with pytest.raises(engine.InvalidRequest, match="cannot steer a compact turn"):
                    await session.steer("second")
                await session.interrupt()
        assert (await session.run("third")).final_message == "b"
    assert texts(lab.input())[-1] == "third"
    assert "compacted" not in lab.kinds()


async def test_fifty_compactions_grow_the_file_by_what_is_new(lab: Lab) -> None:
    image = "data:image/png;base64," + "A" * 200_000
    answers = [answer for _ in range(50) for answer in (reply("answer " * 50), reply("the note"))]
    async with lab.session(reply("seen"), *answers) as session:
        await session.run([engine.TextInput("look"), engine.ImageInput(image)])
        for number in range(50):
            await session.run(f"message {number} " + "x" * 400)
            await session.compact()
    (path,) = lab.rollouts()
    written = path.read_text()
    assert written.count("A" * 200_000) == 2  # the message itself, and its event
    lines = lab.lines()
    new = sum(len(json.dumps(line)) for line in lines if line["type"] != "compacted")
    replaced = sum(len(json.dumps(line)) for line in lines if line["type"] == "compacted")
    assert replaced <= 50 * 20_000 * 4 * 1.3
    assert len(written) <= 1.3 * new + replaced


async def test_many_compactions_are_warned_of(lab: Lab) -> None:
    async with lab.session(reply("a"), reply("the note")) as session:
        await session.run("first")
        with session.events() as stream:
            await session.compact()
            seen = [(await anext(stream)).msg for _ in range(stream.pending())]
    assert [msg.message for msg in seen if isinstance(msg, Warning)] == [ACCURACY_WARNING]
