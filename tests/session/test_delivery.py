"""Events arrive in order, never before what they tell is persisted, and slow readers never block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SessionClosed, SessionCrashed
from engine.protocol.events import (
    AgentMessage,
    AgentMessageContentDelta,
    AgentReasoning,
    Event,
    ExecCommandOutputDelta,
    ItemCompleted,
    ItemStarted,
    PatchApplyBegin,
    PatchApplyEnd,
    RawResponseItem,
    TaskComplete,
    TaskStarted,
    UserMessage,
    Warning,
    WebSearchBegin,
    WebSearchEnd,
)
from engine.protocol.inputs import ImageInput, LocalImageInput, TextInput
from engine.protocol.items import user_message
from engine.protocol.rollout_items import EventLine, RolloutItem
from engine.protocol.turn_items import (
    AddChange,
    AgentMessageItem,
    AgentText,
    FileChangeItem,
    ReasoningItem,
    UserMessageItem,
    WebSearchItem,
)
from engine.session.delivery import EventHub, EventsLost, derived_events

if TYPE_CHECKING:
    from engine.thread_store.live_thread import LiveThread


class FakeLive:
    """A live thread that acknowledges when it is told to; keeps only turn boundaries, as the policy does."""

    def __init__(self) -> None:
        self.appended = 0
        self.acknowledged = 0
        self.callback: Callable[[int], None] = lambda _: None

    def on_acknowledged(self, callback: Callable[[int], None]) -> None:
        self.callback = callback

    def append(self, items: Sequence[RolloutItem]) -> int:
        kept = [i for i in items if not isinstance(i, EventLine) or isinstance(i.msg, TaskStarted | TaskComplete)]
        self.appended += len(kept)
        return self.appended

    def acknowledge(self, number: int) -> None:
        self.acknowledged = number
        self.callback(number)


def make_hub() -> tuple[EventHub, FakeLive]:
    live = FakeLive()
    hub = EventHub()
    hub.bind(cast("LiveThread", live))
    return hub, live


def delta(text: str, item: str = "a") -> AgentMessageContentDelta:
    return AgentMessageContentDelta("thread", "turn", item, text)


async def test_an_event_waits_for_its_append_and_later_ones_queue_behind_it() -> None:
    hub, live = make_hub()
    with hub.subscribe(buffer=10, overflow="end") as stream:
        hub.emit("t", TaskStarted("t"))
        hub.emit("t", Warning("not persisted, but after"))
        assert stream.pending() == 0
        live.acknowledge(1)
        assert [(await anext(stream)).msg.type for _ in range(2)] == ["task_started", "warning"]


async def test_recorded_items_hold_back_their_announcement() -> None:
    hub, live = make_hub()
    with hub.subscribe(buffer=10, overflow="end") as stream:
        hub.record("t", [user_message("one"), user_message("two")])
        assert stream.pending() == 0
        live.acknowledge(2)
        assert [type(stream._buffer[i].msg) for i in range(2)] == [RawResponseItem, RawResponseItem]


@given(st.lists(st.sampled_from(["start", "warn", "ack"]), max_size=40))
def test_any_interleaving_keeps_the_order(steps: list[str]) -> None:
    hub, live = make_hub()
    stream_context = hub.subscribe(buffer=1000, overflow="end")
    with stream_context as stream:
        sent: list[Event] = []
        for number, step in enumerate(steps):
            if step == "ack":
                live.acknowledge(live.appended)
            else:
                msg = TaskStarted(str(number)) if step == "start" else Warning(str(number))
                sent.append(Event("x", msg))
                hub.emit("x", msg)
        live.acknowledge(live.appended)
        assert list(stream._buffer) == sent


async def test_the_first_subscriber_gets_the_events_of_the_start_and_later_ones_do_not() -> None:
    hub = EventHub()
    hub.emit("", Warning("early"))
    with hub.subscribe(buffer=10, overflow="end") as first, hub.subscribe(buffer=10, overflow="end") as second:
        assert (first.pending(), second.pending()) == (1, 0)


async def test_nothing_is_replayed_once_a_turn_ran_without_a_subscriber() -> None:
    hub = EventHub()
    hub.emit("", Warning("early"))
    hub.stop_replay()
    with hub.subscribe(buffer=10, overflow="end") as stream:
        assert stream.pending() == 0


async def test_a_reader_that_falls_behind_is_told_and_blocks_nobody() -> None:
    hub = EventHub()
    with hub.subscribe(buffer=2, overflow="end") as slow, hub.subscribe(buffer=10, overflow="end") as fast:
        for number in range(3):
            hub.emit("t", Warning(str(number)))
        assert fast.pending() == 3
        assert [(await anext(slow)).msg for _ in range(2)] == [Warning("0"), Warning("1")]
        with pytest.raises(EventsLost):
            await anext(slow)


async def test_merging_deltas_keeps_the_text_whole() -> None:
    hub = EventHub()
    with hub.subscribe(buffer=2, overflow="merge_deltas") as stream:
        for text in ("a", "b", "c", "d"):
            hub.emit("t", delta(text))
        hub.emit("t", ExecCommandOutputDelta("call", "stdout", "eA=="))
        hub.emit("t", TaskComplete("t"))
        first, second, last = [(await anext(stream)).msg for _ in range(3)]
        assert isinstance(first, AgentMessageContentDelta)
        assert isinstance(second, AgentMessageContentDelta)
        assert first.delta + second.delta == "abcd"
        assert isinstance(last, TaskComplete)


async def test_deltas_of_different_items_are_not_joined() -> None:
    hub = EventHub()
    with hub.subscribe(buffer=1, overflow="merge_deltas") as stream:
        hub.emit("t", delta("a", "one"))
        hub.emit("t", delta("b", "two"))
        assert (await anext(stream)).msg == delta("a", "one")
        with pytest.raises(EventsLost):
            await anext(stream)


async def test_the_end_releases_what_is_held_and_ends_the_streams() -> None:
    hub, _ = make_hub()
    with hub.subscribe(buffer=10, overflow="end") as stream:
        hub.emit("t", TaskStarted("t"))
        hub.end()
        assert [event.msg.type async for event in stream] == ["task_started"]


async def test_a_crash_is_raised_after_the_last_event() -> None:
    hub = EventHub()
    with hub.subscribe(buffer=10, overflow="end") as stream:
        hub.emit("t", Warning("last"))
        hub.end(SessionCrashed("boom"))
        assert (await anext(stream)).msg == Warning("last")
        with pytest.raises(SessionCrashed):
            await anext(stream)


async def test_a_closed_subscription_says_so(autojump_clock: trio.testing.MockClock) -> None:
    hub = EventHub()
    with hub.subscribe(buffer=10, overflow="end") as stream:
        pass
    with pytest.raises(SessionClosed):
        await anext(stream)


def test_derived_events_follow_item_events() -> None:
    changes = {"/w/a": AddChange("x")}
    started = ItemStarted("thread", "turn", FileChangeItem("c", changes, auto_approved=True))
    assert list(derived_events(started)) == [PatchApplyBegin("c", "turn", True, changes)]
    done = ItemCompleted("thread", "turn", FileChangeItem("c", changes, status="failed", stdout="o", stderr="e"))
    assert list(derived_events(done)) == [PatchApplyEnd("c", "turn", "o", "e", False, changes, "failed")]
    agent = ItemCompleted("thread", "turn", AgentMessageItem("m", (AgentText("hi"),), phase="commentary"))
    assert list(derived_events(agent)) == [AgentMessage("hi", phase="commentary")]
    thought = ItemCompleted("thread", "turn", ReasoningItem("r", ("one", "two"), ("raw",)))
    assert list(derived_events(thought)) == [AgentReasoning("one"), AgentReasoning("two")]
    assert [m.type for m in derived_events(thought, show_raw_reasoning=True)][-1] == "agent_reasoning_raw_content"
    search = WebSearchItem("w", "cats", {"type": "search"})
    assert list(derived_events(ItemStarted("thread", "turn", search))) == [WebSearchBegin("w")]
    assert list(derived_events(ItemCompleted("thread", "turn", search))) == [WebSearchEnd("w", "cats", search.action)]
    user = UserMessageItem("u", (LocalImageInput("/p.png"), ImageInput("data:x"), TextInput("look")))
    assert list(derived_events(ItemCompleted("thread", "turn", user))) == [
        UserMessage("look", images=("data:x",), local_images=("/p.png",))
    ]
    assert list(derived_events(Warning("none"))) == []
