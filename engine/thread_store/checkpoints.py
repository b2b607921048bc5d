"""How far the compactions of a rollout were counted, so that a resume counts only what follows (rollout.md 5.6).

A checkpoint is a cache: without one, or with one that no longer fits the file, everything is counted again.
"""

from __future__ import annotations

from typing import Protocol

from engine.records import frozen

__all__ = ["MARK_LENGTH", "Checkpoint", "Checkpoints"]

MARK_LENGTH = 64  # bytes before the offset that must still be there


@frozen
class Checkpoint:
    """In the first `offset` bytes of the file `(device, inode)`, which end with a line, stand `count` compactions.

    `mark` is the last bytes before the offset, at most `MARK_LENGTH`: a file that was rewritten in place has others.
    """

    device: int
    inode: int
    offset: int
    count: int
    mark: bytes = b""


class Checkpoints(Protocol):
    """Where checkpoints are kept; `ThreadIndex` is one. Losing them costs time only."""

    async def checkpoint(self, path: str) -> Checkpoint | None:
        """What was noted for a rollout, if anything can be had. Raises nothing of its own; whether it still fits is
        the caller's to check."""

    def note_checkpoint(self, path: str, checkpoint: Checkpoint) -> None:
        """Keeps a checkpoint for a rollout, soon; never waits and never raises."""
