"""An interrupt at any stage of a turn leaves a tidy, true state (session.md 3.5, CONCURRENCY 1.6)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

import engine
from engine.protocol.events import TaskStarted, UserMessage
from tests.sweeps.leaks import differences, inside, outside
from tests.sweeps.lines import Lines
from tests.sweeps.places import PATIENCE_S
from tests.sweeps.points import interrupt
from tests.sweeps.sweeping import SEEDS, Case, Places, sizes, sweep
from tests.sweeps.turns import Story, check_events, check_history, check_request, check_rollout, drained


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.session.retrying.BACKOFF_BASE", 0.001)
    monkeypatch.setattr("engine.session.core.INTERRUPT_GRACE", 0.01)


def interrupted(*, stubborn: bool = False, network: bool = False) -> Case:
    """`session.interrupt()` while the turn runs."""

    async def main(points: Places, story: Story, home: Path) -> str:
        act = trio.Event()

        async def stop() -> None:
            await act.wait()
            await story.session.interrupt()
            told.extend(await drained(stream))

        told: list[engine.Event] = []
        with trio.fail_after(PATIENCE_S):
            async with story.open(home) as opened:
                before = await inside(opened)
                session = await story.start(opened)
                with session.events(buffer=100_000) as stream:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(stop)
                        points.arm(act.set)
                        turn = await session.start_turn("go")
                        try:
                            assert (await turn.result()).final_message == "done"
                            outcome = "completed"
                        except engine.TurnInterrupted:
                            outcome = "interrupted"
                        points.disarm()
                        act.set()
                    how = check_events(told, turn.id)
                    assert how == {"completed": "task_complete", "interrupted": "turn_aborted"}[outcome]
                    with trio.fail_after(5):
                        await turn._run.finished.wait()  # at once, unless it was fenced off
                    assert opened._services.supervisor.statistics().live == 0
                    assert (await session.run("next")).final_message == "fine"
                    check_request(story.model.requests[-1].body)
                    told += await drained(stream)
                await session.aclose()
                check_events(told, turn.id)
                assert check_rollout(story.lines(), turn.id) == how
                await check_history(opened, session)
                story.check_files()
                assert story.left(before, await inside(opened)) == []
                return outcome

    return told_from_outside(main, stubborn, network)


def run_cancelled(*, stubborn: bool = False, network: bool = False) -> Case:
    """The caller of `Session.run` is cancelled."""

    async def main(points: Places, story: Story, home: Path) -> str:
        with trio.fail_after(PATIENCE_S):
            async with story.open(home) as opened:
                before = await inside(opened)
                session = await story.start(opened)
                with session.events(buffer=100_000) as stream:
                    outcome = "cancelled"
                    with trio.CancelScope() as scope:
                        points.arm(scope.cancel)
                        try:
                            assert (await session.run("go")).final_message == "done"
                            outcome = "completed"
                        finally:
                            points.disarm()
                    assert scope.cancelled_caught == (outcome == "cancelled")
                    assert (await session.run("next")).final_message == "fine"
                    check_request(story.model.requests[-1].body)
                    events = await drained(stream)
                turns = [event.id for event in events if isinstance(event.msg, TaskStarted)]
                assert len(turns) in ((1, 2) if outcome == "cancelled" else (2,))
                # It is no input that steers a turn whose caller has gone.
                assert [e.msg.message for e in events if e.id == turns[-1] and isinstance(e.msg, UserMessage)] == [
                    "next"
                ]
                await session.aclose()
                for turn in map(engine.TurnId, turns):
                    how = check_events(events, turn)
                    assert check_rollout(story.lines(), turn) == how
                    # A turn that completes by itself while it is interrupted has won the race, its caller has not.
                    assert how == "task_complete" or (outcome == "cancelled" and turn != turns[-1])
                await check_history(opened, session)
                story.check_files()
                assert story.left(before, await inside(opened)) == []
                return outcome

    return told_from_outside(main, stubborn, network)


def session_closed(*, stubborn: bool = False, network: bool = False) -> Case:
    """`Session.aclose()` while the turn runs."""

    async def main(points: Places, story: Story, home: Path) -> str:
        act = trio.Event()

        async def close() -> None:
            await act.wait()
            await story.session.aclose()

        with trio.fail_after(PATIENCE_S):
            async with story.open(home) as opened:
                before = await inside(opened)
                session = await story.start(opened)
                with session.events(buffer=100_000) as stream:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(close)
                        points.arm(act.set)
                        outcome, turn = await run_to_its_end(session)
                        points.disarm()
                        act.set()
                    events = [event async for event in stream]
                assert events[-1].msg.type == "shutdown_complete"
                check_end(story, events, turn, outcome)
                await check_history(opened, session) if story.lines() else None
                assert story.left(before, await inside(opened)) == []
                await check_resumed(opened, story)
                return outcome

    return told_from_outside(main, stubborn, network)


def engine_closed(*, stubborn: bool = False, network: bool = False) -> Case:
    """The block of the engine is left while the turn runs."""

    async def main(points: Places, story: Story, home: Path) -> str:
        leave, everything = trio.Event(), trio.lowlevel.current_task()
        events: list[engine.Event] = []
        ends: list[tuple[str, engine.TurnId | None]] = []

        async def run_turn(session: engine.Session) -> None:
            with session.events(buffer=100_000) as stream:
                points.arm(leave.set, everything)
                ends.append(await run_to_its_end(session))
                points.disarm()
                leave.set()
                events.extend([event async for event in stream])

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as callers:
                async with story.open(home) as opened:
                    callers.start_soon(run_turn, await story.start(opened))
                    await leave.wait()
                assert opened.sessions() == ()
                assert opened._services.store.live_threads() == ()  # type: ignore[attr-defined]
            ((outcome, turn),) = ends
            check_end(story, events, turn, outcome)
            async with story.open(home) as reopened:
                await check_resumed(reopened, story)
        return outcome

    return told_from_outside(main, stubborn, network)


def ctrl_c(*, stubborn: bool = False, network: bool = False) -> Case:
    """The user presses Ctrl-C while the turn runs."""

    async def main(points: Places, story: Story, home: Path, seen: list[engine.Event]) -> None:
        with trio.fail_after(PATIENCE_S):
            async with story.open(home) as opened:
                session = await story.start(opened)
                with session.events(buffer=100_000) as stream:
                    points.arm(interrupt)
                    try:
                        await session.run("go")
                        await trio.lowlevel.checkpoint()
                    finally:
                        points.disarm()
                        seen += await drained(stream)

    async def go_on(story: Story, home: Path) -> None:
        with trio.fail_after(PATIENCE_S):
            async with story.open(home) as opened:
                await check_resumed(opened, story)

    def case(points: Places, folder: Path) -> str:
        home, cwd = folder / "home", folder / "work"
        home.mkdir()
        cwd.mkdir()
        before = outside()
        story = Story(cwd, stubborn, network)
        seen: list[engine.Event] = []
        outcome = "completed"
        try:
            trio.run(main, points, story, home, seen)
        except KeyboardInterrupt:
            outcome = "interrupted"
        assert points.hit == (outcome == "interrupted")
        assert differences(before, outside()) == []
        for turn in {event.id for event in seen if isinstance(event.msg, TaskStarted)}:
            check_rollout(story.lines(), engine.TurnId(turn))
        story.check_files()
        trio.run(go_on, story, home)
        assert differences(before, outside()) == []
        return outcome

    return case


def steered(*, stubborn: bool = False, network: bool = False) -> Case:
    """More input at any time: it steers the turn or starts the next one, and is never lost or doubled."""

    async def main(points: Places, story: Story, home: Path) -> str:
        act = trio.Event()
        outcomes: list[str] = []

        async def say_more() -> None:
            await act.wait()
            more = await story.session.start_turn("one more thing")
            outcomes.append("steered" if more.id == turns[0] else "started")
            assert (await more.result()).final_message == "done"

        turns: list[engine.TurnId] = []
        with trio.fail_after(PATIENCE_S):
            async with story.open(home) as opened:
                session = await story.start(opened)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(say_more)
                    points.arm(act.set)
                    turn = await session.start_turn("go")
                    turns.append(turn.id)
                    assert (await turn.result()).final_message == "done"
                    points.disarm()
                    act.set()
                assert (await session.run("next")).final_message == "fine"
                items = story.model.requests[-1].body["input"]
                assert json.dumps(items).count("one more thing") == 1
                check_request(story.model.requests[-1].body)
                await session.aclose()
                await check_history(opened, session)
        return outcomes[0]

    return told_from_outside(main, stubborn, network)


async def run_to_its_end(session: engine.Session) -> tuple[str, engine.TurnId | None]:
    """How the turn ended for its caller."""
    try:
        turn = await session.start_turn("go")
    except engine.SessionClosed:
        return "refused", None
    try:
        assert (await turn.result()).final_message == "done"
    except engine.TurnInterrupted:
        return "interrupted", turn.id
    return "completed", turn.id


def check_end(story: Story, events: list[engine.Event], turn: engine.TurnId | None, outcome: str) -> None:
    """Events and lines of a session that was closed."""
    assert story.session._core.closed.is_set()
    if turn is None:
        assert story.lines() == []
    else:
        how = {"completed": "task_complete", "interrupted": "turn_aborted"}[outcome]
        assert check_events(events, turn) == how
        assert check_rollout(story.lines(), turn) == how
    story.check_files()


async def check_resumed(opened: engine.Engine, story: Story) -> None:
    """The thread goes on, if there is one."""
    if not story.lines():
        return
    thread = story.session.thread_id
    session = await opened.resume_session(thread, settings=story.settings(), tools=story.tools())
    assert (await session.run("next")).final_message == "fine"
    check_request(story.model.requests[-1].body)
    await session.aclose()


Main = Callable[[Places, Story, Path], Awaitable[str]]


def told_from_outside(main: Main, stubborn: bool, network: bool) -> Case:
    """The case that runs `main` in a fresh home and looks at what is left afterwards."""

    def case(points: Places, folder: Path) -> str:
        home, cwd = folder / "home", folder / "work"
        home.mkdir()
        cwd.mkdir()
        before = outside()
        outcome = trio.run(main, points, Story(cwd, stubborn, network), home)
        assert differences(before, outside()) == []
        return outcome

    return case


CASES = {
    "interrupted": interrupted,
    "run cancelled": run_cancelled,
    "session closed": session_closed,
    "engine closed": engine_closed,
    "ctrl-c": ctrl_c,
    "steered": steered,
}


@sizes(12)
@pytest.mark.parametrize("stubborn", [False, True], ids=["quick", "stubborn"])
@pytest.mark.parametrize("how", CASES)
def test_whatever_ends_the_turn(how: str, stubborn: bool, size: int, tmp_path: Path) -> None:
    sweep(CASES[how](stubborn=stubborn), tmp_path, size).check()


@sizes(12)
@pytest.mark.parametrize("how", CASES)
def test_whatever_ends_the_turn_of_a_model_in_the_network(how: str, size: int, tmp_path: Path) -> None:
    sweep(CASES[how](network=True), tmp_path, size).check()


@sizes(12)
def test_ctrl_c_comes_between_two_lines_of_a_turn(size: int, tmp_path: Path) -> None:
    sweep(ctrl_c(), tmp_path, size, make=Lines, seeds=SEEDS[:3]).check()
