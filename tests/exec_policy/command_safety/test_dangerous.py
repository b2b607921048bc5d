"""`rm` with a force flag, wherever it hides; nothing that only looks like it."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.exec_policy.command_safety import is_dangerous

RM = st.sampled_from(["rm", "/bin/rm", "/usr/local/bin/rm"])
FORCE = st.sampled_from(["-f", "-rf", "-fr", "-Rf", "-vfr", "--force"])
OTHER = st.lists(st.sampled_from(["-r", "-v", "x", "dir/y", "--verbose", "a b"]), max_size=3)
WRAPPER = st.sampled_from([[], ["sudo"], ["env"], ["env", "A=b"], ["A=b"], ["sudo", "env", "-i"], ["env", "-u", "X"]])
PLACES = [
    "{}",
    "cd x && {}",
    "({})",
    "{} > log 2>&1",
    "if true; then {}; fi",
    "f() {{ {}; }}; f",
    "echo $({})",
    "echo `{}`",
    "{} &",
    "for a in b; do {}; done",
    "true || {} || (",  # even in a script that is broken
]


@given(RM, OTHER, FORCE, OTHER, WRAPPER, st.sampled_from(PLACES))
def test_every_forced_rm_is_found(
    rm: str, before: list[str], force: str, after: list[str], wrapper: list[str], place: str
) -> None:
    words = [*wrapper, rm, *before, force, *after]
    assert is_dangerous(words)
    script = place.format(shlex.join(words))
    assert is_dangerous(["bash", "-lc", script])
    assert is_dangerous(["sh", "-c", f"bash -c {shlex.quote(script)}"])


@given(RM, OTHER, WRAPPER)
def test_an_rm_that_asks_is_not(rm: str, words: list[str], wrapper: list[str]) -> None:
    assert not is_dangerous([*wrapper, rm, *words])
    assert not is_dangerous(["bash", "-lc", shlex.join([*wrapper, rm, *words])])


@pytest.mark.parametrize(
    "script",
    [
        "echo rm -rf x",
        "echo 'rm -rf x'",
        "rm -- -f",
        "git rm -f x",
        "rmdir -f x",
        "doas rm -rf x",
        "sudo -u me rm -rf x",
        "grep -f rm x",
        "# rm -rf x",
    ],
)
def test_what_only_looks_like_it_is_not(script: str) -> None:
    assert not is_dangerous(["bash", "-lc", script])


@pytest.mark.parametrize(
    "script",
    [
        "'rm' -rf x",
        'r"m" -rf x',
        "r\\m -rf x",
        "rm >log -f x",
        "trap 'rm -rf x' EXIT",
        "ls \n\\rm -rf x",
        "ls\n\\\nrm -rf x",
    ],
)
def test_quotes_redirections_and_traps_hide_nothing(script: str) -> None:
    assert is_dangerous(["bash", "-lc", script])


def test_a_script_too_long_to_parse_is_searched() -> None:
    assert is_dangerous(["bash", "-lc", "echo x\n" * 20_000 + "rm -rf x\n"])
    assert not is_dangerous(["bash", "-lc", "echo x\n" * 20_000 + "rm x\n"])


@given(st.lists(st.text(max_size=10), max_size=4))
def test_any_words_are_judged(words: list[str]) -> None:
    assert is_dangerous(words) in (True, False)
    assert is_dangerous(["bash", "-lc", " ".join(words)]) in (True, False)
