"""What a thread store is: ids and plain parameter objects in, facts and live threads out (rollout.md 2-4).

A store keeps durable facts and has no policy; `LiveThread` filters and orders what a running session writes. The verbs
of a life: **create** (deferred: nothing is stored yet), **resume** (go on with a stored thread), **append** (queue;
the first kept item brings the thread into being), **persist** (bring it into being now), **flush** (wait until what
was appended is written), **shutdown** (flush, then let go), **discard** (let go, force nothing, keep what is stored).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

import attrs

from engine.errors import InvalidRequest
from engine.protocol.ids import ThreadId
from engine.protocol.items import ResponseItem
from engine.protocol.rollout_items import RolloutItem, SessionMeta, TurnContext
from engine.protocol.settings import GitInfo, SessionSource
from engine.protocol.thread_items import ItemsView, ThreadTurn
from engine.protocol.wire import JsonObject
from engine.records import frozen
from engine.rollout.policy import PersistenceMode

if TYPE_CHECKING:
    from engine.thread_store.live_thread import LiveThread
    from engine.thread_store.stored_tail import StoredTail

__all__ = [
    "KEEP",
    "SPAWN_EDGE",
    "BeforeUserMessage",
    "CreateThread",
    "Direction",
    "EdgeStatus",
    "ForkThread",
    "GitPatch",
    "IndexProgress",
    "Interrupted",
    "Keep",
    "LastTurns",
    "ListThreads",
    "ListTurns",
    "MetadataPatch",
    "ResumeThread",
    "ResumedThread",
    "Snapshot",
    "SortKey",
    "SpawnEdge",
    "StoredHistory",
    "StoredThread",
    "ThreadPage",
    "ThreadQuery",
    "ThreadStore",
    "ThroughTurn",
    "TurnPage",
    "latest_cwd",
]

SortKey = Literal["created_at", "updated_at", "recency_at"]
Direction = Literal["desc", "asc"]
EdgeStatus = Literal["open", "closed"]

# The field of a `session_meta` that tells how a spawned thread stands to its parent; other programs ignore it.
SPAWN_EDGE = "engine_spawn_edge"


class Keep(enum.Enum):
    """What a patch does not change."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP


@frozen(kw_only=True)
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


@frozen(kw_only=True)
class ResumeThread:
    """A stored thread to go on with: by id, or by the path of its rollout.

    With `history` or `tail`, what was loaded before, it is not read again.
    """

    thread: ThreadId | Path
    mode: PersistenceMode = "limited"
    history: StoredHistory | None = None
    tail: StoredTail | None = None


@frozen(kw_only=True)
class ThreadQuery:
    """Which threads are meant; what is `None` does not matter. `cwd` is that of the latest turn."""

    name: str | None = None
    cwd: str | None = None
    model_provider: str | None = None


@frozen(kw_only=True)
class StoredThread:
    """What is known of a stored thread without its items. Times are unix seconds.

    - `cwd` is where it was started, `latest_cwd` that of its latest turn
    - `title` is the first message of its user, `preview` the same or what stands for it (an image, a goal); a thread
      without a preview is not listed. `name` was given by somebody.
    - `tokens_used` as of its latest response; `model`, `reasoning_effort` and the policies (as JSON) of its latest turn
    """

    thread_id: ThreadId
    path: str | None
    archived: bool = False
    created_at: float
    updated_at: float
    cwd: str
    latest_cwd: str
    source: SessionSource
    thread_source: str | None = None
    originator: str = ""
    cli_version: str = ""
    forked_from_id: str | None = None
    agent_nickname: str | None = None
    agent_role: str | None = None
    agent_path: str | None = None
    model_provider: str | None = None
    model: str | None = None
    reasoning_effort: str | None = None
    approval_policy: str | JsonObject | None = None
    sandbox_policy: JsonObject | None = None
    tokens_used: int = 0
    first_user_message: str | None = None
    preview: str | None = None
    title: str | None = None
    name: str | None = None
    git: GitInfo | None = None
    memory_mode: str = "enabled"


