"""An end that is itself cut short is an end by force, still tidy, true and soon (CONCURRENCY 2, session.md 3.11)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

import engine
from engine.models.scripts import When, call, response, say, script, wait
from tests.sweeps.leaks import differences, inside, outside
from tests.sweeps.places import PATIENCE_S
from tests.sweeps.points import interrupt
from tests.sweeps.sweeping import Case, Places, sizes, sweep
from tests.sweeps.turns import check_history, check_request, check_rollout

GRACE = 2.0  # nothing here needs it: everything that is asked to stop does
SOON = 1.5
LINGERS = "sleep 1000 >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 & wait"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.execution.terminals.MIN_YIELD_MS", 1)


@attrs.define(eq=False)
class Busy:
    """An engine with three sessions: one in a turn, with a background terminal and a tool that waits; one in a command
    of its user's own; one that is idle."""

    cwd: Path
    model: engine.ScriptedModel = attrs.field(init=False)
    in_turn: engine.Session = attrs.field(init=False)
    in_shell: engine.Session = attrs.field(init=False)
    idle: engine.Session = attrs.field(init=False)
    turn: engine.Turn = attrs.field(init=False)
    ends: list[str] = attrs.field(factory=list)

    def settings(self) -> engine.SessionSettings:
        """Settings of all sessions."""
        return engine.SessionSettings(cwd=self.cwd, sandbox="danger-full-access")

    @asynccontextmanager
    async def open(self, home: Path) -> AsyncIterator[engine.Engine]:
        """The engine, alone."""
        self.model = engine.ScriptedModel(
            script(
                response(say("fine", phase="final_answer"), when=When(user_text="next"), repeat=None),
                response(call("exec_command", cmd=LINGERS, yield_time_ms=1)),
                response(say("And now"), call("slow"), wait()),
            )
        )
        async with engine.open_engine(home=home, model=self.model, grace=GRACE) as opened:
            yield opened

    async def start(self, opened: engine.Engine, callers: trio.Nursery) -> None:
        """Starts the sessions and what they do; `callers` is where those wait who want the results."""

        @engine.tool()
        async def slow() -> str:
            await trio.Event().wait()
            return "never"

        self.idle = await opened.start_session(self.settings())
        await self.idle.run("next")
        self.in_shell = await opened.start_session(self.settings())
        callers.start_soon(self._run_shell)
        self.in_turn = await opened.start_session(self.settings(), tools=(slow,))
        self.turn = await self.in_turn.start_turn("go")
        callers.start_soon(self._result)
        await self.model.until_waiting()
        while opened._services.supervisor.statistics().spawned < 2:
            await trio.lowlevel.checkpoint()
        assert self.in_turn._core.resources().terminals().statistics().background == 1

    async def _run_shell(self) -> None:
        try:
            await self.in_shell.run_shell(LINGERS)
        except engine.EngineError as exc:
            self.ends.append(type(exc).__name__)

    async def _result(self) -> None:
        try:
            await self.turn.result()
        except engine.EngineError as exc:
            self.ends.append(type(exc).__name__)

    def check_ended(self, *, both: bool) -> None:
        """Whoever waited was told, and the rollout says how the turn ended."""
        assert len(self.ends) == 1 + both
        assert set(self.ends) <= {"TurnInterrupted", "SessionClosed"}, self.ends
        assert check_rollout(lines_of(self.in_turn), self.turn.id) == "turn_aborted"

    async def check_resumed(self, opened: engine.Engine, session: engine.Session) -> None:
        """The thread goes on."""
        await check_history(opened, session)
        resumed = await opened.resume_session(session.thread_id, settings=self.settings())
        assert (await resumed.run("next")).final_message == "fine"
        check_request(self.model.requests[-1].body)
        await resumed.aclose()


