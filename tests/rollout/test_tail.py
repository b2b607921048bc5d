"""Reading a rollout from its end gives what replaying all of it gives, whatever the lines; and reads little."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.events import TokenCount
from engine.protocol.items import CustomToolCallOutput, FunctionCallOutput, Message, OutputText, user_message
from engine.protocol.rollout_items import (
    EventLine,
    ResponseLine,
    RolloutItem,
    SessionMeta,
    TurnContext,
    UnknownLine,
)
from engine.protocol.settings import TokenUsage, TokenUsageInfo, TruncationPolicy
from engine.protocol.wire import UnknownVariant
from engine.rollout.blocks import BLOCK, ByteSource, MemorySource, blocks, count_compacted
from engine.rollout.lines import encode_rollout_line
from engine.rollout.loading import load
from engine.rollout.reconstruction import Reconstruction, reconstruct
from engine.rollout.scan import COMPACTED, Scan
from engine.rollout.tail import RolloutTail, first_meta
from tests.rollout.test_reconstruction import POLICY, words
from tests.rollout.test_reconstruction import word as plain_word

RECORDED = Path(__file__).parent.parent / "vectors" / "rollout" / "recorded"
STAMP = "2025-01-02T03:04:05.678Z"
MAIL = json.dumps({"author": "/root", "recipient": "/root/a", "content": "x", "trigger_turn": True})
META = SessionMeta(id="01900000-0000-7000-8000-000000000001", timestamp=STAMP, cwd="/", originator="t", cli_version="0")  # type: ignore[arg-type]


class Counted:
    """A source that tells how much of it was read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.taken = 0

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self, start: int, end: int) -> bytes:
        assert 0 <= start <= end <= len(self._data)
        self.taken += end - start
        return self._data[start:end]


def usage(total: int) -> RolloutItem:
    return EventLine(TokenCount(TokenUsageInfo(TokenUsage(total_tokens=total), TokenUsage(), None)))


def word(item: str) -> RolloutItem:
    match item[0]:
        case "N":
            return EventLine(TokenCount())
        case "T":
            return usage(int(item[1:]))
        case "L":
            return ResponseLine(Message("assistant", (OutputText(MAIL),)))
        case "D":
            return ResponseLine(user_message("<model_switch>x", role="developer"))
        case "V":
            return ResponseLine(user_message("<environment_context>x</environment_context>"))
        case "O":
            return ResponseLine(FunctionCallOutput("c", "x" * 20_000))
        case "Y":
            return ResponseLine(UnknownVariant({"type": "later"}))
        case "W":
            return UnknownLine("world_state", {"type": "user_message"})
    return plain_word(item)


def line(item: str) -> bytes:
    return encode_rollout_line(word(item), STAMP)


def rollout(text: str) -> bytes:
    return encode_rollout_line(META, STAMP) + b"".join(line(item) for item in text.split())


def expected_usage(items: Sequence[RolloutItem]) -> TokenUsageInfo | None:
    found = [item.msg.info for item in items if isinstance(item, EventLine) and isinstance(item.msg, TokenCount)]
    return next((info for info in reversed(found) if info is not None), None)


def check(data: bytes, *, block: int = BLOCK, enough: int = 0, policy: TruncationPolicy = POLICY) -> RolloutTail:
    """Compares a tail with a full replay."""
    loaded = load(data)
    tail = RolloutTail(MemorySource(data), block)
    tail.read(enough)
    before = tail.previous_turn_settings, tail.context
    made = tail.reconstruct(policy)
    assert made == reconstruct(loaded.items, policy)
    assert before[0] == made.previous_turn_settings
    contexts = [item for item in loaded.items if isinstance(item, TurnContext)]
    assert tail.context == before[1]
    if contexts and tail.counted_from == 0:
        assert tail.context == contexts[-1]
    assert tail.compactions == Scan(data).count(COMPACTED, tail.counted_from, tail.end)
    seen = load(data[tail.start :]).items
    if (told := expected_usage(seen)) is not None:
        assert tail.usage == told
    assert tail.reconstruct(policy) == made
    events = [item.msg for item in seen if isinstance(item, EventLine)]
    assert tail.events(len(data)) == events
    return tail


# --- the same as a full replay -------------------------------------------------------------------

