"""The tool as a program of its own: what runs when a process is started under the name `apply_patch` (tools.md 2.4)."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from os import PathLike

from engine.tools.apply_patch.applying import apply_patch
from engine.tools.apply_patch.errors import ApplyPatchError
from engine.tools.apply_patch.filesystem import FileSystem, RealFileSystem
from engine.tools.apply_patch.parser import parse_patch
from engine.tools.apply_patch.recognition import COMMAND_NAMES

__all__ = ["RUN_AS_APPLY_PATCH", "is_standalone", "run_standalone"]

RUN_AS_APPLY_PATCH = "--codex-run-as-apply-patch"

_USAGE = "Usage: apply_patch 'PATCH'\n       echo 'PATCH' | apply_patch\n"

Outcome = tuple[int, str, str]


def is_standalone(argv: Sequence[str]) -> bool:
    """Whether a process with this argv was started as the patch tool, by its name or by the flag behind it."""
    return bool(argv) and (posixpath.basename(argv[0]) in COMMAND_NAMES or argv[1:2] == [RUN_AS_APPLY_PATCH])


def run_standalone(
    argv: Sequence[str], stdin: Callable[[], bytes], cwd: str | PathLike[str], fs: FileSystem | None = None
) -> Outcome:
    """Run the tool: exit code, stdout, stderr.

    The patch is the one argument, or what `stdin()` returns (called at most once, only without an argument), or the
    argument behind `--codex-run-as-apply-patch`. Exit 0: applied; 1: refused or failed; 2: called wrongly. Blocking;
    raises nothing for what it is given.
    """
    if argv[1:2] == [RUN_AS_APPLY_PATCH]:
        if len(argv) < 3 or not _is_text(argv[2]):
            return 1, "", f"Error: {RUN_AS_APPLY_PATCH} requires a UTF-8 PATCH argument.\n"
        return _apply(argv[2], cwd, fs)
    if len(argv) > 2:
        return 2, "", "Error: apply_patch accepts exactly one argument.\n"
    if len(argv) == 2:
        if not _is_text(argv[1]):
            return 1, "", "Error: apply_patch requires a UTF-8 PATCH argument.\n"
        return _apply(argv[1], cwd, fs)
    try:
        text = stdin().decode()
    except UnicodeDecodeError:
        return 1, "", "Error: Failed to read PATCH from stdin.\nstream did not contain valid UTF-8\n"
    except OSError as error:
        return 1, "", f"Error: Failed to read PATCH from stdin.\n{error.strerror}\n"
    return _apply(text, cwd, fs) if text else (2, "", _USAGE)


def _is_text(argument: str) -> bool:
    """Bytes of an argument that are no UTF-8 come as lone surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _apply(text: str, cwd: str | PathLike[str], fs: FileSystem | None) -> Outcome:
    try:
        patch = parse_patch(text)
    except ApplyPatchError as error:
        return 1, "", f"{error.cli_text()}\n"
    result = apply_patch(patch, cwd, RealFileSystem() if fs is None else fs)
    return result.exit_code, result.stdout, result.stderr
