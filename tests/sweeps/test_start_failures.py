"""A start fails at every one of its steps: one error that says which, and nothing left (CONCURRENCY 1.1)."""

from __future__ import annotations

import errno
import logging
import shutil
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

import engine
from engine.errors import EngineClosed
from engine.models.scripts import reply
from engine.session.startup import Start, Step
from engine.session.steps import GRAPH
from engine.thread_store.appender import open_appender
from engine.thread_store.local import LocalThreadStore
from tests.sweeps.leaks import differences, inside, outside
from tests.sweeps.places import KINDS, PATIENCE_S, WRITING, Kind, Stored, opened_on, spread
from tests.thread_store.faults import FaultyFiles

WRITTEN = ("files: new", "files: changed", "rows: more")
Act = Callable[[Start], Awaitable[None]]


class Boom(Exception):
    """What the test makes a step fail with."""


def changed(graph: tuple[Step, ...], name: str, act: Callable[[Step, Start], Awaitable[None]]) -> tuple[Step, ...]:
    """The graph with `act(step, start)` in place of the work of the step `name`."""

    def run(step: Step) -> Act:
        async def acting(start: Start) -> None:
            await act(step, start)

        return acting

    return tuple(attrs.evolve(step, run=run(step)) if step.name == name else step for step in graph)


def failing(name: str, when: str, boom: Exception) -> Callable[[Step, Start], Awaitable[None]]:
    """Fails before the work of the step, or after it: then what it has made must go again."""

    async def act(step: Step, start: Start) -> None:
        if when == "after":
            await step.run(start)
            await trio.lowlevel.checkpoint()
        raise boom

    return act


def beside(*acts: tuple[str, Act]) -> tuple[Step, ...]:
    """The graph with more steps that need nothing."""
    return (*(Step(name, act, deadline=PATIENCE_S) for name, act in acts), *GRAPH)


async def hang(start: Start) -> None:
    await trio.sleep_forever()


async def fail_on_the_way_out(start: Start) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise Boom("cleanup")


async def fail(start: Start) -> None:
    raise Boom("step")


@asynccontextmanager
async def watched(
    stored: Stored, tmp_path: Path, kind: Kind | None = None, *, writes: bool = False, **options: object
) -> AsyncIterator[engine.Engine]:
    """An engine on a copy of the stored threads; whatever is done in the block must leave nothing behind.

    `writes`: but for the files of what it starts.
    """
    home = stored.copy(tmp_path)
    process = outside(home)
    async with opened_on(home, **options) if kind is None else kind.open(home) as opened:
        with trio.fail_after(PATIENCE_S):
            before = await inside(opened, home)
            yield opened
            left = differences(before, await inside(opened, home))
            assert [found for found in left if not (writes and found.startswith(WRITTEN))] == []
            opened._graph = GRAPH
            async with opened.session(stored.settings(ephemeral=True)) as session:  # it still starts the next one
                assert (await session.run("go on")).final_message == "fine"
    shutil.rmtree(home / "locks", ignore_errors=True)  # of that one
    left = [found for found in differences(process, outside(home)) if not found.endswith("installation_id")]
    # This Trio run goes on: its own descriptors are there before and after.
    assert [found for found in left if not (writes and found.startswith(WRITTEN))] == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, step.name)
        for kind in KINDS
        for step in kind.graph
        if step.when == "before_ready" and step.on_failure == "fail"
    ],
    ids=str,
)
async def test_one_step_fails(kind: Kind, name: str, when: str, stored: Stored, tmp_path: Path) -> None:
    boom = Boom(name)
    broken = attrs.evolve(kind, graph=changed(kind.graph, name, failing(name, when, boom)))
    async with watched(stored, tmp_path, kind) as opened:
        with pytest.raises(engine.SessionStartError) as caught:
            await broken(opened, stored)
        assert (caught.value.stage, caught.value.cause, caught.value.also) == (name, boom, ())
        assert caught.value.__cause__ is boom
        assert opened.sessions() == ()


