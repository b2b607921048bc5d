"""What a patch would change, and what it did: for approvals, events and the turn diff (tools.md 2.4, 2.6, 2.8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.records import frozen

__all__ = [
    "AddChange",
    "AppliedAdd",
    "AppliedChange",
    "AppliedDelete",
    "AppliedUpdate",
    "DeleteChange",
    "FileChange",
    "PatchDelta",
    "UpdateChange",
    "changes_to_wire",
]


# --- before: what an approval shows ------------------------------------------------------------------


@frozen
class AddChange:
    """A file is written whole."""

    content: str

    def to_wire(self) -> dict[str, str | None]:
        return {"type": "add", "content": self.content}


@frozen
class DeleteChange:
    """A file goes; `content` is what it held."""

    content: str

    def to_wire(self) -> dict[str, str | None]:
        return {"type": "delete", "content": self.content}


@frozen
class UpdateChange:
    """A file changes; `unified_diff` has hunks only (context 1), `move_path` is its new absolute path."""

    unified_diff: str
    move_path: str | None = None

    def to_wire(self) -> dict[str, str | None]:
        return {"type": "update", "unified_diff": self.unified_diff, "move_path": self.move_path}


FileChange = AddChange | DeleteChange | UpdateChange


def changes_to_wire(changes: Mapping[str, FileChange]) -> dict[str, dict[str, str | None]]:
    """The `changes` object of approvals and patch events: absolute path to change, in path order."""
    return {path: changes[path].to_wire() for path in sorted(changes)}


# --- after: what is on the disk ------------------------------------------------------------------------


@frozen
class AppliedAdd:
    """`content` was written to `path`; `overwritten` is what stood there, None for a new file.

    It is None too where it could not be told; the delta is then not exact.
    """

    path: str
    content: str
    overwritten: str | None = None


@frozen
class AppliedDelete:
    """`path` was removed; `content` is what it held, None if that could not be read."""

    path: str
    content: str | None


@frozen
class AppliedUpdate:
    """`path` changed from `old_content` to `new_content`, and went to `move_path` over `overwritten` if that is set."""

    path: str
    old_content: str
    new_content: str
    move_path: str | None = None
    overwritten: str | None = None


AppliedChange = AppliedAdd | AppliedDelete | AppliedUpdate


@frozen
class PatchDelta:
    """Committed changes in order.

    `exact` is False once a write failed, or a link, a device or a file that is no UTF-8 text took part.
    """

    changes: tuple[AppliedChange, ...] = ()
    exact: bool = True

    @classmethod
    def concatenate(cls, deltas: Iterable[PatchDelta]) -> PatchDelta:
        """One delta for several attempts, a denied one and its retry."""
        parts = list(deltas)
        return cls(tuple(change for part in parts for change in part.changes), all(part.exact for part in parts))
