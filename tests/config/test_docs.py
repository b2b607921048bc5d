"""docs/configuration.md promises only what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.cli.arguments import parse
from engine.cli.config_arguments import ConfigArguments
from engine.config.kinds import Table
from engine.config.schema import ROOT
from engine.config.unsupported import unsupported
from tests.config.schema_keys import NAME, Leaf, schema_leaves
from tests.config.test_every_key import USED

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
KEYS = [
    key
    for row in re.findall(r"^\| (`[^|]*`) \| (?:b|i|s|p|\[\]s|table|s or table)[ |,]", PAGE, re.MULTILINE)
    for key in re.findall(r"`([^`]+)`", row)
]


def test_keys_are_found() -> None:
    assert {"model", "approval_policy", "project_root_markers", "agents.interrupt_message", "durability"} <= set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_with_an_effect_is_known_and_not_listed_as_without_one(key: str) -> None:
    kind = ROOT
    table: dict[str, object] = {}
    inner = table
    *above, last = key.split(".")
    for name in above:
        below = kind.keys[name]
        assert isinstance(below, Table)
        kind = below
        fresh: dict[str, object] = {}
        inner[name] = fresh
        inner = fresh
    assert last in kind.keys
    inner[last] = "x"
    assert list(unsupported(table, {}, {})) == []


def test_what_has_no_effect_is_named() -> None:
    named = PAGE[PAGE.index("## Not supported yet") :]
    for key in (
        "mcp_servers",
        "notify",
        "review_model",
        "tools.web_search",
        "log_dir",
        "sqlite_home",
    ):
        assert f"`{key}`" in named


@pytest.mark.parametrize(
    "leaf", [leaf for leaf in schema_leaves() if leaf.path[0] != "profiles"], ids=lambda leaf: leaf.dotted
)
def test_every_key_stands_on_the_page(leaf: Leaf) -> None:
    """Those with an effect by their own name, others by the table they stand in."""
    words = set(re.findall(r"[A-Za-z_][\w-]*", PAGE))
    assert leaf.path[0] in words
    if leaf.dotted in USED:
        assert next(part for part in reversed(leaf.path) if part != NAME) in words


def test_commands_are_commands() -> None:
    for line in re.findall(r"^    engine config (.*?)(?:  +#.*)?$", PAGE, re.MULTILINE):
        assert isinstance(parse(["config", *line.split()]), ConfigArguments)
