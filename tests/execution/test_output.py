"""Buffers, chunks and joins: bounds hold and nothing is lost or invented."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.execution.output import (
    HeadBuffer,
    HeadTailBuffer,
    Utf8Chunker,
    aggregate,
    complete_length,
    decode_lossy,
    estimate_tokens,
)

MIB = 1024 * 1024
pieces = st.lists(st.binary(max_size=50), max_size=20)
texts = st.text(alphabet="aé€😀\n", max_size=60)


@given(pieces, st.integers(0, 100))
def test_a_head_buffer_is_a_prefix(data: list[bytes], capacity: int) -> None:
    buffer = HeadBuffer(capacity)
    for piece in data:
        buffer.append(piece)
    assert buffer.value() == b"".join(data)[:capacity]


@given(pieces, st.integers(2, 100))
def test_a_head_tail_buffer_keeps_both_ends(data: list[bytes], capacity: int) -> None:
    buffer = HeadTailBuffer(capacity)
    for piece in data:
        buffer.append(piece)
    whole = b"".join(data)
    head = capacity // 2
    expected = whole if len(whole) <= capacity else whole[:head] + whole[-(capacity - head) :]
    assert buffer.value() == expected
    assert (buffer.total, buffer.omitted) == (len(whole), len(whole) - len(expected))
    assert buffer.drain() == expected
    assert (buffer.total, buffer.omitted, buffer.value()) == (0, 0, b"")


@given(texts, st.lists(st.integers(0, 30), max_size=10))
def test_draining_whole_characters_never_splits_one(text: str, sizes: list[int]) -> None:
    data = text.encode()
    buffer = HeadTailBuffer()
    drained = ""
    for size in [*sizes, len(data)]:
        buffer.append(data[:size])
        data = data[size:]
        drained += buffer.drain(whole_characters=True).decode()
    assert drained + buffer.drain().decode() == text


@given(pieces, st.integers(4, 20))
def test_chunks_are_bounded_and_lose_nothing(data: list[bytes], limit: int) -> None:
    chunker = Utf8Chunker(limit)
    chunks = [chunk for piece in data for chunk in chunker.feed(piece)] + chunker.flush()
    assert b"".join(chunks) == b"".join(data)
    assert all(0 < len(chunk) <= limit for chunk in chunks)


@given(texts, st.integers(1, 9), st.integers(4, 20))
def test_chunks_of_text_are_text(text: str, size: int, limit: int) -> None:
    data = text.encode()
    chunker = Utf8Chunker(limit)
    chunks = [chunk for start in range(0, len(data), size) for chunk in chunker.feed(data[start : start + size])]
    assert "".join(chunk.decode() for chunk in chunks) == text
    assert chunker.flush() == []


def test_large_output_makes_few_chunks() -> None:
    assert list(map(len, Utf8Chunker().feed(b"x" * 20_000))) == [8192, 8192, 3616]
    assert list(map(len, Utf8Chunker().feed("€".encode() * 3000))) == [8190, 810]


@given(st.binary(max_size=8))
def test_only_a_sequence_that_may_still_become_valid_is_held_back(data: bytes) -> None:
    held = data[complete_length(data) :]
    assert len(held) <= 3
    assert not held or held[0] >= 0xC2


def test_text_that_is_no_utf8_is_decoded_with_stand_ins() -> None:
    assert decode_lossy(b"a\xff\xe2\x82b") == "a\ufffd\ufffdb"


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 60))
def test_the_join_is_full_and_in_order(stdout: bytes, stderr: bytes, cap: int) -> None:
    joined = aggregate(stdout, stderr, cap)
    assert len(joined) == min(cap, len(stdout) + len(stderr))
    from_stdout = next(
        size
        for size in range(len(joined), -1, -1)
        if stdout.startswith(joined[:size]) and stderr.startswith(joined[size:])
    )
    assert from_stdout >= min(len(stdout), cap // 3)


def test_shares_of_the_two_streams() -> None:
    both = aggregate(b"o" * MIB, b"e" * MIB)
    assert (both.count(b"o"), both.count(b"e")) == (349_525, 699_051)
    little_error = aggregate(b"o" * MIB, b"e" * 10)
    assert (little_error.count(b"o"), little_error.count(b"e")) == (MIB - 10, 10)


def test_token_estimates_round_up() -> None:
    assert [estimate_tokens(size) for size in (0, 1, 4, 5)] == [0, 1, 1, 2]
