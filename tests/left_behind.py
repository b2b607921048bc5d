"""Looks at every home a test has used, once the test is over: `engine threads verify` must find nothing wrong there.

Tests whose subject is damage say so with `@pytest.mark.damages_home`, for a module with `pytestmark`; the folders of
`DAMAGING` are about little else.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.thread_store.local import LocalThreadStore
from engine.thread_store.verifying import verify_home

__all__ = ["DAMAGING", "claims_sound_homes", "stores_noted", "wrong_in"]

DAMAGING = ("thread_store", "rollout", "crash", "attack")
HOMES_LOOKED_AT = 20  # of one test, the last ones: some use thousands
LARGEST = 20 << 20  # bytes; homes of tests about size are left out


def claims_sound_homes(item: pytest.Item) -> bool:
    """Whether a test leaves nothing damaged behind."""
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    return folder not in DAMAGING and item.get_closest_marker("damages_home") is None


@contextmanager
def stores_noted(homes: dict[str, None]) -> Iterator[None]:
    """Notes the home of every local store that is made in the block."""
    original = LocalThreadStore.__init__

    @functools.wraps(original)
    def noting(store: LocalThreadStore, home: Any, *args: Any, **more: Any) -> None:
        homes[os.path.abspath(home)] = None
        original(store, home, *args, **more)

    patch = pytest.MonkeyPatch()
    patch.setattr(LocalThreadStore, "__init__", noting)
    try:
        yield
    finally:
        patch.undo()


def wrong_in(homes: dict[str, None]) -> list[str]:
    """What is wrong in homes that are still there."""
    found: list[str] = []
    for home in list(homes)[-HOMES_LOOKED_AT:]:
        if not os.path.isdir(home) or _size(home) > LARGEST:
            continue
        report = verify_home(Path(home))
        found += report.index.problems
        for file in report.files:
            found += [f"{file.path}: {text}" for text in file.problems]
            if file.damaged and file.rollout is not None:
                found += [f"{file.path}: line {each.number}: {each.text}" for each in file.rollout.problems]
    return found


def _size(home: str) -> int:
    return sum(path.stat().st_size for path in Path(home).rglob("rollout-*.jsonl") if path.is_file())
