"""A thousand threads that append at once while the process may have 1,024 descriptors, or none for a while."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

STORY = """
import os, resource, sys, threading
from pathlib import Path
import trio
from engine.thread_store.local import open_local_store
from tests.thread_store.stories import create, telling, texts

resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
home, durability, starved = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "starved"

def take_all():
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return taken

async def main():
    async with open_local_store(home, durability=durability, index=False) as store:
        lives = [store.create(create()) for _ in range(1000)]
        for live in lives:
            live.append([telling("first")])
        await lives[0].flush()
        taken = take_all() if starved else []
        timer = threading.Timer(0.3, lambda: [os.close(handle) for handle in taken])
        timer.start()

        async def talk(live):
            for number in range(5):
                live.append([telling(str(number))])
                await trio.lowlevel.checkpoint()
            await live.flush()
            assert live.written == live.submitted == 6, live.last_error

        async with trio.open_nursery() as nursery:
            for live in lives:
                nursery.start_soon(talk, live)
        timer.join()
        paths = [live.rollout_path for live in lives]
        for live in lives:
            await live.shutdown()
    assert all(texts(path) == ["meta", "first", "0", "1", "2", "3", "4"] for path in paths)
    print(len(paths))

trio.run(main)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of descriptors as on Linux")
@pytest.mark.parametrize(("durability", "descriptors"), [("os", "enough"), ("os", "starved"), ("fsync", "starved")])
def test_no_line_is_lost_or_out_of_order(tmp_path: Path, durability: str, descriptors: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", STORY, str(tmp_path), durability, descriptors],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "1000"), ran.stderr
