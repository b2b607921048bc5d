"""What may stop a compaction before it happens, and the turn after it."""

from __future__ import annotations

import attrs
import pytest
import trio

import engine
from engine.models.scripts import call, reply, response, usage
from engine.protocol.events import Warning
from engine.session.compaction.hooks import CompactionFacts
from tests.session.conftest import Lab, types


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
    async with lab.session(reply("a"), reply("the note")) as session:
        session._core.compaction_hooks = hooks
        await session.run("first")
        turn = await session.start_compaction()
        await turn.result()
        assert [when for when, _ in hooks.asked] == ["before", "after"]
        (facts,) = {facts for _, facts in hooks.asked}
        assert (facts.trigger, facts.turn_id, facts.thread_id) == ("manual", turn.id, session.thread_id)
        assert (facts.cwd, facts.transcript_path) == (str(lab.cwd), session.rollout_path)


async def test_a_stop_before_aborts_and_changes_nothing(lab: Lab) -> None:
    async with lab.session(reply("a"), reply("b")) as session:
        session._core.compaction_hooks = Hooks(stop_before="not now")
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
    async with lab.session(*answers, tools=(look,), config=limits) as session:
        session._core.compaction_hooks = Hooks(stop_after="enough")
        with pytest.raises(engine.TurnInterrupted):
            await session.run("first")
        assert session._core.generation == 1
        session._core.compaction_hooks = Hooks()
        assert (await session.run("second")).final_message == "b"
    assert "compacted" in lab.kinds()
