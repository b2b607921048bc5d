"""What does a home with ten thousand threads cost: pages, a new index, a start meanwhile, a thousand writers?"""

from __future__ import annotations

import statistics
import time
import uuid
from pathlib import Path
from typing import Literal

import trio

import engine
from benchmarks.lab import Bench
from engine.models.scripts import reply
from engine.protocol.events import AgentMessage, EventMsg, TaskComplete, TaskStarted, TokenCount, UserMessage
from engine.protocol.ids import ThreadId, new_thread_id
from engine.protocol.profiles import ReadOnly
from engine.protocol.rollout_items import EventLine, RolloutItem, SessionMeta, TurnContext
from engine.rollout.lines import encode_rollout_line
from engine.thread_store.interface import CreateThread, ListThreads, ListTurns
from engine.thread_store.live_thread import LiveThread
from engine.thread_store.local import open_local_store

__all__ = ["run"]

STAMP = "2025-01-02T03:04:05.000Z"
APPENDS = 5  # of each writer in a round
PAGE = 25
LONG_TURNS = 20_000  # of the thread whose turns are paged


def run(bench: Bench) -> None:
    """The rows `threads.*`."""
    home = bench.home()
    count, rounds = bench.plan.size("threads"), bench.plan.size("thread_rounds")
    with bench.progress.stage("threads", rounds + 4):
        for number in range(count):
            _store(home, number)
        bench.progress.step()
        bench.results.note_machine("threads")
        trio.run(_rebuilds, bench, home, count)
        bench.progress.step()
        trio.run(_pages, bench, home, count, rounds)
        bench.progress.step()
        trio.run(_turns, bench, home, rounds)
        bench.progress.step()
        for _ in range(rounds):
            for durability in ("os", "fsync"):
                trio.run(_writers, bench, "fsync" if durability == "fsync" else "os")
            bench.progress.step()
    bench.drop(home)


def _meta(thread_id: ThreadId) -> SessionMeta:
    return SessionMeta(
        id=thread_id,
        timestamp=STAMP,
        cwd="/work",
        originator="bench",
        cli_version="0",
        source="cli",
        model_provider="mock",
    )


def _turn(number: int) -> list[RolloutItem]:
    turn_id = f"turn {number}"
    context = TurnContext(
        turn_id=turn_id, cwd="/work", approval_policy="never", sandbox_policy=ReadOnly(), model="m", summary="auto"
    )
    said = EventLine(UserMessage(f"message {number}"))
    rest: list[EventMsg] = [AgentMessage("an answer " * 20), TokenCount(), TaskComplete(turn_id)]
    return [EventLine(TaskStarted(turn_id)), context, said, *(EventLine(msg) for msg in rest)]


def _store(home: Path, number: int, turns: int = 2) -> ThreadId:
    """A thread as another program left it, in one of some hundred folders."""
    thread_id = ThreadId(str(uuid.UUID(int=(0x0190_0000_0000 << 80) | (7 << 76) | (2 << 62) | number)))
    day = f"{1 + number // 28 % 12:02d}/{1 + number % 28:02d}"
    folder = home / "sessions" / "2025" / day
    folder.mkdir(parents=True, exist_ok=True)
    items = [_meta(thread_id), *(item for turn in range(turns) for item in _turn(turn))]
    path = folder / f"rollout-2025-{day.replace('/', '-')}T00-00-00-{thread_id}.jsonl"
    path.write_bytes(b"".join(encode_rollout_line(item, STAMP) for item in items))
    return thread_id


async def _rebuilds(bench: Bench, home: Path, count: int) -> None:
    """The index from nothing, and what a start and a turn take while it is built."""
    model = engine.ScriptedModel([reply("x", repeat=None)])
    settings = engine.SessionSettings(cwd=bench.workspace)
    async with engine.open_engine(home=home, model=model) as opened:
        await (await opened.start_session(settings)).run("warm up")
        quiet = [await _start(opened, settings) for _ in range(20)]
        began = time.perf_counter()
        await opened.threads.list()  # sets it off
        busy: list[float] = []
        while (progress := opened.threads.indexing) is not None and progress.running:
            busy.append(await _start(opened, settings))
            await trio.sleep(0.01)
        took = time.perf_counter() - began
    bench.results.figure("threads.rebuild", f"index of {count} threads from nothing", "s").ours.append(took)
    bench.results.figure("threads.start.meanwhile", "a start while the index is built", "ms").ours.extend(busy or quiet)
    slower = statistics.median(busy or quiet) / statistics.median(quiet)
    bench.results.figure("threads.start.slower", "... over one without", "x").ours.append(slower)


