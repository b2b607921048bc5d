"""Lines of a rollout and what they are, told without parsing JSON; compiled or pure, whichever runs.

`Scan(data)` looks at bytes, a bytearray, a memoryview or an mmap, in constant memory. Nothing in here raises on any
content. All methods take the part of the data they look at, which should begin at the start of a line.

- `forward`, `backward`: `(start, end, kind)` of each line; `count`: how many lines are of a kind
- `marks`, `marks_backward`: `(start, end, mark)` of the lines with one of the `wanted` marks
- `turns`: `(start, end)` of each turn

Lines end at LF; one CR before it is not part of the line, nor is a byte order mark in front of it. The last line may
lack its end. Only the empty piece after a last LF is no line.

`kind` is told by the top-level `type`: `SESSION_META`, `RESPONSE_ITEM`, `COMPACTED`, `TURN_CONTEXT`, `EVENT_MSG`,
or `OTHER` for a type of another writer. The order of members, white space, nesting and escapes don't matter; of
repeated members the first counts. `BLANK` is white space only; `BROKEN` is whatever is no object with a textual
`type` or does not end in a brace, as a cut line does. What stands behind the type is not looked at, so a line
with a kind may still fail to decode.

`mark` looks into the payload too. Each line has exactly one; a mask of several says what is `wanted`:

- `COMPACTIONS`: `REPLACEMENT` (compacted, with a replacement history), `COMPACTION` (without)
- `EVENTS`: `TURN_STARTED`, `TURN_COMPLETE`, `TURN_ABORTED`, `ROLLED_BACK`, `USER_EVENT` (a user_message), `USAGE`
  (a token_count with info), `OTHER_EVENT`
- `ITEMS`: messages of the user (`USER_ITEM`) or the assistant (`ASSISTANT_ITEM`), either may begin a turn; `OTHER_ITEM`
- `CONTEXT` (turn_context), `META` (session_meta), and for the kinds `OTHER`, `BLANK`, `BROKEN`: `FOREIGN`, `EMPTY`,
  `DAMAGED`

A turn begins where its start is told. Before the first such line (older writers tell none), it begins where its user
speaks. Rollback markers are not applied: turns that were rolled back are among the others.

Twins: `_speedups/scan.pyx` and `engine/rollout/_scan_py.py`. Spec: rollout.md 1.2, 4.1, 5.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.rollout._scan_py import (
        ALL_MARKS,
        ASSISTANT_ITEM,
        BLANK,
        BROKEN,
        COMPACTED,
        COMPACTION,
        COMPACTIONS,
        CONTEXT,
        DAMAGED,
        EMPTY,
        EVENT_MSG,
        EVENTS,
        FOREIGN,
        IMPLEMENTATION,
        ITEMS,
        META,
        OTHER,
        OTHER_EVENT,
        OTHER_ITEM,
        REPLACEMENT,
        RESPONSE_ITEM,
        ROLLED_BACK,
        SESSION_META,
        TURN_ABORTED,
        TURN_COMPLETE,
        TURN_CONTEXT,
        TURN_STARTED,
        USAGE,
        USER_EVENT,
        USER_ITEM,
        Line,
        Scan,
        Source,
    )
else:
    from engine.accel import load_twin

    _twin = load_twin("_speedups.scan", "engine.rollout._scan_py")
    ALL_MARKS = _twin.ALL_MARKS
    ASSISTANT_ITEM = _twin.ASSISTANT_ITEM
    BLANK = _twin.BLANK
    BROKEN = _twin.BROKEN
    COMPACTED = _twin.COMPACTED
    COMPACTION = _twin.COMPACTION
    COMPACTIONS = _twin.COMPACTIONS
    CONTEXT = _twin.CONTEXT
    DAMAGED = _twin.DAMAGED
    EMPTY = _twin.EMPTY
    EVENTS = _twin.EVENTS
    EVENT_MSG = _twin.EVENT_MSG
    FOREIGN = _twin.FOREIGN
    IMPLEMENTATION = _twin.IMPLEMENTATION
    ITEMS = _twin.ITEMS
    META = _twin.META
    OTHER = _twin.OTHER
    OTHER_EVENT = _twin.OTHER_EVENT
    OTHER_ITEM = _twin.OTHER_ITEM
    REPLACEMENT = _twin.REPLACEMENT
    RESPONSE_ITEM = _twin.RESPONSE_ITEM
    ROLLED_BACK = _twin.ROLLED_BACK
    SESSION_META = _twin.SESSION_META
    TURN_ABORTED = _twin.TURN_ABORTED
    TURN_COMPLETE = _twin.TURN_COMPLETE
    TURN_CONTEXT = _twin.TURN_CONTEXT
    TURN_STARTED = _twin.TURN_STARTED
    USAGE = _twin.USAGE
    USER_EVENT = _twin.USER_EVENT
    USER_ITEM = _twin.USER_ITEM
    Scan = _twin.Scan

__all__ = [
    "ALL_MARKS",
    "ASSISTANT_ITEM",
    "BLANK",
    "BROKEN",
    "COMPACTED",
    "COMPACTION",
    "COMPACTIONS",
    "CONTEXT",
    "DAMAGED",
    "EMPTY",
    "EVENTS",
    "EVENT_MSG",
    "FOREIGN",
    "IMPLEMENTATION",
    "ITEMS",
    "META",
    "OTHER",
    "OTHER_EVENT",
    "OTHER_ITEM",
    "REPLACEMENT",
    "RESPONSE_ITEM",
    "ROLLED_BACK",
    "SESSION_META",
    "TURN_ABORTED",
    "TURN_COMPLETE",
    "TURN_CONTEXT",
    "TURN_STARTED",
    "USAGE",
    "USER_EVENT",
    "USER_ITEM",
    "Line",
    "Scan",
    "Source",
]
