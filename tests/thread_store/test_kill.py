"""Killed at any moment, a writer leaves rollouts that can be read and hold every acknowledged item."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.protocol.ids import new_thread_id
from engine.thread_store.interface import ResumeThread
from engine.thread_store.local import LocalThreadStore, open_local_store
from tests.proofs import tried
from tests.thread_store.stories import kept, telling

pytestmark = pytest.mark.damages_home("by a kill")

SOAK = os.environ.get("ENGINE_TEST_PROFILE") == "soak"
ROOT = Path(__file__).parents[2]
LIVES = 3  # each thread is created, and resumed by the processes after the first
TOLD = 300 if SOAK else 40  # acknowledgements that a life is waited for at most; one may be of thousands of items


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalThreadStore]:
    async with open_local_store(tmp_path) as made:
        yield made


def live_and_be_killed(home: Path, durability: str, threads: list[str], lines: int) -> dict[str, int]:
    """Runs a writer, kills it when it has told `lines` lines; how many items of each thread it acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.thread_store.killed_writer", str(home), durability, *threads],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    told = [process.stdout.readline() for _ in range(lines)]
    process.kill()  # it goes on writing meanwhile, so this is a random point
    told += process.communicate()[0].splitlines(keepends=True)
    acknowledged = dict.fromkeys(threads, 0)
    for line in told:
        if line.endswith(b"\n"):
            thread, number = line.decode().split()
            acknowledged[thread] = int(number)
    return acknowledged


def assert_in_order(story: list[str]) -> None:
    """The items of one life are numbered without a gap; a torn one at the end of a life may be missing."""
    numbers = [int(text.split()[0]) for text in story]
    assert numbers == sorted(set(numbers)), "an item is there twice, or out of order"


@pytest.mark.parametrize(("durability", "seed"), [("os", 1), ("os", 2), ("fsync", 3)])
async def test_every_acknowledged_item_is_there(
    store: LocalThreadStore, tmp_path: Path, durability: str, seed: int
) -> None:
    await _live_and_check(store, tmp_path, durability, random.Random(seed))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100))
async def test_every_acknowledged_item_is_there_at_length(store: LocalThreadStore, tmp_path: Path, seed: int) -> None:
    await _live_and_check(store, tmp_path, "fsync" if seed % 4 == 0 else "os", random.Random(seed))


async def _live_and_check(store: LocalThreadStore, home: Path, durability: str, chance: random.Random) -> None:
    threads = [new_thread_id() for _ in range(3)]
    before: dict[str, int] = dict.fromkeys(threads, 0)
    for _ in range(LIVES):
        acknowledged = live_and_be_killed(home, durability, list(threads), chance.randrange(TOLD))
        tried(kills=1, acknowledgements=sum(acknowledged.values()))
        for thread in threads:
            if await store.find_thread(thread) is None:
                assert acknowledged[thread] == 0
                continue
            history = await store.load_history(thread)
            story = kept(history.items)
            assert story[0] == "meta"
            assert_in_order(story[1:])
            assert len(story) - 1 >= before[thread] + acknowledged[thread]
            assert history.damaged <= LIVES
            before[thread] = len(story) - 1
    for thread in threads:
        if await store.find_thread(thread) is not None:
            resumed = await store.resume(ResumeThread(thread=thread))
            resumed.live.append([telling("1000000 after all")])
            await resumed.live.shutdown()
            assert kept((await store.load_history(thread)).items) == [*kept(resumed.history.items), "1000000 after all"]