async def _start(opened: engine.Engine, settings: engine.SessionSettings) -> float:
    began = time.perf_counter()
    session = await opened.start_session(settings)
    took = time.perf_counter() - began
    await session.aclose()
    return took * 1000


async def _pages(bench: Bench, home: Path, count: int, rounds: int) -> None:
    first = bench.results.figure("threads.page", f"page of {PAGE} over {count} threads")
    deep = bench.results.figure("threads.page.deep", "... from the middle of the list")
    found = bench.results.figure("threads.page.search", "... that match a search")
    async with open_local_store(home) as store:
        await store.reindex()
        cursor: str | None = None
        while len(first.ours) < 10 * rounds:
            page, took = await _page(store.list_threads, ListThreads(limit=PAGE))
            assert len(page.threads) == PAGE
            first.ours.append(took)
        for _ in range(count // 2 // 100):
            cursor = (await store.list_threads(ListThreads(limit=100, cursor=cursor))).next_cursor
        for _ in range(10 * rounds):
            deep.ours.append((await _page(store.list_threads, ListThreads(limit=PAGE, cursor=cursor)))[1])
            found.ours.append((await _page(store.list_threads, ListThreads(limit=PAGE, search="message 0")))[1])


async def _page(ask: object, query: ListThreads) -> tuple[engine.ThreadPage, float]:
    assert callable(ask)
    began = time.perf_counter()
    page: engine.ThreadPage = await ask(query)
    return page, (time.perf_counter() - began) * 1000


async def _turns(bench: Bench, home: Path, rounds: int) -> None:
    """Pages of the turns of a long thread, from either end, and the first one, for which they are found."""
    turns = max(50, bench.plan.size("threads") * LONG_TURNS // 10_000)
    thread = _store(home, 0x00FF_FFFF, turns)
    async with open_local_store(home) as store:
        await store.list_threads(ListThreads())  # whoever pages a thread has seen it in a list
        began = time.perf_counter()
        await store.list_turns(thread, ListTurns())
        cold = bench.results.figure("threads.turns.cold", f"turns of a thread of {turns} turns found")
        cold.ours.append((time.perf_counter() - began) * 1000)
        for name, direction in (("last", "desc"), ("first", "asc")):
            figure = bench.results.figure(f"threads.turns.{name}", f"... the {name} {PAGE} of them, once found")
            for _ in range(10 * rounds):
                began = time.perf_counter()
                page = await store.list_turns(thread, ListTurns(direction="asc" if direction == "asc" else "desc"))
                figure.ours.append((time.perf_counter() - began) * 1000)
                assert len(page.turns) == PAGE


async def _writers(bench: Bench, durability: Literal["os", "fsync"]) -> None:
    """Threads that all append at once, each waiting until its items are stored."""
    count = bench.plan.size("thread_writers")
    home = bench.home()
    async with open_local_store(home, durability=durability, index=False) as store:
        lives = [store.create(CreateThread(meta=_meta(new_thread_id()))) for _ in range(count)]
        for live in lives:
            live.append([EventLine(AgentMessage("first"))])
        for live in lives:
            await live.flush()
        waits: list[float] = []

        async def talk(live: LiveThread) -> None:
            for _ in range(APPENDS):
                began = time.perf_counter()
                live.append([EventLine(AgentMessage("x" * 200))])
                await live.flush()
                waits.append((time.perf_counter() - began) * 1000)

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for live in lives:
                nursery.start_soon(talk, live)
        took = time.perf_counter() - began
        assert all(live.written == live.submitted == APPENDS + 1 for live in lives)
        for live in lives:
            await live.shutdown()
    title = f"{count} threads append at once, until stored ({durability})"
    bench.results.figure(f"threads.append.{durability}", title).ours.append(statistics.median(waits))
    rate = bench.results.figure(f"threads.append.{durability}.rate", "... items a second", "1/s")
    rate.ours.append(count * APPENDS / took)
    bench.drop(home)
