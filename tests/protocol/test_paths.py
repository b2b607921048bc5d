"""Paths by text: the rules of the specification, and what holds for every text."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.paths import absolute_path, components, is_under, join, normal_path

parts = st.sampled_from(["", ".", "..", "a", "b.c", ".git", "...", "é", "é", "日", "a b", "~", "\ud800"])
texts = st.lists(parts, max_size=8).map("/".join)


@given(texts)
def test_normal_paths_are_what_posix_makes_of_them(text: str) -> None:
    made = normal_path(f"/{text}")
    assert made == "/" + posixpath.normpath(f"/{text}").lstrip("/")
    assert normal_path(made) == made
    assert "/" + "/".join(components(made)) == made


@given(texts, texts, st.none() | texts.map("/{}".format))
def test_absolute_paths_are_normal_and_stay(text: str, base: str, home: str | None) -> None:
    base = normal_path(f"/{base}")
    made = absolute_path(text, base, home)
    assert normal_path(made) == made
    assert absolute_path(made, "/other", home) == made
    if not text.startswith("~"):
        assert made == join(base, text)


@pytest.mark.parametrize(
    ("text", "home", "made"),
    [
        ("~", "/home/u", "/home/u"),
        ("~/", "/home/u", "/home/u"),
        ("~//x", "/home/u/", "/home/u/x"),
        ("~u/x", "/home/u", "/base/~u/x"),
        ("~", None, "/base/~"),
        ("~/x", "", "/base/~/x"),
        ("/~/x", "/home/u", "/~/x"),
        ("", "/home/u", "/base"),
        ("../..", None, "/"),
    ],
)
def test_the_home_directory(text: str, home: str | None, made: str) -> None:
    assert absolute_path(text, "/base", home) == made


@given(texts, texts)
def test_under_means_component_by_component(one: str, other: str) -> None:
    path, place = normal_path(f"/{one}"), normal_path(f"/{other}")
    names, above = components(path), components(place)
    assert is_under(path, place) == (names[: len(above)] == above)
