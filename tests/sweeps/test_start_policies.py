"""Every step fails in every way: it raises, hangs, leaves garbage. What must not fail a start is told instead."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

import engine
from engine.errors import ConfigError, StoreError, ThreadNotFound
from engine.models.scripts import reply
from engine.protocol.events import Warning
from engine.session.startup import Start, Step, StepFailed
from engine.session.steps import GRAPH
from engine.thread_store.appender import open_appender
from engine.thread_store.local import LocalThreadStore
from tests.sweeps.leaks import differences, inside
from tests.sweeps.places import KINDS, PATIENCE_S, Kind, Stored
from tests.sweeps.services import EVERYTHING, HOOK_WARNING, SERVERS
from tests.sweeps.test_start_failures import Boom, changed, failing, told, watched

BY_NAME = {kind.name: kind for kind in KINDS}
EVERY_KIND = [
    BY_NAME[name] for name in ("everything", "everything resumed", "everything forked", "uncounted", "locked")
]
NEVER_WAIT = {"shell", "model"}
SHORT = 0.5  # seconds; shorter than any deadline of a step that waits for the one that hangs


def steps(**wanted: object) -> list[tuple[Kind, str]]:
    """The steps of all kinds with these attributes, without what other kinds have as well."""
    found: dict[tuple[str, str], tuple[Kind, str]] = {}
    for kind in EVERY_KIND:
        for step in kind.graph:
            if all(getattr(step, name) == value for name, value in wanted.items()):
                found[kind.name, step.name] = (kind, step.name)
    return list(found.values())


def with_step(kind: Kind, name: str, **changes: object) -> Kind:
    """The kind with a step that is different."""
    graph = tuple(attrs.evolve(step, **changes) if step.name == name else step for step in kind.graph)  # type: ignore[arg-type]
    return attrs.evolve(kind, graph=graph)


@pytest.fixture
def clock(mock_clock: MockClock) -> MockClock:
    """Runs as the real one, because threads and processes take part, and can be put forward."""
    mock_clock.rate = 1
    return mock_clock


def hanging(clock: MockClock, when: str) -> Callable[[Step, Start], Awaitable[None]]:
    """Hangs before the work of the step, or after it; time passes until its deadline."""

    async def act(step: Step, start: Start) -> None:
        if when == "after":
            await step.run(start)
        assert step.deadline is not None
        clock.jump(step.deadline)
        await trio.sleep_forever()

    return act


# --- what a start can't do without ----------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, name in steps(when="before_ready", on_failure="fail") if name not in NEVER_WAIT],
    ids=str,
)
async def test_a_step_hangs(kind: Kind, name: str, when: str, stored: Stored, tmp_path: Path, clock: MockClock) -> None:
    soon = with_step(kind, name, deadline=SHORT, waits=lambda _: True)
    broken = attrs.evolve(kind, graph=changed(soon.graph, name, hanging(clock, when)))
    async with watched(stored, tmp_path, kind) as opened:
        with pytest.raises(engine.SessionStartError, match=f"`{name}` was not done within 0.5 s") as caught:
            await broken(opened, stored)
        assert (caught.value.stage, type(caught.value.cause), caught.value.also) == (name, StepFailed, ())
        assert opened.sessions() == ()


@pytest.mark.parametrize(
    ("kind", "name", "field"),
    [(EVERY_KIND[0], step.name, field) for step in EVERYTHING for field in step.gives],
    ids=str,
)
async def test_a_step_leaves_empty_what_it_is_there_for(
    kind: Kind, name: str, field: str, stored: Stored, tmp_path: Path
) -> None:
    async def act(step: Step, start: Start) -> None:
        await step.run(start)
        setattr(start, field, None)

    async with watched(stored, tmp_path, kind) as opened:
        with pytest.raises(engine.SessionStartError, match=f"`{name}` left `{field}` empty") as caught:
            await attrs.evolve(kind, graph=changed(kind.graph, name, act))(opened, stored)
        assert (caught.value.stage, type(caught.value.cause), caught.value.also) == (name, StepFailed, ())


async def test_every_step_that_waits_has_a_deadline() -> None:
    assert {step.name for step in EVERYTHING if step.deadline is None} == NEVER_WAIT


@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_a_step_that_is_not_watched_does_not_wait(kind: Kind, stored: Stored, tmp_path: Path) -> None:
    """It ends without giving way to anybody, so there is no point where it could hang or be cancelled."""
    seen: list[str] = []

    def driven(step: Step) -> Step:
        async def run(start: Start) -> None:
            if step.deadline is not None and step.waits(start):
                await step.run(start)
                return
            seen.append(step.name)
            running = step.run(start).__await__()
            with pytest.raises(StopIteration):
                running.send(None)

        return attrs.evolve(step, run=run, waits=lambda _: True)

    real = tuple(driven(step) for step in GRAPH if step.when == "before_ready")
    async with watched(stored, tmp_path, kind, writes=True) as opened:
        session = await attrs.evolve(kind, graph=real)(opened, stored)
        await session.aclose()
    assert set(seen) >= NEVER_WAIT
    if kind.name == "swift":
        assert set(seen) == NEVER_WAIT | {"stored_thread", "thread_persistence", "session"}


# --- what it can do without -----------------------------------------------------------------------------


@asynccontextmanager
async def up(kind: Kind, opened: engine.Engine, stored: Stored) -> AsyncIterator[list[str]]:
    """A session that starts nevertheless, and works; gives the warnings it tells, in the end all of them."""
    warnings: list[str] = []
    session = await kind(opened, stored)
    with session.events(buffer=10_000) as stream:
        background = {step.name for step in kind.graph if step.when == "background"}
        while any(task.name in background for task in session._core.ward.nursery.child_tasks):  # noqa: ASYNC110
            await trio.sleep(0.001)
        yield warnings
        assert (await session.run("go on")).final_message == "fine"
        await session.aclose()
        kinds: list[str] = []
        async for event in stream:
            kinds.append(event.msg.type)
            if isinstance(event.msg, Warning):
                warnings.append(event.msg.message)
        assert kinds[0] == "session_configured"


OPTIONAL = [
    *steps(when="before_ready", on_failure="warn"),
    *steps(when="before_ready", on_failure="log"),
    *steps(when="background", on_failure="log"),
]
OF_A_PROVIDER = ("model_catalogue", "prewarm")  # the scripted model has neither; `test_background_sweep` has both


@pytest.mark.parametrize(
    ("kind", "name", "how"),
    [
        (kind, name, how)
        for kind, name in OPTIONAL
        for how in ("before", "after", "hangs")
        if not (how == "after" and name in OF_A_PROVIDER)
    ],
    ids=str,
)
async def test_an_optional_step_fails(
    kind: Kind, name: str, how: str, stored: Stored, tmp_path: Path, clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    (step,) = [step for step in kind.graph if step.name == name]
    act = hanging(clock, "before") if how == "hangs" else failing(name, how, Boom("on purpose"))
    soon = with_step(kind, name, deadline=SHORT if how == "hangs" else step.deadline, applies=lambda _: True)
    broken = attrs.evolve(kind, graph=changed(soon.graph, name, act))
    async with watched(stored, tmp_path, kind, writes=True) as opened:
        async with up(broken, opened, stored) as warnings:
            pass
        text = "was not done within" if how == "hangs" else "on purpose"
        about = [warning for warning in warnings if name in warning]
        if step.on_failure == "warn":
            (warning,) = about
            assert warning.startswith(f"The session goes on without its startup step `{name}`: ")
            assert text in warning
        else:
            assert about == []
        assert text in told(caplog)


@pytest.mark.parametrize(
    ("how", "told_to_the_user"),
    [
        ("raises", "step `window_generation`: on purpose"),
        ("store", "Failed to count the compactions of the thread; its context window has no right number: the disk"),
        ("hangs", "step `window_generation` was not done within 0.5 s"),
        ("garbage", "step `window_generation`: "),
    ],
)
async def test_compactions_can_not_be_counted(
    how: str, told_to_the_user: str, stored: Stored, tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first model request waits for the number; it goes on without."""

    async def count(tail: object) -> object:
        if how == "raises":
            raise Boom("on purpose")
        if how == "store":
            raise StoreError("the disk")
        if how == "hangs":
            clock.jump(SHORT)
            await trio.sleep_forever()
        return "many"

    kind = with_step(BY_NAME["uncounted"], "window_generation", deadline=SHORT)
    async with watched(stored, tmp_path, kind, writes=True) as opened:
        with monkeypatch.context() as patch:
            patch.setattr(opened._services.store, "count_generation", count)
            async with up(kind, opened, stored) as warnings:
                pass
        (warning,) = warnings
        assert told_to_the_user in warning


