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


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_nothing_has_no_lines(scanner: ModuleType, data: bytes) -> None:
    assert texts(scanner, data) == []


def test_a_byte_order_mark_at_the_start_belongs_to_no_line(scanner: ModuleType) -> None:
    assert texts(scanner, b"\xef\xbb\xbf" + META + b"\n") == [(META, scanner.SESSION_META)]
    assert texts(scanner, b"\xef\xbb\xbf\n") == [(b"", scanner.BLANK)]
    later = EVENT + b"\n\xef\xbb\xbf" + META
    assert [found for _, found in texts(scanner, later)] == [scanner.EVENT_MSG, scanner.BROKEN]


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


@given(anything, st.integers(-3, 400))
def test_twins_agree_from_any_offset(data: bytes, offset: int) -> None:
    compiled = pytest.importorskip(TWINS["c"])
    assert list(compiled.Scan(data).forward(offset)) == list(pure.Scan(data).forward(offset))
    assert list(compiled.Scan(data).backward(offset)) == list(pure.Scan(data).backward(offset))


@given(anything)
def test_lines_and_their_ends_are_the_data(data: bytes) -> None:
    found = list(pure.Scan(data).forward())
    body = data.removeprefix(b"\xef\xbb\xbf")
    pieces = body.split(b"\n")
    if pieces[-1] == b"":
        pieces.pop()
    assert [data[start:end] for start, end, _ in found] == [piece.removesuffix(b"\r") for piece in pieces]


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
