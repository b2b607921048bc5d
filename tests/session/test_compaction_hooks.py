"""What may stop a compaction before it happens, and the turn after it."""

from __future__ import annotations

from typing import cast

import attrs
import pytest
import trio

import engine
from engine.models.scripts import call, reply, response, usage
from engine.protocol.events import Warning
from engine.session.compaction.hooks import CompactionFacts
from tests.session.conftest import Lab, collect, types


@attrs.define(eq=False)
class Hooks:
    """Stops where it is told to, and keeps what it was asked."""

    stop_before: str | None = None
    stop_after: str | None = None
    asked: list[tuple[str, CompactionFacts]] = attrs.field(factory=list)

    async def before(self, facts: CompactionFacts) -> str | None:
        self.asked.append(("before", facts))
        await trio.lowlevel.checkpoint()
        return self.stop_before

    async def after(self, facts: CompactionFacts) -> str | None:
        self.asked.append(("after", facts))
        await trio.lowlevel.checkpoint()
        return self.stop_after


@engine.tool()
async def look() -> str:
    """Looks."""
    return "seen"


async def test_hooks_are_told_what_is_compacted(lab: Lab) -> None:
    hooks = Hooks()
    async with lab.open(reply("a"), reply("the note"), compaction_hooks=hooks) as host:
        async with host.session(lab.settings()) as session:
            await session.run("first")
            turn = await session.start_compaction()
            await turn.result()
        assert [when for when, _ in hooks.asked] == ["before", "after"]
        (facts,) = {facts for _, facts in hooks.asked}
        assert (facts.trigger, facts.turn_id, facts.thread_id) == ("manual", turn.id, session.thread_id)
        assert (facts.cwd, facts.transcript_path) == (str(lab.cwd), session.rollout_path)


async def test_a_stop_before_aborts_and_changes_nothing(lab: Lab) -> None:
    async with lab.open(reply("a"), reply("b"), compaction_hooks=Hooks(stop_before="not now")) as host:
        async with host.session(lab.settings()) as session:
            await session.run("first")
            with session.events() as stream:
                with pytest.raises(engine.TurnInterrupted):
                    await session.compact()
                seen = [(await anext(stream)).msg for _ in range(stream.pending())]
            assert types(seen)[0] == "task_started"
            assert types(seen)[-1] == "turn_aborted"
            assert "item_started" not in types(seen)
            assert [msg.message for msg in seen if isinstance(msg, Warning)] == ["not now"]
            await session.run("second")
    assert len(lab.model.requests) == 2
    assert "compacted" not in lab.kinds()


async def test_a_stop_after_aborts_the_turn_that_was_compacted(lab: Lab) -> None:
    limits = {"model_context_window": 10_000, "model_auto_compact_token_limit": 5000}
    answers = response(call("look"), usage(input=6000)), reply("the note"), reply("b")
    hooks = Hooks(stop_after="enough")
    async with lab.open(*answers, compaction_hooks=hooks) as host:
        async with host.session(lab.settings(config=limits), tools=(look,)) as session:
            with pytest.raises(engine.TurnInterrupted):
                await session.run("first")
            assert session._core.generation == 1
            assert [facts.trigger for _, facts in hooks.asked] == ["auto", "auto"]
            assert (await session.run("second")).final_message == "b"
    assert "compacted" in lab.kinds()


@pytest.mark.parametrize("wrong", [ValueError("no such file"), 17])
async def test_a_hook_that_fails_is_told_and_stops_nothing(lab: Lab, wrong: object) -> None:
    class Broken(Hooks):
        async def before(self, facts: CompactionFacts) -> str | None:
            if isinstance(wrong, Exception):
                raise wrong
            return cast(str, wrong)

    async with lab.open(reply("a"), reply("the note"), compaction_hooks=Broken()) as host:
        async with host.session(lab.settings()) as session:
            await session.run("first")
            turn = await session.start_compaction()
            seen = await collect(turn)
            assert session._core.generation == 1
    warnings = [msg.message for msg in seen if isinstance(msg, Warning)]
    assert warnings[0].startswith("The hook before a compaction failed and is ignored: ")
    assert ("no such file" if isinstance(wrong, Exception) else "17") in warnings[0]


async def test_an_interrupt_cancels_a_hook(lab: Lab) -> None:
    asked = trio.Event()

    class Slow(Hooks):
        async def before(self, facts: CompactionFacts) -> str | None:
            asked.set()
            await trio.sleep_forever()

    async with lab.open(reply("a"), reply("b"), compaction_hooks=Slow()) as host:
        async with host.session(lab.settings()) as session:
            await session.run("first")
            turn = await session.start_compaction()
            await asked.wait()
            await turn.interrupt()
            with pytest.raises(engine.TurnInterrupted):
                await turn.result()
            assert (await session.run("second")).final_message == "b"
