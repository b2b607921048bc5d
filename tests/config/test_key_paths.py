"""Key paths of edits: what they name, and which make no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.key_paths import KeyPathError, format_key_path, parse_key_path


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("a", ("a",)),
        ("a.b", ("a", "b")),
        ('projects."/x.y/z".trust_level', ("projects", "/x.y/z", "trust_level")),
        (r'a."q\"b\\c"', ("a", 'q"b\\c')),
        ("a@b.c d", ("a@b", "c d")),
        ('a."b"c', ("a", "bc")),
        ("a\\b", ("a\\b",)),
    ],
)
def test_paths(text: str, segments: tuple[str, ...]) -> None:
    assert parse_key_path(text) == segments


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "keyPath must not be empty"),
        ("  ", "keyPath must not be empty"),
        ("a..b", "keyPath segments must not be empty"),
        (".a", "keyPath segments must not be empty"),
        ("a.", "keyPath segments must not be empty"),
        ('"".b', "keyPath segments must not be empty"),
        ('a"b', "invalid quoted keyPath segment"),
        ('a."b"c"d"', "invalid quoted keyPath segment"),
        ('a."b', "unterminated quoted keyPath segment"),
        ('a."b\\', "unterminated escape in keyPath"),
    ],
)
def test_what_names_no_key(text: str, message: str) -> None:
    with pytest.raises(KeyPathError) as caught:
        parse_key_path(text)
    assert str(caught.value) == message


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_every_path_has_a_text(segments: list[str]) -> None:
    assert parse_key_path(format_key_path(segments)) == tuple(segments)


@given(st.text(alphabet='ab."\\ ', max_size=12))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        segments = parse_key_path(text)
    except KeyPathError:
        return
    assert segments
    assert all(segments)
    assert parse_key_path(format_key_path(segments)) == segments
