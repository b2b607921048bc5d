"""Starts that are not alone: two engines, in one process or in two, and sessions that start sessions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import engine
from engine.errors import ConflictError
from engine.models.scripts import When, call, reply, response, say, script
from engine.thread_store.verifying import verify_home
from tests.sweeps.leaks import differences, inside, outside
from tests.sweeps.places import KINDS, PATIENCE_S, Kind, Stored, opened_on
from tests.sweeps.points import interrupt
from tests.sweeps.sweeping import Case, Places, sizes, sweep
from tests.sweeps.test_start_failures import watched
from tests.sweeps.turns import NO_SNAPSHOT, check_rollout

BY_NAME = {kind.name: kind for kind in KINDS}
SWIFT = ("everything", "forked", "writing")


# --- two engines in one process --------------------------------------------------------------------------


def beside_another(kind: Kind, stored: Stored, *, same_home: bool) -> Case:
    """A start is cancelled in one engine; in the other a session runs turns, and starts one of its own meanwhile."""

    async def main(points: Places, home: Path, other_home: Path) -> str:
        with trio.fail_after(PATIENCE_S):
            async with opened_on(other_home) as other, kind.open(home) as opened:
                session = await other.start_session(stored.settings())
                assert (await session.run("go")).final_message == "fine"
                there = await inside(other, other_home)
                before = await inside(opened, home)
                started: engine.Session | None = None
                with trio.CancelScope() as scope:
                    points.arm(scope.cancel)
                    try:
                        started = await kind(opened, stored)
                    finally:
                        points.disarm()
                if started is not None:
                    await started.aclose()
                assert other.sessions() == (session,)
                if started is None or not kind.writes:
                    assert differences(before, await inside(opened, home)) == []
                    left = differences(there, await inside(other, other_home))
                    # Tasks, processes and descriptors of the first one are in this picture, too.
                    assert [found for found in left if found.startswith(("files", "rows", "live", "sessions"))] == []
                assert (await session.run("go on")).final_message == "fine"
                async with opened.session(stored.settings()) as next_one, other.session(stored.settings()) as another:
                    assert (await next_one.run("go")).final_message == "fine"
                    assert (await another.run("go")).final_message == "fine"
        return "cancelled" if started is None else "started"

    def case(points: Places, folder: Path) -> str:
        home = stored.copy(folder)
        (folder / "other").mkdir()
        other = home if same_home else stored.copy(folder / "other")
        before = outside()
        outcome = trio.run(main, points, home, other)
        assert differences(before, outside()) == []
        return outcome

    return case


@sizes(8)
@pytest.mark.parametrize("same_home", [False, True], ids=["two homes", "one home"])
@pytest.mark.parametrize("name", SWIFT)
def test_the_other_engine_goes_on(name: str, same_home: bool, size: int, stored: Stored, tmp_path: Path) -> None:
    sweep(beside_another(BY_NAME[name], stored, same_home=same_home), tmp_path, size).check()


async def test_one_thread_is_resumed_by_one_engine_only(stored: Stored, tmp_path: Path) -> None:
    home = stored.copy(tmp_path)
    async with opened_on(home) as one, opened_on(home) as other:
        before = [await inside(one, home), await inside(other, home)]
        won: list[engine.Session] = []
        lost: list[engine.SessionStartError] = []

        async def resume(opened: engine.Engine) -> None:
            try:
                won.append(await opened.resume_session(stored.thread, settings=stored.settings()))
            except engine.SessionStartError as exc:
                lost.append(exc)

        for _ in range(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(resume, one)
                nursery.start_soon(resume, other)
            ((session,), (error,)) = (won, lost)
            assert error.stage == "thread_persistence"
            assert isinstance(error.cause, ConflictError)
            assert str(stored.thread) in str(error)
            assert one.sessions() + other.sessions() == (session,)
            await session.aclose()
            won.clear()
            lost.clear()
        assert differences(before[0], await inside(one, home)) == []
        assert differences(before[1], await inside(other, home)) == []


async def test_fifty_starts_of_which_half_are_cancelled(stored: Stored, tmp_path: Path) -> None:
    kind = BY_NAME["everything"]
    async with watched(stored, tmp_path, kind, writes=True) as opened:
        opened._graph = kind.graph
        started: list[engine.Session] = []

        async def start(number: int) -> None:
            with trio.CancelScope() as scope:
                if number % 2:
                    scopes.append(scope)
                started.append(await opened.start_session(stored.settings()))

        scopes: list[trio.CancelScope] = []
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(start, number)
            while len(scopes) < 25 or not opened._pending:
                await trio.lowlevel.checkpoint()
            for scope in scopes:
                scope.cancel()
        assert 25 <= len(started) <= 50
        assert set(opened.sessions()) == set(started)
        async with trio.open_nursery() as nursery:
            for session in started:
                nursery.start_soon(session.aclose)
        assert opened.sessions() == ()


# --- a caller that is cancelled already ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancelled", "late", "shielded"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_a_start_from_inside_a_cancelled_scope(kind: Kind, how: str, stored: Stored, tmp_path: Path) -> None:
    async with watched(stored, tmp_path, kind, writes=how == "shielded") as opened:
        with trio.CancelScope(deadline=-1 if how == "late" else float("inf")) as scope:
            if how != "late":
                scope.cancel()
            with trio.CancelScope(shield=how == "shielded"):
                session = await kind(opened, stored)
                assert how == "shielded", "nobody asked for the start to be heard of any more"
                assert (await session.run("go on")).final_message == "fine"
        assert scope.cancelled_caught == (how != "shielded")
        for running in opened.sessions():
            await running.aclose()
        assert opened.sessions() == ()


# --- two processes ---------------------------------------------------------------------------------------------


HOLDER = """
import sys, trio, engine
from pathlib import Path

