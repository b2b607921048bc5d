"""Delivers events in order, and never before what they tell is persisted.

`EventHub.emit` is the one place where events are emitted and offered to persistence. It never waits: an event is
held back until the append it depends on is acknowledged (a delivery gate), and what follows it queues up behind it.
Every subscriber has a bound and a policy, so a slow one never blocks the turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, final

import attrs
import trio

from engine.errors import EngineError, SessionClosed, SessionCrashed
from engine.protocol.events import (
    AgentMessage,
    AgentMessageContentDelta,
    AgentReasoning,
    AgentReasoningRawContent,
    ContextCompacted,
    Event,
    EventMsg,
    ExecCommandOutputDelta,
    ItemCompleted,
    ItemStarted,
    PatchApplyBegin,
    PatchApplyEnd,
    RawResponseItem,
    ReasoningContentDelta,
    ReasoningRawContentDelta,
    UserMessage,
    WebSearchBegin,
    WebSearchEnd,
)
from engine.protocol.inputs import ImageInput, LocalImageInput, TextInput
from engine.protocol.items import ResponseItem
from engine.protocol.rollout_items import EventLine, ResponseLine, RolloutItem
from engine.protocol.turn_items import (
    AgentMessageItem,
    ContextCompactionTurnItem,
    FileChangeItem,
    ReasoningItem,
    UserMessageItem,
    WebSearchItem,
    agent_text,
)
from engine.records import define
from engine.session.status import PENDING, AgentStatus, status_after

if TYPE_CHECKING:
    from engine.thread_store.live_thread import LiveThread

__all__ = ["EventHub", "EventStream", "EventsLost", "Overflow", "derived_events"]

Overflow = Literal["end", "merge_deltas"]
_Delta = AgentMessageContentDelta | ReasoningContentDelta | ReasoningRawContentDelta

REPLAY_LIMIT = 1024  # events kept for the first subscriber; a start emits a handful


class EventsLost(EngineError):
    """A subscriber was too slow for its bound; its stream ended."""


def derived_events(msg: EventMsg, *, show_raw_reasoning: bool = False) -> Iterator[EventMsg]:
    """The older events that immediately follow an item event, with the same id (session.md 3.2)."""
    match msg:
        case ItemStarted(item=WebSearchItem() as item):
            yield WebSearchBegin(item.id)
        case ItemStarted(item=FileChangeItem() as item, turn_id=turn_id):
            yield PatchApplyBegin(item.id, turn_id, bool(item.auto_approved), item.changes)
        case ItemCompleted(item=UserMessageItem() as item):
            yield _user_message(item)
        case ItemCompleted(item=AgentMessageItem() as item):
            yield AgentMessage(agent_text(item), phase=item.phase)
        case ItemCompleted(item=ReasoningItem() as item):
            yield from map(AgentReasoning, item.summary_text)
            if show_raw_reasoning:
                yield from map(AgentReasoningRawContent, item.raw_content)
        case ItemCompleted(item=WebSearchItem() as item):
            yield WebSearchEnd(item.id, item.query, item.action)
        case ItemCompleted(item=ContextCompactionTurnItem()):
            yield ContextCompacted()
        case ItemCompleted(item=FileChangeItem() as item, turn_id=turn_id):
            status = item.status or "completed"
            yield PatchApplyEnd(
                call_id=item.id,
                turn_id=turn_id,
                stdout=item.stdout or "",
                stderr=item.stderr or "",
                success=status == "completed",
                changes=item.changes,
                status=status,
            )


def _user_message(item: UserMessageItem) -> UserMessage:
    texts = [part for part in item.content if isinstance(part, TextInput)]
    return UserMessage(
        message="".join(part.text for part in texts),
        images=tuple(part.image_url for part in item.content if isinstance(part, ImageInput)),
        local_images=tuple(part.path for part in item.content if isinstance(part, LocalImageInput)),
        text_elements=tuple(element for part in texts for element in part.text_elements),
    )


@final
class EventStream:
    """Events as they come; iterate with `async for`. It ends with the session (or the turn it belongs to).

    Raises `SessionCrashed` where the session ended by an error of its own, and `EventsLost` where the reader fell
    behind its bound. One reader at a time; being cancelled loses nothing.
    """

    __slots__ = ("_accepts", "_buffer", "_ended", "_error", "_limit", "_lot", "_overflow")

    def __init__(self, limit: int, overflow: Overflow, accepts: Callable[[Event], bool] | None = None) -> None:
        self._limit = limit
        self._overflow = overflow
        self._accepts = accepts
        self._buffer: deque[Event] = deque()
        self._lot = trio.lowlevel.ParkingLot()
        self._ended = False
        self._error: EngineError | None = None

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        while not self._buffer:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            await self._lot.park()
        await trio.lowlevel.checkpoint_if_cancelled()
        return self._buffer.popleft()

    def pending(self) -> int:
        """How many events wait to be read."""
        return len(self._buffer)

    def _offer(self, event: Event) -> None:
        if self._ended or (self._accepts is not None and not self._accepts(event)):
            return
        if len(self._buffer) >= self._limit and not self._make_room(event):
            return
        self._buffer.append(event)
        self._lot.unpark()

    def _make_room(self, event: Event) -> bool:
        """Applies the policy at the bound; whether `event` still has to be appended."""
        if self._overflow == "merge_deltas":
            last = self._buffer[-1] if self._buffer else None
            if isinstance(event.msg, ExecCommandOutputDelta):
                return False
            if last is not None and isinstance(event.msg, _Delta) and type(last.msg) is type(event.msg):
                merged = _merge(last, event)
                if merged is not None:
                    self._buffer[-1] = merged
                    return False
            if not isinstance(event.msg, _Delta) and len(self._buffer) < 2 * self._limit:
                return True  # whole events have as much room again: they are few, and deltas no longer take it
        self._end(EventsLost(f"the reader fell more than {self._limit} events behind; the stream ended"))
        return False

    def _end(self, error: EngineError | None = None) -> None:
        if not self._ended:
            self._ended = True
            self._error = error
            self._lot.unpark_all()


def _merge(first: Event, second: Event) -> Event | None:
    one, two = first.msg, second.msg
    assert isinstance(one, _Delta)
    assert isinstance(two, _Delta)
    if one.item_id != two.item_id:
        return None
    if getattr(one, "summary_index", None) != getattr(two, "summary_index", None):
        return None
    return Event(first.id, attrs.evolve(one, delta=one.delta + two.delta))


@define(eq=False)
class EventHub:
    """The one place where a session's events are emitted.

    `live` is `None` for an ephemeral session. Nothing in here waits or raises.
    """

    live: LiveThread | None = None
    show_raw_reasoning: bool = False
    status: AgentStatus = PENDING
    _held: deque[tuple[int, Event | Callable[[], None]]] = attrs.field(factory=deque, init=False)
    _streams: list[EventStream] = attrs.field(factory=list, init=False)
    _replay: list[Event] | None = attrs.field(factory=list, init=False)
    _needed: int = attrs.field(default=0, init=False)
    _observer: Callable[[Event], None] | None = attrs.field(default=None, init=False)
    _over: bool = attrs.field(default=False, init=False)
    _error: EngineError | None = attrs.field(default=None, init=False)

    def bind(self, live: LiveThread | None) -> None:
        """Uses `live` for persistence from now on."""
        self.live = live
        if live is not None:
            live.on_acknowledged(self.release)

    async def room(self) -> None:
        """Waits while too much is queued to be written; called where waiting does no harm."""
        if self.live is not None:
            await self.live.room()

    def emit(self, submission: str, msg: EventMsg) -> None:
        """Persists (as the policy says), then delivers `msg` and the events derived from it."""
        self._emit_one(submission, msg)
        if isinstance(msg, ItemStarted | ItemCompleted):
            for derived in derived_events(msg, show_raw_reasoning=self.show_raw_reasoning):
                self._emit_one(submission, derived)

    def record(self, submission: str, items: Sequence[ResponseItem], *, announce: bool = True) -> None:
        """Persists response items in one append and announces each as a `raw_response_item`."""
        self.persist([ResponseLine(item) for item in items])
        if announce:
            for item in items:
                self._emit_one(submission, RawResponseItem(item))

    def persist(self, items: Sequence[RolloutItem]) -> None:
        """Persists rollout items; later events wait for them."""
        if self.live is not None:
            self._needed = self.live.append(items)

    def _emit_one(self, submission: str, msg: EventMsg) -> None:
        if self._over:
            return
        event = Event(submission, msg)
        if self._observer is not None:
            self._observer(event)
        if self.live is not None:
            self._needed = self.live.append((EventLine(msg),))
        self.status = status_after(self.status, msg)
        if self.live is None:
            self._deliver(event)
            return
        if not self._held and self._needed <= self.live.acknowledged:
            self._deliver(event)
        else:
            self._held.append((self._needed, event))

    def release(self, acknowledged: int) -> None:
        """Delivers what waited for appends up to `acknowledged`."""
        held = self._held
        while held and held[0][0] <= acknowledged:
            self._pass_on(held.popleft()[1])

    def then(self, callback: Callable[[], None]) -> None:
        """Calls `callback` once everything emitted so far is delivered. It must be quick and must not raise."""
        if self._held:
            self._held.append((self._held[-1][0], callback))
        else:
            callback()

    def _pass_on(self, held: Event | Callable[[], None]) -> None:
        if isinstance(held, Event):
            self._deliver(held)
        else:
            held()

    def _deliver(self, event: Event) -> None:
        if self._replay is not None and len(self._replay) < REPLAY_LIMIT:
            self._replay.append(event)
        for stream in self._streams:
            stream._offer(event)

    def stop_replay(self) -> None:
        """Forgets what was kept for a first subscriber that never came."""
        self._replay = None

    def observe(self, observer: Callable[[Event], None]) -> None:
        """Tells `observer` each event when it is emitted, beginning with those of the start; it is quick, never raises.

        For one observer, before anybody subscribes.
        """
        self._observer = observer
        for event in self._replay or ():
            observer(event)
        for _, held in self._held:
            if isinstance(held, Event):
                observer(held)

    @contextmanager
    def subscribe(
        self, *, buffer: int, overflow: Overflow, accepts: Callable[[Event], bool] | None = None
    ) -> Iterator[EventStream]:
        """A stream of events from now on; the first general subscriber also gets the events of the start."""
        stream = EventStream(buffer, overflow, accepts)
        self.attach(stream)
        try:
            yield stream
        finally:
            self.detach(stream)

    def attach(self, stream: EventStream) -> None:
        """Adds a subscriber."""
        if self._replay is not None and stream._accepts is None:
            for event in self._replay:
                stream._offer(event)
            self._replay = None
        if self._over:
            stream._end(self._error)
        else:
            self._streams.append(stream)

    def detach(self, stream: EventStream) -> None:
        """Removes a subscriber and ends its stream."""
        if stream in self._streams:
            self._streams.remove(stream)
        stream._end(SessionClosed("the event stream was closed"))

    def stop_persisting(self) -> None:
        """The live thread is closed: delivers what waits for it; later events are delivered at once."""
        self.live = None
        while self._held:
            self._pass_on(self._held.popleft()[1])

    def end(self, error: SessionCrashed | None = None) -> None:
        """The session is over: delivers what is still held, then ends every stream."""
        self.stop_persisting()
        self._over = True
        self._error = error
        for stream in self._streams:
            stream._end(error)
        self._streams.clear()
