"""A compaction that is interrupted or cancelled at any point leaves the old history or the new one, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import engine
from engine.models.scripts import When, call, cut, reply, response, say, usage
from engine.session.compaction.texts import SUMMARIZE, summary_text
from tests.session.conftest import texts
from tests.sweeps.leaks import differences, inside, outside
from tests.sweeps.places import PATIENCE_S
from tests.sweeps.sweeping import Case, Places, sizes, sweep
from tests.sweeps.turns import NO_SNAPSHOT, check_history, check_request

SUMMARY = summary_text("the note")
LIMITS = {"model_context_window": 20_000, "model_auto_compact_token_limit": 15_000}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.session.retrying.BACKOFF_BASE", 0.001)
    monkeypatch.setattr("engine.session.core.INTERRUPT_GRACE", 0.01)


def scripted() -> engine.ScriptedModel:
    """Fills the window in the middle of a turn; the first answer to the request for a summary breaks off."""
    return engine.ScriptedModel(
        [
            response(say("fine"), when=When(user_text="proceed"), repeat=None),
            response(say("hal", chunk=1, interval=0.001), cut(), when=When(user_text=SUMMARIZE)),
            response(say("the note", chunk=4, interval=0.001), when=When(user_text=SUMMARIZE), repeat=None),
            response(call("look"), usage(input=16_000)),
            reply("done", repeat=None),
        ]
    )


@engine.tool()
async def look() -> str:
    """Looks."""
    return "seen"


def swept(how: str) -> Case:
    """A turn that is compacted on its way, then a compaction by hand; `how` they are stopped."""

    async def main(points: Places, cwd: Path, home: Path) -> str:
        model = scripted()
        settings = engine.SessionSettings(cwd=cwd, sandbox="danger-full-access", config={**NO_SNAPSHOT, **LIMITS})
        with trio.fail_after(PATIENCE_S):
            async with engine.open_engine(home=home, model=model, grace=5) as opened:
                before = await inside(opened)
                session = await opened.start_session(settings, tools=(look,))
                outcome = await stopped(points, session)
                core = session._core
                with trio.fail_after(5):
                    while core.active is not None:
                        await core.active.finished.wait()
                        await trio.lowlevel.checkpoint()
                assert (await session.run("proceed")).final_message == "fine"
                check_request(model.requests[-1].body)
                items = model.requests[-1].body["input"]
                assert isinstance(items, list)
                said = texts(items)
                assert said.count(SUMMARY) == (1 if core.generation else 0)
                assert SUMMARIZE not in said
                await session.aclose()
                await check_history(opened, session)
                resumed = await opened.resume_session(session.thread_id, settings=settings, tools=(look,))
                await resumed._core.generation_counted()
                assert resumed._core.generation == core.generation
                await resumed.aclose()
                assert differences(before, await inside(opened)) == []
                return outcome

    async def stopped(points: Places, session: engine.Session) -> str:
        if how == "cancelled":
            outcome = "cancelled"
            with trio.CancelScope() as scope:
                points.arm(scope.cancel)
                try:
                    await both(session)
                    outcome = "done"
                finally:
                    points.disarm()
            return outcome
        act = trio.Event()
        outcomes: list[str] = []

        async def stop() -> None:
            await act.wait()
            await session.interrupt()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            points.arm(act.set)
            try:
                await both(session)
                outcomes.append("done")
            except engine.TurnInterrupted:
                outcomes.append("interrupted")
            points.disarm()
            act.set()
        return outcomes[0]

    def case(points: Places, folder: Path) -> str:
        home, cwd = folder / "home", folder / "work"
        home.mkdir()
        cwd.mkdir()
        before = outside()
        outcome = trio.run(main, points, cwd, home)
        assert differences(before, outside()) == []
        return outcome

    return case


async def both(session: engine.Session) -> None:
    assert (await session.run("go")).final_message == "done"
    await session.compact()


@sizes(15)
@pytest.mark.parametrize("how", ["interrupted", "cancelled"])
def test_whatever_stops_a_compaction(how: str, size: int, tmp_path: Path) -> None:
    sweep(swept(how), tmp_path, size).check()
