"""Cut outputs: a head, a marker that counts, a tail - never a broken character, never more than the budget."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.items import InputImage, InputText, OutputContent
from engine.protocol.settings import TruncationPolicy
from engine.protocol.truncation import approx_tokens, formatted_truncate, scaled, truncate_output, truncate_text

MARKER = re.compile(r"…(\d+) (tokens|chars) truncated…")
Mode = Literal["bytes", "tokens"]

texts = st.one_of(st.text(max_size=80), st.text(alphabet="aé€😀\n", max_size=120))
policies = st.builds(TruncationPolicy, st.sampled_from(["bytes", "tokens"]), st.integers(0, 60))


def policy(mode: Mode, limit: int) -> TruncationPolicy:
    return TruncationPolicy(mode, limit)


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("é€", 2), ("\ud800", 1)])
def test_a_token_is_four_bytes(text: str, tokens: int) -> None:
    assert approx_tokens(text) == tokens


@pytest.mark.parametrize(("limit", "expected"), [(0, 0), (1, 2), (5, 6), (10_000, 12_000), (20_000, 24_000)])
def test_scaled_rounds_up(limit: int, expected: int) -> None:
    assert scaled(policy("bytes", limit), 1.2) == policy("bytes", expected)


def test_examples_of_the_specification() -> None:
    assert "…2500 tokens truncated…" in truncate_text("x" * 50_000, policy("tokens", 10_000))
    cut = truncate_text("a" * 100_000 + "z" * 8_894, policy("tokens", 50))
    assert cut == "a" * 100 + "…27174 tokens truncated…" + "z" * 100
    assert truncate_text("0123456789", policy("bytes", 5)) == "01…5 chars truncated…789"
    assert truncate_text("0123456789", policy("bytes", 0)) == "…10 chars truncated…"
    assert truncate_text("€€€€", policy("bytes", 7)) == "€…2 chars truncated…€"


@given(texts, policies)
def test_what_fits_stays_and_what_does_not_is_cut_to_the_budget(text: str, limit: TruncationPolicy) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    cut = truncate_text(text, limit)
    if size <= limit.byte_budget:
        assert cut is text
        return
    marker = MARKER.search(cut)
    assert marker is not None
    head, tail = cut[: marker.start()], cut[marker.end() :]
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len((head + tail).encode("utf-8", "surrogatepass")) <= limit.byte_budget
    if limit.mode == "bytes":
        assert (int(marker[1]), marker[2]) == (len(text) - len(head) - len(tail), "chars")
    else:
        assert (int(marker[1]), marker[2]) == (-(-(size - limit.byte_budget) // 4), "tokens")


@given(texts, policies)
def test_a_formatted_text_tells_its_lines_only_if_it_was_cut(text: str, limit: TruncationPolicy) -> None:
    cut = truncate_text(text, limit)
    formatted = formatted_truncate(text, limit)
    if cut is text:
        assert formatted is text
    else:
        lines = len(text.removesuffix("\n").split("\n"))
        assert formatted == f"Total output lines: {lines}\n\n{cut}"


def parts(*contents: str) -> OutputContent:
    """Text parts; `@` stands for an image."""
    return tuple(InputImage("data:,") if content == "@" else InputText(content) for content in contents)


@pytest.mark.parametrize(
    ("given_parts", "limit", "expected"),
    [
        (("ab", "@", "cd"), policy("bytes", 4), None),
        (
            ("ab", "@", "cdef", "@", "g", "h"),
            policy("bytes", 4),
            ("ab", "@", "c…2 chars truncated…f", "@", "[omitted 2 text items ...]"),
        ),
        (("abcd", "e", "@"), policy("bytes", 4), ("abcd", "@", "[omitted 1 text items ...]")),
        (("abcdefgh", "ijkl", "m"), policy("tokens", 2), ("abcdefgh", "[omitted 2 text items ...]")),
        (("abcde", "x" * 12), policy("tokens", 3), ("abcde", "xx…2 tokens truncated…xx")),
        (("a", "@"), policy("bytes", 0), ("@", "[omitted 1 text items ...]")),
        (("@", "@"), policy("bytes", 0), None),
    ],
)
def test_parts_share_a_budget(
    given_parts: tuple[str, ...], limit: TruncationPolicy, expected: tuple[str, ...] | None
) -> None:
    content = parts(*given_parts)
    made = truncate_output(content, limit)
    if expected is None:
        assert made is content
    else:
        assert made == parts(*expected)


@given(st.lists(st.one_of(texts, st.just("@")), max_size=5), policies)
def test_images_always_stay_and_texts_are_never_more_than_the_budget(
    contents: list[str], limit: TruncationPolicy
) -> None:
    content = parts(*contents)
    made = truncate_output(content, limit)
    assert not isinstance(made, str)
    assert sum(isinstance(part, InputImage) for part in made) == contents.count("@")
    told = [MARKER.sub("", part.text) for part in made if isinstance(part, InputText)]
    if told and told[-1].startswith("[omitted "):
        told.pop()
    assert sum(len(text.encode("utf-8", "surrogatepass")) for text in told) <= limit.byte_budget


@given(texts, policies)
def test_a_text_output_is_cut_as_a_text(text: str, limit: TruncationPolicy) -> None:
    assert truncate_output(text, limit) == truncate_text(text, limit)
