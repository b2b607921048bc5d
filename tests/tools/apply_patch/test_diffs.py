"""Unified diffs: right for any two texts, as small as they can be for small ones, bounded for large ones."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tools.apply_patch import unified_diff
from engine.tools.apply_patch.diffs import matching_lines

LINES = st.lists(st.sampled_from(["a", "b", "c", "d", ""]), max_size=12)
TEXTS = st.builds("".join, st.lists(st.sampled_from(["a\n", "b\n", "c\r\n", "d\r", "\n"]), max_size=12))
HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@\n")


def numbered(*changed: tuple[int, str]) -> str:
    lines = {number: str(number) for number in range(1, 20)} | dict(changed)
    return "".join(f"{line}\n" for line in lines.values() if line)


@pytest.mark.parametrize(
    ("old", "new", "context", "diff"),
    [
        ("a\n", "a\n", 3, ""),
        ("a\n", "b\n", 1, "@@ -1 +1 @@\n-a\n+b\n"),
        ("", "a\n", 3, "@@ -0,0 +1 @@\n+a\n"),
        ("a\nb\n", "", 3, "@@ -1,2 +0,0 @@\n-a\n-b\n"),
        ("a\nb", "a\nB\n", 1, "@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+B\n"),
        ("a\r\nb\r\n", "a\r\nB\r\n", 1, "@@ -1,2 +1,2 @@\n a\r\n-b\r\n+B\r\n"),
        ("a\rb\rc\r", "a\rB\rc\r", 1, "@@ -1,3 +1,3 @@\n a\r-b\r+B\r c\r"),
        (numbered(), numbered((5, "five")), 3, "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"),
        (numbered(), numbered((5, "")), 1, "@@ -4,3 +4,2 @@\n 4\n-5\n 6\n"),
        ("1\n2\n3\n", "0\ntwo\n3\n", 1, "@@ -1,3 +1,3 @@\n-1\n-2\n+0\n+two\n 3\n"),
    ],
)
def test_diff(old: str, new: str, context: int, diff: str) -> None:
    assert unified_diff(old, new, context) == diff


def test_hunks_whose_context_touches_are_one() -> None:
    together = unified_diff(numbered(), numbered((3, "three"), (10, "ten")), 3)
    assert HUNK.findall(together) == [("1", "13", "1", "13")]
    apart = unified_diff(numbered(), numbered((3, "three"), (11, "eleven")), 3)
    assert HUNK.findall(apart) == [("1", "6", "1", "6"), ("8", "7", "8", "7")]


@given(LINES, LINES)
def test_matches_are_a_longest_common_subsequence(old: list[str], new: list[str]) -> None:
    matches = matching_lines(old, new)
    assert all(old[i] == new[j] for i, j in matches)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(matches))
    best = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i, left in enumerate(old):
        for j, right in enumerate(new):
            best[i + 1][j + 1] = best[i][j] + 1 if left == right else max(best[i][j + 1], best[i + 1][j])
    assert len(matches) == best[-1][-1]


@given(TEXTS, TEXTS, st.integers(0, 3))
def test_a_diff_turns_the_old_text_into_the_new_one(old: str, new: str, context: int) -> None:
    assert _patched(old, unified_diff(old, new, context)) == new


def _patched(old: str, diff: str) -> str:
    """A plain reader of unified diffs for texts that end in a line ending."""
    old_lines = re.findall(r"[^\r\n]*(?:\r\n|\n|\r)", old)
    parts = HUNK.split(diff)
    result: list[str] = []
    at = 0
    for start, count, _, _, body in zip(*(parts[i::5] for i in range(1, 6)), strict=True):
        begin = int(start) - (0 if count == "0" else 1)
        result += old_lines[at:begin]
        lines = re.findall(r"[^\r\n]*(?:\r\n|\n|\r)", body)
        result += [line[1:] for line in lines if line[0] != "-"]
        at = begin + int(count or "1")
        assert [line[1:] for line in lines if line[0] != "+"] == old_lines[begin:at]
    return "".join(result + old_lines[at:])


@pytest.mark.parametrize("kind", ["unlike", "repeating", "moved"])
def test_large_texts_that_have_little_in_common_take_bounded_time(kind: str) -> None:
    count = 50_000
    old = [f"{number}\n" for number in range(count)]
    if kind == "unlike":
        new = [f"new {number}\n" for number in range(count)]
    elif kind == "repeating":
        old = [f"{number * number % 97}\n" for number in range(count)]
        new = [f"{number * number % 89}\n" for number in range(count)]
    else:
        new = old[count // 2 :] + old[: count // 2]
    began = time.perf_counter()
    matches = matching_lines(old, new)
    assert time.perf_counter() - began < 20
    assert all(old[i] == new[j] for i, j in matches)
    if kind == "moved":
        assert len(matches) == count // 2
