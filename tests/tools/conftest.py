"""A turn for tools; after each test no process of it is left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from engine.execution.supervisor import open_supervisor
from engine.execution.terminals import TerminalManager
from tests.execution.processes import environment, marked_processes

from .bench import Bench, still_bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A turn in `tmp_path` with real processes."""
    async with open_supervisor() as supervisor, trio.open_nursery() as session:
        terminals = TerminalManager(supervisor, session)
        yield Bench(tmp_path, supervisor, terminals, environment())
        await terminals.close()
    assert marked_processes() == []


@pytest.fixture
def still(tmp_path: Path) -> Bench:
    """A turn in `tmp_path` that can't start a process."""
    return still_bench(tmp_path)
