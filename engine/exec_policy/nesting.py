"""How deep a rules file nests, told before the interpreter sees it. Pure.

The interpreter walks expressions and blocks recursively: a few thousand brackets or operators in a row overflow the C
stack of its thread, which ends the process. Nobody writes such a rule, so a file that comes near is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["MOST_NESTING", "nesting_error_line"]

# Levels of brackets, operators in a row and blocks together: what a thread with 512 KiB of stack takes.
MOST_NESTING = 100
_BLOCK_WEIGHT = 3
_MOST_ELIFS = 100

_TOKEN = re.compile(
    r"""(?P<string>[rRbBfF]{0,2}(?:\"{3}(?:[^\\]|\\.)*?\"{3}|'{3}(?:[^\\]|\\.)*?'{3}"""
    r"""|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))"""
    r"""|(?P<comment>\#[^\n]*)"""
    r"""|(?P<continued>\\\r?\n)"""
    r"""|(?P<newline>\r?\n(?P<indent>[ ]*))"""
    r"""|(?P<open>[(\[{])"""
    r"""|(?P<close>[)\]}])"""
    r"""|(?P<end>[,;])"""
    r"""|(?P<blank>[ \t\r]+)"""
    r"""|(?P<deepening>(?:and|or|not|in|if|else|elif|lambda|for)\b|[^\w])"""
    r"""|(?P<word>\w+)""",
    re.DOTALL,
)


def nesting_error_line(text: str) -> int | None:
    """The line at which a text is nested too deeply, counted from 1; None if it is not. Linear in the text."""
    return next((line for line, weight in _weights(text) if weight > MOST_NESTING), None)


def _weights(text: str) -> Iterator[tuple[int, int]]:
    """An upper bound of the depth at each token."""
    line = 1
    levels = [0]  # per open bracket, what deepens the expression since the last comma
    total = 0
    indents = [0]
    elifs = 0
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup if token.lastgroup != "indent" else "newline"
        if kind == "newline" and len(levels) == 1:
            total = levels[0] = 0
            _settle(indents, text, token)
        elif kind == "open":
            levels[-1] += 1
            levels.append(0)
            total += 1
        elif kind == "close" and len(levels) > 1:
            total -= levels.pop()
        elif kind == "end":
            total -= levels[-1]
            levels[-1] = 0
        elif kind == "deepening":
            levels[-1] += 1
            total += 1
            elifs += token[0] == "elif"
        line += token[0].count("\n")
        yield line, total + _BLOCK_WEIGHT * (len(indents) - 1) + (MOST_NESTING if elifs > _MOST_ELIFS else 0)


def _settle(indents: list[int], text: str, newline: re.Match[str]) -> None:
    """Takes the indentation of the line that begins, unless it is empty."""
    if text[newline.end() : newline.end() + 1] in ("", "\n", "\r", "#"):
        return
    width = len(newline["indent"])
    while indents[-1] > width:
        indents.pop()
    if indents[-1] < width:
        indents.append(width)
