"""What a command does, in words for people: reads a file, lists files, searches (app_server.md 2.4, `CommandAction`).

For display only, never for a decision. Whatever is not certainly one of the known forms is `unknown`, as a whole. Pure.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Sequence

from engine.protocol.wire import JsonObject
from engine.records import frozen

__all__ = ["parse_command"]

_SHELLS = frozenset({"bash", "zsh", "sh"})
# Plain words only: an expansion, a redirection, a glob or a comment makes the script more than we can tell.
_PIECE = r"""'[^']*'|"(?:[^"\\$`]|\\[\s\S])*"|\\[^\n]|[^\s'"\\$`&|;<>(){}*?\[\]#~!^]+"""
_TOKEN = re.compile(rf"(?P<blank>[ \t]+)|(?P<operator>&&|\|(?![|&])|;(?!;)|\n)|(?P<word>(?:{_PIECE})+)")
_QUOTED = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\[\s\S])*)"|\\(.)|([^'"\\]+)""")

_SED_RANGE = re.compile(r"(?:\d+|\$)(?:,(?:\d+|\$))?p\Z")
_COUNT = re.compile(r"-\d+\Z|[-+]?\d+[kKmMgGbB]?\Z")
_FILTERS = frozenset({"cat", "cut", "head", "nl", "sort", "tail", "tr", "uniq", "wc"})
_FIND_ACTIONS = frozenset({"-delete", "-exec", "-execdir", "-fls", "-fprint", "-fprint0", "-fprintf", "-ok", "-okdir"})


# Options that take the next word as their value.
def _options(letters: str, *names: str) -> frozenset[str]:
    return frozenset([*(f"-{letter}" for letter in letters), *(f"--{name}" for name in names)])


_HEAD_VALUES = _options("nc", "lines", "bytes")
_LS_VALUES = _options("ITw", "hide", "ignore", "tabsize", "width")
_CONTEXT = ("after-context", "before-context", "context", "max-count")
_GREP_VALUES = _options("ABCDdm", *_CONTEXT, "exclude", "exclude-dir", "include")
_RG_VALUES = _options(
    "ABCEMTdgjmrt",
    *_CONTEXT,
    *("color", "colors", "encoding", "engine", "glob", "iglob", "max-columns", "max-depth", "max-filesize"),
    *("path-separator", "replace", "sort", "sortr", "threads", "type", "type-add", "type-clear", "type-not"),
)
_PATTERN_OPTIONS = _options("e", "regexp")
_PATTERN_FILE_OPTIONS = _options("f", "file")


def parse_command(argv: Sequence[str]) -> tuple[JsonObject, ...]:
    """The actions of a command line, in core wire form; never raises, never empty.

    `{"type": "read", "cmd", "name", "path"}`, `{"type": "list_files", "cmd", "path"}`,
    `{"type": "search", "cmd", "query", "path"}` or one `{"type": "unknown", "cmd"}`. Paths are as written, behind the
    argument of a leading `cd`; they are relative to the working directory of the command.
    """
    script = _script(argv)
    if script is None:
        pipelines: list[list[list[str]]] | None = [[list(argv)]] if argv else None
    else:
        pipelines = _pipelines(script)
    actions = None if pipelines is None else _actions(pipelines)
    if actions:
        return actions
    return ({"type": "unknown", "cmd": shlex.join(argv) if script is None else script},)


def _script(argv: Sequence[str]) -> str | None:
    if len(argv) == 3 and posixpath.basename(argv[0]) in _SHELLS and argv[1] in ("-c", "-lc"):
        return argv[2]
    return None


# --- the script ----------------------------------------------------------------------------------


def _pipelines(script: str) -> list[list[list[str]]] | None:
    """Pipelines of commands of words; `None` where the script has anything but plain words in it."""
    pipelines: list[list[list[str]]] = []
    commands: list[list[str]] = [[]]
    position = 0
    while position < len(script):
        match = _TOKEN.match(script, position)
        if match is None:
            return None
        position = match.end()
        if match["word"] is not None:
            commands[-1].append(_unquoted(match["word"]))
        elif match["operator"] == "|":
            if not commands[-1]:
                return None
            commands.append([])
        elif match["operator"] is not None and commands != [[]]:
            pipelines.append(commands)
            commands = [[]]
    if commands != [[]]:
        pipelines.append(commands)
    if any(not command for pipeline in pipelines for command in pipeline):
        return None
    return pipelines


def _unquoted(word: str) -> str:
    return "".join(
        re.sub(r'\\([$`"\\\n])', lambda escape: "" if escape[1] == "\n" else escape[1], double)
        if double
        else single or escaped or plain
        for single, double, escaped, plain in _QUOTED.findall(word)
    )


def _actions(pipelines: list[list[list[str]]]) -> tuple[JsonObject, ...] | None:
    found: list[JsonObject] = []
    folder = ""
    for pipeline in pipelines:
        if pipeline[0][0] == "cd" and len(pipeline) == 1:
            if len(pipeline[0]) != 2 or pipeline[0][1].startswith("-"):
                return None
            folder = posixpath.join(folder, pipeline[0][1])
            continue
        for number, command in enumerate(pipeline):
            actions = _command(command, folder, piped=number > 0)
            if actions is None:
                return None
            found += [action for action in actions if action not in found]
    return tuple(found)


# --- one command ---------------------------------------------------------------------------------


@frozen
class _Words:
    """The arguments of a command, told apart: options, values of options, operands."""

    options: tuple[str, ...]
    values: tuple[tuple[str, str], ...]
    operands: tuple[str, ...]


def _words(arguments: Sequence[str], taking_value: frozenset[str]) -> _Words | None:
    """`None` where an option lacks its value."""
    options: list[str] = []
    values: list[tuple[str, str]] = []
    operands: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            operands.extend(words)
        elif word == "-" or not word.startswith("-"):
            operands.append(word)
        elif (found := _option_with_value(word, taking_value)) is None:
            options.append(word)
        else:
            name, attached = found
            value = next(words, None) if attached is None else attached
            if value is None:
                return None
            values.append((name, value))
    return _Words(tuple(options), tuple(values), tuple(operands))


def _option_with_value(word: str, taking_value: frozenset[str]) -> tuple[str, str | None] | None:
    """Name and attached value of an option that takes one: `--name=value`, `--name`, `-n5`, or a cluster like `-rn`."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        if equals:
            return name, value
        return (name, None) if name in taking_value else None
    for number, letter in enumerate(word[1:], start=2):
        if f"-{letter}" in taking_value:
            return f"-{letter}", word[number:] or None
    return None


