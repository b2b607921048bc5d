"""Commands that only read, whatever their arguments: the policy `untrusted` runs them without asking (tools.md 5.2).

The list is short on purpose. A command that is not certainly on it is not safe.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Callable, Mapping, Sequence

from engine.exec_policy.scripts import Word, read_script, shell_script

__all__ = ["is_known_safe"]

# fmt: off
_ALWAYS = frozenset({
    "cat", "cd", "cut", "echo", "expr", "false", "grep", "head", "id", "ls", "nl", "paste", "pwd", "rev", "seq",
    "stat", "tail", "tr", "true", "uname", "uniq", "wc", "which", "whoami",
})
# fmt: on
_LINUX = frozenset({"numfmt", "tac"})

_FIND_ACTIONS = frozenset(["-exec", "-execdir", "-ok", "-okdir", "-delete", "-fls", "-fprint", "-fprint0", "-fprintf"])

_GIT_READERS = frozenset({"status", "log", "diff", "show", "branch"})
# Before the subcommand: another repository, other settings or a pager, each of which can run a program.
_GIT_GLOBAL = re.compile(
    r"-C.*|-c.*|-p|--paginate|--(config-env|exec-path|git-dir|namespace|super-prefix|work-tree)(=.*)?", re.DOTALL
)
_GIT_WRITING = re.compile(r"--(output|exec)(=.*)?|--ext-diff|--textconv", re.DOTALL)
_GIT_LISTING = re.compile(r"--list|-l|--show-current|-a|--all|-r|--remotes|-v|-vv|--verbose|--format=.*", re.DOTALL)

_RG_PROGRAMS = re.compile(r"--search-zip|-z|--(pre|hostname-bin)(=.*)?", re.DOTALL)
_BASE64_OUTPUT = re.compile(r"-o.*|--output(=.*)?", re.DOTALL)
_SED_PRINT = re.compile(r"[0-9]+(,[0-9]+)?p")


def is_known_safe(argv: Sequence[str]) -> bool:
    """Whether the command, or every command of its plain script, only reads. Never raises."""
    argv = ["bash" if word == "zsh" else word for word in argv]
    if _is_safe(argv):
        return True
    script = shell_script(argv)
    plain = None if script is None else read_script(script).plain
    return bool(plain) and all(map(_is_safe_in_script, plain or ()))


def _is_safe_in_script(words: Sequence[Word]) -> bool:
    """Safe as it is written and as the shell reads it: `find -dele\\te` and `git {log,--output=x}` are not."""
    texts, values = [word.text for word in words], [word.value for word in words]
    if not (_is_safe(texts) and (texts == values or _is_safe(values))):
        return False
    return _program(texts) not in _OPTIONS_MATTER or not any(word.braces for word in words)


def _is_safe(argv: Sequence[str]) -> bool:
    program = _program(argv)
    if program in _ALWAYS or (program in _LINUX and sys.platform == "linux"):
        return True
    check = _OPTIONS_MATTER.get(program)
    return check is not None and check(argv[1:])


def _program(argv: Sequence[str]) -> str:
    return posixpath.basename(argv[0]) if argv else ""


def _base64(arguments: Sequence[str]) -> bool:
    return not any(map(_BASE64_OUTPUT.fullmatch, arguments))


def _find(arguments: Sequence[str]) -> bool:
    return _FIND_ACTIONS.isdisjoint(arguments)


def _rg(arguments: Sequence[str]) -> bool:
    return not any(map(_RG_PROGRAMS.fullmatch, arguments))


def _git(arguments: Sequence[str]) -> bool:
    at = next((index for index, word in enumerate(arguments) if not word.startswith("-")), None)
    if at is None or arguments[at] not in _GIT_READERS or any(map(_GIT_GLOBAL.fullmatch, arguments[:at])):
        return False
    options = arguments[at + 1 :]
    if any(map(_GIT_WRITING.fullmatch, options)):
        return False
    return arguments[at] != "branch" or all(map(_GIT_LISTING.fullmatch, options))


def _sed(arguments: Sequence[str]) -> bool:
    return 2 <= len(arguments) <= 3 and arguments[0] == "-n" and _SED_PRINT.fullmatch(arguments[1]) is not None


_OPTIONS_MATTER: Mapping[str, Callable[[Sequence[str]], bool]] = {
    "base64": _base64,
    "find": _find,
    "git": _git,
    "rg": _rg,
    "sed": _sed,
}
