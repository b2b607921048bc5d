"""Lines of a rollout and what they are, told without parsing JSON; compiled or pure, whichever runs.

`Scan(data)` looks at bytes, a bytearray, a memoryview or an mmap. `forward()` and `backward()` yield
`(start, end, kind)` per line, `count(kind)` counts. Nothing in here raises on any content.

- Lines end at LF; one CR before it is not part of the line, nor is a byte order mark at the very start of the data.
  The last line may lack its end. Only the empty piece after a last LF is no line.
- `kind` is told by the top-level `type`: `SESSION_META`, `RESPONSE_ITEM`, `COMPACTED`, `TURN_CONTEXT`, `EVENT_MSG`,
  or `OTHER` for a type of another writer. The order of members, white space, nesting and escapes don't matter; of
  repeated members the first counts. `BLANK` is white space only; `BROKEN` is whatever is no object with a textual
  `type` or does not end in a brace, as a cut line does. What stands behind the type is not looked at, so a line
  with a kind may still fail to decode.

Twins: `_speedups/scan.pyx` and `engine/rollout/_scan_py.py`. Spec: rollout.md 1.2, 4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.rollout._scan_py import (
        BLANK,
        BROKEN,
        COMPACTED,
        EVENT_MSG,
        IMPLEMENTATION,
        OTHER,
        RESPONSE_ITEM,
        SESSION_META,
        TURN_CONTEXT,
        Line,
        Scan,
        Source,
    )
else:
    from engine.accel import load_twin

    _twin = load_twin("_speedups.scan", "engine.rollout._scan_py")
    BLANK = _twin.BLANK
    BROKEN = _twin.BROKEN
    COMPACTED = _twin.COMPACTED
    EVENT_MSG = _twin.EVENT_MSG
    IMPLEMENTATION = _twin.IMPLEMENTATION
    OTHER = _twin.OTHER
    RESPONSE_ITEM = _twin.RESPONSE_ITEM
    SESSION_META = _twin.SESSION_META
    TURN_CONTEXT = _twin.TURN_CONTEXT
    Scan = _twin.Scan

__all__ = [
    "BLANK",
    "BROKEN",
    "COMPACTED",
    "EVENT_MSG",
    "IMPLEMENTATION",
    "OTHER",
    "RESPONSE_ITEM",
    "SESSION_META",
    "TURN_CONTEXT",
    "Line",
    "Scan",
    "Source",
]
