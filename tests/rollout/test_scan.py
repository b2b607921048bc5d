"""The scanner on both implementations: lines, kinds, and that nothing makes it raise or differ."""

from __future__ import annotations

import importlib
import json
import mmap
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rollout import _scan_py as pure
from engine.rollout import scan as chosen
from tests.rollout.conftest import TWINS

RECORDED = Path(__file__).parent.parent / "vectors" / "rollout" / "recorded"
META = b'{"timestamp":"2025-01-02T03:04:05.678Z","type":"session_meta","payload":{}}'
EVENT = b'{"timestamp":"2025-01-02T03:04:05.678Z","type":"event_msg","payload":{"type":"task_started"}}'
COMPACTED = b'{"timestamp":"x","type":"compacted","payload":{"message":""}}'


def texts(module: ModuleType, data: bytes) -> list[tuple[bytes, int]]:
    """The lines of `data` with their kinds; checks on the way that both directions agree."""
    scan = module.Scan(data)
    forward = list(scan.forward())
    assert list(scan.backward()) == forward[::-1]
    return [(data[start:end], kind) for start, end, kind in forward]


def kind(module: ModuleType, line: bytes) -> int:
    [(_, found)] = texts(module, line)
    return found


def test_lines_end_at_lf_with_or_without_cr_and_the_last_may_lack_its_end(scanner: ModuleType) -> None:
    data = META + b"\r\n" + EVENT + b"\n\n" + COMPACTED
    assert texts(scanner, data) == [
        (META, scanner.SESSION_META),
        (EVENT, scanner.EVENT_MSG),
        (b"", scanner.BLANK),
        (COMPACTED, scanner.COMPACTED),
    ]
    assert texts(scanner, data + b"\n") == texts(scanner, data)


def test_nothing_has_no_lines(scanner: ModuleType) -> None:
    assert texts(scanner, b"") == []


def test_a_byte_order_mark_in_front_belongs_to_no_line(scanner: ModuleType) -> None:
    assert texts(scanner, b"\xef\xbb\xbf" + META + b"\n") == [(META, scanner.SESSION_META)]
    assert texts(scanner, b"\xef\xbb\xbf\n\xef\xbb\xbf") == [(b"", scanner.BLANK), (b"", scanner.BLANK)]
    later = EVENT + b"\n\xef\xbb\xbf" + META + b"\n\xef\xbb" + META  # e.g. files put together
    assert [found for _, found in texts(scanner, later)] == [scanner.EVENT_MSG, scanner.SESSION_META, scanner.BROKEN]


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"compacted","payload":{},"timestamp":"x"}',
        b'{"payload":{"type":"event_msg","deep":[{"type":"x"},["}"]]},"type":"compacted"}',
        b' \t{ "timestamp" : "x" , "type" : "compacted" , "payload" : { } } \t',
        b'{"timestamp":"\\"type\\":\\"event_msg\\"","type":"compacted","payload":{}}',
        b'{"t\\u0079pe":"compact\\u0065d"}',
        b'{"timestamp":1,"ordinal":3,"ok":true,"none":null,"type":"compacted","payload":{}}',
        b'{"a\\\\":"\\\\","type":"compacted"}',
        b'{"type":"compacted","type":"event_msg"}',
        b'{"timestamp":"\xff\xfe","type":"compacted","payload":"\x00"}',
    ],
)
def test_the_kind_does_not_depend_on_order_spacing_nesting_or_escapes(scanner: ModuleType, line: bytes) -> None:
    assert kind(scanner, line) == scanner.COMPACTED


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[]",
        b"null",
        b"42",
        b"{not json",
        b'{"payload":{"type":"compacted"}}',
        b'{"type":3}',
        b'{"type":null,"payload":{}}',
        b'{"type":"compacted"',
        b'{"timestamp":"x","type":"compacted","payload":{"message":"torn',
        b'{"timestamp":"x","type":"comp',
        b'{"a":"\\"}',
        b'{"a":{"b":[1,2}',
        b"\x00\x00\x00",
        META + b"\x00\x00",
        b"}",
        b"{",
        b'"type":"compacted"}',
    ],
)
def test_what_is_no_whole_object_with_a_textual_type_is_broken(scanner: ModuleType, line: bytes) -> None:
    assert kind(scanner, line) == scanner.BROKEN


