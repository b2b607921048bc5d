"""Words of a command line and the text they are written as: joining for people, splitting for examples (tools.md 4.1).

The rules are those of a POSIX shell without expansions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["join_words", "split_words"]

_BARE = re.compile(r"[A-Za-z0-9+\-./:@\]_]+")
# What one pair of quotes may hold: `^` and `!` mean history to some shells, a backslash in '' means an escape to fish.
_SINGLE = re.compile(r"\^?[^'^\\]+|\^")
_DOUBLE = re.compile(r"[^`$!^]+")


def join_words(words: Iterable[str]) -> str:
    """The words as one line that a shell would split into them again, as messages show commands.

    Differs from `shlex.join` in its quotes: double ones around text with single ones, as clients are used to.
    """
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if not word:
        return "''"
    pieces: list[str] = []
    rest = word
    while rest:
        bare, single, double = (_prefix(pattern, rest) for pattern in (_BARE, _SINGLE, _DOUBLE))
        piece = max(bare, single, double, key=len)  # of equally long ones the first
        if piece is bare:
            pieces.append(piece)
        elif piece is single:
            pieces.append(f"'{piece}'")
        else:
            pieces.append('"' + re.sub(r'(["\\])', r"\\\1", piece) + '"')
        rest = rest[len(piece) :]
    return "".join(pieces)


def _prefix(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.match(text)
    return found[0] if found else ""


_BLANK = " \t\n"


def split_words(text: str) -> list[str]:
    """The words of a line: quotes and backslashes removed, `#` at the start of a word begins a comment.

    Raises `ValueError` for a quote that is not closed and a backslash at the end.
    """
    words: list[str] = []
    word: list[str] | None = None
    characters = iter(text)
    for character in characters:
        if character in _BLANK:
            if word is not None:
                words.append("".join(word))
            word = None
        elif character == "#" and word is None:
            for skipped in characters:
                if skipped == "\n":
                    break
        elif character == "\\":
            escaped = next(characters, None)
            if escaped is None:
                raise ValueError("it ends with a backslash")
            if escaped != "\n":
                word = [*(word or ()), escaped]
        else:
            word = [] if word is None else word
            if character == "'":
                word += _single_quoted(characters)
            elif character == '"':
                word += _double_quoted(characters)
            else:
                word.append(character)
    if word is not None:
        words.append("".join(word))
    return words


def _single_quoted(characters: Iterator[str]) -> Iterator[str]:
    for character in characters:
        if character == "'":
            return
        yield character
    raise ValueError("a quote (') is not closed")


def _double_quoted(characters: Iterator[str]) -> Iterator[str]:
    escaping = False
    for character in characters:
        if escaping:
            escaping = False
            if character not in '$`"\\\n':
                yield "\\"
            if character != "\n":
                yield character
        elif character == "\\":
            escaping = True
        elif character == '"':
            return
        else:
            yield character
    raise ValueError('a quote (") is not closed')
