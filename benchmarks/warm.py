"""How long does a session take to start in a running engine, one at a time and 50 at once?"""

from __future__ import annotations

import gc
import time
from contextlib import AsyncExitStack

import trio

import engine
from benchmarks.lab import Bench
from benchmarks.measures import percentile
from benchmarks.peer import AppServer, open_app_server

__all__ = ["run"]

# Seconds. After each start the peer's login shell takes its snapshot in the background; it must not be in the next
# sample. The pause is the same before either side, since a processor that has slept makes the first steps slower.
SETTLE = 0.12
WARM_UP = 3


def run(bench: Bench) -> None:
    """The rows `warm.*`, `step.*` and `burst.*`."""
    trio.run(_one_at_a_time, bench)
    trio.run(_at_once, bench)


def _settings(bench: Bench, kind: str) -> engine.SessionSettings:
    return engine.SessionSettings(cwd=bench.workspace, ephemeral=kind == "ephemeral")


async def _open_peer(bench: Bench, stack: AsyncExitStack) -> AppServer | None:
    if bench.peer is None:
        return None
    peer = await stack.enter_async_context(
        open_app_server(bench.peer, bench.environment(bench.home()), bench.workspace)
    )
    await peer.initialize()
    await peer.start_thread(bench.workspace)
    return peer


async def _one_at_a_time(bench: Bench) -> None:
    rounds = bench.plan.size("warm_starts")
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(engine.open_engine(home=bench.home()))
        peer = await _open_peer(bench, stack)
        bench.results.note_machine("warm")
        gc.collect()
        with bench.progress.stage("warm starts", rounds + WARM_UP):
            for number in range(-WARM_UP, rounds):
                for kind in ("persistent", "ephemeral"):
                    await _start_both(bench, host, peer, kind, counts=number >= 0)
                bench.progress.step()
    slow = bench.results.figure("warm.persistent.p95", "its 95th percentile")
    slow.ours.append(percentile(bench.results.figures["warm.persistent"].ours, 0.95))


async def _start_both(bench: Bench, host: engine.Engine, peer: AppServer | None, kind: str, *, counts: bool) -> None:
    settings = _settings(bench, kind)
    began = time.perf_counter()
    session = await host.start_session(settings)
    took = (time.perf_counter() - began) * 1000
    figure = bench.results.figure(f"warm.{kind}", f"start of a session, {kind}")
    if counts:
        figure.ours.append(took)
        if kind == "persistent":
            for span in session.startup_trace.spans:
                step = bench.results.figure(f"step.{span.name}", f"startup step {span.name}")
                step.ours.append(span.duration * 1000)
    await trio.sleep(SETTLE)
    if peer is not None:
        _, reply = await peer.start_thread(bench.workspace, ephemeral=kind == "ephemeral")
        await trio.sleep(SETTLE)
        if counts:
            figure.peer.append(reply.ms)


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
        peer = await _open_peer(bench, stack)
        assert peer is not None
        await trio.sleep(0.5)
        began = time.monotonic()
        params = {"cwd": str(bench.workspace), "ephemeral": kind == "ephemeral"}
        replies = [await peer.send("thread/start", params) for _ in range(count)]
        for reply in replies:
            await reply.wait()
        return max(reply.arrived for reply in replies) - began
