"""What a resume needs of a rollout, read from its end: only the lines that matter, only as far back as they go.

Gives what `reconstruct` gives for all items (rollout.md 5), in two parts. `read` is the reverse scan: it stops as soon
as the settings of the last turn are known and enough was looked at. `reconstruct` finishes it and replays the history,
which is where lines are decoded in numbers; nothing before the compaction it starts from is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, final, overload

from engine.errors import ProtocolError
from engine.protocol.codec import json_value
from engine.protocol.events import EventMsg, ThreadRolledBack, TokenCount
from engine.protocol.items import ResponseItem
from engine.protocol.rollout_items import Compacted, EventLine, RolloutItem, SessionMeta, TurnContext
from engine.protocol.settings import TokenUsageInfo, TruncationPolicy
from engine.rollout.blocks import BLOCK, FIRST_BLOCK, ByteSource, MemorySource, TailReader, blocks
from engine.rollout.inline_images import events_with_images
from engine.rollout.lines import decode_rollout_line
from engine.rollout.reconstruction import (
    PreviousTurnSettings,
    Reconstruction,
    ReverseScan,
    drop_last_turns,
    replay,
)
from engine.rollout.scan import (
    ALL_MARKS,
    ASSISTANT_ITEM,
    COMPACTIONS,
    CONTEXT,
    DAMAGED,
    EMPTY,
    EVENTS,
    ITEMS,
    META,
    ROLLED_BACK,
    TURN_ABORTED,
    TURN_COMPLETE,
    TURN_STARTED,
    USAGE,
    USER_EVENT,
    USER_ITEM,
    Scan,
)

__all__ = ["LazyEvents", "RolloutTail", "first_meta"]

_SPEAKERS: Final = USER_EVENT | USER_ITEM | ASSISTANT_ITEM
_TURNS: Final = TURN_STARTED | TURN_COMPLETE | TURN_ABORTED | ROLLED_BACK | CONTEXT


def first_meta(source: ByteSource) -> SessionMeta | None:
    """The first `session_meta` that can be read; it names the thread. Reads no further than that."""
    for _, data in blocks(source, 0, source.size, FIRST_BLOCK):  # it is nearly always the first line
        for first, last, _ in Scan(data).marks(wanted=META):
            item = _decoded(data[first:last])
            if isinstance(item, SessionMeta):
                return item
    return None


@final
class RolloutTail:
    """The end of a rollout.

    - `end`: offset behind the last line that counts; a torn rest behind it is left out
    - `context`: the newest turn context; `usage`: the token usage that was told last, in the part that was read
    - `counted_from`, `compactions`: behind that offset there are so many compacted lines (rollout.md 5.6)
    - `damaged`: lines that can't be read, among those that were looked at so far

    `block`: bytes that are read at once. `rolled_back`: that many turns of the user are taken back at the end.
    """

    def __init__(self, source: ByteSource, block: int = BLOCK, *, rolled_back: int = 0) -> None:
        self._source = source
        self._block = block
        self._scan = ReverseScan()
        self._newest: tuple[int, tuple[ResponseItem, ...]] | None = None  # the newest compaction with a history
        self._legacy: set[int] = set()  # where compactions without a history end
        self._hunting_from: int | None = None
        self._walking = False
        self.context: TurnContext | None = None
        self.usage: TokenUsageInfo | None = None
        self.compactions = 0
        self.damaged = 0
        self._reader: TailReader | None = TailReader(source, block)  # `None` once the reverse scan is over
        self.end = self._whole_lines(self._reader)
        self.counted_from = self.end
        self._rolled_back = rolled_back
        self._scan.take(EventLine(ThreadRolledBack(rolled_back)), self.end)

    @property
    def previous_turn_settings(self) -> PreviousTurnSettings | None:
        """The settings of the last user turn; known after `read`."""
        return self._scan.previous

    @property
    def finished(self) -> bool:
        """Whether the reverse scan is over, so that `reconstruct` has only to replay what comes after `start`."""
        return self._reader is None

    @property
    def start(self) -> int:
        """Where the lines begin that make up the history, as far as is known: nothing before them is needed again."""
        return 0 if self._newest is None else self._newest[0]

    def read(self, enough: int) -> None:
        """Scans backwards until the settings are known and `enough` bytes were read, or nothing is left to find."""
        down_to = max(0, self.end - enough)
        while self._reader is not None and not (self._scan.knows_settings and self._reader.position <= down_to):
            self._step(self._reader, down_to)
        if self._reader is not None:
            self._reader.go_to(self._reader.position)  # lets go of the block

    def use(self, source: ByteSource) -> None:
        """Goes on with another source of the same bytes, which has those from `start` to `end` at least."""
        self._source = source

    def drop(self) -> None:
        """Lets go of the source. `reconstruct` can't be called any more."""
        self._reader = None
        self._source = MemorySource(b"", self.end)

    def reconstruct(self, policy: TruncationPolicy, *, summary_prefix: str | None = None) -> Reconstruction:
        """As `reconstruct` of `engine.rollout.reconstruction` for all items. Raises what the source raises."""
        while self._reader is not None:
            self._step(self._reader, 0)
        scan = self._scan
        base: Sequence[ResponseItem] = ()
        if self._newest is not None:
            # What was replayed before the newest replacement history would only be replaced by it.
            base = (scan.base or ()) if scan.start == self._newest[0] else self._newest[1]
        history, legacy = replay(base, self._items(), policy, summary_prefix=summary_prefix)
        history = drop_last_turns(history, self._rolled_back)
        legacy = legacy or any(after > scan.start for after in self._legacy)
        return Reconstruction(tuple(history), scan.previous, None if legacy else scan.reference_context_item)

    def events(self, most: int) -> LazyEvents:
        """The events of the last `most` bytes of what the history is made of, from the start of a turn if possible."""
        start = max(self.start, self.end - most)
        data = self._source.read(start, self.end)
        if start > self.start:
            data = data[data.find(b"\n") + 1 :]
            # What comes before may show a message that is left out.
            data = data[next((first for first, _, _ in Scan(data).marks(wanted=TURN_STARTED)), 0) :]
        return LazyEvents(data)

    # --- the reverse scan ------------------------------------------------------------------------

    def _whole_lines(self, reader: TailReader) -> int:
        """Leaves out a torn rest: whoever appends next may take it away."""
        size = self._source.size
        if size == 0 or self._source.read(size - 1, size) == b"\n":
            return size
        found = reader.find(ALL_MARKS)
        assert found is not None
        start, end, mark = found
        if not _is_object(reader.text(start, end)):
            self.damaged += mark != EMPTY
            return start
        reader.go_to(size)
        return size

    def _step(self, reader: TailReader, down_to: int) -> None:
        """Looks for one line; where only older compactions could matter, not much before `down_to`."""
        scan = self._scan
        if scan.knows_settings and not self._walking and self._hunting_from is None:
            self._hunting_from = reader.position
        if self._hunting_from is not None:
            # Only a compaction can still change anything; turns matter again if there is one.
            wanted = COMPACTIONS | DAMAGED
        elif scan.in_user_turn:
            wanted = _TURNS | COMPACTIONS | DAMAGED
        else:
            wanted = _TURNS | COMPACTIONS | DAMAGED | _SPEAKERS
        if self.usage is None:
            wanted |= USAGE
        found = reader.find(wanted, down_to if scan.knows_settings else 0)
        if found is not None:
            self._take(reader, *found)
        self.counted_from = min(self.counted_from, reader.position)
        if scan.complete or reader.position == 0:
            scan.finish()
            self._reader = None

    def _take(self, reader: TailReader, start: int, end: int, mark: int) -> None:
        new = start < self.counted_from
        self.counted_from = min(self.counted_from, start)
        if new and mark & COMPACTIONS:
            self.compactions += 1
        if mark == DAMAGED:
            self.damaged += new
            return
        text = reader.text(start, end)
        if mark == ASSISTANT_ITEM and not _may_be_mail(text):
            return
        item = _decoded(text)
        if item is None:
            self.damaged += new
        elif isinstance(item, EventLine) and isinstance(item.msg, TokenCount):
            self.usage = self.usage or item.msg.info
        elif isinstance(item, Compacted) and item.replacement_history is None:
            self._legacy.add(end)
            self._feed(item, end)
        elif isinstance(item, Compacted) and self._hunting_from is not None:
            reader.go_to(self._hunting_from)
            self._hunting_from = None
            self._walking = True
        else:
            if isinstance(item, Compacted) and item.replacement_history is not None and self._newest is None:
                self._newest = end, item.replacement_history
            if isinstance(item, TurnContext):
                self.context = self.context or item
            self._feed(item, end)

    def _feed(self, item: RolloutItem, end: int) -> None:
        if self._hunting_from is None:
            self._scan.take(item, end)

    # --- the replay ------------------------------------------------------------------------------

    def _items(self) -> Iterator[RolloutItem]:
        for _, data in blocks(self._source, self.start, self.end, self._block):
            for first, last, _ in Scan(data).marks(wanted=ITEMS | COMPACTIONS | ROLLED_BACK):
                item = _decoded(data[first:last])
                if item is not None:
                    yield item


