"""Commands that only read; what might do more is not on the list."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.exec_policy.command_safety import is_known_safe


@pytest.mark.parametrize(
    ("script", "safe"),
    [
        ("ls | wc -l", True),
        ("ls > x", False),
        ("'ls'", False),
        ("git log -p", True),
        ("git -C . status", False),
        ("git branch feature", False),
        ("git branch -v --list", True),
        ("git diff --output=x", False),
        ("sed -n 1,5p f", True),
        ("sed -n 1,5p f g", False),
        ("sed -n 5w f", False),
        ("base64 -ofile", False),
        ("base64 -d f", True),
        ("find . -name x", True),
        ("find . -delete", False),
        ("find . -dele\\te", False),
        ("git {log,--output=x}", False),
        ("rg --pre=x y", False),
        ("rg y", True),
        ("ls && make", False),
    ],
)
def test_the_list(script: str, safe: bool) -> None:
    assert is_known_safe(["bash", "-lc", script]) is safe
    assert is_known_safe(["zsh", "-c", script]) is safe


UNSAFE = ["-exec", "-delete", "-okdir", "-fprint0"]


@given(st.lists(st.sampled_from(["-name", "x", ".", "-type", "f"]), max_size=4), st.sampled_from(UNSAFE), st.data())
def test_an_action_of_find_is_seen_anywhere(words: list[str], action: str, data: st.DataObject) -> None:
    assert is_known_safe(["find", *words])
    at = data.draw(st.integers(0, len(words)))
    assert not is_known_safe(["find", *words[:at], action, *words[at:]])
    assert not is_known_safe(["bash", "-lc", shlex.join(["find", *words[:at], action, *words[at:]])])


@given(st.lists(st.text(max_size=10), max_size=4))
def test_any_words_are_judged(words: list[str]) -> None:
    assert is_known_safe(words) in (True, False)
    assert is_known_safe(["bash", "-lc", " ".join(words)]) in (True, False)


def test_nothing_is_not_safe() -> None:
    assert not is_known_safe([])
    assert not is_known_safe(["bash", "-lc", ""])
    assert not is_known_safe(["bash", "-lc", "\n"])
