"""What thread store tests tell: metas, events that are kept, and what a file holds afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from engine.protocol.events import AgentMessage, UserMessage
from engine.protocol.ids import ThreadId, new_thread_id
from engine.protocol.rollout_items import EventLine, RolloutItem, SessionMeta
from engine.thread_store.interface import CreateThread

__all__ = ["create", "kept", "meta", "open_descriptors", "said", "telling", "texts"]


def meta(
    thread_id: ThreadId | None = None, *, cwd: str = "/somewhere", provider: str | None = "scripted"
) -> SessionMeta:
    """The first line of a thread."""
    return SessionMeta(
        id=thread_id or new_thread_id(),
        timestamp="2025-01-02T03:04:05.678Z",
        cwd=cwd,
        originator="tests",
        cli_version="0.1.0",
        source="exec",
        model_provider=provider,
    )


def create(thread_id: ThreadId | None = None, **facts: str | None) -> CreateThread:
    """Parameters of a new thread."""
    return CreateThread(meta=meta(thread_id, cwd=facts.get("cwd") or "/somewhere"))


def telling(text: str) -> EventLine:
    """An item that every mode keeps."""
    return EventLine(AgentMessage(text))


def said(text: str) -> EventLine:
    """A message of the user."""
    return EventLine(UserMessage(text))


def kept(items: Iterable[RolloutItem]) -> list[str]:
    """The texts of messages among items, `meta` for a first line."""
    told: list[str] = []
    for item in items:
        if isinstance(item, SessionMeta):
            told.append("meta")
        elif isinstance(item, EventLine) and isinstance(item.msg, AgentMessage | UserMessage):
            told.append(item.msg.message)
    return told


def texts(path: str | Path | None) -> list[str]:
    """What a rollout file tells, as `kept` has it. Every line must be whole."""
    assert path is not None
    data = Path(path).read_bytes()
    assert data.endswith(b"\n"), data[-80:]
    lines = [json.loads(line) for line in data.splitlines()]
    return ["meta" if line["type"] == "session_meta" else line["payload"]["message"] for line in lines]


def open_descriptors() -> dict[str, str]:
    """What the descriptors of this process point to, those of files and devices."""
    found: dict[str, str] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return {name: target for name, target in found.items() if target.startswith("/")}
