"""What is special about asyncio hosts: cancellation waits for cleanup, callbacks run on the host's loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trio

import engine
import engine.aio
from engine.models import scripts
from engine.portal import Call
from engine.tools.approvals import Decision

FREE = engine.SessionSettings(sandbox="danger-full-access", approval_policy="never")
# An interrupt may come before the first request, so responses are chosen by what they answer.
HELD = scripts.response(scripts.wait(), repeat=None)
LATER = scripts.response(scripts.say("later"), when=scripts.When(user_text="once again"))


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    before = set(threading.enumerate())
    asyncio.run(main())
    assert [thread for thread in threading.enumerate() if thread not in before and not thread.daemon] == []


async def turn_began(stream: engine.aio.EventStream) -> None:
    async for event in stream:
        if event.msg.type == "task_started":
            return


def test_cancelling_a_call_interrupts_its_turn_before_it_returns(tmp_path: Path) -> None:
    async def main() -> None:
        model = engine.ScriptedModel([LATER, HELD])
        async with engine.aio.open_engine(home=tmp_path, model=model) as host, host.session(FREE) as session:
            with session.events() as stream:
                running = asyncio.create_task(session.run("x"))
                await turn_began(stream)
                running.cancel("enough")
                with pytest.raises(asyncio.CancelledError, match="enough"):
                    await running
                assert session.status == "interrupted"  # over by the time the cancellation arrives
            assert (await session.run("once again")).final_message == "later"

    run(main)


@pytest.mark.parametrize("back", [True, False])
def test_a_cancellation_that_comes_with_the_result_undoes_it(tmp_path: Path, back: bool) -> None:
    """`back`: the result is there, and only the host has not looked yet; else it comes while the call is cancelled."""

    async def main() -> None:
        async with engine.aio.open_engine(home=tmp_path, model=engine.ScriptedModel([])) as host:
            calls = host._host
            waiting, ended, cancelled = threading.Event(), threading.Event(), threading.Event()
            undone: list[str] = []

            async def quick() -> str:
                (waiting if back else cancelled).wait(10)  # holds up the engine's loop: no cancellation comes through
                ended.set()
                return "result"

            async def undo(result: str) -> None:
                await trio.lowlevel.checkpoint()
                undone.append(result)

            task = asyncio.create_task(calls.call(quick, undo=undo))
            await asyncio.sleep(0)
            waiting.set()
            if back:
                assert ended.wait(10)  # without giving the host's loop a turn
                after = Call(trio.lowlevel.checkpoint)
                calls.portal.submit(after)
                assert after.done.wait(10)
            task.cancel()
            await asyncio.sleep(0)
            cancelled.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert undone == ["result"]

    run(main)


def test_a_timeout_of_the_host_ends_the_turn(tmp_path: Path) -> None:
    async def main() -> None:
        model = engine.ScriptedModel([HELD])
        async with engine.aio.open_engine(home=tmp_path, model=model) as host, host.session(FREE) as session:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await session.run("x")
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            assert session.status == "interrupted"

    run(main)


def test_a_start_that_is_cancelled_leaves_no_session(tmp_path: Path) -> None:
    async def main() -> None:
        async with engine.aio.open_engine(home=tmp_path, model=engine.ScriptedModel([])) as host:
            for turns_of_the_loop in range(12):
                starting = asyncio.create_task(host.start_session(FREE))
                for _ in range(turns_of_the_loop):
                    await asyncio.sleep(0)
                if starting.cancel():
                    with pytest.raises(asyncio.CancelledError):
                        await starting
                else:  # it was there before
                    await (await starting).aclose()
                assert host.sessions() == ()

    run(main)


def test_opening_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async def open_and_wait() -> None:
        async with engine.aio.open_engine(home=tmp_path, model=engine.ScriptedModel([])):
            await asyncio.sleep(60)

    async def main() -> None:
        for milliseconds in (0, 1, 3, 10, 40):
            opening = asyncio.create_task(open_and_wait())
            await asyncio.sleep(milliseconds / 1000)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            assert [thread.name for thread in threading.enumerate() if thread.name == "engine"] == []

    run(main)


def test_reading_that_is_cancelled_loses_no_event(tmp_path: Path) -> None:
    async def main() -> None:
        async with engine.aio.open_engine(home=tmp_path, model=engine.ScriptedModel(["a"])) as host:
            session = await host.start_session(FREE)
            with session.events() as stream, session.events() as complete:
                seen: list[str] = []

                async def read() -> None:
                    async for event in stream:
                        seen.append(event.msg.type)

                reading = asyncio.create_task(read())
                turn = asyncio.create_task(session.run("x"))
                while not turn.done():
                    await asyncio.sleep(0)
                    reading.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await reading
                    reading = asyncio.create_task(read())
                await session.aclose()
                await reading
                expected = [event.msg.type async for event in complete]
            assert seen[seen.index("task_started") :] == expected[expected.index("task_started") :]

    run(main)


def test_an_interrupt_cancels_the_hosts_callback_and_waits_for_it(tmp_path: Path) -> None:
    ended: list[str] = []

    async def main() -> None:
        loop, asked = asyncio.get_running_loop(), asyncio.Event()

        async def approve(request: engine.ApprovalRequest, /) -> Decision:
            assert asyncio.get_running_loop() is loop
            asked.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                ended.append("tidied up")
                raise
            return "approved"

        @engine.tool(needs_approval=True)
        async def delete(key: str) -> str:
            """Deletes a key."""
            ended.append("deleted")
            return key

        model = engine.ScriptedModel([scripts.response(scripts.call("delete", key="k")), "done"])
        async with engine.aio.open_engine(home=tmp_path, model=model) as host:
            async with host.session(FREE, tools=[delete], approve=approve) as session:
                turn = await session.start_turn("go")
                await asked.wait()
                await turn.interrupt()
                with pytest.raises(engine.TurnInterrupted):
                    await turn.result()

    run(main)
    assert ended == ["tidied up"]


def test_a_callback_that_the_host_cancels_itself_is_a_refusal(tmp_path: Path) -> None:
    async def main() -> None:
        async def approve(request: engine.ApprovalRequest, /) -> Decision:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
            return "approved"

        @engine.tool(needs_approval=True)
        async def delete(key: str) -> str:
            """Deletes a key."""
            pytest.fail("it ran")

        model = engine.ScriptedModel([scripts.response(scripts.call("delete", key="k")), "done"])
        async with engine.aio.open_engine(home=tmp_path, model=model) as host:
            async with host.session(FREE, tools=[delete], approve=approve) as session:
                assert (await session.run("go")).final_message == "done"

    run(main)


def test_a_busy_host_does_not_stall_the_engine(tmp_path: Path) -> None:
    async def main() -> None:
        model = engine.ScriptedModel(["a"])
        async with engine.aio.open_engine(home=tmp_path, model=model) as host, host.session(FREE) as session:
            turn = await session.start_turn("x")
            deadline = time.monotonic() + 10
            while session.status != {"completed": "a"}:  # the host's loop does not run meanwhile
                assert time.monotonic() < deadline
                time.sleep(0.001)
            assert (await turn.result()).final_message == "a"

    run(main)


def test_two_engines_on_one_loop(tmp_path: Path) -> None:
    async def main() -> None:
        one = engine.aio.open_engine(home=tmp_path / "1", model=engine.ScriptedModel(["a"]))
        two = engine.aio.open_engine(home=tmp_path / "2", model=engine.ScriptedModel(["b"]))
        for home in ("1", "2"):
            (tmp_path / home).mkdir()
        async with one as first, two as second, first.session(FREE) as left, second.session(FREE) as right:
            results = await asyncio.gather(left.run("x"), right.run("y"))
            assert [result.final_message for result in results] == ["a", "b"]

    run(main)


def test_a_crash_is_told_on_the_hosts_loop(tmp_path: Path) -> None:
    told: list[tuple[engine.aio.Session, Exception]] = []

    async def main() -> None:
        loop, crashed = asyncio.get_running_loop(), asyncio.Event()

        def on_crash(session: engine.aio.Session, error: Exception) -> None:
            assert asyncio.get_running_loop() is loop
            told.append((session, error))
            crashed.set()

        model = engine.ScriptedModel(["a"])
        async with engine.aio.open_engine(home=tmp_path, model=model, on_crash=on_crash) as host:
            session = await host.start_session(FREE)

            def crash() -> None:
                async def fail() -> None:
                    raise ZeroDivisionError

                session._inner._core.ward.start_soon("broken", fail)

            session._host.now(crash)
            await crashed.wait()
            with pytest.raises(engine.SessionCrashed):
                await session.wait_closed()
        assert told[0][0] == session

    run(main)
    assert isinstance(told[0][1], ZeroDivisionError)
