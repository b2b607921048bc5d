"""Sessions that come and go leave nothing behind in the process: no memory, descriptor or thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KINDS = (
    ["persistent", "ephemeral", "resumed", "forked"]
    if os.environ.get("ENGINE_TEST_PROFILE") == "soak"
    else ["persistent"]
)
SESSIONS = 500
SETTLED = 100  # sessions after which all caches are full
MOST = 2 << 20  # bytes of growth after that

LIFE = """
import gc, json, os, sys, threading
import trio
import engine
from benchmarks.measures import anonymous_memory
from engine.models.scripts import reply, response, shell
from tests.sweeps.leaks import index_is_idle

async def held(opened):
    await index_is_idle(opened)
    gc.collect()
    return {
        "memory": anonymous_memory(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
    }

async def main(home, cwd, kind):
    model = engine.ScriptedModel([reply("fine", repeat=None)], record=16)
    settings = engine.SessionSettings(cwd=cwd, ephemeral=kind == "ephemeral")
    async with engine.open_engine(home=home, model=model) as opened:
        thread = None
        for number in range(int(sys.argv[4])):
            if kind == "resumed" and thread is not None:
                session = await opened.resume_session(thread, settings=settings)
            elif kind == "forked" and thread is not None:
                session = await opened.fork_session(thread, settings=settings)
            else:
                session = await opened.start_session(settings)
                thread = session.thread_id
            assert (await session.run("go")).final_message == "fine"
            await session.aclose()
            if kind == "resumed" and number % 20 == 0:
                thread = None  # or it grows for ever
            if number + 1 == int(sys.argv[5]):
                before = await held(opened)
        print(json.dumps([before, await held(opened)]))

trio.run(main, *sys.argv[1:4])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_many_sessions_one_after_the_other(kind: str, tmp_path: Path) -> None:
    home, cwd = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    cwd.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", LIFE, str(home), str(cwd), kind, str(SESSIONS), str(SETTLED)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        check=True,
    )
    before, after = json.loads(done.stdout)
    print(kind, before, after)
    assert after["memory"] - before["memory"] < MOST
    assert after["descriptors"] <= before["descriptors"]
    assert after["threads"] <= before["threads"]