@frozen(kw_only=True)
class ListThreads:
    """A page of a listing; what is `None` does not matter (app_server.md 3.1).

    - `cursor`: where to go on, from another page with the same `sort_key`; `recency_at` is `updated_at`
    - `archived`: only archived threads, or only the others
    - `source_kinds`: as `engine.thread_store.sources` names them; `subAgent` stands for all of its kinds
    - `cwds`, `originators`, `model_providers`: exact, any of them; an empty one does not matter
    - `search`: part of the title or the name, case matters
    """

    limit: int = 25
    cursor: str | None = None
    sort_key: SortKey = "created_at"
    direction: Direction = "desc"
    archived: bool = False
    model_providers: tuple[str, ...] | None = None
    source_kinds: tuple[str, ...] | None = None
    originators: tuple[str, ...] | None = None
    cwds: tuple[str, ...] | None = None
    search: str | None = None
    excluded: tuple[ThreadId, ...] = ()


@frozen(kw_only=True)
class IndexProgress:
    """How far the index of a store is with the threads it has to look at."""

    done: int
    total: int
    running: bool


@frozen(kw_only=True)
class ThreadPage:
    """Threads in order. Ties of the sort key are broken by id, so pages neither repeat nor miss one.

    - `next_cursor` goes on behind the last one, `None` at the end
    - `backwards_cursor`, with the other direction, goes back from the first one, which is listed again: it may have
      changed. `None` for an empty page.
    - `indexing`: set while the index is being built; the page is right all the same
    """

    threads: tuple[StoredThread, ...]
    next_cursor: str | None = None
    backwards_cursor: str | None = None
    indexing: IndexProgress | None = None


@frozen(kw_only=True)
class ListTurns:
    """A page of the turns of a thread (app_server.md, `thread/turns/list`).

    - `cursor`: where to go on, from another page of the same thread
    - `view`: all items, a `summary` (the first user message and the last of the agent), or none
    - `turn_id`: only this turn
    - `active`: the turn that runs now; any other one that has not ended was interrupted
    """

    limit: int = 25
    cursor: str | None = None
    direction: Direction = "desc"
    view: ItemsView = "summary"
    turn_id: str | None = None
    active: str | None = None


@frozen(kw_only=True)
class TurnPage:
    """Turns in order. Cursors as in `ThreadPage`; they stay good while the thread grows."""

    turns: tuple[ThreadTurn, ...]
    next_cursor: str | None = None
    backwards_cursor: str | None = None


@frozen(kw_only=True)
class GitPatch:
    """Changes of a thread's git facts. Each: a text, `None` to clear it, `KEEP`."""

    commit_hash: str | Keep | None = KEEP
    branch: str | Keep | None = KEEP
    repository_url: str | Keep | None = KEEP


@frozen(kw_only=True)
class MetadataPatch:
    """Changes of a thread's metadata; what is `None` stays."""

    git: GitPatch | None = None
    memory_mode: Literal["enabled", "disabled"] | None = None


@frozen
class BeforeUserMessage:
    """A fork of what comes before the n-th user message (0-based, rolled back ones don't count).

    Beyond the last message: everything, but for a turn that has not ended.
    """

    n: int


@frozen
class Interrupted:
    """A fork of everything; a turn that has not ended is told as interrupted, after `marker` if there is one."""

    marker: ResponseItem | None = None


@frozen
class LastTurns:
    """A fork of the last n turns, for sub-agents: real user messages, and mail that starts a turn."""

    n: int


@frozen
class ThroughTurn:
    """A fork of everything up to the end of a turn."""

    turn_id: str


Snapshot = BeforeUserMessage | Interrupted | LastTurns | ThroughTurn


@frozen(kw_only=True)
class ForkThread:
    """A new thread that begins with a copy of another one. `meta` is its own first line, as for `CreateThread`.

    `meta.forked_from_id` is set by the store: the id in the first line of the source. Where the store copies a file,
    `progress` is told how many bytes of how many are done, now and then, from a worker thread; it must be quick.
    """

    source: ThreadId | Path
    meta: SessionMeta
    snapshot: Snapshot
    progress: Callable[[int, int], None] | None = None
    mode: PersistenceMode = "limited"
    git: GitInfo | Callable[[], GitInfo | None] | None = None


@frozen(kw_only=True)
class SpawnEdge:
    """One thread spawned another; `open` until the child is closed explicitly (session.md 5.4)."""

    parent: ThreadId
    child: ThreadId
    status: EdgeStatus


