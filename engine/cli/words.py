"""Tells flags from positionals, which the standard parser does not manage where a positional is optional."""

from __future__ import annotations

import argparse

__all__ = ["first_positional", "settle_trace_flag", "split_words"]


def settle_trace_flag(words: list[str]) -> list[str]:
    """A bare `--trace-startup` takes no value; the parser alone would let it swallow the prompt."""
    end = words.index("--") if "--" in words else len(words)
    return [f"{word}=" if word == "--trace-startup" and at < end else word for at, word in enumerate(words)]


def _valued(parser: argparse.ArgumentParser) -> set[str]:
    """The flags whose value is the next word."""
    takers = [action for action in parser._actions if action.option_strings and action.nargs is None]
    return {text for action in takers for text in action.option_strings}


def first_positional(words: list[str], parser: argparse.ArgumentParser) -> int | None:
    """Where the first word stands that is neither a flag nor a flag's value; `None` if `--` comes before."""
    valued = _valued(parser)
    at = 0
    while at < len(words) and words[at] != "--":
        if _is_positional(words[at]):
            return at
        at += 2 if words[at] in valued else 1
    return None


def split_words(words: list[str], parser: argparse.ArgumentParser) -> tuple[list[str], list[str]]:
    """Flags with their values, and positionals."""
    valued = _valued(parser)
    flags: list[str] = []
    positionals: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            return flags, positionals + words[at + 1 :]
        if _is_positional(word):
            positionals.append(word)
            at += 1
        else:
            step = 2 if word in valued else 1
            flags += words[at : at + step]
            at += step
    return flags, positionals


def _is_positional(word: str) -> bool:
    return word == "-" or not word.startswith("-")
