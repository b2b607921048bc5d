"""What does an idle session weigh? Anonymous resident memory, in a fresh process."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import trio

import engine
from benchmarks.lab import Bench
from benchmarks.measures import anonymous_memory
from benchmarks.peer import open_app_server
from engine.models import scripts

__all__ = ["run"]

ROOT = Path(__file__).resolve().parent.parent
KIB = 1024
IDLE = 2.0  # seconds until what the peer's starts set going in the background is over


def run(bench: Bench) -> None:
    """The rows `memory.*`. Only Linux tells anonymous memory apart."""
    if sys.platform != "linux":
        bench.progress.note("memory: only measured on Linux")
        return
    rounds, count = bench.plan.size("memory_rounds"), bench.plan.size("memory_sessions")
    peer_count, turn_count = bench.plan.size("memory_peer_threads"), bench.plan.size("memory_turn_sessions")
    idle = bench.results.figure("memory.session", f"idle session, persistent ({count:,} of them)", "KiB")
    used = bench.results.figure("memory.after_turn", f"idle session after a turn ({turn_count:,})", "KiB")
    bench.results.note_machine("memory")
    with bench.progress.stage("memory", rounds):
        for _ in range(rounds):
            idle.ours.append(_probe(bench, count, turns=False))
            used.ours.append(_probe(bench, turn_count, turns=True))
            if bench.peer is not None:
                idle.peer.append(trio.run(_peer_memory, bench, peer_count))
            bench.progress.step()


def _probe(bench: Bench, count: int, *, turns: bool) -> float:
    home = bench.home()
    command = [sys.executable, "-m", "benchmarks.memory", str(home), str(bench.workspace), str(count), str(int(turns))]
    done = subprocess.run(command, cwd=ROOT, env=bench.environment(home), stdout=subprocess.PIPE, check=True)
    per_session: float = json.loads(done.stdout)
    return per_session / KIB


async def _peer_memory(bench: Bench, count: int) -> float:
    assert bench.peer is not None
    async with open_app_server(bench.peer, bench.environment(bench.home()), bench.workspace) as peer:
        await peer.initialize()
        await peer.start_thread(bench.workspace)
        await trio.sleep(IDLE)
        before = peer.memory()
        for _ in range(count):
            await peer.start_thread(bench.workspace)
        await trio.sleep(IDLE)
        return (peer.memory() - before) / count / KIB


async def _grow(home: Path, workspace: Path, count: int, turns: bool) -> float:
    """Bytes by which this process grew per session."""
    model = engine.ScriptedModel([scripts.response(scripts.say("ok"))])
    settings = engine.SessionSettings(cwd=workspace)
    async with engine.open_engine(home=home, model=model) as host:

        async def one() -> None:
            session = await host.start_session(settings)
            if turns:
                await session.run("hello")

        await one()
        gc.collect()
        before = anonymous_memory()
        for _ in range(count):
            await one()
        gc.collect()
        return (anonymous_memory() - before) / count


if __name__ == "__main__":
    _, _home, _workspace, _count, _turns = sys.argv
    print(json.dumps(trio.run(_grow, Path(_home), Path(_workspace), int(_count), _turns == "1")))
