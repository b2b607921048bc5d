"""Merging tables, leaves, fingerprints."""

from __future__ import annotations

import copy
import hashlib
import json
import tomllib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.config.merge import canonical_json, fingerprint, leaves, merge, normalise
from tests.config.documents import tables


def test_tables_merge_key_by_key_and_everything_else_replaces() -> None:
    assert merge({"t": {"A": 1, "B": 2}}, {"t": {"B": 20, "C": 30}}) == {"t": {"A": 1, "B": 20, "C": 30}}
    assert merge({"l": ["A", "B"]}, {"l": ["C"]}) == {"l": ["C"]}
    assert merge({"x": {"a": 1}}, {"x": True}) == {"x": True}
    assert merge({"x": True}, {"x": {"a": 1}}) == {"x": {"a": 1}}
    assert merge({"x": {"a": 1}}, {"x": {}}) == {"x": {"a": 1}}


@given(tables, tables)
def test_merging_changes_neither_side_and_shares_no_table(base: dict[str, Any], over: dict[str, Any]) -> None:
    before = copy.deepcopy((base, over))
    made = merge(base, over)
    assert (base, over) == before
    spoil(made, over)
    assert over == before[1]


def spoil(made: object, source: object) -> None:
    if isinstance(made, dict) and isinstance(source, dict):
        for key in [*made]:
            spoil(made[key], source.get(key))
        made["spoiled"] = 1


@given(tables)
def test_the_empty_table_is_neutral(table: dict[str, Any]) -> None:
    assert merge({}, table) == table
    assert merge(table, {}) == table
    assert merge(table, table) == table


@given(tables, tables, tables)
def test_merging_is_associative_where_no_value_cuts_off_a_table(
    a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]
) -> None:
    assume(not (cuts(a, b) or cuts(b, c) or cuts(a, c)))
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


def cuts(low: dict[str, Any], high: dict[str, Any]) -> bool:
    """Whether a key is a table in one and something else in the other, at any depth."""
    for key in low.keys() & high.keys():
        both = isinstance(low[key], dict), isinstance(high[key], dict)
        if any(both) and (not all(both) or cuts(low[key], high[key])):
            return True
    return False


@given(tables, tables)
def test_every_leaf_of_the_higher_table_is_in_effect(base: dict[str, Any], over: dict[str, Any]) -> None:
    made = merge(base, over)
    assert set(leaves(over)) <= set(leaves(made))


def test_leaves_are_dotted_and_arrays_count() -> None:
    table = tomllib.loads("a = 1\nn = ['x', 'y']\n[t]\nu = {v = 2}\ne = {}\nl = []\n[[s.c]]\np = 'q'")
    assert list(leaves(table)) == ["a", "n.0", "n.1", "t.u.v", "s.c.0.p"]


def test_an_alias_stands_for_its_key_and_the_key_wins_within_a_table() -> None:
    old, new = "no_memories_if_mcp_or_web_search", "disable_on_external_context"
    assert normalise({"memories": {old: True}}) == {"memories": {new: True}}
    assert normalise({"memories": {old: True, new: False}}) == {"memories": {new: False}}
    assert normalise({"memories": {new: False, old: True}}) == {"memories": {new: False}}
    assert normalise({old: True, "x": {old: 1}}) == {old: True, "x": {old: 1}}


def test_an_alias_above_beats_the_key_below() -> None:
    below = normalise({"memories": {"disable_on_external_context": False}})
    above = normalise({"memories": {"no_memories_if_mcp_or_web_search": True}})
    assert merge(below, above) == {"memories": {"disable_on_external_context": True}}


@given(tables)
def test_normalising_is_a_copy(table: dict[str, Any]) -> None:
    made = normalise(table)
    assert made == table
    spoil(made, table)
    assert normalise(table) == table


def test_fingerprint_of_the_empty_table_and_of_a_table() -> None:
    assert fingerprint({}) == "sha256:" + hashlib.sha256(b"{}").hexdigest()
    text = '{"a":{"x":true,"y":[1,"é"]},"b":"/p"}'
    table = {"b": "/p", "a": {"y": [1, "é"], "x": True}}
    assert canonical_json(table) == text
    assert fingerprint(table) == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_comments_and_key_order_do_not_change_the_fingerprint() -> None:
    one = tomllib.loads("# one\na = 1\n[t]\nx = 'y' # two\nz = 1.0")
    other = tomllib.loads('t.z = 1.0\nt.x = "y"\na = 0x1')
    assert fingerprint(one) == fingerprint(other)


def test_numbers_and_dates_as_other_writers_have_them() -> None:
    table = tomllib.loads("a = 1e300\nb = 1e-5\nc = 7.0\nd = inf\nf = 1e16\ng = 0.1")
    assert canonical_json(table) == ('{"a":1e300,"b":1e-5,"c":7.0,"d":null,"f":1e16,"g":0.1}')


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("1979-05-27T07:32:00.5Z", "1979-05-27T07:32:00.5Z"),
        ("1979-05-27 07:32:00", "1979-05-27T07:32:00"),
        ("1979-05-27T07:32:00+02:00", "1979-05-27T07:32:00+02:00"),
        ("07:32:00", "07:32:00"),
        ("1979-05-27", "1979-05-27"),
        ("07:32:00.120", "07:32:00.12"),
    ],
)
def test_moments(moment: str, text: str) -> None:
    made = canonical_json(tomllib.loads(f"a = {moment}"))
    assert made == f'{{"a":{{"$__toml_private_datetime":"{text}"}}}}'


@given(tables)
def test_canonical_json_is_json_and_depends_on_the_content_alone(table: dict[str, Any]) -> None:
    text = canonical_json(table)
    assert json.loads(text) == table
    assert canonical_json(dict(sorted(table.items(), reverse=True))) == text


@given(st.text())
def test_any_text_has_a_fingerprint(text: str) -> None:
    assert fingerprint({text: text}).startswith("sha256:")
