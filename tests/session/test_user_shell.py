"""The user's own command: a turn of its own when idle, beside the active turn otherwise."""

from __future__ import annotations

import trio

from engine.models.scripts import reply, response, wait
from tests.session.conftest import Lab, texts


async def test_when_idle_it_is_a_turn_and_the_model_sees_it_next(lab: Lab) -> None:
    async with lab.session(reply("seen")) as session:
        with session.events() as events:
            await session.run_shell("echo out; exit 3")
            kinds = [(await anext(events)).msg.type for _ in range(events.pending())]
        assert [kind for kind in kinds if kind != "exec_command_output_delta"][1:] == [
            *["task_started", "exec_command_begin", "exec_command_end", "raw_response_item", "task_complete"],
        ]
        await session.run("go")
    (told,) = [text for text in texts(lab.input()) if text.startswith("<user_shell_command>")]
    assert "<command>\necho out; exit 3\n</command>\n<result>\nExit code: 3\nDuration: " in told
    assert "Output:\nout\n" in told


async def test_beside_a_turn_it_has_no_life_cycle_and_is_pending_input(lab: Lab) -> None:
    async with lab.session(response(wait()), reply("done")) as session:
        turn = await session.start_turn("go")
        await lab.model.until_waiting()
        await session.run_shell("echo aside")
        lab.model.release()
        await turn.result()
    assert lab.kinds().count("task_started") == 1
    assert "aside" in texts(lab.input())[-1]


async def test_an_interrupt_kills_it_and_says_so(lab: Lab) -> None:
    async with lab.session(reply("x")) as session:
        with session.events() as events:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_quietly, session)
                async for event in events:
                    if event.msg.type == "exec_command_begin":
                        break
                await session.interrupt()
        await session.run("go")
    (told,) = [text for text in texts(lab.input()) if text.startswith("<user_shell_command>")]
    assert "Exit code: -1\n" in told
    assert "command aborted by user" in told


async def test_an_interrupt_of_the_turn_ends_what_runs_beside_it(lab: Lab) -> None:
    async with lab.session(response(wait()), reply("x")) as session:
        turn = await session.start_turn("go")
        await lab.model.until_waiting()
        with session.events() as events:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_quietly, session)
                async for event in events:
                    if event.msg.type == "exec_command_begin":
                        break
                await turn.interrupt()
        await session.run("again")
    assert lab.kinds().count("turn_aborted") == 1


async def test_closing_the_session_answers_who_waits_for_a_command(lab: Lab) -> None:
    async with lab.session(response(wait())) as session:
        await session.start_turn("go")
        await lab.model.until_waiting()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_quietly, session)
            await trio.testing.wait_all_tasks_blocked(0.05)
            await session.aclose()


async def run_quietly(session: object) -> None:
    import engine

    assert isinstance(session, engine.Session)
    try:
        await session.run_shell("sleep 100")
    except (engine.TurnInterrupted, engine.SessionClosed):
        pass
