"""Rules an administrator sets: only stricter ones, each mistake named."""

from __future__ import annotations

import pytest

from engine.exec_policy.errors import RulesError
from engine.exec_policy.requirements import requirement_rules
from engine.exec_policy.rules import PrefixRule

GIT = {"pattern": [{"token": "git"}, {"any_of": ["push", "fetch"]}], "decision": "prompt", "justification": "ask"}


def test_tables_make_rules() -> None:
    found = requirement_rules({"prefix_rules": [GIT, {"pattern": [{"any_of": ["a", "b"]}], "decision": "forbidden"}]})
    assert found == (
        PrefixRule("git", (("push", "fetch"),), "prompt", "ask"),
        PrefixRule("a", (), "forbidden"),
        PrefixRule("b", (), "forbidden"),
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (1, "must be a table"),
        ({}, "must be a table with `prefix_rules`"),
        ({"prefix_rules": "x"}, "must be a list"),
        ({"prefix_rules": []}, "cannot be empty"),
        ({"prefix_rules": [1]}, "index 0 is not a table"),
        ({"prefix_rules": [{**GIT, "pattern": []}]}, "empty pattern"),
        ({"prefix_rules": [{**GIT, "justification": " "}]}, "empty justification"),
        ({"prefix_rules": [GIT, {"pattern": [{"token": "x"}]}]}, "index 1 is missing a decision"),
        ({"prefix_rules": [{**GIT, "decision": "allow"}]}, "not permitted in requirements"),
        ({"prefix_rules": [{**GIT, "decision": "deny"}]}, "unknown decision"),
        ({"prefix_rules": [{**GIT, "pattern": ["git"]}]}, "must be a table with token or any_of"),
        ({"prefix_rules": [{**GIT, "pattern": [{}]}]}, "set either token or any_of"),
        ({"prefix_rules": [{**GIT, "pattern": [{"token": "a", "any_of": ["b"]}]}]}, "not both"),
        ({"prefix_rules": [{**GIT, "pattern": [{"token": " "}]}]}, "token cannot be empty"),
        ({"prefix_rules": [{**GIT, "pattern": [{"any_of": []}]}]}, "any_of cannot be empty"),
        ({"prefix_rules": [{**GIT, "pattern": [{"any_of": [""]}]}]}, "any_of cannot include empty tokens"),
    ],
)
def test_a_mistake_is_named(table: object, message: str) -> None:
    with pytest.raises(RulesError, match=message):
        requirement_rules(table)
