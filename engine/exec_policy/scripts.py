"""What commands a shell script is made of, as far as that can be told without running it (tools.md 5.1, 4.3).

A wrong answer here lets a command through, so a script counts as plain only if a shell certainly sees the same words.
Where the grammar and the shells differ (a carriage return, a line continued inside a word, a quoted delimiter), the
script is not plain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from engine.records import frozen
from engine.shell_grammar import node_text, parse_script

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = [
    "Command",
    "ScriptReading",
    "Segments",
    "Word",
    "canonical_command",
    "plain_commands",
    "read_script",
    "segments",
    "shell_script",
]

Command = tuple[str, ...]

_SHELLS = frozenset({"bash", "zsh", "sh"})
_FLAGS = ("-lc", "-c")
# Beyond these a broken script can take seconds to parse. A longer one is nobody's plain command.
_MOST_CHARACTERS = 64 * 1024
_MOST_OPERATORS = 2000
_OPERATORS = re.compile(r"[|&;<>()\[=]")


@frozen
class Word:
    """A word of a plain command. `text` keeps backslashes as written, `value` is what the shell passes on.

    `braces` says that the shell may make several words of it.
    """

    text: str
    value: str
    braces: bool = False


@frozen
class ScriptReading:
    """What a script shows of itself.

    - `plain`: its commands if it is nothing but plain commands, None otherwise
    - `heredoc`: its one command if all else is a here-document for it
    - `commands`: every simple command anywhere in it, with what is literal of each word
    - `unread`: it is too long to be looked at; the rest is empty
    """

    plain: tuple[tuple[Word, ...], ...] | None = None
    heredoc: tuple[Word, ...] | None = None
    commands: tuple[Command, ...] = ()
    unread: bool = False


@frozen
class Segments:
    """The commands that rules look at. `heredoc`: one command with a here-document stands for its script."""

    commands: tuple[Command, ...]
    heredoc: bool = False


def shell_script(argv: Sequence[str]) -> str | None:
    """The script of `[shell, -lc or -c, script]`, None for any other argv."""
    if len(argv) == 3 and argv[1] in _FLAGS and PurePosixPath(argv[0]).stem in _SHELLS:
        return argv[2]
    return None


def plain_commands(argv: Sequence[str]) -> tuple[Command, ...] | None:
    """The commands of a shell call whose script is plain, in order; None if it is not, or argv is no shell call."""
    script = shell_script(argv)
    plain = None if script is None else read_script(script).plain
    return None if plain is None else tuple(map(_texts, plain))


def segments(argv: Sequence[str]) -> Segments:
    """What rules and heuristics judge one by one: the commands of a plain script, else the whole argv."""
    script = shell_script(argv)
    if script is not None:
        reading = read_script(script)
        if reading.plain:
            return Segments(tuple(map(_texts, reading.plain)))
        if reading.heredoc is not None:
            return Segments((_texts(reading.heredoc),), heredoc=True)
    return Segments((tuple(argv),))


def canonical_command(argv: Sequence[str]) -> Command:
    """The command as approvals are remembered: the same for the same command in another shell (tools.md 4.3)."""
    script = shell_script(argv)
    if script is None:
        return tuple(argv)
    plain = read_script(script).plain
    if plain is not None and len(plain) == 1:
        return _texts(plain[0])
    return ("__codex_shell_script__", argv[1], script)


def _texts(words: Sequence[Word]) -> Command:
    return tuple(word.text for word in words)


def read_script(script: str) -> ScriptReading:
    """What a script shows of itself. Never raises; the last few are remembered."""
    if len(script) > _MOST_CHARACTERS or len(_OPERATORS.findall(script)) > _MOST_OPERATORS:
        return ScriptReading(unread=True)
    return _read(script)


@lru_cache(maxsize=32)
def _read(script: str) -> ScriptReading:
    program = parse_script(script)
    if program is None:
        return ScriptReading(unread=True)
    commands = tuple(_all_commands(program))
    if program.has_error:
        return ScriptReading(commands=commands)
    source = script.encode()
    return ScriptReading(_plain(program, source), _heredoc(program, source), commands)


# --- plain scripts -------------------------------------------------------------------------------

_STRUCTURE = frozenset({"program", "list", "pipeline", "command", "command_name"})
_LITERALS = frozenset({"word", "number", "string", "raw_string", "concatenation"})
_SEPARATORS = frozenset({"&&", "||", ";", "|"})
_BLANKS = re.compile(rb"(?:[ \t\n]|\\\n)*")
_CONTINUED = b"\\\n"
# The grammar takes a newline before a backslash for part of a word: in `ls \n\rm x` it sees one command.
_BLANK_IN_WORD = re.compile(r"\s")


def _plain(program: Node, source: bytes) -> tuple[tuple[Word, ...], ...] | None:
    """The words of each command, if there is nothing but literal words and separators and only blanks between them."""
    commands: list[list[Word]] = []
    end, end_is_word = 0, False
    todo = [program]
    while todo:
        node = todo.pop()
        if node.type in _STRUCTURE:
            if node.type == "command":
                commands.append([])
                end_is_word = False
                if node.children[0].type != "command_name" or [c.type for c in node.children[0].children] != ["word"]:
                    return None
            todo += reversed(node.children)
            continue
        if not node.type.strip():
            continue  # a newline that separates commands
        is_word = node.type in _LITERALS
        if not (commands if is_word else node.type in _SEPARATORS):
            return None
        gap = source[end : node.start_byte]
        if not _blank(gap, needed=is_word and end_is_word):
            return None
        if _has_newline(gap) and (end_is_word or not is_word):
            return None  # the grammar takes `ls \n\<newline>make` for one command
        if is_word:
            word = _word(node)
            if word is None:
                return None
            commands[-1].append(word)
        end, end_is_word = node.end_byte, is_word
    return tuple(map(tuple, commands)) if _blank(source[end:]) else None


def _blank(gap: bytes, *, needed: bool = False) -> bool:
    """Whether a shell sees only blanks in the gap, and at least one if two words would grow together without."""
    return _BLANKS.fullmatch(gap) is not None and (not needed or bool(gap.replace(_CONTINUED, b"")))


def _has_newline(gap: bytes) -> bool:
    """Whether a line ends there for a shell."""
    return b"\n" in gap.replace(_CONTINUED, b"")


def _word(node: Node) -> Word | None:
    """A literal word; None if the shell would expand it."""
    text = node_text(node)
    match node.type:
        case "word" | "number":
            if _BLANK_IN_WORD.search(re.sub(r"\\.", "", text, flags=re.DOTALL)):
                return None
            braces = re.search(r"(?<!\\)(?:\\\\)*\{", text) is not None
            return Word(text, re.sub(r"\\(.)", _unescaped, text, flags=re.DOTALL), braces)
        case "raw_string":
            return Word(text[1:-1], text[1:-1])
        case "string":
            if any(part.type not in ('"', "string_content") for part in node.children):
                return None
            return Word(text[1:-1], re.sub(r'\\([$`"\\\n])', _unescaped, text[1:-1]))
        case "concatenation":
            parts = [_word(part) for part in node.children]
            whole = [part for part in parts if part is not None]
            if len(whole) < len(parts) or not any(part.text for part in whole):
                return None
            return Word(
                "".join(part.text for part in whole),
                "".join(part.value for part in whole),
                any(part.braces for part in whole),
            )
    return None


def _unescaped(match: re.Match[str]) -> str:
    return "" if match[1] == "\n" else match[1]


# --- one command with a here-document ------------------------------------------------------------

_DELIMITER = re.compile(r"""(?P<quote>['"]?)(?P<word>[\w.-]+)(?P=quote)""")
# In a document with a bare delimiter the shell runs commands, and continues lines before it looks for the end.
_ACTIVE = re.compile(r"`|\$[({\[]|\\\n")


def _heredoc(program: Node, source: bytes) -> tuple[Word, ...] | None:
    """The one command of `command words <<DELIMITER`, its words written before or after the delimiter."""
    if [node.type for node in program.children] != ["redirected_statement"]:
        return None
    statement = program.children[0].children
    if [node.type for node in statement] != ["command", "heredoc_redirect"]:
        return None
    command, redirect = statement
    if not command.children or [node.type for node in command.children[0].children] != ["word"]:
        return None
    operators = [node for node in redirect.children if node.type in ("<<", "<<-")]
    starts = [node for node in redirect.children if node.type == "heredoc_start"]
    ends = [node for node in redirect.children if node.type == "heredoc_end"]
    if not len(operators) == len(starts) == len(ends) == 1:
        return None
    header = [*command.children, operators[0], starts[0], *_header_rest(redirect)]
    if not _document_is_inert(source, starts[0], ends[0], tabs=operators[0].type == "<<-"):
        return None
    words: list[Word] = []
    end, end_is_word = 0, False
    for node in header:
        inner = node.children[0] if node.type == "command_name" else node
        is_word = inner.type in _LITERALS
        gap = source[end : node.start_byte]
        if _has_newline(gap) or not _blank(gap, needed=is_word and end_is_word):
            return None
        if is_word:
            word = _word(inner)
            if word is None:
                return None
            words.append(word)
        elif node not in (operators[0], starts[0]):
            return None
        # The delimiter is a word to the shell, too.
        end, end_is_word = node.end_byte, is_word or node == starts[0]
    line_end = source.find(b"\n", end)
    return tuple(words) if line_end >= 0 and _blank(source[end:line_end]) else None


def _header_rest(redirect: Node) -> list[Node]:
    """What stands on the line of the delimiter behind it."""
    known = ("<<", "<<-", "heredoc_start", "heredoc_body", "heredoc_end")
    return [node for node in redirect.children if node.type not in known]


def _document_is_inert(source: bytes, start: Node, end: Node, *, tabs: bool) -> bool:
    """Whether the shell takes the same lines for the document as the grammar, runs nothing in it and nothing after."""
    delimiter = _DELIMITER.fullmatch(node_text(start))
    first = source.find(b"\n", start.end_byte)
    if delimiter is None or first < 0:
        return False
    document = source[first + 1 : end.start_byte].decode()
    if not delimiter["quote"] and _ACTIVE.search(document):
        return False
    lines = document.split("\n")[:-1]
    ended_before = any((line.lstrip("\t") if tabs else line) == delimiter["word"] for line in lines)
    return node_text(end).strip("\t\n") == delimiter["word"] and not ended_before and _blank(source[end.end_byte :])


# --- every command anywhere ----------------------------------------------------------------------


def _all_commands(program: Node) -> Iterator[Command]:
    """Every simple command, also in substitutions, bodies of functions and broken scripts."""
    todo = [program]
    while todo:
        node = todo.pop()
        parts = node.children
        if node.type == "command":
            yield from map(tuple, _literal_commands(node))
        elif node.type == "redirected_statement" and parts[0].type == "command":
            *first, last = _literal_commands(parts[0])
            yield from map(tuple, first)
            yield (*last, *_behind_redirections(node))
            parts = [*parts[0].children, *parts[1:]]
        todo += reversed(parts)


def _literal_commands(command: Node) -> list[list[str]]:
    """The words of what the grammar takes for one command; several where a newline stands between or before them."""
    commands: list[list[str]] = [[]]
    source = command.text or b""
    end = command.start_byte
    for node in command.children:
        gap = source[end - command.start_byte : node.start_byte - command.start_byte]
        end = node.end_byte
        begins = node_text(node).startswith("\n")
        if begins or _has_newline(gap):
            commands.append([])
        if node.type == "command_name":
            commands[-1] += map(_literal, node.children)
        elif node.type in _LITERALS or node.type in ("ansi_c_string", "translated_string") or _expands(node):
            commands[-1].append(_literal(node).lstrip("\n") if begins else _literal(node))
    return commands


def _behind_redirections(statement: Node) -> Iterator[str]:
    """The words the grammar takes for part of a redirection: in `rm >log -f x` they belong to the command."""
    for redirection in statement.children[1:]:
        if redirection.type == "file_redirect":
            targets = [node for node in redirection.children if node.is_named and node.type != "file_descriptor"]
            yield from map(_literal, targets[1:])
        elif redirection.type == "heredoc_redirect":
            yield from (_literal(node) for node in redirection.children if node.type in _LITERALS)


def _expands(node: Node) -> bool:
    return node.type.endswith(("expansion", "substitution", "brace_expression"))


def _literal(node: Node) -> str:
    """The word without quotes and backslashes; what an expansion would put in is left out."""
    pieces: list[str] = []
    todo = [node]
    while todo:
        part = todo.pop()
        text = node_text(part)
        match part.type:
            case "word" | "number":
                pieces.append(re.sub(r"\\(.)", _unescaped, text, flags=re.DOTALL))
            case "raw_string":
                pieces.append(text[1:-1])
            case "ansi_c_string":
                pieces.append(text[2:-1])
            case "string_content":
                pieces.append(re.sub(r'\\([$`"\\\n])', _unescaped, text))
            case "string" | "concatenation" | "translated_string" | "command_name":
                todo += reversed(part.children)
    return "".join(pieces)
