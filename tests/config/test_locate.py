"""Where keys stand in a text."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.layers import Path
from engine.config.locate import places
from tests.config.documents import Document, documents


@given(documents())
def test_every_key_and_array_element_is_found_where_it_was_written(document: Document) -> None:
    assert tomllib.loads(document.text) == document.table
    found = places(document.text)
    assert {path: found.get(path) for path in document.places} == document.places


@pytest.mark.parametrize(
    ("text", "path", "place"),
    [
        ("a = 1\nbb = 2\n", ("bb",), (2, 1)),
        ("  a.b . c = 1", ("a", "b", "c"), (1, 9)),
        ("[t]\nx = [1, 'y']\n", ("t", "x", 1), (2, 9)),
        ('[ "p.q" ]\n"r s" = {u = 1, v = [ { w = 2 } ]}\n', ("p.q", "r s", "v", 0, "w"), (2, 25)),
        ("[[a]]\n[[a]]\nb = 1\n[a.c]\nd = 1", ("a", 1, "c", "d"), (5, 1)),
        ('x = """\n[no]\n""""\ny = 1', ("y",), (4, 1)),
        ("x = 1979-05-27 07:32:00Z\ny = 1", ("y",), (2, 1)),
        ("a.b = 1\na.c = 2", ("a",), (1, 1)),
    ],
)
def test_places_of_chosen_texts(text: str, path: Path, place: tuple[int, int]) -> None:
    tomllib.loads(text)
    assert places(text)[path] == place


@given(st.text(alphabet="ab=.[]{}\"'#\n ,\\", max_size=60))
def test_no_text_makes_it_raise_or_hang(text: str) -> None:
    places(text)


def test_deep_nesting_gives_what_is_known_so_far() -> None:
    found = places("first = 1\nx = " + "[" * 5000)
    assert found[("first",)] == (1, 1)
