"""Which variables a command sees: the vectors, and what holds for every policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.execution.environment import build_environment, unified_exec_environment
from engine.protocol.environment import ShellEnvironmentPolicy

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/config_merge/shell_env.json").read_text())

names = st.text(alphabet="abAB_*.", min_size=1, max_size=6)
environments = st.dictionaries(names, st.text(max_size=5), max_size=8)
patterns = st.lists(st.text(alphabet="abAB_*?.[", max_size=6), max_size=3)
policies = st.builds(
    ShellEnvironmentPolicy,
    inherit=st.sampled_from(["all", "core", "none"]),
    ignore_default_excludes=st.booleans(),
    exclude=patterns,
    set=environments,
    include_only=patterns,
)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: str(case["id"]))
def test_vectors(case: dict[str, Any]) -> None:
    given_ = case["input"]
    policy = ShellEnvironmentPolicy(**given_["policy"])
    assert build_environment(policy, given_["env"], given_["thread_id"]) == case["expect"]["env"]


def test_include_only_filters_what_set_added() -> None:
    policy = ShellEnvironmentPolicy(inherit="none", set={"A": "1"}, include_only=("B*",))
    assert build_environment(policy, {"B": "2"}, "t") == {"CODEX_THREAD_ID": "t"}


def test_secrets_pass_unless_the_default_excludes_are_on() -> None:
    base = {"MY_API_KEY": "k", "my_secret": "s", "TOKENS": "t", "HOME": "/h"}
    assert build_environment(ShellEnvironmentPolicy(), base) == base
    assert build_environment(ShellEnvironmentPolicy(ignore_default_excludes=False), base) == {"HOME": "/h"}


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("A*", ["A", "AB", "a.b"]),
        ("?", ["A"]),
        ("a.b", ["a.b"]),
        ("*", ["A", "AB", "a.b", "[x]"]),
        ("[x]", ["[x]"]),
        ("", []),
    ],
)
def test_patterns_are_wildcards_and_no_expressions(pattern: str, matches: list[str]) -> None:
    base = dict.fromkeys(["A", "AB", "a.b", "[x]"], "")
    assert list(build_environment(ShellEnvironmentPolicy(include_only=(pattern,)), base)) == matches


def test_a_pattern_of_many_stars_is_not_slow() -> None:
    base = {"a" * 200: ""}
    assert build_environment(ShellEnvironmentPolicy(exclude=("*" * 50 + "b",)), base) == base


@given(policies, environments, st.none() | st.just("thread"))
def test_every_value_has_one_of_three_sources(
    policy: ShellEnvironmentPolicy, base: dict[str, str], thread_id: str | None
) -> None:
    before = dict(base)
    env = build_environment(policy, base, thread_id)
    assert base == before
    assert env.pop("CODEX_THREAD_ID", None) == thread_id
    for name, value in env.items():
        assert value == (policy.set[name] if name in policy.set else base[name])
    if not policy.include_only:
        assert set(policy.set) <= set(env)


def test_unified_exec_forces_its_own() -> None:
    env = unified_exec_environment({"TERM": "xterm", "PATH": "/bin"})
    assert (env["TERM"], env["PATH"], env["COLORTERM"], env["CODEX_CI"]) == ("dumb", "/bin", "", "1")
    assert {env[name] for name in ("LANG", "LC_CTYPE", "LC_ALL")} == {"C.UTF-8"}
    assert {env[name] for name in ("PAGER", "GIT_PAGER", "GH_PAGER")} == {"cat"}
