"""Words of a line: joined and split again, as a shell would."""

from __future__ import annotations

import contextlib
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.exec_policy.words import join_words, split_words

WORDS = st.lists(
    st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=12), max_size=5
)
NASTY = st.text("ab '\"\\\n\t#$`!^-", max_size=16)


@given(WORDS)
def test_joined_words_are_split_into_the_same(words: list[str]) -> None:
    assert split_words(join_words(words)) == words


@given(st.lists(NASTY, min_size=1, max_size=4))
@settings(max_examples=40)
def test_a_shell_reads_joined_words_as_they_were(words: list[str]) -> None:
    script = f"printf '%s\\0' {join_words(words)}"
    output = subprocess.run(["/bin/sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout.decode()
    assert output.split("\0")[:-1] == words


@given(NASTY)
def test_any_line_is_split_or_refused(line: str) -> None:
    with contextlib.suppress(ValueError):
        words = split_words(line)
        assert split_words(join_words(words)) == words


@pytest.mark.parametrize("line", ["'", '"', "a 'b", 'a "b\\"', "a\\"])
def test_what_is_not_closed_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"quote|backslash"):
        split_words(line)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("git  push\tx", ["git", "push", "x"]),
        ("a'b'\"c\"d", ["abcd"]),
        ("a # rest", ["a"]),
        ("a#b", ["a#b"]),
        ("a #x\nb", ["a", "b"]),
        ('"a\\$b" "a\\c"', ["a$b", "a\\c"]),
        ("'' x", ["", "x"]),
        ("a\\\nb", ["ab"]),
    ],
)
def test_what_a_line_means(line: str, words: list[str]) -> None:
    assert split_words(line) == words
