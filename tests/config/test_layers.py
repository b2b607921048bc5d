"""Layers: merge, origins, where a value stands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.layers import Layer, LayerName, LayerStack, merged
from engine.config.merge import leaves
from engine.config.source import parse_toml
from engine.errors import ConfigError, UnknownProvider
from tests.config.documents import tables


def stack(*layers: tuple[LayerName, dict[str, Any]]) -> LayerStack:
    return LayerStack([Layer(name, table) for name, table in layers])


def test_origins_name_the_last_layer_and_keep_stale_indices() -> None:
    made = stack(("system", {"l": ["A", "B"], "x": 1}), ("user", {"l": ["C"], "y": 2}), ("sessionFlags", {"x": 3}))
    assert made.table == {"l": ["C"], "x": 3, "y": 2}
    assert made.origins == {"l.0": "user", "l.1": "system", "x": "sessionFlags", "y": "user"}


@given(st.lists(tables, max_size=4))
def test_every_leaf_in_effect_has_the_origin_of_the_highest_layer_that_has_it(parts: list[dict[str, Any]]) -> None:
    names: list[LayerName] = ["system", "user", "sessionFlags", "session"]
    made = stack(*zip(names, parts, strict=False))
    for leaf in leaves(made.table):
        holders = [layer.name for layer in made.layers if leaf in set(leaves(layer.table))]
        assert made.origins[leaf] == holders[-1]


@given(st.lists(tables, min_size=1, max_size=4))
def test_the_table_is_the_merge_of_all_layers(parts: list[dict[str, Any]]) -> None:
    made = stack(*(("user", part) for part in parts), ("session", {"only": {"here": 1}}))
    assert merged(made.layers) == made.table
    assert made.without("session") == merged(made.layers[:-1])
    assert merged(made.layers[:1]) == parts[0]


def test_disabled_layers_are_listed_and_take_no_part() -> None:
    off = Layer("project", {"a": 2, "b": 2}, folder="/p/.codex", disabled="because")
    made = LayerStack([Layer("user", {"a": 1}), off])
    assert (made.table, made.origins) == ({"a": 1}, {"a": "user"})
    assert made.everything[1].disabled == "because"
    assert made.holder(("b",)) is None


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [Layer("sessionFlags", {}), Layer("user", {})],
            "config layers are not in correct precedence order",
        ),
        (
            [Layer("user", {}, profile="x"), Layer("user", {})],
            "config layers are not in correct precedence order",
        ),
        (
            [Layer("project", {}, folder="/p/a/.codex"), Layer("project", {}, folder="/p/.codex")],
            "project layers are not ordered from root to cwd",
        ),
        (
            [Layer("project", {}, folder="/p/a/.codex"), Layer("project", {}, folder="/p/ab/.codex")],
            "project layers are not ordered from root to cwd",
        ),
    ],
)
def test_layers_out_of_order_are_refused(layers: list[Layer], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LayerStack(layers)


def test_an_error_names_the_highest_layer_that_set_the_value() -> None:
    file = parse_toml("a = 1\n[t]\nb = [1,\n  2]\n", "/h/config.toml")
    made = LayerStack([Layer("user", file.table, file), Layer("sessionFlags", {"a": 2}), Layer("session", {"c": 1})])
    error = made.error("is bad", ("t", "b", 1))
    assert str(error) == "/h/config.toml:4:3: `t.b.1`: is bad"
    assert (error.file, error.line, error.column, error.key) == ("/h/config.toml", 4, 3, "t.b.1")
    assert str(made.error("is bad", ("a",))) == "`a`: is bad (set by -c/--config override)"
    assert str(made.error("is bad", ("c",))) == "`c`: is bad (set by the session's settings)"
    assert str(made.error("is bad", ("nowhere",))) == "`nowhere`: is bad"
    assert type(made.error("no", ("a",), UnknownProvider)) is UnknownProvider


def test_a_missing_key_is_placed_at_the_table_around_it() -> None:
    file = parse_toml("x = 1\n[t.u]\ny = 2\n", "c.toml")
    error = Layer("user", file.table, file).error("misses something", ("t", "u", "z"))
    assert str(error) == "c.toml:2:4: `t.u.z`: misses something"


def test_a_key_that_the_message_names_is_not_said_twice() -> None:
    error = ConfigError("unknown configuration field `a.b`", file="f", line=1, column=2, key="a.b")
    assert str(error) == "f:1:2: unknown configuration field `a.b`"


def test_the_version_is_that_of_the_names_as_they_were_written() -> None:
    older, newer = ("no_memories_if_mcp_or_web_search", "disable_on_external_context")
    made = [Layer("user", {"memories": {name: True}}) for name in (older, newer)]
    assert made[0].table == made[1].table
    assert made[0].version != made[1].version


def test_getting_and_versions() -> None:
    made = stack(("user", {"a": {"b": 1}}))
    assert made.get("a", "b") == 1
    assert made.get("a", "b", "c") is None
    assert made.get("x") is None
    assert made.layers[0].version.startswith("sha256:")
    assert made.layers[0].holds(("a", "b"))
    assert not made.layers[0].holds(("a", 0))
