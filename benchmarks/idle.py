"""What do idle sessions cost, and what do closed ones leave behind? In fresh processes."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import trio

import engine
from benchmarks.lab import Bench
from benchmarks.measures import anonymous_memory
from engine.models import scripts

__all__ = ["run"]

ROOT = Path(__file__).resolve().parent.parent
MB = 1 << 20
SETTLE = 2.0  # seconds until what starts set going in the background is over
WATCHED = 5.0  # seconds
POOL = "Trio thread"  # Trio's own, which end after ten idle seconds


def run(bench: Bench) -> None:
    """The rows `idle.*` and `loop.*`. They look at `/proc`."""
    if sys.platform != "linux":
        bench.progress.note("idle: only measured on Linux")
        return
    rounds = bench.plan.size("idle_rounds")
    sessions, loops = bench.plan.size("idle_sessions"), bench.plan.size("loop_sessions")
    idle = bench.results.figure("idle.cpu", f"processor time of {sessions:,} idle sessions", "%")
    grown = [
        bench.results.figure("loop.memory", f"memory that {loops:,} sessions leave, each with a turn", "MB"),
        bench.results.figure("loop.fds", "descriptors that they leave", "fds"),
        bench.results.figure("loop.threads", "threads that they leave", "threads"),
    ]
    bench.results.note_machine("idle")
    with bench.progress.stage("idle sessions", rounds):
        for _ in range(rounds):
            idle.ours.extend(_probe(bench, "idle", sessions))
            for figure, value in zip(grown, _probe(bench, "loop", loops), strict=True):
                figure.ours.append(value)
            bench.progress.step()


def _probe(bench: Bench, what: str, count: int) -> list[float]:
    home = bench.home()
    command = [sys.executable, "-m", "benchmarks.idle", what, str(home), str(bench.workspace), str(count)]
    done = subprocess.run(command, cwd=ROOT, env=bench.environment(home), stdout=subprocess.PIPE, check=True)
    found: list[float] = json.loads(done.stdout)
    return found


async def _idle(home: Path, workspace: Path, count: int) -> list[float]:
    """Percent of one processor that `count` idle sessions take."""
    settings = engine.SessionSettings(cwd=workspace)
    async with engine.open_engine(home=home, model=engine.ScriptedModel([])) as host:
        for _ in range(count):
            await host.start_session(settings)
        gc.collect()
        await trio.sleep(SETTLE)
        began, used = time.perf_counter(), time.process_time()
        await trio.sleep(WATCHED)
        return [100 * (time.process_time() - used) / (time.perf_counter() - began)]


async def _loop(home: Path, workspace: Path, count: int) -> list[float]:
    """By how much the process grew after the first fifth of the sessions: MB, descriptors, threads."""
    model = engine.ScriptedModel([scripts.reply("ok", repeat=None)], record=16)  # or it would keep every request
    settings = engine.SessionSettings(cwd=workspace)
    async with engine.open_engine(home=home, model=model) as host:

        async def live(sessions: int) -> list[float]:
            for _ in range(sessions):
                async with host.session(settings) as session:
                    await session.run("hello")
            await host.threads.reindex()  # the thread of the index has rollouts open while it reads them
            await host.threads.list(engine.ListThreads(limit=1))
            gc.collect()
            threads = [thread for thread in threading.enumerate() if not thread.name.startswith(POOL)]
            return [anonymous_memory() / MB, float(len(os.listdir("/proc/self/fd"))), float(len(threads))]

        first = count // 5
        before = await live(first)
        after = await live(count - first)
        return [max(0.0, grown - was) for was, grown in zip(before, after, strict=True)]


if __name__ == "__main__":
    _, _what, _home, _workspace, _count = sys.argv
    _work = _idle if _what == "idle" else _loop
    print(json.dumps(trio.run(_work, Path(_home), Path(_workspace), int(_count))))