async def test_what_a_session_goes_without_is_told_after_its_notices(stored: Stored, tmp_path: Path) -> None:
    """The order of session.md 2.4 and 2.5: configuration, hooks, then the servers, which began long before."""
    kind = EVERY_KIND[0]
    graph = changed(kind.graph, "skills", failing("skills", "before", Boom("never mind")))
    broken = with_step(attrs.evolve(kind, graph=graph), "skills", on_failure="warn")
    async with watched(stored, tmp_path, kind, writes=True) as opened:
        settings = stored.settings(approval_policy="on-failure")
        opened._graph = broken.graph
        session = await opened.start_session(settings)
        with session.events(buffer=1000) as stream:
            await trio.testing.wait_all_tasks_blocked()
            await session.aclose()
            texts = [event.msg.message async for event in stream if isinstance(event.msg, Warning)]
    wanted = ["on-failure", HOOK_WARNING, *(f"{name} is ready" for name in SERVERS), "never mind"]
    assert [next((word for word in wanted if word in text), text) for text in texts] == wanted


async def test_a_group_out_of_an_optional_step_is_one_warning(stored: Stored, tmp_path: Path) -> None:
    async def several(step: Step, start: Start) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(failing("hooks", "before", Boom(str(number))), step, start)

    kind = EVERY_KIND[0]
    async with watched(stored, tmp_path, kind, writes=True) as opened:
        async with up(attrs.evolve(kind, graph=changed(kind.graph, "hooks", several)), opened, stored) as warnings:
            pass
        assert len([text for text in warnings if "`hooks`" in text]) == 1


