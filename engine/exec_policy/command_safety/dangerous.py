"""Commands that destroy without asking: `rm` with a force flag, also behind wrappers and inside scripts (tools.md 5.3).

A heuristic for prompts, no protection: what it does not know runs in the sandbox like everything else.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from engine.exec_policy.scripts import read_script, shell_script

__all__ = ["DANGEROUS_REASON", "is_dangerous"]

DANGEROUS_REASON = "rm -f style commands are not permitted. Use a safer approach"

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=.*", re.DOTALL)
_FORCE = re.compile(r"-[^-]*f.*|--force", re.DOTALL)
_ENV_WITH_VALUE = frozenset({"-u", "--unset", "-C", "--chdir"})
# Scripts in scripts; a shell call more levels down is one that nobody typed.
_MOST_LEVELS = 8
# For a script too long to parse: an `rm` with a force flag on the same line, wherever it stands.
_FORCED_RM_TEXT = re.compile(r"(?:^|[\s;&|(`'\"/])rm['\"]?\s(?:[^\n;&|]{0,200}\s)?['\"]?-(?:-force\b|[A-Za-z]*f)")


def is_dangerous(argv: Sequence[str]) -> bool:
    """Whether the command, or any command anywhere in its script, is an `rm` that never asks. Never raises."""
    return _is_dangerous(argv, _MOST_LEVELS)


def _is_dangerous(argv: Sequence[str], levels: int) -> bool:
    words = _without_wrappers(argv)
    if not words:
        return False
    program = posixpath.basename(words[0])
    if program == "rm":
        options = words[1 : words.index("--")] if "--" in words else words[1:]
        return any(map(_FORCE.fullmatch, options))
    script = _trap_action(words) if program == "trap" else shell_script(words)
    return script is not None and levels > 0 and _is_dangerous_script(script, levels - 1)


def _is_dangerous_script(script: str, levels: int) -> bool:
    if "rm" not in re.sub(r"['\"\\]", "", script):
        return False  # saves parsing nearly every script
    reading = read_script(script)
    if reading.unread:
        return _FORCED_RM_TEXT.search(script) is not None
    return any(_is_dangerous(command, levels) for command in reading.commands)


def _without_wrappers(argv: Sequence[str]) -> Sequence[str]:
    """The command that runs in the end: without assignments, a bare `sudo`, and `env` with its options."""
    at = 0
    while at < len(argv):
        if _ASSIGNMENT.fullmatch(argv[at]):
            at += 1
            continue
        program = posixpath.basename(argv[at])
        if program == "env":
            at = _behind_env(argv, at + 1)
        elif program == "sudo":
            at += 1
        else:
            break
    return argv[at:]


def _behind_env(argv: Sequence[str], at: int) -> int:
    while at < len(argv) and argv[at].startswith("-"):
        if argv[at] == "--":
            return at + 1
        at += 2 if argv[at] in _ENV_WITH_VALUE else 1
    return at


def _trap_action(words: Sequence[str]) -> str | None:
    """The script that `trap` keeps for later."""
    operands = [word for word in words[1:] if word != "--"]
    return operands[0] if operands else None
