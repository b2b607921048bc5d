"""The user's own command: whatever ends it leaves nothing of it running, and the thread goes on (tools.md 3.6)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

import engine
from engine.models.scripts import When, response, say, wait
from tests.sweeps.leaks import differences, inside, outside
from tests.sweeps.places import PATIENCE_S
from tests.sweeps.sweeping import Case, Places, sizes, sweep
from tests.sweeps.turns import NO_SNAPSHOT, check_history, check_request

LINGERS = "sleep 1000 >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 & echo out; wait"

Action = Callable[[engine.Session, engine.ScriptedModel], Awaitable[object]]


def swept(action: Action, *, beside: bool, alone: bool = False) -> Case:
    """`action` is cancelled while a command of the user's runs, `beside` a turn or alone. With `alone` the action is
    that command."""

    async def main(points: Places, cwd: Path, home: Path) -> str:
        model = engine.ScriptedModel(
            [
                response(say("fine", phase="final_answer"), when=When(user_text="next"), repeat=None),
                response(wait(), say("done"), repeat=None),
            ]
        )
        settings = engine.SessionSettings(cwd=cwd, sandbox="danger-full-access", config=NO_SNAPSHOT)
        with trio.fail_after(PATIENCE_S):
            async with engine.open_engine(home=home, model=model, grace=5) as opened:
                before = await inside(opened)
                session = await opened.start_session(settings)
                statistics = opened._services.supervisor.statistics
                async with trio.open_nursery() as callers:
                    if beside:
                        callers.start_soon(quietly, session.run, "go")
                        await model.until_waiting()
                    if not alone:
                        callers.start_soon(quietly, session.run_shell, LINGERS)
                        with session.events() as events:
                            async for event in events:
                                if event.msg.type == "exec_command_output_delta":
                                    break
                        assert statistics().live == 1
                    outcome = "cancelled"
                    with trio.CancelScope() as scope:
                        points.arm(scope.cancel, trio.lowlevel.current_task())
                        try:
                            await action(session, model)
                            outcome = "done"
                        finally:
                            points.disarm()
                    assert scope.cancelled_caught == (outcome == "cancelled")
                    core = session._core
                    if alone:  # it is over, and the turn it ran beside is not
                        assert core.beside == set()
                        assert (core.active is not None) == beside
                        assert statistics().live == 0
                    else:  # no turn that nobody wants any more goes on
                        await trio.testing.wait_all_tasks_blocked()
                        if core.active is not None and core.active.kind == "regular":
                            with trio.fail_after(5), pytest.raises(engine.TurnInterrupted):
                                await core.active.result.wait()
                    await session.interrupt()
                assert statistics().live == 0
                assert core.active is None
                assert core.beside == set()
                assert (await session.run("next")).final_message == "fine"
                check_request(model.requests[-1].body)
                # Whoever was cancelled has withdrawn what was asked, or it was done; an interrupt drops what waits.
                items = model.requests[-1].body["input"]
                assert isinstance(items, list)
                asked = sum("something else" in json.dumps(item) for item in items)
                assert asked <= 1 if outcome == "cancelled" or beside else asked == 1
                await session.aclose()
                await check_history(opened, session)
                assert differences(before, await inside(opened)) == []
                return outcome

    def case(points: Places, folder: Path) -> str:
        home, cwd = folder / "home", folder / "work"
        home.mkdir()
        cwd.mkdir()
        before = outside()
        outcome = trio.run(main, points, cwd, home)
        assert differences(before, outside()) == []
        return outcome

    return case


async def quietly(function: Callable[[str], Awaitable[object]], what: str) -> None:
    """Something that is stopped by what the test does."""
    try:
        await function(what)
    except (engine.TurnInterrupted, engine.SessionClosed):
        pass


async def replace(session: engine.Session, model: engine.ScriptedModel) -> None:
    """A turn of the model in place of the command."""
    async with session.turn("something else") as turn:
        await model.until_waiting()
        model.release()
        assert (await turn.result()).final_message == "done"


async def run_command(session: engine.Session, model: engine.ScriptedModel) -> None:
    """A command that ends."""
    await session.run_shell("echo something else; sleep 1000 >/dev/null 2>&1 &")


CASES = {
    "replaced by a turn": swept(replace, beside=False),
    "cancelled": swept(run_command, beside=False, alone=True),
    "cancelled beside a turn": swept(run_command, beside=True, alone=True),
}


@sizes(8)
@pytest.mark.parametrize("how", ["cancelled", "cancelled beside a turn"])
def test_a_command_that_is_fenced_off_at_once(
    how: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine where a process takes long to start: its caller still comes back only once it is gone."""
    monkeypatch.setattr("engine.session.core.INTERRUPT_GRACE", 0)
    sweep(CASES[how], tmp_path, size).check()


@sizes(15)
@pytest.mark.parametrize("how", CASES)
def test_whatever_happens_to_a_command(how: str, size: int, tmp_path: Path) -> None:
    sweep(CASES[how], tmp_path, size).check()
