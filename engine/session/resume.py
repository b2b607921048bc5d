"""What a resumed thread brings along: history, reference context, usage, window generation (session.md 2.7).

A start needs little of it. The history is replayed with the first turn, or when somebody looks at it; the generation
is counted in the background, and only the first model request waits for it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import trio

from engine.errors import StoreError
from engine.protocol.events import Warning
from engine.session.history import Stored, request_form

if TYPE_CHECKING:
    from engine.models.catalogue import ModelInfo
    from engine.protocol.wire import JsonObject
    from engine.rollout.reconstruction import Reconstruction
    from engine.session.core import SessionCore
    from engine.thread_store.interface import ThreadStore
    from engine.thread_store.stored_tail import StoredTail

__all__ = ["StoredPast", "count_generation", "restore"]


@final
class StoredPast:
    """The part of a session's history that lies in the store, until it is needed."""

    def __init__(self, tail: StoredTail, model: ModelInfo) -> None:
        self._tail = tail
        self._policy = model.truncation_policy
        self._made: Reconstruction | None = None
        self._forms: Sequence[JsonObject] | None = None
        self._mutex = threading.Lock()

    async def ready(self) -> None:
        """Makes `settle` quick: what takes long happens on a worker thread. Raises `StoreError`.

        Cancelling ends the wait, not the work; who waits next finds it done.
        """
        if self._tail.heavy and self._forms is None:
            await trio.to_thread.run_sync(self._prepare, abandon_on_cancel=True)

    def settle(self, core: SessionCore) -> Stored:
        """Gives the history, and puts what is told with it into `core`. Raises `StoreError`."""
        with self._mutex:
            made = self._reconstruct()
        core.past = None
        core.reference = made.reference_context_item
        if core.usage is None:
            core.usage = self._tail.usage
        return Stored(made.history, self._forms)

    def _prepare(self) -> None:
        with self._mutex:
            made = self._reconstruct()
            if self._forms is None:
                self._forms = [request_form(item) for item in made.history]

    def _reconstruct(self) -> Reconstruction:
        if self._made is None:
            self._made = self._tail.reconstruct(self._policy)
        return self._made


def restore(core: SessionCore, tail: StoredTail, model: ModelInfo) -> str | None:
    """Puts the stored state into `core`; returns the model the thread was recorded with, if that is known."""
    core.past = StoredPast(tail, model)
    core.history.defer(functools.partial(core.past.settle, core))
    core.usage = tail.usage
    settings = tail.previous_turn_settings
    core.previous_model = settings.model if settings is not None else None
    if tail.generation is None:
        core.counting = trio.Event()
    else:
        core.generation = tail.generation
    return core.previous_model


async def count_generation(core: SessionCore, store: ThreadStore, tail: StoredTail) -> None:
    """Counts how often the thread was compacted before this session; compactions since then are counted already."""
    assert core.counting is not None
    try:
        core.generation += await store.count_generation(tail)
    except StoreError as exc:
        core.hub.emit(
            "", Warning(f"Failed to count the compactions of the thread; its context window has no right number: {exc}")
        )
    finally:
        core.counting.set()
