"""What a thread store is: ids and plain parameter objects in, facts and live threads out (rollout.md 2-4).

A store keeps durable facts and has no policy; `LiveThread` filters and orders what a running session writes. The verbs
of a life: **create** (deferred: nothing is stored yet), **resume** (go on with a stored thread), **append** (queue;
the first kept item brings the thread into being), **persist** (bring it into being now), **flush** (wait until what
was appended is written), **shutdown** (flush, then let go), **discard** (let go, force nothing, keep what is stored).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import attrs

from engine.protocol.ids import ThreadId
from engine.protocol.rollout_items import RolloutItem, SessionMeta, TurnContext
from engine.protocol.settings import GitInfo
from engine.rollout.policy import PersistenceMode

if TYPE_CHECKING:
    from engine.thread_store.live_thread import LiveThread

__all__ = [
    "CreateThread",
    "ResumeThread",
    "ResumedThread",
    "StoredHistory",
    "StoredThread",
    "ThreadQuery",
    "ThreadStore",
    "latest_cwd",
]


@attrs.frozen(kw_only=True)
class CreateThread:
    """A thread to be. `meta` is its first line but for git, which is added when the line is written.

    `git` is the facts or a callable that reads them, called once, where blocking does no harm; what it raises counts as
    no git.
    """

    meta: SessionMeta
    mode: PersistenceMode = "limited"
    git: GitInfo | Callable[[], GitInfo | None] | None = None

    def first_line(self) -> SessionMeta:
        """`meta` with git. May block."""
        git = self.git
        if callable(git):
            try:
                git = git()
            except Exception:  # facts for people; a thread must not fail for want of them
                git = None
        return self.meta if git is None else attrs.evolve(self.meta, git=git)


@attrs.frozen(kw_only=True)
class ResumeThread:
    """A stored thread to go on with: by id, or by the path of its rollout.

    With `history`, what was loaded before, it is not read again.
    """

    thread: ThreadId | Path
    mode: PersistenceMode = "limited"
    history: StoredHistory | None = None


@attrs.frozen(kw_only=True)
class ThreadQuery:
    """Which threads are meant; what is `None` does not matter. `cwd` is that of the latest turn."""

    name: str | None = None
    cwd: str | None = None
    model_provider: str | None = None


@attrs.frozen(kw_only=True)
class StoredThread:
    """What is known of a stored thread without its items.

    `cwd` is that of its latest turn, `preview` what its user said first, `updated_at` in unix seconds.
    """

    thread_id: ThreadId
    path: str | None
    meta: SessionMeta
    cwd: str
    preview: str | None
    updated_at: float


@attrs.frozen(kw_only=True)
class StoredHistory:
    """A stored thread with all its items, oldest first.

    - `meta`: the first `session_meta`, which names the thread
    - `damaged`: lines that can't be read; `foreign`: lines of types of other versions, kept as unknown items
    - `generation`: how often the thread was compacted; numbers the context window on resume
    """

    thread_id: ThreadId
    path: str | None
    meta: SessionMeta
    items: tuple[RolloutItem, ...]
    damaged: int
    foreign: int
    generation: int

    @property
    def skipped(self) -> int:
        """How many lines a reader of the level this engine writes skips."""
        return self.damaged + self.foreign

    @property
    def cwd(self) -> str:
        """The cwd of the latest turn, else that of the thread."""
        return latest_cwd(self.items) or self.meta.cwd


@attrs.frozen
class ResumedThread:
    """A live thread that goes on where its history ends."""

    live: LiveThread
    history: StoredHistory


def latest_cwd(items: tuple[RolloutItem, ...]) -> str | None:
    """The cwd of the last turn context, if there is any."""
    return next((item.cwd for item in reversed(items) if isinstance(item, TurnContext)), None)


class ThreadStore(Protocol):
    """Keeps threads. At most one live writer per thread; what a call returns is true at that moment only.

    Asynchronous methods may be cancelled at any time and leave nothing behind.
    """

    def create(self, params: CreateThread) -> LiveThread:
        """Registers a new thread; neither waits nor touches the disk.

        Raises `ConflictError` if the id has a live writer, `InvalidRequest` if `meta.cwd` is empty.
        """

    async def resume(self, params: ResumeThread) -> ResumedThread:
        """Registers a writer that goes on with a stored thread.

        Raises `ThreadNotFound`, `ConflictError`, `InvalidRequest` (no such path or a bad id), or `StoreError` if it
        can't be read or written; then nothing is registered.
        """

    async def load_history(self, thread: ThreadId | Path) -> StoredHistory:
        """Reads a thread by id or by path, live or not. Raises `ThreadNotFound`, `StoreError`."""

    async def find_thread(self, thread_id: ThreadId) -> StoredThread | None:
        """A stored thread by id. Raises `StoreError` if it is there and can't be read."""

    async def latest_thread(self, query: ThreadQuery) -> StoredThread | None:
        """The most recently updated thread that fits. Threads without anything of a user don't count."""
