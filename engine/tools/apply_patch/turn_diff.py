"""The net diff of a turn, from what patches report to have written and never from the disk (tools.md 2.8)."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator
from os import PathLike, fspath

from engine.records import define
from engine.tools.apply_patch.changes import AppliedAdd, AppliedChange, AppliedDelete, AppliedUpdate, PatchDelta
from engine.tools.apply_patch.diffs import unified_diff

__all__ = ["TurnDiffTracker"]

_CONTEXT = 3
_NO_BLOB = "0" * 40


@define
class _TrackedFile:
    """`baseline` is the text before the turn, `current` the text now; None where there is no file."""

    baseline: str | None
    current: str | None
    moved_from: str | None = None


class TurnDiffTracker:
    """Collects the deltas of one turn. Not for use from several threads at once.

    Paths are shown relative to `display_root`, the root of the repository or the session's cwd. A delta that is not
    exact ends the tracking for the turn: a wrong diff would be worse than none.
    """

    def __init__(self, display_root: str | PathLike[str] = "/") -> None:
        self._root = fspath(display_root)
        self._files: dict[str, _TrackedFile] = {}
        self._recorded = False
        self._exact = True
        self._announced = ""

    @property
    def exact(self) -> bool:
        """False once a delta was not exact; there is no diff any more."""
        return self._exact

    def record(self, delta: PatchDelta) -> None:
        """Take in what one patch wrote, failed ones included."""
        self._recorded = self._recorded or bool(delta.changes) or not delta.exact
        if not delta.exact:
            self._exact = False
            self._files.clear()
        if self._exact:
            for change in delta.changes:
                self._record(change)

    def announce(self, delta: PatchDelta) -> str | None:
        """Record a delta and return the text of the turn-diff event to send, None when none is due.

        An event is due when the delta changed something and the diff before or after it is not empty; "" says that
        the turn's changes have cancelled out, or can't be told any more.
        """
        changed = bool(delta.changes) or not delta.exact
        self.record(delta)
        if not changed:
            return None
        before, self._announced = self._announced, self.unified_diff() or ""
        return self._announced if before or self._announced else None

    def unified_diff(self, display_root: str | PathLike[str] | None = None) -> str | None:
        """The diff in git's form; `display_root` overrides the tracker's for this call.

        None: nothing was recorded in this turn. "": the changes have cancelled out, or can't be told any more.
        """
        if not self._recorded:
            return None
        root = self._root if display_root is None else fspath(display_root)
        return "".join(text for _, text in sorted(self._blocks(root)))

    def _record(self, change: AppliedChange) -> None:
        if isinstance(change, AppliedAdd):
            self._replace(change.path, change.overwritten, change.content)
        elif isinstance(change, AppliedDelete):
            self._replace(change.path, change.content, None)
        elif change.move_path is None:
            self._file(change.path, change.old_content).current = change.new_content
        else:
            self._move(change, change.move_path)

    def _move(self, change: AppliedUpdate, target: str) -> None:
        source = self._file(change.path, change.old_content)
        origin = source.moved_from or change.path
        source.current = source.moved_from = None
        file = self._replace(target, change.overwritten, change.new_content)
        file.moved_from = None if origin == target else origin

    def _replace(self, path: str, before: str | None, after: str | None) -> _TrackedFile:
        file = self._file(path, before)
        file.current, file.moved_from = after, None
        return file

    def _file(self, path: str, before: str | None) -> _TrackedFile:
        """The entry of a path; on its first change in the turn, what stood there is its baseline."""
        return self._files.setdefault(path, _TrackedFile(before, before))

    def _blocks(self, root: str) -> Iterator[tuple[str, str]]:
        """Display path and text of each block. A moved file and its source share one, in the source's place."""
        renamed = {source: path for path, source in self._renames()}
        for path, file in self._files.items():
            if path in renamed:
                continue
            source = file.moved_from if file.moved_from is not None and renamed.get(file.moved_from) == path else None
            before = file.baseline if source is None else self._files[source].baseline
            if before != file.current or source is not None:
                new_name = _display(path, root)
                old_name = new_name if source is None else _display(source, root)
                yield old_name, _block(old_name, new_name, before, file.current)

    def _renames(self) -> Iterator[tuple[str, str]]:
        """Moves that show as one: the source is gone, and nothing stood at the destination before the turn."""
        for path, file in self._files.items():
            if file.moved_from is None or file.baseline is not None or file.current is None:
                continue
            source = self._files[file.moved_from]
            if source.baseline is not None and source.current is None:
                yield path, file.moved_from


def _display(path: str, root: str) -> str:
    below = posixpath.relpath(path, root)
    return path if below == ".." or below.startswith("../") else below


def _block(old_name: str, new_name: str, before: str | None, after: str | None) -> str:
    lines = [f"diff --git a/{old_name} b/{new_name}\n"]
    if before == after:
        return f"{lines[0]}similarity index 100%\nrename from {old_name}\nrename to {new_name}\n"
    if before is None:
        lines.append("new file mode 100644\n")
    if after is None:
        lines.append("deleted file mode 100644\n")
    lines.append(f"index {_blob(before)}..{_blob(after)}\n")
    hunks = unified_diff(before or "", after or "", _CONTEXT)
    if hunks:
        lines.append("--- /dev/null\n" if before is None else f"--- a/{old_name}\n")
        lines.append("+++ /dev/null\n" if after is None else f"+++ b/{new_name}\n")
    return "".join(lines) + hunks


def _blob(text: str | None) -> str:
    """The object id that git gives the content."""
    if text is None:
        return _NO_BLOB
    data = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
