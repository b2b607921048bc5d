"""Rules files on the disk: which ones count, in which order, and what becomes of a broken one (tools.md 5.4).

A broken file loses only itself. The rules of all others stay in force, and a warning tells which file is not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

from engine.exec_policy.errors import RulesError
from engine.exec_policy.policy import EMPTY_POLICY, Policy
from engine.exec_policy.rules_file import read_rules
from engine.records import frozen

__all__ = ["LoadedRules", "RulesText", "load_folders", "load_set", "read_rules_text"]

FOLDER = "rules"  # below a configuration folder
SUFFIX = ".rules"


@frozen
class RulesText:
    """The text of a rules file, and what errors call it."""

    file: str
    text: str


@frozen
class LoadedRules:
    """The policy of all files that could be used, and why the others could not."""

    policy: Policy = EMPTY_POLICY
    problems: tuple[RulesError, ...] = ()

    def warnings(self) -> tuple[str, ...]:
        """What to say at a start."""
        return tuple(
            f"A rules file is not in force, nor is anything it forbids; the other rules are. {problem}"
            for problem in self.problems
        )


def load_folders(layers: Sequence[str | os.PathLike[str]]) -> LoadedRules:
    """The rules of all configuration folders, the lowest precedence first: `<folder>/rules/*.rules` of each, by name.

    Only regular files count: a link could lead to where a sandboxed command may write. Blocks for the disk and the
    interpreter. Raises `RulesError` for a folder or file that is there but can't be read: what it forbids is unknown.
    """
    texts: list[RulesText] = []
    problems: list[RulesError] = []
    for layer in layers:
        for path in _rules_files(os.path.join(layer, FOLDER)):
            try:
                text = _read_regular(path)
            except _NotUsable as exc:
                problems.append(exc)
            else:
                texts += () if text is None else (text,)
    policy = EMPTY_POLICY
    for text in texts:
        try:
            policy = _with(policy, text)
        except RulesError as exc:
            problems.append(exc)
    return LoadedRules(policy, tuple(problems))


def load_set(texts: Iterable[RulesText]) -> Policy:
    """The policy of all texts, in order. Raises `RulesError` for the first broken one: a set is whole or nothing."""
    policy = EMPTY_POLICY
    for text in texts:
        policy = _with(policy, text)
    return policy


def _with(policy: Policy, text: RulesText) -> Policy:
    read = read_rules(text.text, file=text.file, known=policy.host_executables)
    return policy.extended(read.prefix_rules, read.network_rules, read.host_executables)


class _NotUsable(RulesError):
    """A file that can't hold rules, which is no reason to do without the others."""


def _rules_files(folder: str) -> list[str]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise RulesError(f"can't be read: {exc.strerror or exc}", file=folder) from exc
    return sorted(os.path.join(folder, name) for name in names if name.endswith(SUFFIX))


def _read_regular(path: str) -> RulesText | None:
    """The text of a regular file; None for a folder, and for a file that has gone."""
    try:
        kind = os.lstat(path).st_mode
        if stat.S_ISDIR(kind):
            return None
        if stat.S_ISLNK(kind):
            raise _NotUsable("is a symbolic link; rules are read from regular files only", file=path)
        if not stat.S_ISREG(kind):
            raise _NotUsable("is not a regular file", file=path)
        # It may have been replaced since: then by no link, and by nothing that makes us wait.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return _decoded(file.read(), path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _unreadable(exc, path) from exc


def read_rules_text(path: str | os.PathLike[str]) -> RulesText:
    """The text of any file somebody names. Blocks for the disk. Raises `RulesError`."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            return _decoded(file.read(), name)
    except OSError as exc:
        raise _unreadable(exc, name) from exc


def _unreadable(exc: OSError, path: str) -> RulesError:
    return RulesError(f"can't be read: {exc.strerror or exc}", file=path)


def _decoded(data: bytes, path: str) -> RulesText:
    try:
        return RulesText(path, data.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise _NotUsable(f"is not UTF-8: byte 0x{data[exc.start]:02x}", file=path, line=line) from exc