@pytest.mark.parametrize("line", [b" ", b"\t\r", b" \x0b\x0c "])
def test_white_space_alone_is_blank(scanner: ModuleType, line: bytes) -> None:
    assert kind(scanner, line + b"\n") == scanner.BLANK


@pytest.mark.parametrize("name", [b"", b"world_state", b"compacte", b"Compacted", b"compacted\\n", b"compacted\\u1234"])
def test_types_of_other_writers_are_other(scanner: ModuleType, name: bytes) -> None:
    assert kind(scanner, b'{"timestamp":"x","type":"' + name + b'"}') == scanner.OTHER


def test_scanning_can_start_and_end_inside(scanner: ModuleType) -> None:
    data = META + b"\n" + EVENT + b"\n" + COMPACTED + b"\n"
    scan = scanner.Scan(data)
    second = len(META) + 1
    assert [line[2] for line in scan.forward(second)] == [scanner.EVENT_MSG, scanner.COMPACTED]
    assert [line[2] for line in scan.backward(second)] == [scanner.SESSION_META]
    assert list(scan.backward(0)) == []
    assert list(scan.backward(-5)) == []
    assert list(scan.backward(10**6)) == list(scan.backward())
    assert list(scan.forward(10**6)) == []
    assert list(scan.forward(-5)) == list(scan.forward())


def test_count_counts_lines_of_a_kind(scanner: ModuleType) -> None:
    data = META + b"\r\n" + COMPACTED + b"\n" + EVENT + b"\n\n" + COMPACTED
    scan = scanner.Scan(data)
    assert [scan.count(number) for number in range(8)] == [1, 1, 0, 2, 0, 1, 0, 0]


def test_any_buffer_will_do(scanner: ModuleType, tmp_path: Path) -> None:
    data = META + b"\n" + EVENT
    expected = list(scanner.Scan(data).forward())
    path = tmp_path / "rollout"
    path.write_bytes(data)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        scan = scanner.Scan(mapped)
        assert list(scan.forward()) == expected
        assert list(scan.backward()) == expected[::-1]
        del scan
    for buffer in (bytearray(data), memoryview(data), memoryview(b"x" + data)[1:]):
        assert list(scanner.Scan(buffer).forward()) == expected
    spread = bytes(byte for pair in zip(data, data, strict=True) for byte in pair)
    assert list(scanner.Scan(memoryview(spread)[::2]).forward()) == expected


@pytest.mark.parametrize("wrong", ["text", None, 3])
def test_what_is_no_buffer_is_a_type_error(scanner: ModuleType, wrong: object) -> None:
    with pytest.raises(TypeError, match="a bytes-like object is required"):
        scanner.Scan(wrong)


def test_recorded_lines_are_what_json_says(scanner: ModuleType) -> None:
    kinds = {
        name.lower(): getattr(scanner, name) for name in pure.__all__ if name.isupper() and name != "IMPLEMENTATION"
    }
    for path in sorted(RECORDED.glob("*.jsonl")):
        data = path.read_bytes()
        lines = data.splitlines()
        assert texts(scanner, data) == [(line, kinds[json.loads(line)["type"]]) for line in lines]


def test_the_twins_have_the_same_names(scanner: ModuleType) -> None:
    for name in pure.__all__:
        assert hasattr(scanner, name), name
    assert scanner.__name__ == TWINS[scanner.IMPLEMENTATION]


