"""Inline images of the user: stored once, shown whole."""

from __future__ import annotations

import base64
import zlib

from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.events import AgentMessage, ItemCompleted, TaskComplete, TaskStarted, UserMessage
from engine.protocol.ids import ThreadId, TurnId
from engine.protocol.inputs import ImageInput, TextInput
from engine.protocol.items import InputImage, InputText, Message
from engine.protocol.rollout_items import EventLine, ResponseLine, RolloutItem
from engine.protocol.thread_items import ShownUserMessage, ThreadTurn
from engine.protocol.turn_items import UserMessageItem
from engine.rollout.blocks import MemorySource
from engine.rollout.inline_images import STAND_IN, ImagesOnce, events_with_images, items_with_images, stand_in
from engine.rollout.lines import encode_rollout_line
from engine.rollout.tail import LazyEvents
from engine.rollout.turn_ranges import Began, Closed, RangeState, TurnRange, read_turn, scan
from engine.rollout.turns import all_turns

STAMP = "2025-01-02T03:04:05.678Z"
BIG, OTHER = ("data:image/png;base64," + letter * 5000 for letter in "AB")
REMOTE = "https://example.com/" + "x" * 500


def said(*urls: str, text: str = "look") -> ResponseLine:
    return ResponseLine(Message(role="user", content=(InputText(text), *map(InputImage, urls))))


def shown(*urls: str, text: str = "look") -> EventLine:
    return EventLine(UserMessage(text, images=urls))


def stored(*items: RolloutItem) -> list[RolloutItem]:
    return list(map(ImagesOnce().stored, items))


def urls_in(turns: list[ThreadTurn]) -> list[list[object]]:
    messages = [item for turn in turns for item in turn.items if isinstance(item, ShownUserMessage)]
    return [[part["url"] for part in each.content if part["type"] == "image"] for each in messages]


def from_file(data: bytes) -> list[ThreadTurn]:
    """The turns of a rollout by their byte ranges."""
    source, places = MemorySource(data), list[TurnRange]()
    for _, changes in scan(source, 0, len(data), RangeState()):
        for change in changes:
            if isinstance(change, Began):
                places.append(TurnRange(change.number, change.turn_id, change.start, None))
            elif isinstance(change, Closed):
                old = places[change.number]
                places[change.number] = TurnRange(old.number, old.turn_id, old.start, change.end)
    return [read_turn(source, place, len(data), None, "full") for place in places]


def test_an_image_stands_in_the_message_alone_and_is_shown_whole() -> None:
    message, event, answer = said(BIG, REMOTE, OTHER), shown(BIG, REMOTE, OTHER), EventLine(AgentMessage("seen"))
    kept = stored(message, event, answer)
    assert kept[0] == message
    assert kept[1] == shown(stand_in(0), REMOTE, stand_in(2))
    data = b"".join(encode_rollout_line(item, STAMP) for item in kept)
    assert data.count(b"A" * 5000) == 1
    assert list(items_with_images(kept)) == [message, event, answer]
    assert list(events_with_images(kept)) == list(LazyEvents(data)) == [event.msg, answer.msg]


def test_turns_show_it_from_memory_and_from_a_file() -> None:
    first: list[RolloutItem] = [EventLine(TaskStarted("1")), said(BIG), shown(BIG), EventLine(TaskComplete("1"))]
    second: list[RolloutItem] = [EventLine(TaskStarted("2")), said(OTHER, BIG), shown(OTHER, BIG)]
    kept = stored(*first, *second)
    data = b"".join(encode_rollout_line(item, STAMP) for item in kept)
    assert urls_in(all_turns(kept)) == urls_in(from_file(data)) == [[BIG], [OTHER, BIG]]
    # Where no turns are told, the message stands before the first line of its turn.
    kept = stored(said(BIG), shown(BIG), said(OTHER), shown(OTHER))
    data = b"\xff\n".join(encode_rollout_line(item, STAMP) for item in kept)
    assert urls_in(all_turns(kept)) == urls_in(from_file(data)) == [[BIG], [OTHER]]


def test_only_what_the_message_before_has_is_left_out() -> None:
    assert stored(shown(BIG)) == [shown(BIG)]
    assert stored(said(OTHER), shown(BIG)) == [said(OTHER), shown(BIG)]
    tiny = "data:image/png;base64,AAAA"
    assert stored(said(tiny), shown(tiny)) == [said(tiny), shown(tiny)]
    assert stored(said(REMOTE), shown(REMOTE)) == [said(REMOTE), shown(REMOTE)]


def test_the_form_of_later_versions() -> None:
    """The other program copies what it reads into events of another shape."""

    def event(url: str) -> EventLine:
        parts = (TextInput("look"), ImageInput(url))
        return EventLine(ItemCompleted(ThreadId("t"), TurnId("1"), UserMessageItem("i", parts), 0))

    kept = stored(said(BIG), event(BIG))
    assert kept[1] == event(stand_in(0))
    assert list(items_with_images(kept))[1] == event(BIG)


def test_a_lost_message_leaves_the_stand_in() -> None:
    assert urls_in(all_turns(stored(said(BIG), shown(BIG))[1:])) == [[stand_in(0)]]


def test_the_stand_in_is_an_image_and_the_same_for_ever() -> None:
    data = base64.b64decode(stand_in(0).removeprefix("data:image/png;base64,"))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, names = 8, list[bytes]()
    while at < len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        assert zlib.crc32(name + body) == int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
        names.append(name)
        if name == b"IDAT":
            assert zlib.decompress(body) == b"\0\x80"
        at += 12 + length
    assert names == [b"IHDR", b"tEXt", b"IDAT", b"IEND"]
    assert zlib.crc32(stand_in(0).encode()) == FIRST
    assert len({stand_in(number) for number in range(100)}) == 100
    assert all(stand_in(number).encode().startswith(STAND_IN) for number in range(100))


FIRST = 3527950858  # what files that are there already have


urls = st.sampled_from([BIG, OTHER, REMOTE, stand_in(0), stand_in(1), "data:,x"])
lines = st.one_of(
    st.lists(urls, max_size=3).map(lambda some: [said(*some), shown(*some)]),
    st.lists(urls, max_size=2).map(lambda some: [said(*some)]),
    st.sampled_from([[EventLine(TaskStarted("1"))], [EventLine(TaskComplete("1"))], [EventLine(AgentMessage("a"))]]),
)


@given(st.lists(lines, max_size=8))
def test_what_is_stored_is_shown_as_it_was(parts: list[list[RolloutItem]]) -> None:
    items = [item for part in parts for item in part]
    kept = stored(*items)
    assert list(items_with_images(kept)) == items
    data = b"".join(encode_rollout_line(item, STAMP) for item in kept)
    assert all_turns(kept) == all_turns(items)
    assert from_file(data) == all_turns(items)
