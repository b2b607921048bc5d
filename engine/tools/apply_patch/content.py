"""A text file as lines that remember their own endings, so that what a patch doesn't touch stays byte for byte."""

from __future__ import annotations

import io

from engine.records import frozen

__all__ = ["TextLines", "split_keeping_ends", "split_text"]


@frozen
class TextLines:
    """`raw[i]` is `texts[i]` with its line ending; `newline` is the file's first ending, which inserted lines take.

    The last line always has an ending here: an update gives a file that lacks one the newline it lacks.
    """

    texts: list[str]
    raw: list[str]
    newline: str


def split_keeping_ends(text: str) -> list[str]:
    """Lines with their endings; LF, CRLF and a lone CR end a line, nothing else does."""
    return list(io.StringIO(text, newline=""))


def split_text(text: str) -> TextLines:
    """Split the text of a file for matching."""
    raw = split_keeping_ends(text)
    texts = [line.rstrip("\r\n") for line in raw]
    newline = (raw[0][len(texts[0]) :] if raw else "") or "\n"
    if raw and len(raw[-1]) == len(texts[-1]):
        raw[-1] += newline
    return TextLines(texts, raw, newline)