@pytest.mark.parametrize("forced", ["", "1"])
def test_the_environment_chooses_the_twin(forced: str) -> None:
    code = (
        "from engine import accel; from engine.rollout import scan; print(scan.IMPLEMENTATION, accel.implementation())"
    )
    env = {**os.environ, "ENGINE_PURE_PYTHON": forced}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    one, other = ran.stdout.split()
    assert one == other
    if forced:
        assert one == "python"


def test_the_chosen_scanner_is_one_of_the_twins() -> None:
    assert chosen.Scan in {getattr(importlib.import_module(name), "Scan", None) for name in TWINS.values()} | {
        pure.Scan
    }


# --- marks and turns ---------------------------------------------------------------------------


def line(kind: str, payload: object) -> bytes:
    return json.dumps({"timestamp": "x", "type": kind, "payload": payload}, separators=(",", ":")).encode()


def event(kind: str, **fields: object) -> bytes:
    return line("event_msg", {"type": kind, **fields})


def message(role: object) -> bytes:
    return line("response_item", {"type": "message", "role": role, "content": []})


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        (line("compacted", {"message": "", "replacement_history": []}), "REPLACEMENT"),
        (line("compacted", {"message": "", "replacement_history": None}), "COMPACTION"),
        (line("compacted", {"message": '"replacement_history":[]'}), "COMPACTION"),
        (line("compacted", {"a": {"replacement_history": []}, "message": ""}), "COMPACTION"),
        (line("compacted", []), "COMPACTION"),
        (line("turn_context", {}), "CONTEXT"),
        (line("session_meta", {}), "META"),
        (line("world_state", {}), "FOREIGN"),
        (b" ", "EMPTY"),
        (b"{", "DAMAGED"),
        (event("task_started"), "TURN_STARTED"),
        (event("turn_started"), "TURN_STARTED"),
        (event("task_complete"), "TURN_COMPLETE"),
        (event("turn_complete"), "TURN_COMPLETE"),
        (event("turn_aborted"), "TURN_ABORTED"),
        (event("thread_rolled_back", num_turns=1), "ROLLED_BACK"),
        (event("user_message", message="x"), "USER_EVENT"),
        (event("token_count", info={}), "USAGE"),
        (event("token_count", info=None), "OTHER_EVENT"),
        (event("token_count"), "OTHER_EVENT"),
        (event("agent_message", message="x"), "OTHER_EVENT"),
        (line("event_msg", {}), "OTHER_EVENT"),
        (line("event_msg", {"type": 3}), "OTHER_EVENT"),
        (line("event_msg", "task_started"), "OTHER_EVENT"),
        (b'{"type":"event_msg"}', "OTHER_EVENT"),
        (message("user"), "USER_ITEM"),
        (message("assistant"), "ASSISTANT_ITEM"),
        (message("developer"), "OTHER_ITEM"),
        (message(None), "OTHER_ITEM"),
        (line("response_item", {"type": "function_call", "role": "user"}), "OTHER_ITEM"),
        (line("response_item", {"role": "user"}), "OTHER_ITEM"),
        (line("response_item", None), "OTHER_ITEM"),
        (b'{"payload":{"content":[{"type":"x"}],"role":"user","type":"message"},"type":"response_item"}', "USER_ITEM"),
        (
            b' { "type" : "response_item", "payload" : { "type" : "mess\\u0061ge", "role" : "us\\u0065r" } } ',
            "USER_ITEM",
        ),
        (b'{"timestamp":"x","type":"event_msg","ordinal":7,"payload":{"type":"task_started"}}', "TURN_STARTED"),
    ],
)
def test_marks_look_into_the_payload(scanner: ModuleType, text: bytes, mark: str) -> None:
    [(_, _, found)] = scanner.Scan(text).marks()
    assert found == getattr(scanner, mark)
    assert list(scanner.Scan(text).marks(wanted=scanner.ALL_MARKS & ~found)) == []