@frozen(kw_only=True)
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


@frozen
class ResumedThread:
    """A live thread that goes on where its history ends; `loaded` is missing where only a tail was read."""

    live: LiveThread
    loaded: StoredHistory | None

    @property
    def history(self) -> StoredHistory:
        """Everything that was stored. Raises `InvalidRequest` where only a tail was read."""
        if self.loaded is None:
            raise InvalidRequest("the history was not loaded: the thread was resumed from its tail")
        return self.loaded


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

    async def fork(self, params: ForkThread) -> LiveThread:
        """Stores a new thread that begins with a copy, and registers a writer that goes on with it.

        Lines nobody can read are copied byte for byte. A live source is stored as far as it is now. Raises as `resume`
        and `create`; then nothing is registered or stored.
        """

    async def load_history(self, thread: ThreadId | Path) -> StoredHistory:
        """Reads a thread by id or by path, live or not: of a live one, by id, all that was handed in.

        Raises `ThreadNotFound`, `StoreError`, or `InvalidRequest` if it was asked for by id and is archived.
        """

    async def load_tail(self, thread: ThreadId | Path) -> StoredTail:
        """Reads of a thread what a resume needs, from its end. Close it. Raises as `load_history`."""

    async def count_generation(self, tail: StoredTail) -> int:
        """How often the thread of `tail` was compacted up to there (rollout.md 5.6). Takes long where nobody has
        counted it before. Raises `StoreError`. Cancelling stops the counting."""

    async def find_thread(self, thread_id: ThreadId) -> StoredThread | None:
        """A stored thread by id, archived or not. Raises `StoreError` if it is there and can't be read."""

    async def latest_thread(self, query: ThreadQuery) -> StoredThread | None:
        """The most recently updated thread that fits. Threads without anything of a user don't count."""

    async def list_threads(self, query: ListThreads) -> ThreadPage:
        """A page of the threads that somebody has said something in. Raises `InvalidRequest` for a bad cursor."""

    async def set_name(self, thread_id: ThreadId, name: str) -> None:
        """Names a thread, stored or live. Raises `InvalidRequest` for a blank name, `ThreadNotFound`."""

    async def update_metadata(self, thread_id: ThreadId, patch: MetadataPatch) -> StoredThread:
        """Changes facts of a thread. Raises `ThreadNotFound`, `ConflictError` if another process writes it."""

    async def archive(self, thread_id: ThreadId) -> tuple[ThreadId, ...]:
        """Puts a thread and those it spawned (as far as possible) out of the way; which ones, itself first.

        A live one goes on being written. A live one that is not stored yet is left as it is. Raises `ThreadNotFound`,
        `InvalidRequest` for a rollout that is not where it belongs.
        """

    async def unarchive(self, thread_id: ThreadId) -> StoredThread:
        """Brings a thread back, and those it spawned (as far as possible). Raises as `archive`."""

    async def delete(self, thread_id: ThreadId) -> None:
        """Removes a thread for good. Raises `ThreadNotFound`, `ConflictError` if it is live."""

    async def list_turns(self, thread: ThreadId | Path, query: ListTurns) -> TurnPage:
        """A page of the turns of a thread by id (archived or not) or by path, without those that were rolled back.

        Raises `ThreadNotFound`, `StoreError`, or `InvalidRequest` for a bad cursor.
        """

    async def dynamic_tools(self, thread_id: ThreadId) -> tuple[JsonObject, ...]:
        """The tools its host gave the thread when it was created. Raises `ThreadNotFound`."""

    async def set_spawn_edge(self, edge: SpawnEdge) -> None:
        """Notes that a thread spawned another, or how they stand now. Raises `ThreadNotFound` without a child."""

    async def spawned(self, parent: ThreadId) -> tuple[SpawnEdge, ...]:
        """The edges to the threads that a thread spawned itself, by child id."""

    @property
    def indexing(self) -> IndexProgress | None:
        """How far the index is with the threads; `None` for a store that needs none."""

    async def reindex(self) -> IndexProgress | None:
        """Looks at every thread that has changed since the index did, and waits for it. Cancelling stops waiting."""
