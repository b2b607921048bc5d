"""How stored threads look: a table, a page of facts, JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from unicodedata import east_asian_width

import attrs

from engine.cli.terminal import Palette, plain
from engine.protocol.wire import JsonObject
from engine.thread_store.interface import SpawnEdge, StoredThread
from engine.thread_store.locks import LockHolder
from engine.thread_store.sources import source_kind

__all__ = ["facts", "table", "thread_json"]

LEAST_TITLE = 20  # columns


def thread_json(thread: StoredThread) -> JsonObject:
    """All fields of a `StoredThread` under their names; times are unix seconds."""
    return attrs.asdict(thread)


def table(threads: Sequence[StoredThread], *, width: int, palette: Palette, user_home: str) -> Iterator[str]:
    """Lines no longer than `width`, where that is possible."""
    rows = [(thread, moment(thread.updated_at), short(thread.latest_cwd, user_home)) for thread in threads]
    room = width - 36 - 16 - 3 * 2  # for title and folder
    folder = min(max((cells(where) for _, _, where in rows), default=0), width // 4, max(10, room - LEAST_TITLE))
    title = max(LEAST_TITLE, room - folder)
    for thread, updated, where in rows:
        name = "" if thread.name is None else one_line(thread.name)
        said = one_line(thread.title or thread.preview or "")
        words = cut(f"{name}: {said}" if name and said else name or said, title)
        padding = " " * (title - cells(words))
        if name and words.startswith(name):
            words = palette.bold(name) + words.removeprefix(name)
        yield f"{thread.thread_id}  {palette.dim(updated)}  {words}{padding}  {cut_front(where, folder)}".rstrip()


def facts(
    thread: StoredThread, *, holder: LockHolder | None, spawned: Sequence[SpawnEdge], palette: Palette, user_home: str
) -> Iterator[str]:
    """A line for each thing that is known."""
    git = thread.git
    rows: tuple[tuple[str, object], ...] = (
        ("id", thread.thread_id),
        ("name", thread.name),
        ("title", thread.title or thread.preview),
        ("created", moment(thread.created_at)),
        ("updated", moment(thread.updated_at)),
        ("archived", "yes" if thread.archived else None),
        ("being written by", holder),
        ("folder", short(thread.latest_cwd, user_home)),
        ("started in", short(thread.cwd, user_home) if thread.cwd != thread.latest_cwd else None),
        ("source", source_kind(thread.source)),
        ("written by", f"{thread.originator} {thread.cli_version}".strip()),
        ("provider", thread.model_provider),
        ("model", thread.model),
        ("effort", thread.reasoning_effort),
        ("approvals", thread.approval_policy),
        ("sandbox", None if thread.sandbox_policy is None else thread.sandbox_policy.get("type")),
        ("tokens used", f"{thread.tokens_used:,}" if thread.tokens_used else None),
        ("branch", git.branch if git else None),
        ("commit", git.commit_hash if git else None),
        ("repository", git.repository_url if git else None),
        ("forked from", thread.forked_from_id),
        ("agent", thread.agent_nickname or thread.agent_path),
        ("spawned", ", ".join(f"{edge.child} ({edge.status})" for edge in spawned) or None),
        ("memory", None if thread.memory_mode == "enabled" else thread.memory_mode),
        ("file", thread.path),
    )
    for label, value in rows:
        if value is not None and value != "":
            yield f"{palette.bold(f'{label}:')} {one_line(str(value))}"


def moment(unix: float) -> str:
    """Local time to the minute."""
    try:
        return f"{datetime.fromtimestamp(unix, UTC).astimezone():%Y-%m-%d %H:%M}"
    except (OverflowError, ValueError, OSError):
        return "?".ljust(16)


def short(path: str, user_home: str) -> str:
    """A path with `~` for the user's home."""
    path = plain(path).replace("\n", " ")
    if path == user_home or path.startswith(user_home + os.sep):
        return "~" + path.removeprefix(user_home)
    return path


def one_line(text: str) -> str:
    """Text for a terminal, with spaces for everything that is white."""
    return " ".join(plain(text).split())


def cells(text: str) -> int:
    """Columns a terminal needs for a text."""
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def cut(text: str, width: int) -> str:
    """The beginning of a text, with `…` where some is left out."""
    if cells(text) <= width:
        return text
    kept = text[: width - 1]
    while cells(kept) > width - 1:
        kept = kept[:-1]
    return f"{kept}…"


def cut_front(text: str, width: int) -> str:
    """The end of a text."""
    if cells(text) <= width:
        return text
    kept = text[-(width - 1) :]
    while cells(kept) > width - 1:
        kept = kept[1:]
    return f"…{kept}"