def lines_of(session: engine.Session) -> list[dict[str, object]]:
    """The lines of a rollout, each of them whole."""
    import json

    assert session.rollout_path is not None
    text = Path(session.rollout_path).read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def close_cancelled(points: Places, folder: Path) -> str:
    """`Session.aclose()` is cancelled."""

    async def main(busy: Busy, home: Path) -> str:
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as callers, busy.open(home) as opened:
                before = await inside(opened)
                await busy.start(opened, callers)
                outcome = "cancelled"
                began = time.perf_counter()
                with trio.CancelScope() as scope:
                    points.arm(scope.cancel, trio.lowlevel.current_task())
                    try:
                        await busy.in_turn.aclose()
                        outcome = "closed"
                    finally:
                        points.disarm()
                assert time.perf_counter() - began < SOON
                assert scope.cancelled_caught == (outcome == "cancelled")
                assert busy.in_turn._core.closed.is_set()
                assert set(opened.sessions()) == {busy.idle, busy.in_shell}
                await trio.testing.wait_all_tasks_blocked()
                busy.check_ended(both=False)
                assert (await busy.idle.run("next")).final_message == "fine"  # the others live on
                await busy.in_shell.aclose()
                await busy.check_resumed(opened, busy.in_turn)
                await busy.idle.aclose()
                assert differences(before, await inside(opened)) == []
                return outcome

    home, busy = place(folder)
    before = outside()
    outcome = trio.run(main, busy, home)
    assert differences(before, outside()) == []
    return outcome


def exit_cancelled(points: Places, folder: Path) -> str:
    """Leaving `open_engine` is cancelled."""

    async def main(busy: Busy, home: Path) -> str:
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as callers:
                outcome = "cancelled"
                with trio.CancelScope() as scope:
                    async with busy.open(home) as opened:
                        await busy.start(opened, callers)
                        began = time.perf_counter()
                        points.arm(scope.cancel)
                    outcome = "closed"
                points.disarm()
                assert time.perf_counter() - began < SOON
                assert scope.cancelled_caught == (outcome == "cancelled")
                assert opened.sessions() == ()
                assert opened._services.store.live_threads() == ()  # type: ignore[attr-defined]
            busy.check_ended(both=True)
            async with busy.open(home) as opened:
                await busy.check_resumed(opened, busy.in_turn)
                await busy.check_resumed(opened, busy.idle)
        return outcome

    home, busy = place(folder)
    before = outside()
    outcome = trio.run(main, busy, home)
    assert differences(before, outside()) == []
    return outcome


def close_interrupted(points: Places, folder: Path) -> str:
    """Ctrl-C while `Session.aclose()` runs."""

    async def close(busy: Busy) -> None:
        await busy.in_turn.aclose()
        await trio.lowlevel.checkpoint()

    return interrupted(points, folder, close)


def exit_interrupted(points: Places, folder: Path) -> str:
    """Ctrl-C while `open_engine` is left."""
    return interrupted(points, folder, None)


def interrupted(points: Places, folder: Path, close: Callable[[Busy], Awaitable[None]] | None) -> str:
    """Ctrl-C while `close` runs, in the engine, or without it while that is left."""

    async def main(busy: Busy, home: Path) -> None:
        with trio.fail_after(PATIENCE_S):
            async with busy.open(home) as opened:
                async with trio.open_nursery() as callers:
                    await busy.start(opened, callers)
                    callers.cancel_scope.cancel()
                points.arm(interrupt)
                if close is not None:
                    await close(busy)
                    points.disarm()
            await trio.lowlevel.checkpoint()

    async def go_on(busy: Busy, home: Path) -> None:
        with trio.fail_after(PATIENCE_S):
            async with busy.open(home) as opened:
                await busy.check_resumed(opened, busy.in_turn)

    home, busy = place(folder)
    before = outside()
    outcome = "closed"
    began = time.perf_counter()
    try:
        trio.run(main, busy, home)
    except KeyboardInterrupt:
        outcome = "interrupted"
    assert time.perf_counter() - began < 2 * SOON
    assert points.hit == (outcome == "interrupted")
    assert differences(before, outside()) == []
    assert check_rollout(lines_of(busy.in_turn), busy.turn.id) == "turn_aborted"
    trio.run(go_on, busy, home)
    assert differences(before, outside()) == []
    return outcome


def place(folder: Path) -> tuple[Path, Busy]:
    """A home and a work folder."""
    home, cwd = folder / "home", folder / "work"
    home.mkdir()
    cwd.mkdir()
    return home, Busy(cwd)


CASES: dict[str, Case] = {
    "aclose cancelled": close_cancelled,
    "exit cancelled": exit_cancelled,
    "ctrl-c at exit": exit_interrupted,
    "ctrl-c at aclose": close_interrupted,
}


@sizes(12)
@pytest.mark.parametrize("how", CASES)
def test_whatever_cuts_the_end_short(how: str, size: int, tmp_path: Path) -> None:
    sweep(CASES[how], tmp_path, size).check()
