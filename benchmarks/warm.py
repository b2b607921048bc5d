"""How long does a session take to start in a running engine, one at a time and 50 at once?"""

from __future__ import annotations

import gc
import time
from contextlib import AsyncExitStack
from pathlib import Path

import trio

import engine
from benchmarks.lab import Bench
from benchmarks.measures import percentile
from benchmarks.peer import AppServer, open_app_server
from benchmarks.results import Figure

__all__ = ["run"]

WARM_UP = 3
# Starts in a row, of one side and then of the other. What takes turns one by one is never warm: while the other side
# works, and in every pause, the processor's caches go to somebody else, and the same start takes up to three times as
# long. The rows `warm.after_pause` have that.
IN_A_ROW = 10
PAUSE = 0.12  # seconds
# The peer's login shell takes a snapshot in the background of each start, which would be in the next sample.
QUIET = {"shell_snapshot": False}


def run(bench: Bench) -> None:
    """The rows `warm.*`, `step.*` and `burst.*`."""
    trio.run(_one_at_a_time, bench)
    trio.run(_at_once, bench)


def _settings(bench: Bench, kind: str) -> engine.SessionSettings:
    return engine.SessionSettings(cwd=bench.workspace, ephemeral=kind == "ephemeral")


async def _open_peer(bench: Bench, stack: AsyncExitStack, home: Path) -> AppServer | None:
    if bench.peer is None:
        return None
    peer = await stack.enter_async_context(open_app_server(bench.peer, bench.environment(home), bench.workspace))
    await peer.initialize()
    await peer.start_thread(bench.workspace)
    return peer


async def _one_at_a_time(bench: Bench) -> None:
    rows = bench.plan.size("warm_rows")
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(engine.open_engine(home=bench.home(**QUIET)))
        peer = await _open_peer(bench, stack, bench.home(**QUIET))
        bench.results.note_machine("warm")
        gc.collect()
        with bench.progress.stage("warm starts", rows * (2 * IN_A_ROW + 1)):
            for _ in range(rows):
                for kind in ("persistent", "ephemeral"):
                    await _ours_in_a_row(bench, host, kind)
                    if peer is not None:
                        await _peers_in_a_row(bench, peer, kind)
                    for _ in range(IN_A_ROW):
                        bench.progress.step()
                await _after_a_pause(bench, host, peer)
                bench.progress.step()
    slow = bench.results.figure("warm.persistent.p95", "its 95th percentile")
    slow.ours.append(percentile(bench.results.figures["warm.persistent"].ours, 0.95))


def _figure(bench: Bench, kind: str) -> Figure:
    return bench.results.figure(f"warm.{kind}", f"start of a session, {kind}")


async def _ours_in_a_row(bench: Bench, host: engine.Engine, kind: str) -> None:
    settings = _settings(bench, kind)
    for number in range(-WARM_UP, IN_A_ROW):
        session, took = await _start_ours(host, settings)
        if number < 0:
            continue
        _figure(bench, kind).ours.append(took)
        if kind == "persistent":
            for span in session.startup_trace.spans:
                step = bench.results.figure(f"step.{span.name}", f"startup step {span.name}")
                step.ours.append(span.duration * 1000)


async def _start_ours(host: engine.Engine, settings: engine.SessionSettings) -> tuple[engine.Session, float]:
    began = time.perf_counter()
    session = await host.start_session(settings)
    return session, (time.perf_counter() - began) * 1000


async def _peers_in_a_row(bench: Bench, peer: AppServer, kind: str) -> None:
    for number in range(-WARM_UP, IN_A_ROW):
        _, reply = await peer.start_thread(bench.workspace, ephemeral=kind == "ephemeral")
        if number >= 0:
            _figure(bench, kind).peer.append(reply.ms)


async def _after_a_pause(bench: Bench, host: engine.Engine, peer: AppServer | None) -> None:
    figure = bench.results.figure("warm.after_pause", f"the same, persistent, {PAUSE * 1000:g} ms after the last one")
    await trio.sleep(PAUSE)
    figure.ours.append((await _start_ours(host, _settings(bench, "persistent")))[1])
    if peer is not None:
        await trio.sleep(PAUSE)
        figure.peer.append((await peer.start_thread(bench.workspace, ephemeral=False))[1].ms)


async def _at_once(bench: Bench) -> None:
    rounds, count = bench.plan.size("burst_rounds"), bench.plan.size("burst_starts")
    bench.results.note_machine("burst")
    with bench.progress.stage(f"{count} starts at once", rounds * 2):
        for _ in range(rounds):
            for kind in ("persistent", "ephemeral"):
                title = f"{count} starts at once, {kind}"
                figure = bench.results.figure(f"burst.{kind}", title, "threads/s")
                figure.ours.append(count / await _our_burst(bench, kind, count))
                if bench.peer is not None:
                    figure.peer.append(count / await _peer_burst(bench, kind, count))
                bench.progress.step()


async def _our_burst(bench: Bench, kind: str, count: int) -> float:
    """Seconds until the last of `count` sessions was there."""
    settings = _settings(bench, kind)
    async with engine.open_engine(home=bench.home()) as host:
        await host.start_session(settings)
        gc.collect()
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(host.start_session, settings)
        return time.perf_counter() - began


async def _peer_burst(bench: Bench, kind: str, count: int) -> float:
    async with AsyncExitStack() as stack:
        peer = await _open_peer(bench, stack, bench.home())
        assert peer is not None
        await trio.sleep(0.5)
        began = time.monotonic()
        params = {"cwd": str(bench.workspace), "ephemeral": kind == "ephemeral"}
        replies = [await peer.send("thread/start", params) for _ in range(count)]
        for reply in replies:
            await reply.wait()
        return max(reply.arrived for reply in replies) - began
