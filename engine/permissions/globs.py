"""The glob language of permission entries, matched against whole paths (permissions.md 4.7).

`*` and `?` stay within a component, `**` as a whole component stands for any number of them (for at least one at the
end); `[a-z]`, `[!a]` and `[^a]` are classes, `{a,b}` alternatives, and a backslash takes the next character as it is.
An unclosed `[` is an ordinary character.

A glob is taken apart into components first, so that matching is never worse than quadratic: patterns come from files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from engine.errors import EngineError
from engine.protocol.paths import components
from engine.records import frozen

__all__ = ["GLOB_CHARACTERS", "Glob", "GlobError", "compile_glob", "has_glob_characters"]

GLOB_CHARACTERS = frozenset("*?[]")

_MOST_ALTERNATIVES = 4096

# A token is one character taken as it is, or one of these.
_STAR = "*"
_ANY = "?"


class GlobError(EngineError):
    """A glob that has no meaning: `glob` is its text."""

    def __init__(self, glob: str, reason: str) -> None:
        self.glob = glob
        self.reason = reason
        super().__init__(f"`{glob}` is no glob: {reason}")


def has_glob_characters(text: str) -> bool:
    """Whether configuration takes the text for a glob; braces alone don't make one."""
    return not GLOB_CHARACTERS.isdisjoint(text)


@frozen
class _Token:
    """One place in a component: a regular expression for one character, or a star."""

    pattern: str
    is_star: bool = False
    is_slash: bool = False


_SLASH = _Token("/", is_slash=True)

# A component of a glob: None for `**`.
_Component = re.Pattern[str] | None


@frozen
class Glob:
    """A compiled glob. `text` is what it was made from."""

    text: str
    _alternatives: tuple[tuple[_Component, ...], ...] = attrs.field(repr=False)

    def matches(self, path: str) -> bool:
        """Whether the whole normal `path` matches."""
        names = components(path)
        return any(_matches(alternative, names) for alternative in self._alternatives)


def compile_glob(text: str) -> Glob:
    """An absolute glob, ready to match. Raises `GlobError`."""
    return Glob(text, tuple(_components(tokens) for tokens in _Parser(text).parse()))


def _matches(pattern: Sequence[_Component], names: Sequence[str]) -> bool:
    # `reached` holds how many names the components so far can have taken.
    reached = {0}
    for position, component in enumerate(pattern):
        if component is None:
            first = min(reached) + (1 if position == len(pattern) - 1 else 0)
            reached = set(range(first, len(names) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(names) and component.fullmatch(names[at])}
        if not reached:
            return False
    return len(names) in reached


def _components(tokens: Sequence[_Token]) -> tuple[_Component, ...]:
    made: list[_Component] = []
    current: list[_Token] = []
    for token in (*tokens, _SLASH):
        if not token.is_slash:
            current.append(token)
        elif current:
            made.append(_component(current))
            current = []
    return tuple(made)


def _component(tokens: Sequence[_Token]) -> _Component:
    if len(tokens) == 2 and all(token.is_star for token in tokens):
        return None
    runs: list[str] = [""]
    for token in tokens:
        if token.is_star:
            if runs[-1] or len(runs) == 1:
                runs.append("")
        else:
            runs[-1] += token.pattern
    if len(runs) == 1:
        return re.compile(runs[0], re.DOTALL)
    # Each run of single characters may be taken at the first place where it fits, the last one at the end.
    first, *middle, last = runs
    return re.compile(first + "".join(f"(?>.*?{run})" for run in middle) + f".*{last}", re.DOTALL)


class _Parser:
    """Text to lists of tokens, one list for each way through the alternatives."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> list[list[_Token]]:
        made = self._sequence(depth=0)
        if self._at < len(self._text):
            raise GlobError(self._text, "a `}` without `{`")
        return made

    def _sequence(self, depth: int) -> list[list[_Token]]:
        """Up to the end, or in braces up to the next `,` or `}`, which is left."""
        made: list[list[_Token]] = [[]]
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == "}" or (char == "," and depth):
                return made
            self._at += 1
            if char == "{":
                choices = self._alternatives(depth)
                if len(made) * len(choices) > _MOST_ALTERNATIVES:
                    raise GlobError(self._text, f"more than {_MOST_ALTERNATIVES} alternatives")
                made = [[*head, *choice] for head in made for choice in choices]
                continue
            token = self._token(char)
            for tokens in made:
                tokens.append(token)
        return made

    def _alternatives(self, depth: int) -> list[list[_Token]]:
        if depth >= 16:
            raise GlobError(self._text, "braces nested too deeply")
        made: list[list[_Token]] = []
        while True:
            made += self._sequence(depth + 1)
            if self._at >= len(self._text):
                raise GlobError(self._text, "a `{` without `}`")
            self._at += 1
            if self._text[self._at - 1] == "}":
                return made

    def _token(self, char: str) -> _Token:
        match char:
            case "*":
                return _Token("", is_star=True)
            case "?":
                return _Token(".")
            case "/":
                return _SLASH
            case "[":
                return self._class()
            case "\\":
                if self._at >= len(self._text):
                    raise GlobError(self._text, "a backslash at the end")
                self._at += 1
                char = self._text[self._at - 1]
                return _SLASH if char == "/" else _Token(re.escape(char))
        return _Token(re.escape(char))

    def _class(self) -> _Token:
        text, at = self._text, self._at
        negated = text[at : at + 1] in ("!", "^") and at < len(text)
        at += negated
        start = at
        end = text.find("]", at + 1)
        if end < 0:
            return _Token(re.escape("["))
        ranges: list[str] = []
        while at < end:
            low = high = text[at]
            # A hyphen at either end stands for itself.
            if text[at + 1 : at + 2] == "-" and at + 2 < end:
                high = text[at + 2]
                at += 2
            if low > high:
                raise GlobError(text, f"the range {low}-{high} is empty")
            ranges.append(re.escape(low) if low == high else f"{re.escape(low)}-{re.escape(high)}")
            at += 1
        assert at > start
        self._at = end + 1
        return _Token(f"[{'^' if negated else ''}{''.join(ranges)}]")
