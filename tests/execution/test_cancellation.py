"""Cancelled at each of its steps, a command leaves no process, no entry and no file descriptor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio

from engine.execution import oneshot
from engine.execution.oneshot import run_command
from engine.execution.supervisor import Supervisor, open_supervisor
from engine.execution.terminals import TerminalManager, TerminalStatistics

from .processes import FAMILY, environment, marked_processes


@attrs.define(eq=False)
class CancelAt(trio.abc.Instrument):
    """Cancels `scope` before or after the `step`-th step of `task`."""

    task: trio.lowlevel.Task
    scope: trio.CancelScope
    step: int
    before: bool
    seen: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.seen += 1
            self._cancel(self.before)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self._cancel(not self.before)

    def _cancel(self, now: bool) -> None:
        if now and self.seen == self.step:
            self.scope.cancel()


async def sweep(action: Callable[[], Awaitable[object]], check: Callable[[], None]) -> int:
    """Run `action` again and again, cancelled one step later each time, until it gets through. Returns the steps."""
    for before in (True, False):
        for step in range(1, 100):
            with trio.CancelScope() as scope:
                instrument = CancelAt(trio.lowlevel.current_task(), scope, step, before)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await action()
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            check()
            if instrument.seen < step:
                break
        else:
            pytest.fail("it never got through")
    return step


@pytest.mark.parametrize("script", ["true", "sleep 1000 & setsid sleep 1000 >/dev/null 2>&1 & echo x", FAMILY])
async def test_one_shot_commands(supervisor: Supervisor, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oneshot, "READER_GRACE_S", 0.05)

    def check() -> None:
        assert marked_processes() == []
        assert supervisor.statistics().live == 0

    async def action() -> None:
        await run_command(supervisor, ["sh", "-c", script], cwd="/", env=environment(), timeout_ms=50)

    assert await sweep(action, check) > 3


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("script", ["true", "sleep 1000 & setsid sleep 1000 >/dev/null 2>&1 & echo x"])
async def test_unified_exec_commands(supervisor: Supervisor, script: str, tty: bool) -> None:
    async with trio.open_nursery() as nursery:
        manager = TerminalManager(supervisor, nursery)

        def check() -> None:
            assert marked_processes() == []
            assert supervisor.statistics().live == 0
            assert manager.statistics() == TerminalStatistics(background=0, in_call=0)

        async def action() -> None:
            await manager.exec_command(["sh", "-c", script], cwd="/", env=environment(), call_id="c", tty=tty)

        assert await sweep(action, check) > 2
        await manager.close()


async def test_the_whole_life_of_a_supervisor() -> None:
    async def action() -> None:
        async with open_supervisor() as supervisor:
            await supervisor.spawn(["sh", "-c", FAMILY], cwd="/", env=environment())
            await trio.lowlevel.checkpoint()
            async with await supervisor.spawn(["true"], cwd="/", env=environment()) as running:
                await running.wait()

    def check() -> None:
        assert marked_processes() == []

    assert await sweep(action, check) > 5
