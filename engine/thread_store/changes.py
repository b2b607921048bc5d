"""Changes of stored rollouts as files: archived, brought back, deleted; and the line that tells changed metadata.

rollout.md 3.1. Blocking. What belongs to a rollout and lies beside it (torn bytes that were set aside) goes along.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from engine.errors import InvalidRequest, StoreError, ThreadNotFound
from engine.protocol.ids import ThreadId
from engine.protocol.rollout_items import SessionMeta
from engine.protocol.settings import GitInfo
from engine.rollout.lines import format_timestamp
from engine.rollout.names import ARCHIVED_DIRECTORY, SESSIONS_DIRECTORY, parse_rollout_name
from engine.thread_store.facts import Facts, edge_of
from engine.thread_store.interface import KEEP, SPAWN_EDGE, GitPatch, MetadataPatch, SpawnEdge
from engine.thread_store.places import archived_place, dated_place
from engine.thread_store.rollout_file import TORN_SUFFIX

__all__ = [
    "apply_patch",
    "archive_file",
    "archived_thread",
    "check_patch",
    "delete_file",
    "meta_line",
    "not_found",
    "set_time",
    "unarchive_file",
]


def archived_thread(thread_id: ThreadId) -> InvalidRequest:
    """An archived thread does not go on before it is brought back."""
    return InvalidRequest(f"session {thread_id} is archived. Run `engine threads unarchive {thread_id}` first.")


def not_found(thread_id: ThreadId) -> ThreadNotFound:
    """Nothing is stored of a thread."""
    return ThreadNotFound(f"no rollout found for thread id {thread_id}", thread=thread_id)


def archive_file(home: Path, path: str, thread_id: ThreadId) -> str:
    """Moves a rollout to the archive; its new path. Raises `InvalidRequest`, `ThreadNotFound`, `StoreError`."""
    _check_place(path, f"{home}/{SESSIONS_DIRECTORY}", thread_id)
    new = archived_place(home, path)
    _move(path, new, thread_id)
    return new


def unarchive_file(home: Path, path: str, thread_id: ThreadId) -> str:
    """Moves a rollout back to the folder of its day, as written now; its new path. Raises as `archive_file`."""
    _check_place(path, f"{home}/{ARCHIVED_DIRECTORY}", thread_id)
    new = dated_place(home, path)
    if new is None:
        raise InvalidRequest(f"the name of {path} has no date, so there is no folder for it")
    _move(path, new, thread_id)
    os.utime(new)
    return new


def delete_file(path: str, thread_id: ThreadId) -> None:
    """Removes a rollout for good. Raises `ThreadNotFound`, `StoreError`."""
    try:
        os.remove(path)
    except FileNotFoundError as exc:
        raise not_found(thread_id) from exc
    except OSError as exc:
        raise StoreError(f"failed to delete {path}: {exc}") from exc
    try:
        os.remove(path + TORN_SUFFIX)
    except OSError:
        pass  # there is none, or it has become an orphan that nobody reads


def set_time(path: str, mtime_ns: int) -> None:
    """Makes a file look as if it was written last at `mtime_ns`: telling its metadata is no activity of a thread."""
    try:
        os.utime(path, ns=(mtime_ns, mtime_ns))
    except OSError:
        pass  # then it looks active


def _check_place(path: str, root: str, thread_id: ThreadId) -> None:
    name = parse_rollout_name(os.path.basename(path))
    if name is None or name.thread_id != thread_id:
        raise InvalidRequest(f"the name of {path} is not that of thread {thread_id}")
    if not os.path.realpath(path).startswith(os.path.realpath(root) + os.sep):
        raise InvalidRequest(f"{path} does not lie in {root}")


def _move(old: str, new: str, thread_id: ThreadId) -> None:
    try:
        if os.path.exists(new):
            raise InvalidRequest(f"there is a rollout of thread {thread_id} at {new} already")
        os.makedirs(os.path.dirname(new), exist_ok=True)
        os.rename(old, new)
    except FileNotFoundError as exc:
        raise not_found(thread_id) from exc
    except OSError as exc:
        raise StoreError(f"failed to move {old} to {new}: {exc}") from exc
    try:
        os.rename(old + TORN_SUFFIX, new + TORN_SUFFIX)
    except OSError:
        pass  # there is none


# --- metadata ------------------------------------------------------------------------------------


def check_patch(patch: MetadataPatch) -> None:
    """Raises `InvalidRequest` for a patch that changes nothing, or makes something blank."""
    git = patch.git
    if git is not None:
        values = attrs.asdict(git)
        if all(value is KEEP for value in values.values()):
            raise InvalidRequest("gitInfo must include at least one field")
        for name, value in values.items():
            if isinstance(value, str) and not value.strip():
                raise InvalidRequest(f"gitInfo.{name} must not be empty")
    elif patch.memory_mode is None:
        raise InvalidRequest("there is nothing to change")


def apply_patch(facts: Facts, patch: MetadataPatch) -> SessionMeta:
    """The line that tells the facts as changed by a patch."""
    git = facts.git
    if patch.git is not None:
        git = _patched(facts.git or GitInfo(), patch.git)
    return meta_line(facts, git=git, memory_mode=patch.memory_mode or facts.memory_mode)


def meta_line(facts: Facts, *, git: GitInfo | None, memory_mode: str, edge: SpawnEdge | None = None) -> SessionMeta:
    """A later `session_meta` of a thread: who it is, and everything that may change. Readers take the rest of it from
    the first one."""
    edge = edge or (edge_of(facts) if facts.edge is not None else None)
    told = {} if edge is None else {SPAWN_EDGE: {"parent_thread_id": edge.parent, "status": edge.status}}
    return SessionMeta(
        id=facts.thread_id,
        forked_from_id=facts.forked_from_id,
        timestamp=format_timestamp(round(facts.created_at * 1000) * 1_000_000),
        cwd=facts.cwd,
        originator=facts.originator,
        cli_version=facts.cli_version,
        source=facts.source,
        thread_source=facts.thread_source,
        agent_nickname=facts.agent_nickname,
        agent_role=facts.agent_role,
        agent_path=facts.agent_path,
        model_provider=facts.model_provider,
        memory_mode=None if memory_mode == "enabled" else memory_mode,
        git=git,
        extra=told,
    )


def _patched(git: GitInfo, patch: GitPatch) -> GitInfo | None:
    def choose(old: str | None, new: object) -> str | None:
        return old if new is KEEP else new if isinstance(new, str) else None

    made = GitInfo(
        choose(git.commit_hash, patch.commit_hash),
        choose(git.branch, patch.branch),
        choose(git.repository_url, patch.repository_url),
    )
    return None if made == GitInfo() else made