def _command(command: list[str], folder: str, *, piped: bool) -> list[JsonObject] | None:
    """The actions of one command; nothing for a filter in a pipeline, `None` if it can't be told."""
    program = posixpath.basename(command[0])
    told = _PROGRAMS.get(program)
    actions = None if told is None else told(command, folder, piped)
    if actions is None and piped and program in _FILTERS and _is_filter(command):
        return []
    return actions


def _is_filter(command: list[str]) -> bool:
    """Whether the command only passes on its standard input: no operand can be a file, and `sort` has no `-o`."""
    program, words = posixpath.basename(command[0]), command[1:]
    if program == "tr":
        return True
    if program == "sort" and any(word.startswith("-") and "o" in word for word in words):
        return False
    return all(word.startswith("-") or _COUNT.match(word) for word in words)


def _cat(command: list[str], folder: str, piped: bool) -> list[JsonObject] | None:
    words = _words(command[1:], frozenset())
    return None if words is None else _reads(command, words.operands, folder)


def _head(command: list[str], folder: str, piped: bool) -> list[JsonObject] | None:
    words = _words(command[1:], _HEAD_VALUES)
    return None if words is None else _reads(command, words.operands, folder)


def _sed(command: list[str], folder: str, piped: bool) -> list[JsonObject] | None:
    if len(command) < 3 or command[1] != "-n" or not _SED_RANGE.match(command[2]):
        return None
    files = command[3:]
    if not files and piped:
        return []
    return None if any(file.startswith("-") for file in files) else _reads(command, files, folder)


def _ls(command: list[str], folder: str, piped: bool) -> list[JsonObject] | None:
    words = _words(command[1:], _LS_VALUES)
    return None if words is None else _lists(command, words.operands, folder)


def _find(command: list[str], folder: str, piped: bool) -> list[JsonObject] | None:
    if not _FIND_ACTIONS.isdisjoint(command):
        return None
    roots: list[str] = []
    for word in command[1:]:
        if word.startswith("-") or word in ("(", ")", "!", ","):
            break
        roots.append(word)
    return _lists(command, roots, folder)


def _rg(command: list[str], folder: str, piped: bool) -> list[JsonObject] | None:
    if any(word == "--pre" or word.startswith("--pre=") for word in command):
        return None  # runs a command of its own
    return _search(command, folder, piped, _RG_VALUES)


def _grep(command: list[str], folder: str, piped: bool) -> list[JsonObject] | None:
    return _search(command, folder, piped, _GREP_VALUES)


def _search(command: list[str], folder: str, piped: bool, taking_value: frozenset[str]) -> list[JsonObject] | None:
    words = _words(command[1:], taking_value | _PATTERN_OPTIONS | _PATTERN_FILE_OPTIONS)
    if words is None or any(name in _PATTERN_FILE_OPTIONS for name, _ in words.values):
        return None
    operands = list(words.operands)
    if "--files" in words.options:
        return _lists(command, operands, folder)
    query = next((value for name, value in words.values if name in _PATTERN_OPTIONS), None)
    if query is None:
        if not operands:
            return None
        query = operands.pop(0)
    paths: list[str | None] = [_joined(folder, path) for path in operands]
    if not paths:
        paths = [None if piped else folder or None]
    return [{"type": "search", "cmd": shlex.join(command), "query": query, "path": path} for path in paths]


_PROGRAMS: dict[str, Callable[[list[str], str, bool], list[JsonObject] | None]] = {
    "cat": _cat,
    "nl": _head,
    "head": _head,
    "tail": _head,
    "sed": _sed,
    "ls": _ls,
    "find": _find,
    "rg": _rg,
    "grep": _grep,
    "egrep": _grep,
    "fgrep": _grep,
}


def _reads(command: list[str], files: Sequence[str], folder: str) -> list[JsonObject] | None:
    if not files or "-" in files or "" in files:
        return None
    return list(_each_read(shlex.join(command), files, folder))


def _each_read(text: str, files: Sequence[str], folder: str) -> Iterator[JsonObject]:
    for file in files:
        name = posixpath.basename(file.rstrip("/")) or file
        yield {"type": "read", "cmd": text, "name": name, "path": _joined(folder, file)}


def _lists(command: list[str], folders: Sequence[str], folder: str) -> list[JsonObject]:
    text = shlex.join(command)
    paths: list[str | None] = [_joined(folder, path) for path in folders]
    return [{"type": "list_files", "cmd": text, "path": path} for path in paths or [folder or None]]


def _joined(folder: str, path: str) -> str:
    return posixpath.join(folder, path).rstrip("/") or path if folder else path