NOISE = [
    b"\n",
    b" \t\r\n",
    b"\x00\x00\x00\n",
    b"\xff\xfe\n",
    b"{\n",
    b"null\n",
    b'{"timestamp":"x","type":"compacted","payload":{"message":"torn\n',
    b'{"timestamp":"x","type":"compacted","payload":{"replacement_history":[]}}\n',
    b'{"timestamp":"x","type":"compacted","payload":{"message":"","replacement_history":[{"type":"message"}]}}\n',
    b'{"timestamp":"x","type":"compacted","payload":{"message":"","replacement_history":[{"type":"ghost_snapshot"}]}}\n',
    b'{"timestamp":"x","type":"turn_context","payload":{"turn_id":"1","model":"bad"}}\n',
    b'{"timestamp":"x","type":"event_msg","payload":{"type":"task_started"}}\n',
    b'{"timestamp":"x","type":"event_msg","payload":{"type":"user_message"}}\n',
    b'{"timestamp":"x","type":"event_msg","payload":{"type":"thread_rolled_back","num_turns":-1}}\n',
    b'{"timestamp":"x","type":"event_msg","payload":{"type":"thread_rolled_back","num_turns":1}\n',
    b'{"timestamp":"x","type":"event_msg","payload":{"type":"token_count","info":{}}}\n',
    b'{"type":"event_msg","payload":{"type":"thread_rolled_back","num_turns":1}}\n',
    b'{"payload":{"num_turns":1,"type":"thread_rolled_back"},"timestamp":"x","type":"event_msg"}\r\n',
    b'{"timestamp":"x","type":"response_item","payload":{"type":"ghost_snapshot"}}\n',
    b'{"timestamp":"x","type":"response_item","payload":{"type":"message","role":"user"}}\n',
    b'{"timestamp":"x","type":"response_item","payload":{"type":"message","role":"user","content":[]}}\n',
    b'\xef\xbb\xbf{"timestamp":"x","type":"event_msg","payload":{"type":"task_complete","turn_id":"2"}}\n',
    b'{"timestamp":"x","type":"event_msg","payload":{"type":"turn_started","turn_id":"1"}}\n',
    b'{"timestamp":"x","type":"event_msg","payload":{"type":"turn_aborted","reason":"interrupted"}}\n',
    b'{"timestamp":"x","type":"event_msg","payload":{"type":"turn_aborted","turn_id":"2","reason":"interrupted"}}\n',
]
more_words = words | st.sampled_from(["N", "T1", "T2", "L", "D", "V", "O", "Y", "W", "S1", "E1", "C1", "K[X]", "R1"])
lines = st.one_of(more_words.map(line), more_words.map(line), st.sampled_from(NOISE))
rollouts = st.builds(
    lambda first, rest, cut: (first + b"".join(rest))[: -cut or None],
    st.sampled_from([b"", encode_rollout_line(META, STAMP)]),
    st.lists(lines, max_size=30),
    st.sampled_from([0, 0, 1, 2, 9]),
)


@given(rollouts, st.sampled_from([1, 40, 300, BLOCK]), st.sampled_from([0, 200, 1 << 30]))
def test_a_tail_gives_what_a_full_replay_gives(data: bytes, block: int, enough: int) -> None:
    check(data, block=block, enough=enough)


@given(st.lists(more_words, max_size=25), st.integers(0, 3), st.booleans())
def test_it_does_so_for_any_turns_in_order(inner: list[str], turns: int, compacted: bool) -> None:
    story = " ".join(f"S{n} M C{n} U{n} A{n} N E{n}" for n in range(1, 4))
    text = f"{story} {'K[X]' if compacted else ''} {' '.join(inner)} {'R1 ' * turns}"
    check(rollout(text), block=100)


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.jsonl")), ids=lambda path: path.stem)
@pytest.mark.parametrize("block", [1, 1000, BLOCK])
def test_recorded_rollouts(path: Path, block: int) -> None:
    data = path.read_bytes()
    check(data, block=block)
    for cut in range(0, len(data), 997):
        check(data[:cut])


def test_all_vectors() -> None:
    cases = json.loads((RECORDED.parent / "reconstruct.json").read_text())
    assert len(cases) > 50
    for case in cases:
        policy = case["in"]["truncation_policy"]
        data = "".join(f"{text}\n" for text in case["in"]["lines"]).encode()
        check(data, block=500, policy=TruncationPolicy(policy["mode"], policy["limit"]))


def test_outputs_are_cut_to_the_policy_of_the_day() -> None:
    output = CustomToolCallOutput("c", output="x" * 100)
    data = rollout("S1 M C1 U1") + encode_rollout_line(ResponseLine(output), STAMP)
    made = check(data, policy=TruncationPolicy("bytes", 10)).reconstruct(TruncationPolicy("bytes", 1000))
    assert made.history[-1] == output


# --- reading little ------------------------------------------------------------------------------

FILLER = "S1 M C1 U1 A1 E1 " * 400


def read(data: bytes, enough: int = 1000) -> tuple[RolloutTail, Counted, Reconstruction]:
    source = Counted(data)
    tail = RolloutTail(source, 1000)
    tail.read(enough)
    made = tail.reconstruct(POLICY)
    assert made == reconstruct(load(data).items, POLICY)
    return tail, source, made


def test_nothing_before_the_compaction_is_read() -> None:
    live = "K[X] S2 M C2 U2 A2 T7 E2"
    tail, source, _ = read(rollout(f"{FILLER} {live}"))
    assert tail.finished
    assert source.taken < 10_000
    assert tail.usage is not None
    small, large = read(rollout(f"{FILLER} {live}")), read(rollout(f"{FILLER * 10} {live}"))
    assert small[1].taken == large[1].taken


