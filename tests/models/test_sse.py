"""The parser of server-sent events."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.models.failures import EventTooLarge
from engine.models.sse import ServerEvent, SseParser, event_values, sse_bytes

SAMPLE = (
    b'\xef\xbb\xbfevent: one\r\ndata: {"a": 1}\r\n\r\n: a comment\ndata:two\ndata:  lines\n\n'
    b"id: 4\nretry: 10\n\nevent: empty\n\ndata\n\rdata: cr\r\rdata: last\n\ndata: never ended"
)
EXPECTED = [
    ServerEvent("one", b'{"a": 1}'),
    ServerEvent("message", b"two\n lines"),
    ServerEvent("message", b""),
    ServerEvent("message", b"cr"),
    ServerEvent("message", b"last"),
]


def parse(*chunks: bytes, limit: int = 10_000) -> list[ServerEvent] | str:
    parser, found = SseParser(limit), []
    try:
        for chunk in chunks:
            found += parser.feed(chunk)
    except EventTooLarge:
        return "too large"
    return found


def test_reads_a_stream_with_all_line_ends_comments_and_multi_line_data() -> None:
    assert parse(SAMPLE) == EXPECTED


@pytest.mark.parametrize("at", range(len(SAMPLE) + 1))
def test_a_cut_at_any_position_changes_nothing(at: int) -> None:
    assert parse(SAMPLE[:at], SAMPLE[at:]) == EXPECTED


def test_byte_by_byte_gives_the_same() -> None:
    assert parse(*(SAMPLE[at : at + 1] for at in range(len(SAMPLE)))) == EXPECTED


lines = st.sampled_from(
    [b"data: x", b"data:", b"data", b"event: e", b": c", b"id: 1", b"", b"\xef\xbb\xbf", b"nonsense", b"d"]
)
ends = st.sampled_from([b"\n", b"\r", b"\r\n", b""])
streams = st.lists(st.tuples(lines, ends), max_size=20).map(lambda parts: b"".join(line + end for line, end in parts))


@given(streams | st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8), st.integers(8, 60))
def test_cuts_never_matter_and_no_bytes_raise_anything_but_the_size_error(
    data: bytes, cuts: list[int], limit: int
) -> None:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    assert parse(*pieces, limit=limit) == parse(data, limit=limit)


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text()), max_size=5))
def test_what_is_written_is_read_back(events: list[dict[str, object]]) -> None:
    parsed = parse(sse_bytes([{"type": "x", **event} for event in events]), limit=1 << 20)
    assert not isinstance(parsed, str)
    assert event_values(parsed) == [{"type": "x", **event} for event in events]


@pytest.mark.parametrize("data", [b"data: " + b"x" * 100, b"data: x\n" * 20, b": " + b"c" * 100])
def test_a_huge_event_is_a_typed_error_also_before_it_ends(data: bytes) -> None:
    with pytest.raises(EventTooLarge, match="more than 50 bytes"):
        SseParser(50).feed(data)


def test_many_small_events_are_no_huge_one() -> None:
    found = parse(b"data: 123456\n\n" * 1000, limit=20)
    assert len(found) == 1000


def test_event_values_leaves_garbage_out() -> None:
    events = [ServerEvent("m", data) for data in (b"{", b"[1]", b"\xff", b'{"type": "a"}', b"null")]
    assert event_values(events) == [{"type": "a"}]
