"""The core wire: what is decoded is encoded as it came, known or not, and what can't be decoded says why."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ProtocolError
from engine.protocol.codec import (
    decode,
    decode_event,
    decode_item,
    decode_line,
    encode,
    encode_line,
    json_bytes,
    json_value,
)
from engine.protocol.events import EventMsg, TaskComplete, TaskStarted
from engine.protocol.items import CompactionItem, FunctionCallOutput, InputText, Message, ResponseItem
from engine.protocol.rollout_items import (
    Compacted,
    EventLine,
    ResponseLine,
    RolloutItem,
    SessionMeta,
    TurnContext,
    UnknownLine,
)
from engine.protocol.settings import GranularApproval
from engine.protocol.turn_items import TurnItem
from engine.protocol.wire import UnknownVariant, Wire
from tests.protocol.wire_values import UNKNOWN_TAG, json_values, values_of

RECORDED = Path(__file__).parent.parent / "vectors" / "rollout" / "recorded"
LINES = [line for path in sorted(RECORDED.glob("*.jsonl")) for line in path.read_bytes().splitlines()]
UNIONS = {"item": ResponseItem, "event": EventMsg, "turn item": TurnItem}
CLASSES: list[type[Wire]] = sorted(
    {member for union in UNIONS.values() for member in typing.get_args(union) if member is not UnknownVariant}
    | {SessionMeta, TurnContext, Compacted},
    key=lambda cls: cls.__name__,
)

rollout_items: st.SearchStrategy[RolloutItem] = st.one_of(
    values_of(SessionMeta),
    values_of(TurnContext),
    values_of(Compacted),
    values_of(ResponseItem).map(ResponseLine),
    values_of(EventMsg).map(EventLine),
    st.builds(UnknownLine, st.just("world_state"), json_values),
)


def through_json(value: object) -> Any:
    """What another program reads of it."""
    return json.loads(json_bytes(value))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_every_class_survives_a_round_trip(cls: type[Wire], data: st.DataObject) -> None:
    value = data.draw(values_of(cls))
    written = through_json(encode(value))
    again = decode(cls, written)
    assert again == value
    assert through_json(encode(again)) == written
    for name, part in value.extra.items():
        assert written[name] == part


@given(rollout_items)
def test_lines_survive_a_round_trip(item: RolloutItem) -> None:
    written = through_json(encode_line(item))
    assert list(written) == ["type", "payload"]
    again = decode_line(written["type"], written["payload"])
    assert again == item
    assert through_json(encode_line(again)) == written


@pytest.mark.parametrize("name", list(UNIONS))
@given(data=st.data())
def test_an_unknown_variant_comes_back_as_it_was(name: str, data: st.DataObject) -> None:
    raw = {"type": UNKNOWN_TAG, **data.draw(st.dictionaries(st.sampled_from(["a", "b"]), json_values))}
    value = decode(cast(type[object], UNIONS[name]), raw)
    assert value == UnknownVariant(raw)
    assert encode(value) == raw


def test_recorded_lines_come_back_byte_for_byte() -> None:
    for line in LINES:
        value = json_value(line)
        item = decode_line(value["type"], value["payload"])
        assert not isinstance(item, UnknownLine)
        assert json_bytes({"timestamp": value["timestamp"], **encode_line(item)}) == line


@given(st.sampled_from(LINES), st.data())
def test_fields_nobody_knows_survive_anywhere_in_a_line(line: bytes, data: st.DataObject) -> None:
    value = json_value(line)
    places = list(_wire_objects(value["payload"]))
    data.draw(st.sampled_from(places))["x_later"] = data.draw(json_values)
    item = decode_line(value["type"], value["payload"])
    assert through_json(encode_line(item)["payload"]) == value["payload"]


def _wire_objects(value: object) -> typing.Iterator[dict[str, object]]:
    """The objects in a payload, but for `source`-like ones, which are kept as they are anyway, and tables by path."""
    if isinstance(value, dict):
        if not any(key.startswith("/") for key in value):
            yield value
        for part in value.values():
            yield from _wire_objects(part)
    elif isinstance(value, list):
        for part in value:
            yield from _wire_objects(part)


def test_ids_of_items_are_read_and_not_written() -> None:
    item = decode_item({"type": "message", "role": "user", "content": [], "id": "msg_1"})
    assert isinstance(item, Message)
    assert item.id == "msg_1"
    assert encode(item) == {"type": "message", "role": "user", "content": []}


def test_older_spellings_are_read() -> None:
    assert decode_event({"type": "turn_started", "turn_id": "t"}) == TaskStarted("t")
    assert decode_event({"type": "turn_complete", "turn_id": "t"}) == TaskComplete("t")
    assert decode_item({"type": "compaction_summary", "encrypted_content": "x"}) == CompactionItem("x")
    fields = {"id": "i", "timestamp": "t", "cwd": "/", "originator": "o", "cli_version": "0", "agent_type": "reviewer"}
    assert decode(SessionMeta, fields).agent_role == "reviewer"


def test_unions_with_text() -> None:
    text = decode_item({"type": "function_call_output", "call_id": "c", "output": "text"})
    parts = decode_item(
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "part"}]}
    )
    assert text == FunctionCallOutput("c", "text")
    assert parts == FunctionCallOutput("c", (InputText("part"),))
    granular = {"sandbox_approval": True, "rules": False, "mcp_elicitations": True}
    context = {"cwd": "/", "sandbox_policy": {"type": "read-only"}, "model": "m", "summary": "auto"}
    for policy in ("on-request", "of-the-future", {"granular": granular}):
        made = decode(TurnContext, {**context, "approval_policy": policy})
        assert isinstance(made.approval_policy, str | GranularApproval)
        assert decode(TurnContext, encode(made)) == made


@pytest.mark.parametrize(
    ("kind", "payload", "message"),
    [
        ("session_meta", {"id": "x"}, "`timestamp` is missing"),
        ("session_meta", [], "expected an object"),
        ("turn_context", None, "expected an object"),
        ("event_msg", {"turn_id": "t"}, "has no `type`"),
        ("event_msg", {"type": 3}, "has no `type`"),
        ("event_msg", {"type": "task_started"}, "`turn_id` is missing"),
        ("event_msg", {"type": "task_started", "turn_id": 3}, "expected a string"),
        ("event_msg", {"type": "thread_rolled_back", "num_turns": True}, "expected an integer"),
        ("response_item", {"type": "message", "role": "user", "content": "text"}, "expected an array"),
        ("response_item", "text", "expected an object"),
    ],
)
def test_what_does_not_fit_is_a_protocol_error(kind: str, payload: object, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        decode_line(kind, payload)


@given(
    st.sampled_from(["session_meta", "turn_context", "compacted", "event_msg", "response_item", "later"]), json_values
)
def test_no_payload_raises_anything_else(kind: str, payload: object) -> None:
    try:
        decode_line(kind, payload)
    except ProtocolError:
        pass


@given(st.sampled_from(LINES), st.data())
def test_no_damage_inside_a_payload_raises_anything_else(line: bytes, data: st.DataObject) -> None:
    value = json_value(line)
    place = data.draw(st.sampled_from(list(_wire_objects(value["payload"]))))
    if place:
        place[data.draw(st.sampled_from(sorted(place)))] = data.draw(json_values)
    try:
        item = decode_line(value["type"], value["payload"])
    except ProtocolError:
        return
    json_bytes(encode_line(item))


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60), st.just(b"[" * 100_000)))
def test_text_that_is_no_json_is_a_protocol_error(text: bytes | str) -> None:
    try:
        json_value(text)
    except ProtocolError as exc:
        error = exc
    else:
        return
    assert str(error).startswith("not JSON")


def test_values_are_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        TaskStarted("t").turn_id = "u"  # type: ignore[misc]
