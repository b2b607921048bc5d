"""Supervisors of both kinds, and a check after each test that no process and no file descriptor is left."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from engine.execution import _link, _procfs
from engine.execution.supervisor import Supervisor, open_supervisor

from .processes import marked_processes


def _descriptors() -> Counter[str]:
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        try:
            found[os.readlink(f"/proc/self/fd/{name}").split(":")[0]] += 1
        except OSError:
            continue  # that of the listing itself
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    descriptors = _descriptors()
    children = _procfs.children_of(os.getpid())
    yield
    assert _descriptors() == descriptors
    assert _procfs.children_of(os.getpid()) == children
    assert marked_processes() == []


@pytest.fixture(params=["process", "thread"])
async def supervisor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    """Open for the test; as a process of its own and as a thread."""
    if request.param == "thread":
        monkeypatch.setattr(_link, "interpreter", lambda: None)
    async with open_supervisor() as opened:
        yield opened
    statistics = opened.statistics()
    assert (statistics.kind, statistics.live) == ("none", 0)
