"""The owner of a session's live thread, from before the first await to after the last flush (CONCURRENCY 1.1)."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self, final

import trio

from engine.errors import InvalidRequest, StoreError
from engine.thread_store.live_thread import LiveThread

if TYPE_CHECKING:
    from engine.thread_store.interface import CreateThread, ForkThread, ResumedThread, ResumeThread, ThreadStore

__all__ = ["LiveThreadGuard"]


@final
class LiveThreadGuard:
    """`async with` around the whole life of a session. It never lets go of the live thread before it ends.

    Left without `commit()`, the thread is discarded, and a file that this start made is taken back: the start never
    was. Left after it, the thread is shut down. Either is shielded and takes `grace` seconds at most; what went wrong
    stands in `error` and is never raised, so that it hides no other failure. Whatever happens, nothing of the thread is
    registered afterwards.
    """

    __slots__ = ("_committed", "_grace", "_store", "error", "live")

    def __init__(self, store: ThreadStore, grace: float) -> None:
        self._store = store
        self._grace = grace
        self._committed = False
        self.live: LiveThread | None = None
        self.error: Exception | None = None

    @property
    def committed(self) -> bool:
        """Whether the thread outlives the start."""
        return self._committed

    @trio.lowlevel.enable_ki_protection
    def create(self, params: CreateThread) -> LiveThread:
        """Creates the thread and owns it. Neither waits nor touches the disk. Raises as `ThreadStore.create`."""
        self._need_none()
        return self._own(self._store.create(params))

    @trio.lowlevel.enable_ki_protection
    async def resume(self, params: ResumeThread) -> ResumedThread:
        """Resumes the thread and owns it. Raises as `ThreadStore.resume`; being cancelled leaves nothing behind."""
        self._need_none()
        resumed = await self._store.resume(params)
        self._own(getattr(resumed, "live", None))
        return resumed

    @trio.lowlevel.enable_ki_protection
    async def fork(self, params: ForkThread) -> LiveThread:
        """Forks a thread and owns the fork. Raises as `ThreadStore.fork`; being cancelled leaves nothing behind."""
        self._need_none()
        return self._own(await self._store.fork(params))

    def commit(self) -> None:
        """The start has succeeded: shut the thread down at the end instead of discarding it."""
        self._committed = True

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        # No checkpoint: nothing may come between making the guard and being inside it.
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        live = self.live
        if live is None or live.closed:
            return
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._grace) as scope:
                if self._committed:
                    await live.shutdown()
                else:
                    await live.abandon()
            if scope.cancelled_caught:
                what = "saved" if self._committed else "discarded"
                self.error = StoreError(f"thread {live.thread_id} could not be {what} within {self._grace:g} s")
        except Exception as failure:
            self.error = failure
        finally:
            live.forget()

    def _own(self, given: object) -> LiveThread:
        """Stores may be anybody's: what is no thread is refused before something relies on it."""
        if not isinstance(given, LiveThread):
            raise StoreError(f"the thread store gave no live thread, but {given!r}")
        self.live = given
        return given

    def _need_none(self) -> None:
        if self.live is not None:
            raise InvalidRequest(f"this start already has the thread {self.live.thread_id}")
