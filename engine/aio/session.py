"""The handles a host holds: sessions, turns, streams of events."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self, final

import engine
from engine.aio.host import Host
from engine.portal import read_ahead

if TYPE_CHECKING:
    from engine import (
        Event,
        SettingsUpdate,
        StartupTrace,
        ThreadId,
        TurnId,
        TurnResult,
    )
    from engine.session.settings import Input
    from engine.session.status import AgentStatus


__all__ = ["EventStream", "Session", "Turn"]


@final
class EventStream:
    """Events as they come; iterate with `async for`. As `engine.EventStream`, and it raises the same."""

    def __init__(self, host: Host[Any], source: engine.EventStream | engine.Turn) -> None:
        self._host = host
        self._source = source
        self._ready: deque[Event] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        # A call costs a quarter of a millisecond, so it brings all that is there.
        if not self._ready and not await self._host.call(read_ahead, self._source, self._ready):
            raise StopAsyncIteration
        return self._ready.popleft()

    def pending(self) -> int:
        """How many events wait to be read."""
        return len(self._ready) + self._source.pending()


@final
class Turn:
    """A turn that runs in its session, as `engine.Turn`. Iterate for its events."""

    def __init__(self, host: Host[Any], inner: engine.Turn) -> None:
        self._host = host
        self._inner = inner
        self._events = EventStream(host, inner)

    @property
    def id(self) -> TurnId:
        """The turn's id."""
        return self._inner.id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self._events.__anext__()

    def pending(self) -> int:
        """How many events wait to be read."""
        return self._events.pending()

    async def result(self) -> TurnResult:
        """Waits for the end. Being cancelled stops the waiting, not the turn."""
        return await self._host.call(self._inner.result)

    async def steer(self, input: Input) -> None:
        """Adds input while the turn runs."""
        await self._host.call(self._inner.steer, input)

    async def interrupt(self) -> None:
        """Stops the turn; returns once `turn_aborted` is out."""
        await self._host.call(self._inner.interrupt)


@final
class Session:
    """A running session, as `engine.Session`."""

    def __init__(self, host: Host[Any], inner: engine.Session) -> None:
        self._host = host
        self._inner = inner

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Session) and other._inner == self._inner

    def __hash__(self) -> int:
        return hash(self._inner)

    @property
    def thread_id(self) -> ThreadId:
        """The id of the thread; `Engine.resume_session` takes it."""
        return self._inner.thread_id

    @property
    def rollout_path(self) -> str | None:
        """The file the thread is written to."""
        return self._inner.rollout_path

    @property
    def status(self) -> AgentStatus:
        """What the session is doing."""
        return self._inner.status

    @property
    def startup_trace(self) -> StartupTrace:
        """Which step of the start ran when and for how long."""
        return self._inner.startup_trace

    @property
    def model(self) -> str:
        """The model later turns use."""
        return self._inner.model

    async def run(self, input: Input, update: SettingsUpdate | None = None) -> TurnResult:
        """A whole turn: starts it and waits for its end. Being cancelled interrupts the turn."""
        return await self._host.call(self._inner.run, input, update)

    @asynccontextmanager
    async def turn(self, input: Input, update: SettingsUpdate | None = None) -> AsyncIterator[Turn]:
        """A turn for the length of a block; leaving it early interrupts the turn."""
        turn = await self.start_turn(input, update)
        try:
            yield turn
        finally:
            await self._host.call(turn._inner._leave)

    async def start_turn(self, input: Input, update: SettingsUpdate | None = None) -> Turn:
        """Starts a turn that belongs to the session."""
        return Turn(self._host, await self._host.call(self._inner.start_turn, input, update, undo=engine.Turn._leave))

    async def run_shell(self, command: str) -> TurnResult:
        """Runs a command of the user's own, without a sandbox in any mode. Being cancelled kills it."""
        return await self._host.call(self._inner.run_shell, command)

    async def compact(self) -> TurnResult:
        """Replaces the history by what the user said and a summary. Being cancelled interrupts it."""
        return await self._host.call(self._inner.compact)

    async def start_compaction(self) -> Turn:
        """As `compact`, for those who want its events."""
        return Turn(self._host, await self._host.call(self._inner.start_compaction, undo=engine.Turn._leave))

    async def rollback(self, turns: int = 1) -> None:
        """Takes the last `turns` turns of the user out of the history."""
        await self._host.call(self._inner.rollback, turns)

    @contextmanager
    def events(self, *, buffer: int = 1024, overflow: Literal["end", "merge_deltas"] = "end") -> Iterator[EventStream]:
        """All events from now on; the first subscriber also gets those of the start."""
        subscription = self._inner.events(buffer=buffer, overflow=overflow)
        stream = self._host.now(subscription.__enter__)
        try:
            yield EventStream(self._host, stream)
        finally:
            try:
                self._host.now(subscription.__exit__, None, None, None)
            except engine.EngineClosed:
                pass  # and the subscription with it

    async def steer(self, input: Input, *, expected: TurnId | None = None) -> TurnId:
        """Adds input to the active turn and returns its id."""
        return await self._host.call(functools.partial(self._inner.steer, input, expected=expected))

    async def interrupt(self) -> None:
        """Stops the active turn, if there is one; returns once `turn_aborted` is out."""
        await self._host.call(self._inner.interrupt)

    async def update(self, update: SettingsUpdate) -> None:
        """New settings for later turns, all or nothing."""
        await self._host.call(self._inner.update, update)

    async def flush(self) -> None:
        """Returns when everything recorded so far is with the operating system."""
        await self._host.call(self._inner.flush)

    async def durable(self) -> None:
        """Returns when the thread can be resumed from the store."""
        await self._host.call(self._inner.durable)

    async def aclose(self) -> None:
        """Ends the session. Idempotent; bounded by the engine's grace."""
        try:
            await self._host.call(self._inner.aclose)
        except engine.EngineClosed:
            pass  # and every session with it

    async def wait_closed(self) -> None:
        """Returns when the session has ended. Raises `SessionCrashed` where it ended by an error of its own."""
        await self._host.call(self._inner.wait_closed)
