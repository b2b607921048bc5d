"""A start happens whole or not at all, wherever it is cancelled, interrupted or closed (CONCURRENCY 1.1, 1.2)."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio

import engine
from engine.errors import EngineClosed
from tests.sweeps.leaks import Snapshot, differences, inside, outside
from tests.sweeps.lines import Lines
from tests.sweeps.places import KINDS, PATIENCE_S, Kind, Stored
from tests.sweeps.points import interrupt
from tests.sweeps.sweeping import SEEDS, Case, Places, sizes, sweep

BY_NAME = {kind.name: kind for kind in KINDS}
kinds = pytest.mark.parametrize("kind", KINDS, ids=str)


def cancelled(kind: Kind, stored: Stored, *, warm: bool = False) -> Case:
    """The caller of the start is cancelled. `warm`: the appender's thread and the supervisor run already."""

    async def main(points: Places, home: Path) -> str:
        with trio.fail_after(PATIENCE_S):
            async with kind.open(home) as opened:
                if warm:
                    await warm_up(opened, stored)
                before = await inside(opened, home)
                session: engine.Session | None = None
                with trio.CancelScope() as scope:
                    points.arm(scope.cancel)
                    try:
                        session = await kind(opened, stored)
                    finally:
                        points.disarm()
                if session is not None:
                    assert opened.sessions() == (session,)
                    await session.aclose()
                else:
                    assert scope.cancelled_caught
                if not kind.writes or session is None:
                    assert differences(before, await inside(opened, home)) == []
                session_after = await kind(opened, stored)
                assert (await session_after.run("go on")).final_message == "fine"
                return "cancelled" if session is None else "started"

    def case(points: Places, folder: Path) -> str:
        home = stored.copy(folder)
        before = outside()
        outcome = trio.run(main, points, home)
        assert differences(before, outside()) == []
        return outcome

    return case


def interrupted(kind: Kind, stored: Stored) -> Case:
    """The user presses Ctrl-C."""

    async def main(points: Places, home: Path, engines: list[engine.Engine], started: list[engine.Session]) -> None:
        with trio.fail_after(PATIENCE_S):
            async with kind.open(home) as opened:
                engines.append(opened)
                points.arm(interrupt)
                try:
                    started.append(await kind(opened, stored))
                    await trio.lowlevel.checkpoint()
                finally:
                    points.disarm()

    def case(points: Places, folder: Path) -> str:
        home = stored.copy(folder)
        before = outside(home)
        engines: list[engine.Engine] = []
        started: list[engine.Session] = []
        outcome = "started"
        try:
            trio.run(main, points, home, engines, started)
        except KeyboardInterrupt:
            outcome = "interrupted"
        assert points.hit == (outcome == "interrupted")
        assert left_behind(before, outside(home), kind.writes and bool(started)) == []
        check_empty(engines[0])
        trio.run(go_on, kind, home, stored)
        return outcome

    return case


def closed(kind: Kind, stored: Stored) -> Case:
    """The engine is closed while a session starts in it."""

    async def main(points: Places, home: Path) -> str:
        outcomes: list[str] = []

        async def start(opened: engine.Engine) -> None:
            points.arm(leave.set)
            try:
                session = await kind(opened, stored)
            except EngineClosed:
                outcomes.append("closed")
            else:
                outcomes.append("started")
            finally:
                points.disarm()
                leave.set()
            if outcomes == ["started"]:
                await session.wait_closed()

        leave = trio.Event()
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as callers:
                async with kind.open(home) as opened:
                    callers.start_soon(start, opened)
                    await leave.wait()
                check_empty(opened)
        (outcome,) = outcomes
        return outcome

    def case(points: Places, folder: Path) -> str:
        home = stored.copy(folder)
        before = outside(home)
        outcome = trio.run(main, points, home)
        assert left_behind(before, outside(home), kind.writes and outcome == "started") == []
        trio.run(go_on, kind, home, stored)
        return outcome

    return case


def left_behind(before: Snapshot, after: Snapshot, wrote: bool) -> list[str]:
    """What is there that should not be. `wrote`: the session was up, so its file is right, and a row for it."""
    right = ("files: new", "rows: more") if wrote else ()
    return [found for found in differences(before, after) if not found.startswith(right)]


def check_empty(opened: engine.Engine) -> None:
    """Nothing is registered with an engine that was closed."""
    assert opened.sessions() == ()
    assert opened._services.store.live_threads() == ()  # type: ignore[attr-defined]
    assert opened._pending == set()


async def warm_up(opened: engine.Engine, stored: Stored) -> None:
    """Starts what an engine starts on first use."""
    async with opened.session(stored.settings()) as session:
        await session.run_shell("true")
    assert opened._services.supervisor.statistics().starts == 1


async def go_on(kind: Kind, home: Path, stored: Stored) -> None:
    """The next engine on this home starts the next session."""
    with trio.fail_after(PATIENCE_S):
        async with kind.open(home) as opened:
            session = await kind(opened, stored)
            assert (await session.run("go on")).final_message == "fine"


@sizes(10)
@kinds
def test_the_caller_is_cancelled(kind: Kind, size: int, stored: Stored, tmp_path: Path) -> None:
    sweep(cancelled(kind, stored), tmp_path, size).check()


@sizes(8)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name in ("resumed", "writing")], ids=str)
def test_the_caller_is_cancelled_in_an_engine_that_was_used(
    kind: Kind, size: int, stored: Stored, tmp_path: Path
) -> None:
    sweep(cancelled(kind, stored, warm=True), tmp_path, size).check()


@sizes(10)
@kinds
def test_the_user_presses_ctrl_c(kind: Kind, size: int, stored: Stored, tmp_path: Path) -> None:
    sweep(interrupted(kind, stored), tmp_path, size).check()


@sizes(10)
@kinds
def test_the_engine_is_closed(kind: Kind, size: int, stored: Stored, tmp_path: Path) -> None:
    sweep(closed(kind, stored), tmp_path, size).check()


@sizes(20)
@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.name in ("resumed", "writing", "locked", "everything forked")], ids=str
)
def test_ctrl_c_comes_between_two_lines(kind: Kind, size: int, stored: Stored, tmp_path: Path) -> None:
    sweep(interrupted(kind, stored), tmp_path, size, make=Lines, seeds=SEEDS[:2]).check()


@sizes(10)
@pytest.mark.parametrize("how", ["cancelled", "interrupted", "closed"])
def test_a_start_that_is_told_by_telemetry(
    how: str, size: int, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spans of a start that was cut off are told, too, and its exporters end with their engine."""
    pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
    from engine.telemetry import exporters
    from tests.telemetry.conftest import OTEL, Kept

    monkeypatch.setattr(exporters, "exporters_of", lambda settings: Kept().exporters(settings))
    kind = attrs.evolve(BY_NAME["everything"], name="told", config={"otel": OTEL})
    case = {"cancelled": cancelled, "interrupted": interrupted, "closed": closed}[how](kind, stored)
    sweep(case, tmp_path, size).check()