def test_the_settings_are_known_before_the_history_is_read() -> None:
    source = Counted(rollout(FILLER))
    tail = RolloutTail(source, 1000)
    tail.read(1000)
    assert tail.previous_turn_settings is not None
    assert (tail.finished, source.taken < 5_000) == (False, True)
    tail.reconstruct(POLICY)
    assert (tail.finished, tail.counted_from) == (True, 0)
    assert source.taken < 3 * source.size


def test_a_compaction_far_back_is_found_also_behind_compactions_without_history() -> None:
    for middle, length in (("", 1 + 800 + 1), ("k", 400 + 1 + 1 + 1), ("K[Y] R1", 1)):
        tail, _, made = read(rollout(f"S1 M C1 U1 E1 K[X] {FILLER} {middle} S2 M C2 U2 E2"), enough=100)
        assert tail.finished
        assert len(made.history) == length


def test_what_is_needed_can_be_taken_into_memory() -> None:
    data = rollout(f"{FILLER * 10} K[X] S2 M C2 U2 A2 E2")
    source = Counted(data)
    tail = RolloutTail(source, 1000)
    tail.read(5000)
    tail.use(MemorySource(source.read(tail.start, tail.end), tail.start))
    taken = source.taken
    assert tail.reconstruct(POLICY) == reconstruct(load(data).items, POLICY)
    assert [event.type for event in tail.events(1 << 20)] == ["task_started", "user_message", "task_complete"]
    assert source.taken == taken


def test_events_can_be_limited_to_the_last_bytes() -> None:
    tail = RolloutTail(MemorySource(rollout(FILLER)))
    tail.read(1 << 30)
    assert [event.type for event in tail.events(len(line("E1")) + 5)] == ["task_complete"]
    assert [event.type for event in tail.events(len(line("E1")) - 5)] == []
    assert len(tail.events(1 << 30)) == 3 * 400


def test_a_torn_rest_is_left_out_and_a_whole_line_without_its_end_is_not() -> None:
    data = rollout("S1 M C1 U1 A1")
    torn = RolloutTail(MemorySource(data + line("U2")[:30]))
    assert (torn.end, torn.damaged) == (len(data), 1)
    whole = RolloutTail(MemorySource(data + line("U2")[:-1]))
    assert whole.end == len(data) + len(line("U2")) - 1
    assert len(whole.reconstruct(POLICY).history) == 3
    blank = RolloutTail(MemorySource(data + b"  "))
    assert (blank.end, blank.damaged) == (len(data), 0)


def test_damage_that_was_met_is_counted_once() -> None:
    data = rollout("S1 M C1 U1 A1 E1") + b"{\n\x00\n" + rollout("k S2 M C2 U2 E2") + b"nothing\n"
    tail = RolloutTail(MemorySource(data), 50)
    tail.reconstruct(POLICY)
    assert tail.damaged == load(data).damaged == 3


def test_the_first_meta_names_the_thread() -> None:
    assert first_meta(MemorySource(b"")) is None
    assert first_meta(MemorySource(rollout(FILLER).partition(b"\n")[2])) is None
    assert first_meta(MemorySource(b"{}\n" + rollout("S1"))) == META
    assert first_meta(MemorySource(rollout("S1").replace(b"session_meta", b"session_mate") + rollout(""))) == META


# --- blocks and counting -------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from([b"a", b"bb", b"\n", b"\r\n", b"ccccc"]), max_size=40).map(b"".join), st.integers(1, 12)
)
def test_blocks_are_whole_lines(data: bytes, size: int) -> None:
    source: ByteSource = MemorySource(data)
    position = 0
    for offset, piece in blocks(source, 0, len(data), size):
        assert offset == position
        assert piece
        position += len(piece)
        assert piece.endswith(b"\n") or position == len(data)
        assert data[offset:position] == piece
    assert position == len(data)


KINDS = [
    line("K[X,Y]"),
    line("k"),
    line("U1"),
    b'{"payload":{"message":"xxxxxxxxxxxxxxxxxxxxxxxxxxx"},"type":"compacted","timestamp":"x"}\n',
    b'\xef\xbb\xbf{"payload":{"message":"xxxxxxxxxxxxxxxxxxxxxxxxxxx"},"type":"compacted","timestamp":"x"} \r\n',
    b'{"timestamp":"x","type":"compacted","payload":{"message":"torn ' + b"x" * 50 + b"\n",
    b'{"timestamp":"x","type":"compacted","payload":{}}' + b" " * 50 + b"\r\n",
    b"\x00" * 60 + b"\n",
    b"\n",
]


@given(st.lists(st.sampled_from(KINDS), max_size=8).map(b"".join), st.integers(0, 5), st.integers(1, 90))
def test_compactions_are_counted_in_blocks_of_any_size(data: bytes, cut: int, size: int) -> None:
    data = data[: len(data) - cut]
    assert count_compacted(MemorySource(data), 0, len(data), size=size) == Scan(data).count(COMPACTED)


def test_counting_can_be_stopped() -> None:
    data = rollout(FILLER)
    answers = iter([True, True, False])
    assert count_compacted(MemorySource(data), 0, len(data), lambda: next(answers), size=100) is None