async def test_two_steps_fail_in_one_tick(stored: Stored, tmp_path: Path) -> None:
    async with watched(stored, tmp_path) as opened:
        opened._graph = beside(("one", fail), ("other", fail))
        with pytest.raises(engine.SessionStartError) as caught:
            await opened.start_session(stored.settings())
        failures = [(caught.value.stage, caught.value.cause), *caught.value.also]
        # Either may be the first, and then the other one may not have begun.
        assert {stage for stage, _ in failures} <= {"one", "other"}
        assert all(isinstance(cause, Boom) for _, cause in failures)


async def test_the_first_in_time_wins_and_the_rest_is_told_too(stored: Stored, tmp_path: Path) -> None:
    async def fail_late(start: Start) -> None:
        await trio.testing.wait_all_tasks_blocked()
        raise Boom("step")

    async with watched(stored, tmp_path) as opened:
        opened._graph = beside(("cleanup", fail_on_the_way_out), ("late", fail_late), ("hanging", hang))
        with pytest.raises(engine.SessionStartError) as caught:
            await opened.start_session(stored.settings())
        assert caught.value.stage == "late"
        assert [stage for stage, _ in caught.value.also] == ["cleanup"]


async def test_a_group_out_of_a_step_is_one_error(stored: Stored, tmp_path: Path) -> None:
    async def several(start: Start) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, start)
            nursery.start_soon(fail_on_the_way_out, start)
            nursery.start_soon(trio.sleep_forever)

    async with watched(stored, tmp_path) as opened:
        opened._graph = beside(("several", several))
        with pytest.raises(engine.SessionStartError) as caught:
            await opened.start_session(stored.settings())
        assert caught.value.stage == "several"
        assert type(caught.value.cause) is Boom


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name in ("persistent", "writing")], ids=str)
async def test_cancelled_and_failed_is_cancelled(
    kind: Kind, stored: Stored, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scope = trio.CancelScope()

    async def fail_and_cancel(start: Start) -> None:
        scope.cancel()
        raise Boom("step")

    async with watched(stored, tmp_path) as opened:
        with scope:
            await attrs.evolve(kind, graph=(*kind.graph, Step("doomed", fail_and_cancel, needs=("session",))))(
                opened, stored
            )
        assert scope.cancelled_caught
    assert "Boom" in told(caplog)  # nobody was given it, so it goes to the log
    assert "doomed" in told(caplog)


async def test_a_cleanup_that_fails_is_no_error_of_a_cancelled_caller(
    stored: Stored, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(stored, tmp_path) as opened:
        opened._graph = beside(("cleanup", fail_on_the_way_out))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(opened.start_session, stored.settings())
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
    assert "cleanup" in told(caplog)


@pytest.mark.parametrize("act", [fail_on_the_way_out, hang])
async def test_a_closing_engine_counts_for_more_than_a_failure(act: Act, stored: Stored, tmp_path: Path) -> None:
    errors: list[Exception] = []

    async def start(opened: engine.Engine) -> None:
        try:
            await opened.start_session(stored.settings())
        except Exception as exc:
            errors.append(exc)

    async with trio.open_nursery() as callers:
        async with opened_on(stored.copy(tmp_path)) as opened:
            opened._graph = beside(("stuck", act))
            callers.start_soon(start, opened)
            await trio.testing.wait_all_tasks_blocked()
    assert [type(error) for error in errors] == [EngineClosed]


async def test_ctrl_c_in_a_step_is_ctrl_c(stored: Stored, tmp_path: Path) -> None:
    async def press(start: Start) -> None:
        raise KeyboardInterrupt

    async with watched(stored, tmp_path) as opened:
        opened._graph = (*spread(WRITING), Step("pressed", press, needs=("session",)))
        with pytest.raises(KeyboardInterrupt):
            await opened.start_session(stored.settings())


async def test_a_background_step_that_fails_is_a_crash(stored: Stored, tmp_path: Path) -> None:
    async def fail_late(start: Start) -> None:
        await trio.testing.wait_all_tasks_blocked()
        raise Boom("later")

    crashes: list[Exception] = []
    async with watched(stored, tmp_path, on_crash=lambda _, error: crashes.append(error)) as opened:
        opened._graph = (*GRAPH, Step("background", fail_late, when="background"))
        session = await opened.start_session(stored.settings())
        with pytest.raises(engine.SessionCrashed) as caught:
            await session.wait_closed()
        assert type(caught.value.__cause__) is Boom
        assert crashes == [caught.value.__cause__]
        assert opened.sessions() == ()


# --- discarding goes wrong ---------------------------------------------------------------------------


class Files(FaultyFiles):
    """Files whose removal fails, or waits."""

    def __init__(self) -> None:
        super().__init__()
        self.removing = threading.Event()
        self.removing.set()
        self.unremovable = False

    def remove(self, path: str) -> None:
        self.removing.wait()
        if self.unremovable:
            raise OSError(errno.EACCES, "Permission denied")
        super().remove(path)


@asynccontextmanager
async def engine_with(files: Files, home: Path, grace: float) -> AsyncIterator[engine.Engine]:
    model = engine.ScriptedModel([reply("fine", repeat=None)])
    async with open_appender(files=files) as appender:
        store = LocalThreadStore(home, appender)
        async with engine.open_engine(home=home, model=model, store=store, grace=grace) as opened:
            yield opened
            assert store.live_threads() == ()


async def test_discarding_fails(stored: Stored, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = Files()
    async with engine_with(files, stored.copy(tmp_path), 5) as opened:
        opened._graph = (*WRITING, Step("failing", fail, needs=("session",)))
        files.unremovable = True
        with pytest.raises(engine.SessionStartError) as caught:
            await opened.start_session(stored.settings())
        assert caught.value.stage == "failing"
        (note,) = caught.value.__notes__
        assert "discarding" in note
        assert "Permission denied" in note
        assert files.open_handles == set()
        files.unremovable = False
        opened._graph = GRAPH
        async with opened.session(stored.settings()) as session:
            assert (await session.run("go on")).final_message == "fine"
    assert "Permission denied" in told(caplog)


async def test_discarding_outlasts_the_grace(stored: Stored, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = Files()
    home = stored.copy(tmp_path)
    before = outside(home).files
    async with engine_with(files, home, 0.05) as opened:
        opened._graph = (*WRITING, Step("failing", fail, needs=("session",)))
        files.removing.clear()
        with trio.fail_after(5), pytest.raises(engine.SessionStartError) as caught:
            await opened.start_session(stored.settings())
        assert caught.value.stage == "failing"
        (note,) = caught.value.__notes__
        assert "within 0.05 s" in note
        files.removing.set()
    assert "within 0.05 s" in told(caplog)
    assert outside(home).files == before  # it was only late


async def test_discarding_fails_for_a_cancelled_caller(
    stored: Stored, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files()
    async with engine_with(files, stored.copy(tmp_path), 5) as opened:
        opened._graph = (*WRITING, Step("hanging", hang, needs=("session",)))
        files.unremovable = True
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(opened.start_session, stored.settings())
                await trio.to_thread.run_sync(files.writing.wait)
                scope.cancel()
        assert scope.cancelled_caught
    assert "Permission denied" in told(caplog)


def told(caplog: pytest.LogCaptureFixture) -> str:
    """What the engine's log says, errors included."""
    records = [record for record in caplog.records if record.name.startswith("engine")]
    assert all(record.levelno >= logging.WARNING for record in records)
    texts = [record.getMessage() for record in records]
    texts += ["".join(traceback.format_exception(record.exc_info[1])) for record in records if record.exc_info]
    return "\n".join(texts)
