"""One rules file: what it may say, and how each mistake is told."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.exec_policy import rules_file
from engine.exec_policy.errors import RulesError
from engine.exec_policy.policy import Policy
from engine.exec_policy.rules import HostExecutable, NetworkRule, PrefixRule
from engine.exec_policy.rules_file import read_rules


def refused(text: str) -> RulesError:
    """The error of a file."""
    with pytest.raises(RulesError) as caught:
        read_rules(text, file="my.rules")
    assert caught.value.file == "my.rules"
    return caught.value


def test_all_calls_make_rules_in_their_order() -> None:
    found = read_rules(
        """
prefix_rule(pattern=["git", ["push", "pull"]], decision="prompt", justification="talks to others")
[prefix_rule([[name, f"{name}{name}"]], "forbidden") for name in ["a", "b"]]
network_rule(host="Example.com:443", protocol="https_connect", decision="deny")
host_executable(name="git", paths=["/usr/bin/git", "/opt//bin/git"])
""",
        file="my.rules",
    )
    assert found.prefix_rules == (
        PrefixRule("git", (("push", "pull"),), "prompt", "talks to others"),
        PrefixRule("a", (), "forbidden"),
        PrefixRule("aa", (), "forbidden"),
        PrefixRule("b", (), "forbidden"),
        PrefixRule("bb", (), "forbidden"),
    )
    assert found.network_rules == (NetworkRule("example.com", "https", "forbidden"),)
    assert found.host_executables == (HostExecutable("git", frozenset({"/usr/bin/git", "/opt/bin/git"})),)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("prefix_rule(pattern=[])", "`pattern` is empty"),
        ('prefix_rule(pattern="git")', "must be a list of strings or of lists of strings, not string"),
        ('prefix_rule(pattern=["a", []])', "empty list of alternatives"),
        ('prefix_rule(pattern=["a", 1])', "not int"),
        ('prefix_rule(pattern=["a", ["b", None]])', "not NoneType"),
        ('prefix_rule(pattern=("a",))', "not tuple"),
        ('prefix_rule(pattern=["a"], decision="ask")', 'must be one of allow, prompt, forbidden, not "ask"'),
        ('prefix_rule(pattern=[], decision="ask")', "`decision`"),
        ('prefix_rule(pattern=["a"], justification=" ")', "`justification` is blank"),
        ('prefix_rule(pattern=["a"], match=["b"])', "does not match its `match` example `b`"),
        ('prefix_rule(pattern=["git"], not_match=["git push"])', "matches its `not_match` example `git push`"),
        ('prefix_rule(pattern=["a"], match=["\'"])', "is no line"),
        ('prefix_rule(pattern=["a"], match=[""])', "example is empty"),
        ('network_rule(host="a b", protocol="http", decision="allow")', "no blanks"),
        ('network_rule(host="a", protocol="ftp", decision="allow")', "`protocol` must be one of"),
        ('network_rule(host="a", protocol="http", decision="no")', "`decision` must be one of"),
        ('host_executable(name="a/b", paths=[])', "bare name"),
        ('host_executable(name="a", paths=["a"])', "absolute"),
        ('host_executable(name="a", paths=["/bin/b"])', "must end in `a`"),
    ],
)
def test_a_wrong_call_is_told_with_its_line_and_rule(call: str, message: str) -> None:
    error = refused(f'prefix_rule(pattern=["fine"])\n\n{call}\n')
    assert message in str(error)
    assert str(error).startswith("my.rules:3")
    assert error.rule is not None
    assert error.rule.split("(")[0] == call.split("(")[0]


def test_a_wrong_call_in_a_function_has_a_line() -> None:
    assert refused("def ask(word):\n    prefix_rule(pattern=word)\n\nask(1)\n").line in (2, 4)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prefix_rule(", 1),
        ("x = 1\ny = z\n", 2),
        ("\nfail('no')\n", 2),
        ("\n\nload('x', 'y')\n", 3),
        ("prefix_rule()", 1),
        ("prefix_rule(pattern=['a'], extra=1)", 1),
        ("x = 1 // 0", 1),
        ("  x = 1", 1),
        ("def f():\n  f()\nf()\n", None),
        ("open('/etc/passwd')", 1),
    ],
)
def test_broken_starlark_is_told(text: str, line: int | None) -> None:
    error = refused(text)
    assert "Traceback" not in str(error)
    assert line is None or error.line == line


def test_a_file_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_file, "_MOST_SECONDS", 0.05)
    text = "def f():\n  for a in range(1000000000):\n    for b in range(1000000000):\n      pass\nf()\n"
    assert "takes more than 0.05 seconds" in str(refused(text))


def test_a_file_can_not_be_too_large() -> None:
    assert refused("# " + "x" * (1024 * 1024)).message
    assert "more than 20000 rules" in str(refused("[prefix_rule(['a']) for i in range(20001)]"))


def test_hosts_of_files_before_count_for_examples() -> None:
    known = {"git": HostExecutable("git", frozenset({"/usr/bin/git"}))}
    text = 'prefix_rule(pattern=["git"], match=["/usr/bin/git x"], not_match=["/tmp/git x"])'
    assert len(read_rules(text, file="my.rules", known=known).prefix_rules) == 1
    assert "matches its `not_match`" in str(refused(text))


WORDS = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=6)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=3), min_size=1, max_size=3), st.data())
@settings(max_examples=40)
def test_any_pattern_matches_what_it_lists_and_nothing_shorter(groups: list[list[str]], data: st.DataObject) -> None:
    text = f"prefix_rule(pattern={json.dumps(groups, ensure_ascii=False)}, decision='prompt')"
    policy = Policy(read_rules(text, file="my.rules").prefix_rules)
    command = [data.draw(st.sampled_from(group)) for group in groups]
    (match, *_) = policy.matches([*command, "more"], resolve_host_executables=False)
    assert match.matched_prefix == tuple(command)
    assert policy.matches(command[:-1], resolve_host_executables=False) == ()


@given(st.text("prefix_rule()[]=\"'\n a,#:", max_size=40))
@settings(max_examples=60)
def test_any_text_makes_rules_or_an_error(text: str) -> None:
    with contextlib.suppress(RulesError):
        read_rules(text, file="my.rules")
