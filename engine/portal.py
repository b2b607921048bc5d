"""A Trio loop in a thread of its own, for hosts that are not on Trio: what `engine.aio` and `engine.blocking` share.

Calls go in through `Portal.submit` from any thread and run in the context variables of their caller. Whoever cancels a
call goes on waiting for its end, so that cleanup is over when the caller hears of it. Signals stay with the host, and
nothing of the process is changed (CONCURRENCY: a thread holds up better than guest mode, which stalls with the host).
"""

from __future__ import annotations

import contextvars
import functools
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, final

import trio

from engine.errors import EngineClosed

if TYPE_CHECKING:
    from collections import deque

    from engine.protocol.events import Event
    from engine.session.delivery import EventStream
    from engine.session.session import Turn

__all__ = ["Call", "Portal", "read_ahead"]

T = TypeVar("T")
S = TypeVar("S")


@final
class Call(Generic[T]):
    """A call of `function(*args)` on the engine's loop. `value` and `untaken` count once `done` is set.

    Where it comes back with a value although it was cancelled, `undo` gets the value. `on_done` is called on the loop's
    thread.
    """

    def __init__(
        self,
        function: Callable[..., Awaitable[T]],
        *args: object,
        undo: Callable[[T], Awaitable[object]] | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        self.done = threading.Event()
        self.context = contextvars.copy_context()
        self.scope = trio.CancelScope()
        self._function, self._args, self._undo, self._on_done = function, args, undo, on_done
        self._error: BaseException | None = None
        self._value: T | None = None
        self._unwanted = False
        self._settled = False  # whether it can't become unwanted any more
        self._mutex = threading.Lock()
        self._token: trio.lowlevel.TrioToken | None = None

    @property
    def begun(self) -> bool:
        """Whether it runs or has run."""
        return self._token is not None

    @property
    def value(self) -> T:
        """What came back. Raises what the call raised."""
        if self._error is not None:
            raise self._error
        return cast(T, self._value)

    def untaken(self) -> Callable[[], Awaitable[object]] | None:
        """What undoes the call, for a caller that was cancelled just after it came back; `None` if it was undone."""
        if self._unwanted or self._error is not None or self._undo is None:
            return None
        return functools.partial(self._undo, cast(T, self._value))

    def cancel(self, reason: str) -> None:
        """Asks for the end of the call, from any thread; `done` is set when its cleanup is over.

        One that has come back already stays as it is: see `untaken`.
        """
        with self._mutex:
            if self._settled:
                return
            self._unwanted = True
        if self._token is None:
            return  # it has not begun; `begin` looks
        try:
            self._token.run_sync_soon(lambda: self.scope.cancel(reason=reason))
        except trio.RunFinishedError:
            pass  # it is done

    def begin(self, token: trio.lowlevel.TrioToken) -> None:
        """The call runs on the loop of `token` now."""
        self._token = token
        if self._unwanted:
            self.scope.cancel(reason="it was cancelled before it began")

    async def run(self) -> None:
        """Runs the function. Nothing but the loop's own cancellation is raised."""
        finished = False
        try:
            with self.scope:
                self._value = await self._function(*self._args)
                finished = True
            with self._mutex:
                self._settled = True
            if self._unwanted and finished and self._undo is not None:
                with trio.CancelScope(shield=True):  # nobody takes the result: a session that was started is closed
                    await self._undo(cast(T, self._value))
        except trio.Cancelled:
            self._error = _closed()
            raise
        except BaseException as exc:
            self._error = exc
        finally:
            self.finish()

    def finish(self, error: BaseException | None = None) -> None:
        """The call is over, with `error` where it never ran."""
        if self.done.is_set():
            return
        self._error = error or self._error
        self.done.set()
        if self._on_done is not None:
            self._on_done()


@final
class Portal(Generic[S]):
    """A Trio loop in a thread, which keeps what `opening` yields open and runs calls beside it.

    The order of things: `start`, a call of `open`, calls, a call of `close`, `end`.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[S]], name: str) -> None:
        self._opening = opening
        self._lock = threading.Lock()
        self._calls: dict[Call[Any], None] = {}
        self._ended = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._stop = trio.Event()
        self._kept: trio.Event | None = None
        self._failure: Exception | None = None
        # A daemon: a host that ends without closing must not hang; what it leaves behind dies with the supervisor.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._main,), name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    async def open(self) -> S:
        """Opens what is to be kept open; to be called on the loop. Raises what opening it raises."""
        assert self._nursery is not None
        self._kept = trio.Event()
        value: S = await self._nursery.start(self._keep)
        return value

    async def close(self) -> None:
        """Closes it again and returns when it is closed; to be called on the loop. Cancelling does not shorten it."""
        self._stop.set()
        if self._kept is not None:
            with trio.CancelScope(shield=True):
                await self._kept.wait()
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        """Ends the loop and its thread; calls that still run end with `EngineClosed`."""
        with self._lock:
            token = self._token
        if token is not None:
            try:
                token.run_sync_soon(self._cancel)
            except trio.RunFinishedError:
                pass
        self._thread.join()

    def submit(self, call: Call[Any]) -> None:
        """Runs `call` on the loop, in the context variables of whoever made it; a second time changes nothing.

        The call's error is `EngineClosed` where the loop has ended.
        """
        with self._lock:
            ended, token = self._ended, self._token
            if not ended:
                self._calls[call] = None
        if ended:
            call.finish(_closed())
        elif token is not None:
            try:
                token.run_sync_soon(self._begin)
            except trio.RunFinishedError:
                pass  # `_main` finishes it

    # --- on the loop's thread ------------------------------------------------------------------

    def _main(self) -> None:
        try:
            trio.run(self._serve)
        finally:
            with self._lock:
                self._ended, self._token = True, None
                left = list(self._calls)
                self._calls.clear()
            for call in left:
                call.finish(_closed())

    async def _serve(self) -> None:
        async with trio.open_nursery() as self._nursery:
            with self._lock:
                self._token = trio.lowlevel.current_trio_token()
            self._begin()
            await trio.sleep_forever()

    def _cancel(self) -> None:
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel(reason="the engine is closed")

    def _begin(self) -> None:
        """Starts every call that was submitted and does not run yet."""
        nursery, token = self._nursery, self._token
        assert nursery is not None
        if token is None or nursery.cancel_scope.cancel_called:
            return  # `_main` finishes them
        with self._lock:
            waiting = [call for call in self._calls if not call.begun]
        for call in waiting:
            call.begin(token)
            call.context.run(nursery.start_soon, self._run, call)

    async def _run(self, call: Call[Any]) -> None:
        try:
            await call.run()
        finally:
            with self._lock:
                self._calls.pop(call, None)

    async def _keep(self, *, task_status: trio.TaskStatus[S]) -> None:
        assert self._kept is not None
        started = False
        try:
            async with self._opening() as value:
                task_status.started(value)
                started = True
                await self._stop.wait()
        except Exception as exc:
            if not started:
                raise  # to `open`
            self._failure = exc
        finally:
            self._kept.set()


async def read_ahead(source: EventStream | Turn, ready: deque[Event]) -> bool:
    """Waits for an event and moves all that are there into `ready`; False where the stream has ended.

    Being cancelled loses nothing: what was read stands in `ready`.
    """
    try:
        ready.append(await source.__anext__())
        with trio.CancelScope(shield=True):  # nothing here waits
            while source.pending():
                ready.append(await source.__anext__())
    except StopAsyncIteration:
        return bool(ready)
    return True


def _closed() -> EngineClosed:
    return EngineClosed("the engine is closed; open another one to go on")
