"""What goes into the policy arithmetic and what comes out of it: the data both implementations share."""

from __future__ import annotations

from typing import Literal, NamedTuple

from engine.protocol.profiles import Access
from engine.records import frozen

__all__ = ["Decision", "LegacyScan", "RootFacts", "Row"]

# A normal path, its access, and the position of the entry in the policy.
Row = tuple[str, Access, int]

# A writable root, what stays read-only below it, and the names that are protected in it.
RootFacts = tuple[str, tuple[str, ...], tuple[str, ...]]


class LegacyScan(NamedTuple):
    """What the write entries of a policy amount to in the terms of legacy policies."""

    workspace: bool
    roots: tuple[str, ...]
    root_write: bool
    tmpdir: bool
    slash_tmp: bool


@frozen
class Decision:
    """What may be done with a path, and what decides it (permissions.md 3.2, 4.2, 4.3).

    - `reason`: `open` (the policy restricts nothing), `entry` (the deepest entry around the path), `no_entry` (none
      is), `metadata` (an entry would allow writing, but the path belongs to the metadata of a writable root)
    - `entry`: the position in the policy's entries of the one that decides: for `metadata` the writable root's
    - `forbidden_metadata`: the name of the protected folder, where that is what a write would run into
    """

    access: Access
    can_read: bool
    can_write: bool
    reason: Literal["open", "entry", "no_entry", "metadata"]
    entry: int | None
    forbidden_metadata: str | None