@final
class LazyEvents(Sequence[EventMsg]):
    """The events that stand in some lines of a rollout; decoded when somebody looks at them. Lines can't be told apart
    from broken ones before that, so the length is known only then."""

    __slots__ = ("_data", "_events")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._events: tuple[EventMsg, ...] | None = None

    def _decoded(self) -> tuple[EventMsg, ...]:
        if self._events is None:
            data = self._data
            lines = (data[first:last] for first, last, _ in Scan(data).marks(wanted=EVENTS | USER_ITEM))
            self._events = tuple(events_with_images(item for line in lines if (item := _decoded(line)) is not None))
            self._data = b""
        return self._events

    def __len__(self) -> int:
        return len(self._decoded())

    @overload
    def __getitem__(self, index: int) -> EventMsg: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[EventMsg]: ...
    def __getitem__(self, index: int | slice) -> EventMsg | Sequence[EventMsg]:
        return self._decoded()[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(other) == self._decoded()

    def __hash__(self) -> int:
        return hash(self._decoded())


def _decoded(line: bytes) -> RolloutItem | None:
    try:
        return decode_rollout_line(line)
    except ProtocolError:
        return None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json_value(line), dict)
    except ProtocolError:
        return False


def _may_be_mail(line: bytes) -> bool:
    """Whether an assistant message may be mail between agents, which has a `recipient`, maybe spelled in escapes."""
    return b"recipient" in line or b"\\u" in line
