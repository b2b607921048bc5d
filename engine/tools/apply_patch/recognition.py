"""Tell a patch in the argv of a command from an ordinary command, before anything runs (tools.md 2.5). Knows no disk.

Ordinary commands cost a substring test; only a script that names the command next to a heredoc is parsed as shell.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.records import frozen
from engine.shell_grammar import node_text, parse_script
from engine.tools.apply_patch.errors import ApplyPatchError
from engine.tools.apply_patch.parser import BEGIN_MARKER, parse_patch
from engine.tools.apply_patch.patch import Patch

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["COMMAND_NAMES", "Intercepted", "ModelError", "Ordinary", "Recognition", "recognise"]

COMMAND_NAMES = ("apply_patch", "applypatch")

_IMPLICIT = (
    "apply_patch verification failed: patch detected without explicit call to apply_patch. "
    'Rerun as ["apply_patch", "<patch>"]'
)


@frozen
class Intercepted:
    """A patch, to be verified and applied instead of running the command.

    `text` is the patch as written, for hooks and events. `workdir` is the argument of a leading `cd` as the shell would
    pass it, None without one; it is relative to the command's working directory unless absolute.
    """

    patch: Patch
    text: str
    workdir: str | None = None


@frozen
class ModelError:
    """Recognised and refused: `text` goes to the model as a failed output, nothing runs."""

    text: str


@frozen
class Ordinary:
    """Not a patch; run the command."""


Recognition = Intercepted | ModelError | Ordinary


def recognise(argv: Sequence[str]) -> Recognition:
    """Classify the final argv of a command. Never raises; the patch is parsed but not yet held against the disk."""
    if len(argv) == 2 and argv[0] in COMMAND_NAMES:
        return _parsed(argv[1], None)
    if len(argv) == 1:
        return _implicit(argv[0])
    shell_script = _shell_script(argv)
    if shell_script is None:
        return Ordinary()
    escapes, script = shell_script
    if "<<" in script and any(name in script for name in COMMAND_NAMES):
        found = _heredoc_patch(script, escapes=escapes)
        if found is not None:
            return _parsed(*found)
    return _implicit(script)


def _parsed(text: str, workdir: str | None) -> Recognition:
    try:
        return Intercepted(parse_patch(text), text, workdir)
    except ApplyPatchError as error:
        return ModelError(error.verification_text())


def _implicit(text: str) -> Recognition:
    """A bare patch in the place of a command: the shell could only make a mess of it."""
    if BEGIN_MARKER not in text:
        return Ordinary()
    try:
        parse_patch(text)
    except ApplyPatchError:
        return Ordinary()
    return ModelError(_IMPLICIT)


# --- the shell around the script -------------------------------------------------------------------------


def _shell_script(argv: Sequence[str]) -> tuple[bool, str] | None:
    """The script of `[shell, flag, script]` and whether the shell has backslash escapes, None for any other argv."""
    shell = posixpath.basename(argv[0].replace("\\", "/")).lower().removesuffix(".exe") if argv else ""
    flags = [flag.lower() for flag in argv[1:-1]]
    if shell in ("bash", "zsh", "sh"):
        return (True, argv[-1]) if len(argv) == 3 and argv[1] in ("-c", "-lc") else None
    if shell in ("pwsh", "powershell"):
        return (False, argv[-1]) if flags in (["-command"], ["-noprofile", "-command"]) else None
    return (False, argv[-1]) if shell == "cmd" and flags == ["/c"] else None


# --- the statement in the script -------------------------------------------------------------------------


def _heredoc_patch(script: str, *, escapes: bool) -> tuple[str, str | None] | None:
    """Body and `cd` argument if the script is one `[cd DIR &&] apply_patch <<WORD` statement and nothing else."""
    program = parse_script(script)  # None for bytes that are no text, passed through for the shell to judge
    if program is None or program.has_error or [node.type for node in program.children] != ["redirected_statement"]:
        return None
    statement = program.children[0].children
    if len(statement) != 2 or statement[1].type != "heredoc_redirect":
        return None
    body = _heredoc_body(statement[1])
    workdir: str | None = None
    command = statement[0]
    if command.type == "list":
        if [node.type for node in command.children] != ["command", "&&", "command"]:
            return None
        workdir = _cd_argument(command.children[0], escapes=escapes)
        if workdir is None:
            return None
        command = command.children[2]
    name, arguments = _simple_command(command)
    if body is None or name not in COMMAND_NAMES or arguments:
        return None
    return body.rstrip("\n"), workdir


def _cd_argument(node: Node, *, escapes: bool) -> str | None:
    name, arguments = _simple_command(node)
    return _plain_word(arguments[0], escapes=escapes) if name == "cd" and len(arguments) == 1 else None


def _simple_command(node: Node) -> tuple[str, list[Node]]:
    """Name and arguments of a command of plain words; leading assignments of plain values are passed over."""
    if node.type != "command":
        return "", []
    children = list(node.children)
    while children and children[0].type == "variable_assignment" and not _substitutes(children[0]):
        del children[0]
    if not children or children[0].type != "command_name" or [c.type for c in children[0].children] != ["word"]:
        return "", []
    return node_text(children[0]), children[1:]


def _substitutes(node: Node) -> bool:
    """Whether evaluating the node would run a command, which an interception would silently leave out."""
    todo = [node]
    while todo:
        part = todo.pop()
        if part.type in ("command_substitution", "process_substitution"):
            return True
        todo += part.children
    return False


def _plain_word(node: Node, *, escapes: bool) -> str | None:
    """The argument as the shell passes it, None if that takes more than removing quotes and backslashes."""
    text = node_text(node)
    if node.type == "raw_string":
        return text[1:-1]
    if node.type == "string":
        parts = node.children
        if [part.type for part in parts] != ['"', "string_content", '"']:
            return None
        content = node_text(parts[1])
        return re.sub(r'\\([$`"\\\n])', _unescaped, content) if escapes else content
    if node.type not in ("word", "number") or text.startswith(("-", "~")):
        return None
    if escapes:
        if re.search(r"(?<!\\)(?:\\\\)*[*?\[\s]", text):
            return None  # a pattern, or a newline that the grammar takes for part of the word
        return re.sub(r"\\(.)", _unescaped, text, flags=re.DOTALL)
    return text


def _unescaped(match: re.Match[str]) -> str:
    return "" if match[1] == "\n" else match[1]


def _heredoc_body(node: Node) -> str | None:
    """The lines between the heredoc's start and end, verbatim; with `<<-` without their leading tabs, as in a shell."""
    operator, *rest = node.children
    if [part.type for part in rest] not in (
        ["heredoc_start", "heredoc_body", "heredoc_end"],
        ["heredoc_start", "heredoc_end"],
    ):
        return None
    if not rest[-1].text:
        return None
    body = node_text(rest[1]) if len(rest) == 3 else ""
    return re.sub(r"(?m)^\t+", "", body) if operator.type == "<<-" else body
