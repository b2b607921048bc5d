"""How long does it take to go on with a stored thread, compacted or not, of 1 MB to 1 GB, and what does it weigh?"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

import engine
from benchmarks.lab import Bench
from benchmarks.measures import anonymous_memory
from benchmarks.mock_server import answer
from benchmarks.peer import open_app_server
from benchmarks.rollouts import MB, store_rollout
from engine.models import scripts

__all__ = ["run"]

ROOT = Path(__file__).resolve().parent.parent
INDEX = "engine_index.sqlite"
LIVE = 400_000  # bytes behind the last compaction
IDLE = 1.0  # seconds until what a fresh process still does in the background is over
WARM_UP = 1

Note = Callable[[str, str, float, float], None]  # key, title, ours, the peer's (0: not measured)


def _thread(number: int) -> str:
    return f"01900000-0000-7000-8000-{number:012}"


COMPACTED, PLAIN, SMALL, LARGE = map(_thread, range(4))


def run(bench: Bench) -> None:
    """The rows `resume.*`."""
    home = bench.home()
    sizes = {name: bench.plan.size(f"resume_{name}_mb") * MB for name in ("thread", "small", "large")}
    for thread, size, compactions in (
        (COMPACTED, sizes["thread"], 20),
        (PLAIN, sizes["thread"], 0),
        (SMALL, sizes["small"], 2),
        (LARGE, sizes["large"], 50),
    ):
        store_rollout(home, thread, size, cwd=bench.workspace, compactions=compactions, live=LIVE)
    bench.results.note_machine("resume")
    trio.run(_in_turns, bench, home, sizes)
    _memory(bench, home, sizes)
    bench.drop(home)


def _title(what: str, size: int) -> str:
    return f"resume of {what} of {size // MB} MB"


async def _in_turns(bench: Bench, home: Path, sizes: dict[str, int]) -> None:
    rounds = bench.plan.size("resumes")
    with bench.progress.stage("resumes", rounds + WARM_UP):
        for number in range(-WARM_UP, rounds):

            def note(key: str, title: str, ours: float, peer: float, counts: bool = number >= 0) -> None:
                if counts:
                    figure = bench.results.figure(key, title)
                    figure.ours.append(ours)
                    if peer:
                        figure.peer.append(peer)

            await _round(bench, home, sizes, note)
            bench.progress.step()
    small, large = (bench.results.figures[f"resume.{name}"].ours for name in ("small", "large"))
    growth = bench.results.figure("resume.growth", f"... {sizes['large'] // MB} MB over {sizes['small'] // MB} MB", "x")
    growth.ours.extend(one / other for one, other in zip(large, small, strict=True))


async def _round(bench: Bench, home: Path, sizes: dict[str, int], note: Note) -> None:
    compacted, plain = _title("a compacted thread", sizes["thread"]), _title("an uncompacted thread", sizes["thread"])
    (home / INDEX).unlink(missing_ok=True)
    theirs = await _peer_resume(bench, home, COMPACTED)
    ours = await _resume(bench, home, COMPACTED)
    note("resume.unindexed", f"{compacted}, index deleted", ours.ready, theirs.ready)
    ours = await _resume(bench, home, COMPACTED, turn=True)
    note("resume.compacted", compacted, ours.ready, theirs.ready)
    note("resume.compacted.turn", "... and a turn", ours.turn, theirs.turn)
    theirs = await _peer_resume(bench, home, PLAIN)
    ours = await _resume(bench, home, PLAIN, turn=True)
    note("resume.uncompacted", plain, ours.ready, theirs.ready)
    note("resume.uncompacted.turn", "... and a turn", ours.turn, theirs.turn)
    for name, thread in (("small", SMALL), ("large", LARGE)):
        ours = await _resume(bench, home, thread)
        note(f"resume.{name}", _title("a compacted thread", sizes[name]), ours.ready, 0)


@attrs.frozen
class _Took:
    """Milliseconds from asking until the thread was there, and until its first turn was over; 0 is not measured."""

    ready: float = 0
    turn: float = 0


@contextmanager
def _as_it_was(home: Path, thread: str) -> Iterator[None]:
    """Takes back what is added to a thread within the block."""
    path = next(home.rglob(f"*{thread}.jsonl"))
    size = path.stat().st_size
    try:
        yield
    finally:
        with path.open("r+b") as file:
            file.truncate(size)


async def _resume(bench: Bench, home: Path, thread: str, *, turn: bool = False) -> _Took:
    bench.mock.script(answer())
    with _as_it_was(home, thread):
        async with engine.open_engine(home=home) as host:
            await host.start_session(engine.SessionSettings(cwd=bench.workspace, ephemeral=True))
            gc.collect()
            began = time.perf_counter()
            session = await host.resume_session(thread)
            ready = (time.perf_counter() - began) * 1000
            if turn:
                await session.run("go on")
            return _Took(ready, (time.perf_counter() - began) * 1000)


async def _peer_resume(bench: Bench, home: Path, thread: str) -> _Took:
    if bench.peer is None:
        return _Took()
    bench.mock.script(answer())
    with _as_it_was(home, thread):
        async with open_app_server(bench.peer, bench.environment(home), bench.workspace) as peer:
            await peer.initialize()
            await peer.start_thread(bench.workspace, ephemeral=True)
            await trio.sleep(IDLE)
            _, reply = await peer.call("thread/resume", {"threadId": thread, "excludeTurns": True})
            began = time.monotonic()
            await peer.run_turn(thread, "go on")
            return _Took(reply.ms, reply.ms + (time.monotonic() - began) * 1000)


# --- memory --------------------------------------------------------------------------------------


def _memory(bench: Bench, home: Path, sizes: dict[str, int]) -> None:
    rounds = bench.plan.size("memory_rounds")
    growth = f"resume of {sizes['large'] // MB} MB rather than {sizes['small'] // MB} MB, more memory"
    figures = {
        "growth": bench.results.figure("resume.memory.growth", growth, "MB"),
        "ready": bench.results.figure("resume.memory.uncompacted", "memory of an uncompacted one over its file", "x"),
        "turn": bench.results.figure("resume.memory.uncompacted.turn", "... after a turn", "x"),
    }
    with bench.progress.stage("memory of resumes", rounds):
        for _ in range(rounds):
            small, large = (_probe(bench, home, thread, turn=False)["ready"] for thread in (SMALL, LARGE))
            figures["growth"].ours.append((large - small) / MB)
            for name, weight in _probe(bench, home, PLAIN, turn=True).items():
                figures[name].ours.append(weight / sizes["thread"])
            bench.progress.step()


def _probe(bench: Bench, home: Path, thread: str, *, turn: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.resume", str(home), str(bench.workspace), thread, str(int(turn))]
    with _as_it_was(home, thread):
        done = subprocess.run(command, cwd=ROOT, env=bench.environment(home), stdout=subprocess.PIPE, check=True)
    weights: dict[str, float] = json.loads(done.stdout)
    return weights


async def _weigh(home: Path, workspace: Path, thread: str, turn: bool) -> dict[str, float]:
    """Bytes by which this process grew: when the session was there, with `turn` also after its first turn."""
    model = engine.ScriptedModel([scripts.response(scripts.say("ok"), repeat=None)])  # a long thread is compacted first
    async with engine.open_engine(home=home, model=model) as host:
        await host.start_session(engine.SessionSettings(cwd=workspace, ephemeral=True))
        gc.collect()
        before = anonymous_memory()
        session = await host.resume_session(thread)
        weights = {"ready": float(anonymous_memory() - before)}
        if turn:
            await session.run("go on")
            gc.collect()
            weights["turn"] = float(anonymous_memory() - before)
        return weights


if __name__ == "__main__":
    _, _home, _workspace, _of, _with_turn = sys.argv
    print(json.dumps(trio.run(_weigh, Path(_home), Path(_workspace), _of, _with_turn == "1")))
