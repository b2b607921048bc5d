"""Reads whole rollouts from the disk. Blocking; stores call it on a worker thread."""

from __future__ import annotations

from pathlib import Path

from engine.errors import StoreError, ThreadNotFound
from engine.rollout.loading import load
from engine.thread_store.interface import StoredHistory

__all__ = ["load_rollout"]


def load_rollout(path: Path) -> StoredHistory:
    """Reads a whole rollout. Raises `ThreadNotFound` if there is no such file, `StoreError` if it is no thread."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as exc:
        raise ThreadNotFound(f"no rollout found at {path}", thread=str(path)) from exc
    except OSError as exc:
        raise StoreError(f"failed to read {path}: {exc}") from exc
    if not data.strip():
        raise StoreError(f"{path} is empty: there is nothing to go on with")
    loaded = load(data)
    if loaded.meta is None:
        raise StoreError(
            f"{path} has no readable session_meta line, so it is no thread; {loaded.damaged} damaged lines"
        )
    return StoredHistory(
        thread_id=loaded.meta.id,
        path=str(path),
        meta=loaded.meta,
        items=loaded.items,
        damaged=loaded.damaged,
        foreign=loaded.foreign,
        generation=loaded.generation,
    )
