"""Work out what a patch would do, without doing it: the basis of approvals and of refusals (tools.md 2.6).

Blocking: run it in a worker thread. What may be read is up to the `FileSystem` that is passed in.
"""

from __future__ import annotations

from os import PathLike

from engine.records import frozen
from engine.tools.apply_patch.applying import absolute_path, check_paths, read_text_to_update
from engine.tools.apply_patch.changes import AddChange, DeleteChange, FileChange, UpdateChange
from engine.tools.apply_patch.diffs import unified_diff
from engine.tools.apply_patch.errors import InvalidPatch, ReadFailed, os_reason
from engine.tools.apply_patch.filesystem import FileSystem
from engine.tools.apply_patch.matching import updated_text
from engine.tools.apply_patch.patch import AddFile, DeleteFile, Hunk, Patch

__all__ = ["EMPTY_PATCH_REJECTION", "VerifiedFile", "VerifiedPatch", "verify_patch"]

EMPTY_PATCH_REJECTION = "patch rejected: empty patch"
"""The model error for a patch without hunks: it verifies, and is refused before anybody is asked (tools.md 2.6)."""

_DIFF_CONTEXT = 1


@frozen
class VerifiedFile:
    """One file of the patch: its absolute path, the change as shown, and the text it will hold (None: deleted)."""

    path: str
    change: FileChange
    new_content: str | None


@frozen
class VerifiedPatch:
    """A patch that fits the files as they are now, one entry per hunk and path, in patch order."""

    patch: Patch
    cwd: str
    files: tuple[VerifiedFile, ...]

    @property
    def changes(self) -> dict[str, FileChange]:
        """Absolute path to change, for approvals and events (`changes_to_wire` gives the wire form)."""
        return {file.path: file.change for file in self.files}

    @property
    def touched_paths(self) -> list[str]:
        """Every absolute path that is written or removed, destinations of moves included; what must be writable."""
        paths: dict[str, None] = {}
        for file in self.files:
            paths[file.path] = None
            if isinstance(file.change, UpdateChange) and file.change.move_path is not None:
                paths[file.change.move_path] = None
        return list(paths)


def verify_patch(patch: Patch, cwd: str | PathLike[str], fs: FileSystem) -> VerifiedPatch:
    """Check every hunk against the files as they are; nothing is written.

    Raises the `ApplyPatchError` that applying would end in, and `InvalidPatch` for two hunks on one file or a move
    onto itself: each would be checked, and shown to whoever approves, against a file that the other one changes.
    `cwd` must be absolute (`InvalidRequest`).
    """
    check_paths(patch)
    root = absolute_path(".", cwd)
    files: dict[str, VerifiedFile] = {}
    for hunk in patch.hunks:
        path = absolute_path(hunk.path, root)
        if path in files:
            raise InvalidPatch(f"multiple operations target {path}")
        files[path] = _verified(hunk, path, root, fs)
    return VerifiedPatch(patch, root, tuple(files.values()))


def _verified(hunk: Hunk, path: str, cwd: str, fs: FileSystem) -> VerifiedFile:
    if isinstance(hunk, AddFile):
        return VerifiedFile(path, AddChange(hunk.content), hunk.content)
    if isinstance(hunk, DeleteFile):
        try:
            content = fs.read_bytes(path).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ReadFailed(path, os_reason(error)) from error
        return VerifiedFile(path, DeleteChange(content), None)
    old = read_text_to_update(path, fs)
    new = updated_text(path, old, hunk.chunks)
    target = None if hunk.move_to is None else absolute_path(hunk.move_to, cwd)
    if target == path:
        raise InvalidPatch(f"multiple operations target {path}")
    return VerifiedFile(path, UpdateChange(unified_diff(old, new, _DIFF_CONTEXT), target), new)
