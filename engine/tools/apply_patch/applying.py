"""Write a parsed patch to a file system, hunk by hunk in the order given and not atomically (tools.md 2.4).

Blocking: run it in a worker thread, which a cancellation abandons or waits for but doesn't interrupt.
"""

from __future__ import annotations

import posixpath
import sys
from os import PathLike, fspath

from engine.errors import InvalidRequest
from engine.records import frozen
from engine.tools.apply_patch.changes import AppliedAdd, AppliedChange, AppliedDelete, AppliedUpdate, PatchDelta
from engine.tools.apply_patch.errors import (
    ApplyPatchError,
    DeleteFailed,
    InvalidPath,
    NoHunks,
    UpdateReadFailed,
    WriteFailed,
    os_reason,
)
from engine.tools.apply_patch.filesystem import FileKind, FileSystem
from engine.tools.apply_patch.matching import updated_text
from engine.tools.apply_patch.patch import AddFile, DeleteFile, Hunk, Patch, UpdateFile

__all__ = ["PatchResult", "absolute_path", "apply_patch", "check_paths", "read_text_to_update"]


@frozen
class PatchResult:
    """The outcome as the standalone tool would print it.

    `error` is None on success. The delta holds what was written, by a patch that failed half way too.
    """

    exit_code: int
    stdout: str
    stderr: str
    delta: PatchDelta
    error: ApplyPatchError | None = None

    @property
    def output(self) -> str:
        """stdout and stderr in one: what the model reads."""
        return self.stdout + self.stderr


def absolute_path(path: str, cwd: str | PathLike[str]) -> str:
    """`path` as an absolute path, lexically normalised (`..` does not follow links). `cwd` must be absolute."""
    base = fspath(cwd)
    if not posixpath.isabs(base):
        raise InvalidRequest(f"the folder that a patch is applied in must be an absolute path, not `{base}`")
    joined = posixpath.normpath(posixpath.join(base, path))
    return joined[1:] if joined.startswith("//") else joined


def check_paths(patch: Patch) -> None:
    """Raises `InvalidPath` for a path that no file can have, before anything is touched."""
    for hunk in patch.hunks:
        moved = hunk.move_to if isinstance(hunk, UpdateFile) else None
        for path in (hunk.path, moved or ""):
            if "\0" in path:
                raise InvalidPath(path, sys.platform)


def read_text_to_update(path: str, fs: FileSystem) -> str:
    """The text of a file that an update changes. Raises `UpdateReadFailed`."""
    try:
        return fs.read_bytes(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UpdateReadFailed(path, os_reason(error)) from error


def apply_patch(patch: Patch, cwd: str | PathLike[str], fs: FileSystem) -> PatchResult:
    """Apply every hunk, or those before the first that fails; they stay.

    Never raises for what is wrong with the patch or the disk: the result carries the error, its stderr text and the
    delta. `cwd` must be absolute (`InvalidRequest`).
    """
    work = _Application(cwd, fs)
    try:
        if not patch.hunks:
            raise NoHunks
        check_paths(patch)
        for hunk in patch.hunks:
            work.apply(hunk)
    except ApplyPatchError as error:
        return PatchResult(1, "", f"{error.cli_text()}\n", work.delta(), error)
    return PatchResult(0, work.summary(), "", work.delta())


class _Application:
    """One run: what was committed so far and what the summary will say."""

    def __init__(self, cwd: str | PathLike[str], fs: FileSystem) -> None:
        self._cwd = cwd
        self._fs = fs
        self._changes: list[AppliedChange] = []
        self._exact = True
        self._summary: dict[str, list[str]] = {"A": [], "M": [], "D": []}

    def delta(self) -> PatchDelta:
        return PatchDelta(tuple(self._changes), self._exact)

    def summary(self) -> str:
        lines = [f"{letter} {path}\n" for letter, paths in self._summary.items() for path in paths]
        return "Success. Updated the following files:\n" + "".join(lines)

    def apply(self, hunk: Hunk) -> None:
        path = absolute_path(hunk.path, self._cwd)
        if isinstance(hunk, AddFile):
            overwritten = self._standing_text(path)
            self._write(path, hunk.content)
            self._changes.append(AppliedAdd(path, hunk.content, overwritten))
            self._summary["A"].append(hunk.path)
        elif isinstance(hunk, DeleteFile):
            self._refuse_undeletable(path)
            content = self._standing_text(path)
            self._remove(path)
            self._changes.append(AppliedDelete(path, content))
            self._summary["D"].append(hunk.path)
        else:
            self._update(hunk, path)
            self._summary["M"].append(hunk.path if hunk.move_to is None else hunk.move_to)

    def _update(self, hunk: UpdateFile, path: str) -> None:
        old = read_text_to_update(path, self._fs)
        new = updated_text(path, old, hunk.chunks)
        self._note_links(path)
        if hunk.move_to is None:
            self._write(path, new)
            self._changes.append(AppliedUpdate(path, old, new))
            return
        target = absolute_path(hunk.move_to, self._cwd)
        overwritten = self._standing_text(target)
        self._write(target, new)
        try:
            self._refuse_undeletable(path)
            self._remove(path)
        except ApplyPatchError:
            self._changes.append(AppliedAdd(target, new, overwritten))
            raise
        # A move onto itself writes the file and then removes it: in the end it is gone.
        self._changes.append(
            AppliedDelete(path, old) if target == path else AppliedUpdate(path, old, new, target, overwritten)
        )

    def _standing_text(self, path: str) -> str | None:
        """What stands at a path that is about to be replaced or removed, None if nothing does or it can't be told."""
        self._note_links(path)
        if self._fs.status(path).kind is not FileKind.FILE:
            return None
        try:
            return self._fs.read_bytes(path).decode()
        except (OSError, UnicodeDecodeError):
            self._exact = False
            return None

    def _note_links(self, path: str) -> None:
        status = self._fs.status(path)
        if status.symlink or status.kind is FileKind.OTHER:
            self._exact = False

    def _refuse_undeletable(self, path: str) -> None:
        if self._fs.status(path).kind in (FileKind.ABSENT, FileKind.DIRECTORY):
            raise DeleteFailed(path)

    def _remove(self, path: str) -> None:
        try:
            self._fs.remove_file(path)
        except OSError as error:
            self._exact = False
            raise DeleteFailed(path, os_reason(error)) from error

    def _write(self, path: str, content: str) -> None:
        data = content.encode()
        try:
            try:
                self._fs.write_bytes(path, data)
            except FileNotFoundError:
                self._make_parents(path)
                self._fs.write_bytes(path, data)
        except OSError as error:
            self._exact = False
            raise WriteFailed(path, os_reason(error)) from error

    def _make_parents(self, path: str) -> None:
        try:
            self._fs.make_parents(path)
        except OSError as error:
            self._exact = False
            raise WriteFailed(path, os_reason(error), parents=True) from error
