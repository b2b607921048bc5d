"""What is known of a thread without its items: derived from them in order, as they are written or read (rollout.md 3).

First values win where the word is "first" (first message, preview, title); else the last. A later `session_meta` of the
thread itself carries changes of its metadata: git, memory mode, and the state of its spawn edge in a field of our own.
Metas with other ids come from the sources of a fork and say nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import final

import attrs

from engine.protocol.codec import encode
from engine.protocol.events import ItemCompleted, TokenCount, UserMessage
from engine.protocol.ids import ThreadId
from engine.protocol.inputs import ImageInput, LocalImageInput, TextInput
from engine.protocol.rollout_items import EventLine, RolloutItem, SessionMeta, TurnContext
from engine.protocol.settings import GitInfo, SessionSource
from engine.protocol.turn_items import UserMessageItem
from engine.protocol.wire import JsonObject, UnknownVariant
from engine.records import define
from engine.rollout.summary import IMAGE_PREVIEW, preview_of
from engine.thread_store.interface import SPAWN_EDGE, EdgeStatus, SpawnEdge, StoredThread

__all__ = ["RELEVANT_EVENTS", "Facts", "edge_of", "is_news", "parse_time", "spawned_by"]

GOAL_EVENT = "thread_goal_updated"
LONGEST = 10_000  # characters of a message that a listing keeps
RELEVANT_EVENTS = frozenset({UserMessage.type, TokenCount.type, ItemCompleted.type, GOAL_EVENT})
_NEWS = RELEVANT_EVENTS - {TokenCount.type}


def is_news(item: RolloutItem) -> bool:
    """Whether an item may change what a listing shows, but for how much was used; quick."""
    if isinstance(item, EventLine):
        return item.msg.type in _NEWS
    return isinstance(item, SessionMeta | TurnContext)


@final
@define(eq=False)
class Facts:
    """Facts of one thread, up to the items it has taken."""

    thread_id: ThreadId
    created_at: float
    cwd: str
    latest_cwd: str
    source: SessionSource
    originator: str
    cli_version: str
    thread_source: str | None
    forked_from_id: str | None
    agent_nickname: str | None
    agent_role: str | None
    agent_path: str | None
    model_provider: str | None
    dynamic_tools: tuple[JsonObject, ...]
    git: GitInfo | None = None
    memory_mode: str = "enabled"
    edge: JsonObject | None = None
    model: str | None = None
    reasoning_effort: str | None = None
    approval_policy: str | JsonObject | None = None
    sandbox_policy: JsonObject | None = None
    tokens_used: int = 0
    first_user_message: str | None = None
    preview: str | None = None
    title: str | None = None

    @classmethod
    def begin(cls, meta: SessionMeta) -> Facts:
        """From the first line of a thread."""
        made = cls(
            thread_id=meta.id,
            created_at=parse_time(meta.timestamp) or 0.0,
            cwd=meta.cwd,
            latest_cwd=meta.cwd,
            source=meta.source,
            originator=meta.originator,
            cli_version=meta.cli_version,
            thread_source=meta.thread_source,
            forked_from_id=meta.forked_from_id,
            agent_nickname=meta.agent_nickname,
            agent_role=meta.agent_role,
            agent_path=meta.agent_path,
            model_provider=meta.model_provider,
            dynamic_tools=meta.dynamic_tools,
        )
        made._take_meta(meta)
        return made

    @classmethod
    def of(cls, thread: StoredThread, dynamic_tools: tuple[JsonObject, ...] = ()) -> Facts:
        """Facts as they were stored, to go on with."""
        names = [field.name for field in attrs.fields(cls) if field.name not in ("dynamic_tools", "edge")]
        return cls(dynamic_tools=dynamic_tools, **{name: getattr(thread, name) for name in names})

    def take(self, item: RolloutItem) -> bool:
        """Learns from the next item; whether anything has changed."""
        match item:
            case SessionMeta():
                return item.id == self.thread_id and self._take_meta(item)
            case TurnContext():
                return self._take_context(item)
            case EventLine(msg=UserMessage() as message):
                return self._take_message(preview_of(message), message.message)
            case EventLine(msg=ItemCompleted(item=UserMessageItem() as message)):
                return self._take_message(_preview_of_item(message), None)
            case EventLine(msg=TokenCount(info=info)) if info is not None:
                return self._set("tokens_used", info.total_token_usage.total_tokens)
            case EventLine(msg=UnknownVariant(raw=raw)) if raw.get("type") == GOAL_EVENT:
                return self._take_goal(raw.get("goal"))
        return False

    def stored(self, *, path: str | None, archived: bool, updated_at: float, name: str | None = None) -> StoredThread:
        """The facts as of now, with where the thread is."""
        return StoredThread(
            thread_id=self.thread_id,
            path=path,
            archived=archived,
            created_at=self.created_at,
            updated_at=updated_at,
            cwd=self.cwd,
            latest_cwd=self.latest_cwd,
            source=self.source,
            thread_source=self.thread_source,
            originator=self.originator,
            cli_version=self.cli_version,
            forked_from_id=self.forked_from_id,
            agent_nickname=self.agent_nickname,
            agent_role=self.agent_role,
            agent_path=self.agent_path,
            model_provider=self.model_provider,
            model=self.model,
            reasoning_effort=self.reasoning_effort,
            approval_policy=self.approval_policy,
            sandbox_policy=self.sandbox_policy,
            tokens_used=self.tokens_used,
            first_user_message=self.first_user_message,
            preview=self.preview,
            title=self.title,
            name=name,
            git=self.git,
            memory_mode=self.memory_mode,
        )

    def _take_meta(self, meta: SessionMeta) -> bool:
        git = meta.git and GitInfo(meta.git.commit_hash, meta.git.branch, meta.git.repository_url)
        if git == GitInfo():
            git = None
        edge = meta.extra.get(SPAWN_EDGE)
        changed = self._set("git", git)
        changed |= self._set("memory_mode", meta.memory_mode or "enabled")
        if isinstance(edge, dict):
            changed |= self._set("edge", edge)
        return changed

    def _take_context(self, context: TurnContext) -> bool:
        changed = self._set("latest_cwd", context.cwd)
        if not self.cwd:
            changed |= self._set("cwd", context.cwd)
        changed |= self._set("model", context.model)
        changed |= self._set("reasoning_effort", context.effort)
        changed |= self._set("approval_policy", encode(context.approval_policy))
        changed |= self._set("sandbox_policy", encode(context.sandbox_policy))
        return changed

    def _take_message(self, preview: str | None, message: str | None) -> bool:
        if preview is None or self.first_user_message is not None:
            return False
        self.first_user_message = (message.strip() if message else "") or preview
        self.first_user_message = self.first_user_message[:LONGEST]
        self.preview = preview[:LONGEST]
        self.title = None if preview == IMAGE_PREVIEW else self.preview
        return True

    def _take_goal(self, goal: object) -> bool:
        objective = goal.get("objective") if isinstance(goal, Mapping) else None
        if self.preview is not None or not isinstance(objective, str) or not objective.strip():
            return False
        self.preview = objective.strip()[:LONGEST]
        return True

    def _set(self, name: str, value: object) -> bool:
        if getattr(self, name) == value:
            return False
        setattr(self, name, value)
        return True


def edge_of(facts: Facts) -> SpawnEdge | None:
    """How the thread stands to the one that spawned it, if one did."""
    told = facts.edge or {}
    parent = told.get("parent_thread_id", spawned_by(facts.source))
    if not isinstance(parent, str):
        return None
    status: EdgeStatus = "closed" if told.get("status") == "closed" else "open"
    return SpawnEdge(parent=ThreadId(parent), child=facts.thread_id, status=status)


def spawned_by(source: SessionSource) -> str | None:
    """The thread that spawned one with this source, if any did."""
    spawn: object = source
    for key in ("subagent", "thread_spawn", "parent_thread_id"):
        spawn = spawn.get(key) if isinstance(spawn, Mapping) else None
    return spawn if isinstance(spawn, str) else None


def parse_time(text: str) -> float | None:
    """Unix seconds of an RFC 3339 time; without a zone it is UTC. `None` if it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def _preview_of_item(item: UserMessageItem) -> str | None:
    texts = "".join(part.text for part in item.content if isinstance(part, TextInput))
    images = any(isinstance(part, ImageInput | LocalImageInput) for part in item.content)
    return preview_of(UserMessage(texts, images=("",) if images else None))
