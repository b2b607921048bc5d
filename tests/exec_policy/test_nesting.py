"""Texts that would overflow the interpreter's stack are told from those that would not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.exec_policy.errors import RulesError
from engine.exec_policy.nesting import nesting_error_line
from engine.exec_policy.rules_file import read_rules

DEEP = 5000


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * DEEP + "]" * DEEP,
        "x = " + "(" * DEEP,
        "x = " + "not " * DEEP + "True",
        "x = " + "-" * DEEP + "1",
        "x = " + "+".join("1" * DEEP),
        "x = " + "f(" * DEEP,
        "x = " + "{" * DEEP,
        "x = 1 " + "if 1 else 1 " * DEEP,
        "".join(" " * depth + "if True:\n" for depth in range(200)) + " " * 200 + "pass",
        "def f():\n if 1:\n  pass\n" + " elif 1:\n  pass\n" * DEEP,
        "x = a" + ".b" * DEEP,
        "x = a" + "[0]" * DEEP,
    ],
    ids=lambda text: text[:12],
)
def test_what_is_too_deep_is_refused_with_its_line(text: str) -> None:
    assert nesting_error_line("\n" + text) is not None
    with pytest.raises(RulesError) as caught:
        read_rules("\n" + text, file="deep.rules")
    assert caught.value.line is not None


def test_long_files_and_lists_are_not_deep() -> None:
    rules = "prefix_rule(pattern=['a', ['b', 'c']])  # (((((\n" * 500
    assert nesting_error_line(rules) is None
    assert nesting_error_line(f"x = [{'[1, 2], ' * DEEP}]") is None
    assert nesting_error_line('x = """' + "(" * DEEP + '"""') is None


@given(st.text("([{}])'\"\\\n #ab,;:", max_size=60))
def test_any_text_is_looked_at(text: str) -> None:
    line = nesting_error_line(text)
    assert line is None or 1 <= line <= text.count("\n") + 1