async def main(home, cwd, thread):
    model = engine.ScriptedModel([engine.models.scripts.reply("fine", repeat=None)])
    async with engine.open_engine(home=home, model=model) as opened:
        session = await opened.resume_session(thread, settings=engine.SessionSettings(cwd=cwd))
        await session.run("go")
        print(session.thread_id, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        await session.aclose()

import engine.models.scripts
trio.run(main, *sys.argv[1:])
"""


@asynccontextmanager
async def holder(home: Path, stored: Stored) -> AsyncIterator[subprocess.Popen[str]]:
    """Another process that has resumed the stored thread, until its stdin ends."""
    argv = [sys.executable, "-c", HOLDER, str(home), str(stored.cwd), stored.thread]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        assert await trio.to_thread.run_sync(process.stdout.readline) == f"{stored.thread}\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("end", ["orderly", "killed"])
async def test_a_thread_that_another_process_has(end: str, stored: Stored, tmp_path: Path) -> None:
    home = stored.copy(tmp_path)
    with trio.fail_after(PATIENCE_S):
        async with opened_on(home) as opened, holder(home, stored) as process:
            before = await inside(opened, home)
            for name in ("resumed", "everything resumed"):
                with pytest.raises(engine.SessionStartError) as caught:
                    await BY_NAME[name](opened, stored)
                assert caught.value.stage == "thread_persistence"
                assert isinstance(caught.value.cause, ConflictError)
                assert differences(before, await inside(opened, home)) == []
            fork = await BY_NAME["forked"](opened, stored)  # that only reads
            assert (await fork.run("go on")).final_message == "fine"
            await fork.aclose()
            if end == "killed":
                process.kill()
            else:
                assert process.stdin is not None
                process.stdin.close()
            await trio.to_thread.run_sync(process.wait)
            session = await BY_NAME["resumed"](opened, stored)
            assert (await session.run("go on")).final_message == "fine"
        report = verify_home(home)
        assert report.clean
        assert report.stale_locks == ()


BUSY = """
import sys, trio, engine, engine.models.scripts

async def main(home, cwd):
    model = engine.ScriptedModel([engine.models.scripts.reply("fine", repeat=None)])
    async with engine.open_engine(home=home, model=model) as opened:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forever, opened, cwd)
            print("there", flush=True)
            await trio.to_thread.run_sync(sys.stdin.read)
            nursery.cancel_scope.cancel()
    print("well", flush=True)

async def forever(opened, cwd):
    while True:
        async with opened.session(engine.SessionSettings(cwd=cwd)) as session:
            assert (await session.run("go")).final_message == "fine"