def turns(module: ModuleType, words: str) -> list[str]:
    """The turns of a rollout of one-letter lines: Start, End, Question, its event M, Answer, Context, other call."""
    spelled = {
        "S": event("task_started"),
        "E": event("task_complete"),
        "Q": message("user"),
        "M": event("user_message"),
        "A": message("assistant"),
        "C": line("turn_context", {}),
        "o": line("response_item", {"type": "function_call"}),
        "m": META,
    }
    data = b"".join(spelled[word] + b"\n" for word in words)
    starts = [start for start, _, _ in module.Scan(data).forward()] + [len(data)]
    return ["".join(words[starts.index(start) : starts.index(end)]) for start, end in module.Scan(data).turns()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", ""),
        ("mC", ""),
        ("mSCQMAESQMAoE", "SCQMAE SQMAoE"),
        ("mSQMASQ", "SQMA SQ"),
        ("SEQMA", "SEQMA"),  # what comes between turns belongs to the one before
        ("mQQMAoQMA", "QQMAo QMA"),
        ("mMAMA", "MA MA"),
        ("mQAoAQA", "QAoA QA"),
        ("mQQ", ""),
        ("mQMASQMAE", "QMA SQMAE"),
    ],
)
def test_turns_begin_where_it_is_told_else_where_the_user_speaks(
    scanner: ModuleType, words: str, expected: str
) -> None:
    assert turns(scanner, words) == expected.split()


# --- the twins are equal -----------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"\n", b"\r\n", b"\r", b" ", b"\t", b"\x00", b"\xff",
        b"\xef\xbb\xbf",
        b'"type"', b'"t\\u0079pe"', b'"compacted"', b'"event_msg"', b'"payload"', b'{"a":1}', b"null", b"1e5", b"\\u00",
        b"\x0b",
        META, EVENT, COMPACTED,
    ]
)  # fmt: skip
_LINES = [line for path in sorted(RECORDED.glob("*.jsonl")) for line in path.read_bytes().splitlines()]


@st.composite
def mutated_rollouts(draw: st.DrawFn) -> bytes:
    """Real lines with bytes cut, replaced, put in and glued together."""
    lines = draw(st.lists(st.sampled_from(_LINES), min_size=1, max_size=5))
    data = bytearray(draw(st.sampled_from([b"\n", b"\r\n", b"", b"\n\n"])).join(lines))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 40))
        data[at : at + size] = draw(st.one_of(st.just(b""), _PIECES, st.binary(max_size=8)))
    return bytes(data)


anything = st.one_of(st.binary(max_size=300), st.lists(_PIECES, max_size=40).map(b"".join), mutated_rollouts())


@given(anything)
def test_twins_agree_on_any_bytes(data: bytes) -> None:
    compiled = pytest.importorskip(TWINS["c"])
    assert texts(compiled, data) == texts(pure, data)
    one, other = compiled.Scan(data), pure.Scan(data)
    assert [one.count(number) for number in range(8)] == [other.count(number) for number in range(8)]
    assert list(one.marks()) == list(other.marks())
    assert list(one.turns()) == list(other.turns())


@given(anything, st.integers(-3, 400), st.none() | st.integers(-3, 400), st.integers(0, pure.ALL_MARKS))
def test_twins_agree_on_any_part(data: bytes, start: int, end: int | None, wanted: int) -> None:
    one, other = pytest.importorskip(TWINS["c"]).Scan(data), pure.Scan(data)
    assert list(one.forward(start, end)) == list(other.forward(start, end))
    assert list(one.backward(end, start)) == list(other.backward(end, start)) == list(other.forward(start, end))[::-1]
    assert list(one.marks(start, end, wanted)) == list(other.marks(start, end, wanted))
    assert list(one.marks_backward(end, start, wanted)) == list(other.marks(start, end, wanted))[::-1]
    assert list(one.turns(start, end)) == list(other.turns(start, end))
    assert [one.count(number, start, end) for number in range(8)] == [
        other.count(number, start, end) for number in range(8)
    ]


