"""`-c a.b=value`: text to path and value, and into a table."""

from __future__ import annotations

import tomllib
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.overrides import overrides_table, parse_override
from engine.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("model=gpt-x y", "model", "gpt-x y"),
        ('model="gpt-5"', "model", "gpt-5"),
        ("model='gpt-5'", "model", "gpt-5"),
        (" a.b.c = 3 ", "a.b.c", 3),
        ("a=true", "a", True),
        ("a=True", "a", "True"),
        ("a=1.5", "a", 1.5),
        ('a=["x", 2]', "a", ["x", 2]),
        ("a={b = 1, c.d = 'x'}", "a", {"b": 1, "c": {"d": "x"}}),
        ("a=", "a", ""),
        ("a=b=c", "a", "b=c"),
        ('a="unfinished', "a", "unfinished"),
        ('a="tab\\tend"', "a", "tab\tend"),
        ('a="x" "y"', "a", 'x" "y'),
        ("a=1\nb=2", "a", "1\nb=2"),
        ("a='''\nx\ny'''", "a", "x\ny"),
        ("a=1979-05-27", "a", tomllib.loads("x=1979-05-27")["x"]),
        ("a=1 # why", "a", 1),
        ("a=" + "[" * 5000, "a", "[" * 5000),
        ("a=" + "9" * 5000, "a", "9" * 5000),
    ],
)
def test_a_value_is_toml_or_the_text_itself(text: str, path: str, value: object) -> None:
    assert parse_override(text) == (path, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model", "Invalid override (missing '='): model"),
        ("", "Invalid override (missing '='): "),
        ("=3", "Empty key in override: =3"),
        ("  = 3", "Empty key in override:   = 3"),
        ("a..b=3", "Empty segment in the key of an override: a..b"),
        (".=3", "Empty segment in the key of an override: ."),
        ("a=\udcff", "Invalid override (not valid UTF-8): a=\\udcff"),
    ],
)
def test_what_is_no_override(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_override(text)
    assert str(caught.value) == message


@given(st.text())
def test_any_text_gives_an_override_or_a_config_error(text: str) -> None:
    try:
        path, value = parse_override(text)
    except ConfigError:
        return
    assert all(path.split("."))
    assert overrides_table([(path, value)])


@given(st.text(alphabet="ab\"'\\ =#1\t\x7fé"))
def test_the_short_cut_for_strings_is_what_toml_says(inner: str) -> None:
    text = f'"{inner}"'
    try:
        expected: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        expected = text.strip().strip("\"'")
    assert parse_override(f"a={text}") == ("a", expected)


def test_later_overrides_win_and_tables_grow() -> None:
    assert overrides_table([("a", 1), ("a.b", 2)]) == {"a": {"b": 2}}
    assert overrides_table([("a", {"x": 1}), ("a.b", 2)]) == {"a": {"x": 1, "b": 2}}
    assert overrides_table([("a.b", 2), ("a", {"x": 1})]) == {"a": {"x": 1}}
    assert overrides_table([("a.b.c", 1), ("a.b.d", 2), ("a.b.c", 3)]) == {"a": {"b": {"c": 3, "d": 2}}}


def test_values_are_copied_and_brought_into_toml_form() -> None:
    shared = {"x": {"y": [1]}}
    table = overrides_table([("a", shared), ("a.x.y", (1, 2)), ("p", PurePosixPath("/x")), ("gone", None)])
    assert table == {"a": {"x": {"y": [1, 2]}}, "p": "/x"}
    assert shared == {"x": {"y": [1]}}
