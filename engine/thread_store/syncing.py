"""Makes written batches durable: a sync per file, or one per file system if many are dirty (CONCURRENCY 1.3)."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.errors import StoreError

if TYPE_CHECKING:
    from engine.thread_store.batches import Outcome
    from engine.thread_store.files import FileOperations

__all__ = ["sync_outcomes"]

NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
PATIENCE = 30.0  # seconds a lack of descriptors is waited out: nothing is lost by it, and it passes
GLANCE = 0.02  # seconds between two looks for a descriptor
MANY = 8  # syncing a whole file system costs about as much as this many files


def sync_outcomes(files: FileOperations, outcomes: Sequence[Outcome], patience: float = PATIENCE) -> None:
    """Syncs what `outcomes` name as unsynced; notes in them what failed. Raises nothing.

    Waits up to `patience` seconds where there are no descriptors to do it with.

    After a failed sync the system may have dropped the data and says so only once. So that outcome, and its writer for
    the rest of its life, never counts as written again.
    """
    paths = list(dict.fromkeys(path for outcome in outcomes for path in outcome.unsynced))
    given_up = time.monotonic() + patience
    failed = _sync(files, paths)
    while failed and time.monotonic() < given_up:
        scarce = [path for path, cause in failed.items() if cause.errno in NO_DESCRIPTORS]
        if not scarce:
            break
        time.sleep(GLANCE)
        for path in scarce:
            del failed[path]
        failed.update(_sync(files, scarce))
    if not failed:
        return
    for outcome in outcomes:
        for path in outcome.unsynced:
            if path in failed:
                cause = failed[path]
                outcome.error = StoreError(f"failed to sync {path}: {cause}")
                outcome.error.__cause__ = cause
                outcome.sync_failed = True
                break


def _sync(files: FileOperations, paths: list[str]) -> dict[str, OSError]:
    return _sync_together(files, paths) if len(paths) > MANY else _sync_each(files, paths)


def _sync_each(files: FileOperations, paths: list[str]) -> dict[str, OSError]:
    failed: dict[str, OSError] = {}
    for path in paths:
        try:
            files.sync(path)
        except OSError as exc:
            failed[path] = exc
    return failed


def _sync_together(files: FileOperations, paths: list[str]) -> dict[str, OSError]:
    failed: dict[str, OSError] = {}
    by_device: dict[int, list[str]] = {}
    for path in paths:
        try:
            by_device.setdefault(files.device(path), []).append(path)
        except OSError as exc:
            failed[path] = exc
    for same in by_device.values():
        try:
            if len(same) > MANY and files.sync_file_system(same[0]):
                continue
        except OSError as exc:
            failed.update(dict.fromkeys(same, exc))
            continue
        failed.update(_sync_each(files, same))
    return failed
