"""Looks at every home a test has used, once the test is over: `engine threads verify` must find nothing wrong there.

Tests whose subject is damage say so with `@pytest.mark.damages_home`, for a module with `pytestmark`. Those that kill
writers say `damages_home("by a kill")`: a last line may be cut off, which was never stored.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from engine.thread_store.local import LocalThreadStore
from engine.thread_store.verifying import verify_home

__all__ = ["Allowed", "allowed", "stores_noted", "wrong_in"]

HOMES_LOOKED_AT = 100  # of one test, the last ones: proofs at length use thousands

Allowed = Literal["nothing", "a cut off line", "anything"]


def allowed(item: pytest.Item) -> Allowed:
    """What may be wrong in the homes that a test leaves behind."""
    marker = item.get_closest_marker("damages_home")
    if marker is None:
        return "nothing"
    return "a cut off line" if marker.args == ("by a kill",) else "anything"


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


def wrong_in(homes: dict[str, None], may_be: Allowed = "nothing") -> list[str]:
    """What is wrong in homes that are still there, and may not be."""
    found: list[str] = []
    for home in list(homes)[-HOMES_LOOKED_AT:] if may_be != "anything" else ():
        if not os.path.isdir(home):
            continue
        report = verify_home(Path(home))
        found += (*report.index.problems, *report.names)
        for file in report.files:
            if may_be == "a cut off line" and file.only_cut_off:
                continue
            found += [f"{file.path}: {text}" for text in file.problems]
            if file.damaged and file.rollout is not None:
                found += [f"{file.path}: line {each.number}: {each.text}" for each in file.rollout.problems]
    return found
