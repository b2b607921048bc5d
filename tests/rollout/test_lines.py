"""Lines of a rollout: the envelope, what readers drop, and text that has no UTF-8 form."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ProtocolError
from engine.protocol.events import AgentMessage, ThreadRolledBack
from engine.protocol.items import FunctionCallOutput, user_message
from engine.protocol.rollout_items import Compacted, EventLine, ResponseLine, RolloutItem, SessionMeta, UnknownLine
from engine.protocol.wire import UnknownVariant
from engine.rollout.lines import decode_rollout_line, encode_rollout_line, format_timestamp
from tests.protocol.test_codec import rollout_items

STAMP = "2025-01-02T03:04:05.678Z"


@given(st.integers(0, 253_402_300_799_999))
def test_timestamps_are_utc_with_milliseconds(ms: int) -> None:
    text = format_timestamp(ms * 1_000_000 + 999_999)
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    assert text == f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z" or moment.year < 1000
    assert len(text) == 24


def test_a_line_has_its_members_in_order_and_one_line_end() -> None:
    line = encode_rollout_line(EventLine(AgentMessage("a\nb")), STAMP)
    assert line.count(b"\n") == 1
    assert line.endswith(b"}\n")
    assert list(json.loads(line)) == ["timestamp", "type", "payload"]
    assert b" " not in line


@given(rollout_items)
def test_what_is_written_is_read_again(item: RolloutItem) -> None:
    try:
        again = decode_rollout_line(encode_rollout_line(item, STAMP))
    except ProtocolError:
        # The one thing that the writer takes and a reader refuses.
        assert isinstance(item, EventLine)
        assert isinstance(item.msg, ThreadRolledBack)
        assert not 0 <= item.msg.num_turns < 2**32
    else:
        assert again == item


@pytest.mark.parametrize("text", ["\ud800", "a\udcffb", "\udc80\ud800"])
def test_text_without_a_utf8_form_costs_its_characters_only(text: str) -> None:
    unknown = UnknownVariant({"type": "x", "nested": [{text: text}]})
    for item in (ResponseLine(user_message(text)), ResponseLine(FunctionCallOutput("c", text)), ResponseLine(unknown)):
        line = encode_rollout_line(item, STAMP)
        assert decode_rollout_line(line) is not None
        assert "?" in line.decode()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "is an object"),
        (b'{"timestamp":"x"}', "no `type`"),
        (b'{"timestamp":"x","type":3}', "no `type`"),
        (b'{"type":"event_msg","payload":{"type":"context_compacted"}}', "no `timestamp`"),
        (b'{"timestamp":"x","type":"event_msg"}', "expected an object"),
        (b'{"timestamp":"x","type":"event_msg","payload":{"type":"thread_rolled_back","num_turns":-1}}', "num_turns"),
        (
            b'{"timestamp":"x","type":"event_msg","payload":{"type":"thread_rolled_back","num_turns":4294967296}}',
            "range",
        ),
    ],
)
def test_what_is_no_line_is_a_protocol_error(line: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        decode_rollout_line(line)


def test_items_of_other_versions_are_kept_and_ghosts_are_dropped() -> None:
    def read(line_type: str, payload: object) -> RolloutItem | None:
        return decode_rollout_line(json.dumps({"timestamp": "x", "type": line_type, "payload": payload}).encode())

    assert read("world_state", [1]) == UnknownLine("world_state", [1])
    assert read("response_item", {"type": "later"}) == ResponseLine(UnknownVariant({"type": "later"}))
    assert read("event_msg", {"type": "later"}) == EventLine(UnknownVariant({"type": "later"}))
    ghost = {"type": "ghost_snapshot", "ghost_commit": {}}
    assert read("response_item", ghost) is None
    message = {"type": "message", "role": "user", "content": []}
    compacted = read("compacted", {"message": "m", "replacement_history": [ghost, message, ghost]})
    assert isinstance(compacted, Compacted)
    assert compacted.replacement_history is not None
    assert len(compacted.replacement_history) == 1


def test_a_meta_needs_its_required_fields() -> None:
    line = b'{"timestamp":"x","type":"session_meta","payload":{"id":"i","timestamp":"t","cwd":"/","originator":"o"}}'
    with pytest.raises(ProtocolError, match="cli_version"):
        decode_rollout_line(line)
    whole = decode_rollout_line(line.replace(b'"o"', b'"o","cli_version":"0"'))
    assert isinstance(whole, SessionMeta)
    assert whole.source == "vscode"