@given(anything)
def test_each_line_has_one_mark_that_fits_its_kind(data: bytes) -> None:
    scan = pure.Scan(data)
    for (start, end, found), line in zip(scan.marks(), scan.forward(), strict=True):
        assert (start, end) == line[:2]
        assert found.bit_count() == 1
        assert found & pure._MARKS_OF[line[2]]


@given(anything)
def test_lines_and_their_ends_are_the_data(data: bytes) -> None:
    found = list(pure.Scan(data).forward())
    pieces = data.split(b"\n")
    if pieces[-1] == b"":
        pieces.pop()
    lines = [piece.removesuffix(b"\r").removeprefix(b"\xef\xbb\xbf") for piece in pieces]
    assert [data[start:end] for start, end, _ in found] == lines


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "a", "payload"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["type", "payload", "timestamp", "x"]) | st.text(max_size=5), _JSON, max_size=5),
    st.sampled_from([None, *pure._KINDS]),
    st.booleans(),
    st.booleans(),
)
def test_the_kind_is_what_json_says(
    value: dict[str, object], name: bytes | None, ascii_only: bool, spaced: bool
) -> None:
    if name is not None:
        value["type"] = name.decode()
    line = json.dumps(value, ensure_ascii=ascii_only, separators=(", ", " : ") if spaced else (",", ":")).encode()
    told = value.get("type")
    expected = pure._KINDS.get(told.encode(), pure.OTHER) if isinstance(told, str) else pure.BROKEN
    [(_, _, found)] = pure.Scan(line).forward()
    assert found == expected


_EVENT_MARKS = {
    "task_started": pure.TURN_STARTED,
    "turn_started": pure.TURN_STARTED,
    "task_complete": pure.TURN_COMPLETE,
    "turn_complete": pure.TURN_COMPLETE,
    "turn_aborted": pure.TURN_ABORTED,
    "thread_rolled_back": pure.ROLLED_BACK,
    "user_message": pure.USER_EVENT,
}
_ROLES = {"user": pure.USER_ITEM, "assistant": pure.ASSISTANT_ITEM}
_FIELDS = st.sampled_from(["type", "role", "info", "replacement_history", "x"])
_VALUES = _JSON | st.sampled_from(["message", "token_count", "user", "assistant", *_EVENT_MARKS])


def mark_by_json(kind: str, payload: object) -> int:
    """What mark a line has, told from parsed JSON."""
    fields = payload if isinstance(payload, dict) else {}
    match kind:
        case "compacted":
            return pure.REPLACEMENT if isinstance(fields.get("replacement_history"), list) else pure.COMPACTION
        case "response_item":
            role = fields.get("role")
            is_message = fields.get("type") == "message" and isinstance(role, str)
            return _ROLES.get(str(role), pure.OTHER_ITEM) if is_message else pure.OTHER_ITEM
        case "event_msg":
            name = fields.get("type")
            if name == "token_count" and isinstance(fields.get("info"), dict):
                return pure.USAGE
            return _EVENT_MARKS.get(name, pure.OTHER_EVENT) if isinstance(name, str) else pure.OTHER_EVENT
    return {"session_meta": pure.META, "turn_context": pure.CONTEXT}.get(kind, pure.FOREIGN)


@given(
    st.sampled_from([*(name.decode() for name in pure._KINDS), "world_state"]),
    st.dictionaries(_FIELDS, _VALUES, max_size=5) | _VALUES,
    st.sampled_from([True, False]),
    st.booleans(),
)
def test_the_mark_is_what_json_says(kind: str, payload: object, payload_first: bool, spaced: bool) -> None:
    members = [("timestamp", "x"), ("type", kind), ("payload", payload)]
    text = json.dumps(dict(members[::-1] if payload_first else members), separators=(", ", " : ") if spaced else None)
    [(_, _, found)] = pure.Scan(text.encode()).marks()
    assert found == mark_by_json(kind, payload)
