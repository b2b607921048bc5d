"""What all rules together say of a command."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.exec_policy.policy import EMPTY_POLICY, Policy
from engine.exec_policy.rules import DECISIONS, Decision, HeuristicMatch, HostExecutable, NetworkRule, PrefixRule

GIT = PrefixRule.for_words(("git",), "prompt")


@given(st.lists(st.sampled_from(DECISIONS), max_size=6))
def test_the_strictest_rule_decides_whatever_the_order(decisions: list[Decision]) -> None:
    policy = Policy(tuple(PrefixRule.for_words(("a",), decision) for decision in decisions))
    found = policy.check([["a", "b"]], resolve_host_executables=False)
    assert len(found.matches) == len(decisions)
    assert found.decision == max(decisions, key=DECISIONS.index, default=None)


def test_heuristics_speak_only_of_what_no_rule_speaks_of() -> None:
    policy = Policy((GIT,))
    found = policy.check([["git", "x"], ["ls"]], resolve_host_executables=False, unmatched=lambda command: "allow")
    assert found.matches[1] == HeuristicMatch(("ls",), "allow")
    assert found.decision == "prompt"
    assert len(found.by_rule("prompt")) == 1
    assert found.to_json()["decision"] == "prompt"


@pytest.mark.parametrize(
    ("path", "resolve", "hosts", "matches"),
    [
        ("git", False, None, True),
        ("/usr/bin/git", False, None, False),
        ("/usr/bin/git", True, None, True),
        ("/usr/bin/git", True, {"/usr/bin/git"}, True),
        ("/usr//bin/./git", True, {"/usr/bin/git"}, True),
        ("/tmp/git", True, {"/usr/bin/git"}, False),
        ("./git", True, None, False),
    ],
)
def test_a_path_is_its_program_where_that_is_asked_for(
    path: str, resolve: bool, hosts: set[str] | None, matches: bool
) -> None:
    executables = {} if hosts is None else {"git": HostExecutable("git", frozenset(hosts))}
    policy = Policy((GIT,), (), executables)
    assert bool(policy.matches([path, "x"], resolve_host_executables=resolve)) == matches


def test_a_listed_path_that_may_lead_elsewhere_is_allowed_nothing() -> None:
    rules = (GIT, PrefixRule.for_words(("git",), "allow"))
    policy = Policy(rules, (), {"git": HostExecutable("git", frozenset({"/usr/bin/git"}))})
    found = policy.matches(["/usr/link/../bin/git"], resolve_host_executables=True)
    assert [match.decision for match in found] == ["prompt"]


def test_the_last_network_rule_of_a_host_holds() -> None:
    decisions: list[tuple[str, Decision]] = [("a", "allow"), ("b", "forbidden"), ("a", "forbidden"), ("b", "prompt")]
    policy = Policy((), tuple(NetworkRule(host, "https", decision) for host, decision in decisions))
    assert policy.network_domains() == ((), ("b", "a"))


def test_nothing_is_said_of_nothing() -> None:
    assert EMPTY_POLICY.check([], resolve_host_executables=True).decision is None
    assert Policy((GIT,)).matches([], resolve_host_executables=True) == ()
