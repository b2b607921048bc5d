"""What can go wrong with a patch: one type per cause, each with the text of both places it is shown (tools.md 2.2-2.4).

`str(error)` is the bare message. `cli_text()` is the line that the standalone tool writes to stderr,
`verification_text()` is what the model reads when a patch is refused inside a session.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from engine.errors import PatchError

__all__ = [
    "ApplyPatchError",
    "ContextNotFound",
    "DeleteFailed",
    "InvalidHunk",
    "InvalidPatch",
    "InvalidPath",
    "LinesNotFound",
    "NoHunks",
    "NotAFile",
    "ReadFailed",
    "UpdateReadFailed",
    "WriteFailed",
    "os_reason",
]


class ApplyPatchError(PatchError):
    """Root of the patch errors; `error_kind` names the cause in the words of the golden vectors."""

    error_kind: ClassVar[str]

    def cli_text(self) -> str:
        """The stderr line of the standalone tool, without its newline."""
        return str(self)

    def session_text(self) -> str:
        """The message as it reads inside a session, without the `apply_patch verification failed` prefix."""
        return str(self)

    def verification_text(self) -> str:
        """The whole text of the model error for a patch that was refused before anything was written."""
        return f"apply_patch verification failed: {self.session_text()}"


# --- the text itself -------------------------------------------------------------------------------


class InvalidPatch(ApplyPatchError):
    """The frame is wrong: a marker is missing, the environment line is empty, two hunks fight over one file."""

    error_kind = "invalid_patch"

    def cli_text(self) -> str:
        return f"Invalid patch: {self}"

    def session_text(self) -> str:
        return f"invalid patch: {self}"


class InvalidPath(InvalidPatch):
    """A path that no file can have on this system."""

    def __init__(self, path: str, platform: str) -> None:
        self.path = path
        super().__init__(f"'{path}' is invalid on '{platform}'")


class InvalidHunk(ApplyPatchError):
    """A hunk that does not follow the format. `line` counts from 1, `*** Begin Patch` being line 1."""

    error_kind = "invalid_hunk"

    def __init__(self, message: str, line: int) -> None:
        self.line = line
        super().__init__(message)

    def cli_text(self) -> str:
        return f"Invalid patch hunk on line {self.line}: {self}"

    def session_text(self) -> str:
        return f"invalid hunk at line {self.line}, {self}"


class NoHunks(ApplyPatchError):
    """The patch is well formed and empty: there is nothing to apply."""

    error_kind = "no_hunks"

    def __init__(self) -> None:
        super().__init__("No files were modified.")


# --- the text against the file ---------------------------------------------------------------------


class ContextNotFound(ApplyPatchError):
    """No line at or after the cursor reads like the text behind `@@`."""

    error_kind = "context_not_found"

    def __init__(self, context: str, path: str) -> None:
        self.context = context
        self.path = path
        super().__init__(f"Failed to find context '{context}' in {path}")


class LinesNotFound(ApplyPatchError):
    """The context and removed lines of a chunk don't stand in the file, at or after the cursor."""

    error_kind = "lines_not_found"

    def __init__(self, lines: Sequence[str], path: str) -> None:
        self.lines = tuple(lines)
        self.path = path
        super().__init__(f"Failed to find expected lines in {path}:\n" + "\n".join(self.lines))


# --- the file system -------------------------------------------------------------------------------


class NotAFile(OSError):
    """Raised by a `FileSystem` that is asked to read a directory, a FIFO or a device."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"path `{path}` is not a file")


class UpdateReadFailed(ApplyPatchError):
    """The file to update is missing, unreadable, not a regular file or not UTF-8."""

    error_kind = "update_read_failed"

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"Failed to read file to update {path}: {reason}")


class ReadFailed(ApplyPatchError):
    """Verification only: the file to delete can't be read, so nobody could be shown what goes."""

    error_kind = "delete_failed"

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"Failed to read {path}: {reason}")


class DeleteFailed(ApplyPatchError):
    """The file to delete is missing, a directory, or could not be removed (`reason`, where the system gave one)."""

    error_kind = "delete_failed"

    def __init__(self, path: str, reason: str = "") -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"Failed to delete file {path}")


class WriteFailed(ApplyPatchError):
    """A file or its parent folders (`parents`) could not be written; what the file holds now is uncertain."""

    error_kind = "write_failed"

    def __init__(self, path: str, reason: str, *, parents: bool = False) -> None:
        self.path = path
        self.reason = reason
        self.parents = parents
        super().__init__(
            f"Failed to create parent directories for {path}" if parents else f"Failed to write file {path}"
        )


def os_reason(error: OSError | UnicodeDecodeError) -> str:
    """The cause in words: `<strerror> (os error <errno>)`, or what is wrong with the encoding or the kind of file."""
    if isinstance(error, UnicodeDecodeError):
        if error.reason == "unexpected end of data":
            return f"incomplete utf-8 byte sequence from index {error.start}"
        return f"invalid utf-8 sequence of {error.end - error.start} bytes from index {error.start}"
    if isinstance(error, NotAFile) or error.errno is None:
        return str(error)
    return f"{os.strerror(error.errno)} (os error {error.errno})"
