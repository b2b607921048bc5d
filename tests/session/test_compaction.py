"""Compaction in a session: by hand and by itself, between and within turns, where it fails, and after a resume."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import trio

import engine
from engine.models import scripts
from engine.models.catalogue import ModelInfo, find_model
from engine.models.scripts import call, reply, response, say, usage
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
    looks = response(call("look", at="it"), usage(input=1000))
    async with lab.session(looks, reply("the note"), reply("done"), tools=(look,), config=LIMIT) as session:
        assert (await session.run("go")).final_message == "done"
    said = texts(lab.input())
    assert said[-2:] == ["go", SUMMARY]
    assert any("<environment_context>" in text for text in said[:-2])
    kinds = lab.kinds()
    assert kinds[kinds.index("compacted") + 1] == "turn_context"


async def test_what_steers_a_turn_waits_for_the_model_to_go_on(lab: Lab) -> None:
    @engine.tool()
    async def steers() -> str:
        await session.steer("and this")
        return "seen"

    turns = (
        response(call("steers"), usage(input=9000)),
        reply("the note"),
        response(say("half"), usage(10)),
        reply("done"),
    )
    limits = {"model_context_window": 10_000, "model_auto_compact_token_limit": 8000}
    async with lab.session(*turns, tools=(steers,), config=limits) as session:
        assert (await session.run("go")).final_message == "done"
    assert "and this" not in texts(lab.input(2))
    assert texts(lab.input(3))[-2:] == ["half", "and this"]


async def test_steering_alone_is_answered_after_a_compaction(lab: Lab) -> None:
    first = response(scripts.wait(), say("half"), usage(input=9000))
    limits = {"model_context_window": 10_000, "model_auto_compact_token_limit": 8000}
    async with lab.session(first, reply("the note"), reply("done"), config=limits) as session:
        turn = await session.start_turn("go")
        await lab.model.until_waiting()
        await session.steer("and this")
        lab.model.release()
        assert (await turn.result()).final_message == "done"
    assert texts(lab.input())[-1] == "and this"


async def test_the_prompt_can_be_configured(lab: Lab) -> None:
    async with lab.session(reply("a"), reply("the note"), config={"compact_prompt": "Sum it up."}) as session:
        await session.run("first")
        await session.compact()
    assert texts(lab.input())[-1] == "Sum it up."


async def test_a_usage_limit_is_told_and_changes_nothing(lab: Lab) -> None:
    refusal = scripts.http_error(429, "enough", kind="usage_limit_reached")
    async with lab.session(reply("a"), response(refusal), reply("b")) as session:
        await session.run("first")
        with pytest.raises(engine.TurnFailed) as failed:
            await session.compact()
        assert failed.value.info == "usage_limit_exceeded"
        await session.run("second")
    assert texts(lab.input())[-3:] == ["first", "a", "second"]


async def test_a_compaction_replaces_an_active_turn(lab: Lab) -> None:
    async with lab.session(response(scripts.wait()), reply("the note"), reply("b")) as session:
        turn = await session.start_turn("first")
        await lab.model.until_waiting()
        await session.compact()
        with pytest.raises(engine.TurnInterrupted) as replaced:
            await turn.result()
        assert replaced.value.reason == "replaced"
        await session.run("second")
    assert texts(lab.input())[:2] == ["first", SUMMARY]


async def test_a_long_history_of_images_is_left_out_in_a_few_requests(lab: Lab) -> None:
    picture = engine.ImageInput("data:image/png;base64," + "A" * 100_000)
    overflows = [OVERFLOW] * 12
    async with lab.session(*[reply("seen")] * 40, *overflows, reply("the note"), reply("b")) as session:
        for number in range(40):
            await session.run([engine.TextInput(f"picture {number}"), picture])
        await session.compact()
        assert (await session.run("next")).final_message == "b"
    assert "A" * 1000 not in json.dumps(lab.input())
    assert texts(lab.input())[:2] == ["picture 0", "picture 1"]


async def test_not_within_a_turn_that_is_over(lab: Lab) -> None:
    async with lab.session(full("a"), config=LIMIT) as session:
        await session.run("go")
    assert len(lab.model.requests) == 1


async def test_the_model_before_writes_the_summary_for_a_smaller_one(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_large_window(slug: str | None, *others: Any) -> ModelInfo:
        return attrs.evolve(find_model(slug, *others), context_window=1_000_000)

    monkeypatch.setattr("engine.session.compaction.triggers.find_model", with_large_window)
    async with lab.session(full("a", 250_000), reply("the note"), reply("b"), model="gpt-5.4") as session:
        await session.run("first")
        await session.run("second", engine.SettingsUpdate(model="small-model"))
    assert [request.body["model"] for request in lab.model.requests] == ["gpt-5.4", "gpt-5.4", "small-model"]
    assert texts(lab.input(1))[-1] == SUMMARIZE
    assert texts(lab.input())[:2] == ["first", SUMMARY]
    assert any(text.startswith("<model_switch>") for text in texts(lab.input()))


async def test_a_model_that_is_as_large_sees_the_whole_history(lab: Lab) -> None:
    async with lab.session(full("a", 200_000), reply("b"), model="gpt-5.4") as session:
        await session.run("first")
        await session.run("second", engine.SettingsUpdate(model="small-model"))
    assert [request.body["model"] for request in lab.model.requests] == ["gpt-5.4", "small-model"]


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


async def test_many_compactions_are_warned_of(lab: Lab) -> None:
    async with lab.session(reply("a"), reply("the note")) as session:
        await session.run("first")
        with session.events() as stream:
            await session.compact()
            seen = [(await anext(stream)).msg for _ in range(stream.pending())]
    assert [msg.message for msg in seen if isinstance(msg, Warning)] == [ACCURACY_WARNING]