trio.run(main, *sys.argv[1:])
"""


@sizes(8)
def test_a_start_is_cancelled_while_another_process_is_there(size: int, stored: Stored, tmp_path: Path) -> None:
    """The other one starts and ends sessions all the time; neither hears of the other."""
    home = stored.copy(tmp_path)
    kind = BY_NAME["everything forked"]

    async def main(points: Places) -> str:
        with trio.fail_after(PATIENCE_S):
            async with kind.open(home) as opened:
                before = await inside(opened)
                started: engine.Session | None = None
                with trio.CancelScope() as scope:
                    points.arm(scope.cancel)
                    try:
                        started = await kind(opened, stored)
                    finally:
                        points.disarm()
                if started is not None:
                    await started.aclose()
                    assert started.rollout_path is not None
                    assert Path(started.rollout_path).exists()  # no walk: the other one takes empty folders away
                assert differences(before, await inside(opened)) == []
        return "cancelled" if scope.cancelled_caught else "started"

    def case(points: Places, folder: Path) -> str:
        before = outside()
        outcome = trio.run(main, points)
        assert differences(before, outside()) == []
        return outcome

    argv = [sys.executable, "-c", BUSY, str(home), str(stored.cwd)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        sweep(case, tmp_path, size).check()
        output, _ = process.communicate()
    assert (process.returncode, output) == (0, "well\n")
    forks = [file for file in verify_home(home).files if file.clean]
    assert len(forks) == len(verify_home(home).files)


# --- sessions that start sessions -----------------------------------------------------------------------------


def nested(how: str) -> Case:
    """A tool starts a session, runs a turn in it and ends it; meanwhile the turn that called it is stopped."""

    async def main(points: Places, cwd: Path, home: Path, threads: list[engine.ThreadId]) -> str:
        model = engine.ScriptedModel(
            script(
                response(say("fine", phase="final_answer"), when=When(user_text="next"), repeat=None),
                response(say("from within", phase="final_answer"), when=When(user_text="inner"), repeat=None),
                response(call("delegate")),
                reply("done", repeat=None),
            )
        )
        settings = engine.SessionSettings(cwd=cwd, sandbox="danger-full-access", config=NO_SNAPSHOT)
        act = trio.Event()

        @engine.tool()
        async def delegate() -> str:
            opened._graph = BY_NAME["everything"].graph
            async with opened.session(settings) as inner:
                threads.append(inner.thread_id)
                return (await inner.run("inner")).final_message or ""

        async def stop(session: engine.Session) -> None:
            await act.wait()
            await (session.aclose() if how == "closed" else session.interrupt())

        with trio.fail_after(PATIENCE_S):
            async with engine.open_engine(home=home, model=model, grace=5) as opened:
                before = await inside(opened)
                session = await opened.start_session(settings, tools=(delegate,))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stop, session)
                    points.arm(interrupt if how == "ctrl-c" else act.set)
                    outcome = "completed"
                    try:
                        assert (await session.run("go")).final_message == "done"
                        await trio.lowlevel.checkpoint()
                    except (engine.TurnInterrupted, engine.SessionClosed):
                        outcome = "interrupted"
                    points.disarm()
                    act.set()
                if how != "closed":
                    assert opened.sessions() == (session,)
                    assert (await session.run("next")).final_message == "fine"
                    await session.aclose()
                assert opened.sessions() == ()
                assert differences(before, await inside(opened)) == []
        return outcome

    def case(points: Places, folder: Path) -> str:
        home, cwd = folder / "home", folder / "work"
        home.mkdir()
        cwd.mkdir()
        before = outside()
        threads: list[engine.ThreadId] = []
        outcome = "ctrl-c"
        try:
            outcome = trio.run(main, points, cwd, home, threads)
        except KeyboardInterrupt:
            assert points.hit
        assert differences(before, outside()) == []
        for path in home.rglob("*.jsonl"):
            turns(path)
        assert len(list(home.rglob("*.jsonl"))) <= 1 + len(threads), "a start that was discarded has a file"
        return outcome

    return case


def turns(path: Path) -> None:
    """Each turn of a rollout has one end."""
    import json

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    begun = [line["payload"]["turn_id"] for line in lines if line["payload"].get("type") == "task_started"]
    for turn in begun:
        check_rollout(lines, turn)


@sizes(10)
@pytest.mark.parametrize("how", ["interrupted", "closed", "ctrl-c"])
def test_the_session_around_it_is_stopped(how: str, size: int, tmp_path: Path) -> None:
    sweep(nested(how), tmp_path, size).check()


async def test_a_session_of_a_session_of_a_session(stored: Stored, tmp_path: Path) -> None:
    """Each starts the next from a tool call; the innermost is cancelled with the outermost."""
    home = stored.copy(tmp_path)
    depth: list[engine.Session] = []
    reached = trio.Event()

    def tools() -> tuple[engine.Tool, ...]:
        @engine.tool()
        async def deeper() -> str:
            if len(depth) == 5:
                reached.set()
                await trio.sleep_forever()
            async with opened.session(stored.settings(), tools=tools()) as inner:
                depth.append(inner)
                return (await inner.run("go")).final_message or ""

        return (deeper,)

    async def run() -> None:
        with pytest.raises(engine.TurnInterrupted):
            await session.run("go")

    model = engine.ScriptedModel([response(call("deeper"), repeat=None)])
    with trio.fail_after(PATIENCE_S):
        async with engine.open_engine(home=home, model=model, grace=5) as opened:
            before = await inside(opened)
            session = await opened.start_session(stored.settings(), tools=tools())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await reached.wait()
                assert len(opened.sessions()) == 6
                await session.interrupt()
            with trio.fail_after(5):
                while len(opened.sessions()) > 1:  # noqa: ASYNC110
                    await trio.sleep(0.001)
            assert opened.sessions() == (session,)
            await session.aclose()
            assert differences(before, await inside(opened)) == []
