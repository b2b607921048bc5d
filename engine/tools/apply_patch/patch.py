"""What a patch says once it is parsed: frozen hunks and chunks (tools.md 2.2)."""

from __future__ import annotations

import enum

from engine.records import frozen

__all__ = ["AddFile", "Chunk", "ChunkLine", "DeleteFile", "Hunk", "LineKind", "Patch", "UpdateFile"]


class LineKind(enum.Enum):
    """The first character of a line in a chunk."""

    CONTEXT = " "
    REMOVE = "-"
    ADD = "+"


@frozen
class ChunkLine:
    """One line of a chunk, without its prefix and its line ending."""

    kind: LineKind
    text: str


@frozen
class Chunk:
    """One place of an update. `context` is the text behind `@@`, None for a bare or missing marker."""

    context: str | None
    lines: tuple[ChunkLine, ...]
    end_of_file: bool = False

    @property
    def old_lines(self) -> list[str]:
        """What must stand in the file: context and removed lines, in order."""
        return [line.text for line in self.lines if line.kind is not LineKind.ADD]

    @property
    def new_lines(self) -> list[str]:
        """What the patch would put there: context and added lines, in order."""
        return [line.text for line in self.lines if line.kind is not LineKind.REMOVE]


@frozen
class AddFile:
    """Write `content` to `path`, whatever stood there."""

    path: str
    content: str


@frozen
class DeleteFile:
    """Remove the file at `path`."""

    path: str


@frozen
class UpdateFile:
    """Change the file at `path` chunk by chunk (at least one) and, with `move_to`, give it another path."""

    path: str
    move_to: str | None
    chunks: tuple[Chunk, ...]


Hunk = AddFile | DeleteFile | UpdateFile


@frozen
class Patch:
    """A parsed patch. Paths are as spelled in the text; `environment_id` is None without an environment line."""

    environment_id: str | None
    hunks: tuple[Hunk, ...]