@pytest.mark.parametrize("name", ["hooks", "skills"])
async def test_ctrl_c_in_an_optional_step_is_ctrl_c(name: str, stored: Stored, tmp_path: Path) -> None:
    async def press(step: Step, start: Start) -> None:
        raise KeyboardInterrupt

    kind = EVERY_KIND[0]
    graph = changed(kind.graph, name, press)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        async with kind.open(stored.copy(tmp_path)) as opened:
            opened._graph = graph
            await opened.start_session(stored.settings())
            await trio.testing.wait_all_tasks_blocked()
    assert opened.sessions() == ()


# --- what others give us ----------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [None, "garbage", object()], ids=["none", "text", "object"])
@pytest.mark.parametrize(
    ("name", "method", "stage"),
    [
        ("persistent", "create", "thread_persistence"),
        ("resumed", "load_tail", "stored_thread"),
        ("resumed", "resume", "thread_persistence"),
        ("forked", "load_tail", "stored_thread"),
        ("forked", "fork", "thread_persistence"),
        ("forked in memory", "load_history", "thread_persistence"),
        ("last", "latest_thread", "stored_thread"),
    ],
)
async def test_a_store_gives_garbage(
    name: str, method: str, stage: str, garbage: object, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = stored.copy(tmp_path)
    kind = BY_NAME[name]

    async def later(*_: object, **__: object) -> object:
        return garbage

    async with open_appender() as appender:
        store = LocalThreadStore(home, appender)
        async with engine.open_engine(home=home, store=store, model=engine.ScriptedModel([reply("fine")])) as opened:
            before = await inside(opened, home)
            with monkeypatch.context() as patch:
                patch.setattr(store, method, (lambda *_: garbage) if method == "create" else later)
                with trio.fail_after(PATIENCE_S), pytest.raises(engine.SessionStartError) as caught:
                    await kind(opened, stored)
            assert (caught.value.stage, caught.value.also) == (stage, ())
            assert differences(before, await inside(opened, home)) == []
            session = await kind(opened, stored)
            assert (await session.run("go on")).final_message == "fine"


def rubbish() -> Mapping[str, bytes]:
    """What may stand in a rollout that was not written by anybody we know."""
    return {
        "empty": b"",
        "zeros": bytes(4096),
        "noise": bytes(range(256)) * 64,
        "other JSON": b'{"type": "something else"}\n[]\n1\nnull\n',
        "other types": b'{"timestamp": 1, "type": "session_meta", "payload": [1]}\n',
        "no end": b'{"timestamp": "2026-01-01T00:00:00.000Z", "type": "session_meta", "payload": {"id": "',
        "deep": b"[" * 100_000,
    }


@pytest.mark.damages_home
@pytest.mark.parametrize("what", rubbish())
@pytest.mark.parametrize("name", ["resumed", "forked", "forked in memory", "everything resumed"])
async def test_a_file_is_rubbish(name: str, what: str, stored: Stored, tmp_path: Path) -> None:
    kind = BY_NAME[name]
    home = stored.copy(tmp_path)
    (path,) = home.glob(f"sessions/*/*/*/*{stored.thread}.jsonl")
    path.write_bytes(rubbish()[what])
    async with kind.open(home) as opened:
        with trio.fail_after(PATIENCE_S):
            before = await inside(opened, home)
            with pytest.raises(engine.SessionStartError) as caught:
                await kind(opened, stored)
            assert (caught.value.stage, caught.value.also) == ("stored_thread", ())
            assert isinstance(caught.value.cause, StoreError)
            assert differences(before, await inside(opened, home)) == []
            assert path.read_bytes() == rubbish()[what]  # not for us to mend, and not to lose
            async with opened.session(stored.settings()) as session:
                assert (await session.run("go on")).final_message == "fine"


@pytest.mark.parametrize("text", ["model = ", "show_raw_agent_reasoning = 'yes'", "\x00", "[features]\ngoals = 7"])
@pytest.mark.parametrize("name", ["persistent", "everything", "resumed", "forked"])
async def test_the_configuration_has_become_rubbish(name: str, text: str, stored: Stored, tmp_path: Path) -> None:
    kind = BY_NAME[name]
    home = stored.copy(tmp_path)
    async with kind.open(home) as opened:
        with trio.fail_after(PATIENCE_S):
            (home / "config.toml").write_text(text)
            before = await inside(opened, home)
            with pytest.raises(engine.SessionStartError, match=r"config\.toml") as caught:
                await kind(opened, stored)
            assert (caught.value.stage, type(caught.value.cause)) == ("configuration", ConfigError)
            assert differences(before, await inside(opened, home)) == []
            (home / "config.toml").unlink()
            await kind(opened, stored)


async def test_the_thread_is_gone(stored: Stored, tmp_path: Path) -> None:
    async with watched(stored, tmp_path) as opened:
        for start in (opened.resume_session, opened.fork_session):
            with pytest.raises(engine.SessionStartError) as caught:
                await start("01234567-89ab-7def-8123-456789abcdef", settings=stored.settings())
            assert (caught.value.stage, type(caught.value.cause)) == ("stored_thread", ThreadNotFound)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "engine")
