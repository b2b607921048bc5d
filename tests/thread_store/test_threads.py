"""What hosts do with stored threads: `open_threads` without an engine, `Engine.threads` beside running sessions."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trio

import engine
from engine.models.scripts import call, reply, response, say
from engine.protocol.thread_items import to_json
from tests.session.conftest import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


async def recorded(lab: Lab, *messages: str) -> engine.ThreadId:
    async with lab.session(*[reply(f"re: {message}") for message in messages]) as session:
        for message in messages:
            await session.run(message)
    return session.thread_id


def test_handles_have_no_public_constructor() -> None:
    with pytest.raises(TypeError, match="open_threads"):
        engine.Threads()


async def test_a_home_without_an_engine(lab: Lab) -> None:
    one, two = await recorded(lab, "first"), await recorded(lab, "second")
    async with engine.open_threads(home=lab.home) as threads:
        page = await threads.list(engine.ListThreads(source_kinds=("exec", "cli", "unknown", "vscode", "mcp")))
        assert {thread.thread_id for thread in page.threads} == {one, two}
        assert (await threads.read(one)).preview == "first"
        found = await threads.latest()
        assert found is not None
        assert found.thread_id == two
        await threads.rename(one, " a name ")
        assert (await threads.read(one)).name == "a name"
        assert (await threads.latest(engine.ThreadQuery(name="a name"))) == await threads.find(one)
        changed = await threads.update(one, engine.MetadataPatch(git=engine.GitPatch(branch="main")))
        assert changed.git is not None
        assert changed.git.branch == "main"
        assert await threads.spawned(one) == ()
        assert await threads.dynamic_tools(one) == ()
        assert len((await threads.history(one)).items) > 5


async def test_archived_threads_are_read_and_not_listed(lab: Lab) -> None:
    thread = await recorded(lab, "first")
    async with engine.open_threads(home=lab.home) as threads:
        assert await threads.archive(thread) == (thread,)
        assert (await threads.list()).threads == ()
        assert [found.thread_id for found in (await threads.list(engine.ListThreads(archived=True))).threads] == [
            thread
        ]
        assert (await threads.read(thread)).archived
        assert (await threads.history(thread)).thread_id == thread
        assert len((await threads.turns(thread)).turns) == 1
        with pytest.raises(engine.InvalidRequest, match="is archived"):
            await threads.fork(thread)
        assert not (await threads.unarchive(thread)).archived
        await threads.delete(thread)
        assert await threads.find(thread) is None
        with pytest.raises(engine.ThreadNotFound, match=thread):
            await threads.read(thread)


async def test_unknown_threads_and_what_is_no_id(lab: Lab) -> None:
    unknown = "01900000-0000-7000-8000-000000000001"
    async with engine.open_threads(home=lab.home) as threads:
        assert await threads.find(unknown) is None
        for ask in (threads.read, threads.turns, threads.items, threads.history, threads.archive, threads.delete):
            with pytest.raises(engine.ThreadNotFound):
                await ask(unknown)
            with pytest.raises(engine.InvalidRequest):
                await ask("nonsense")


async def test_a_copy_without_a_session(lab: Lab) -> None:
    thread = await recorded(lab, "first", "second")
    async with engine.open_threads(home=lab.home) as threads:
        turns = (await threads.turns(thread, engine.ListTurns(direction="asc"))).turns
        for options, expected in (({}, 2), ({"before": 1}, 1), ({"through": turns[0].id}, 1)):
            fork = await threads.fork(thread, **options)
            assert fork.forked_from_id == thread
            copied = (await threads.turns(fork.thread_id, engine.ListTurns(direction="asc"))).turns
            assert [turn.id for turn in copied][:expected] == [turn.id for turn in turns][:expected]
            assert len([turn for turn in copied if turn.items]) == expected
        with pytest.raises(engine.InvalidRequest, match="no turn nope"):
            await threads.fork(thread, through="nope")


async def test_a_fork_tells_how_far_it_is(lab: Lab) -> None:
    thread = await recorded(lab, "first " * 300_000)  # more than a block
    told: list[tuple[int, int]] = []
    async with engine.open_threads(home=lab.home) as threads:
        (path,) = lab.home.rglob(f"rollout-*{thread}.jsonl")
        size = path.stat().st_size
        await threads.fork(thread, progress=lambda done, total: told.append((done, total)))
    assert len(told) > 1
    assert told == sorted(told)
    assert {total for _, total in told} == {size}
    assert told[-1] == (size, size)


async def test_turns_and_items_as_clients_see_them(lab: Lab) -> None:
    thread = await recorded(lab, "first", "second")
    async with engine.open_threads(home=lab.home) as threads:
        [turn] = (await threads.turns(thread, engine.ListTurns(limit=1))).turns
        told = to_json(turn)
        assert (told["status"], told["itemsView"], told["error"]) == ("completed", "summary", None)
        assert isinstance(told["items"], list)
        assert [item["type"] for item in told["items"]] == ["userMessage", "agentMessage"]
        assert told["items"][1]["text"] == "re: second"
        items = (await threads.items(thread)).items
        assert [getattr(placed.item, "text", None) for placed in items][1::2] == ["re: first", "re: second"]


async def test_a_turn_that_runs_is_in_progress_here_and_nowhere_else(lab: Lab) -> None:
    held = trio.Event()

    @engine.tool()
    async def wait() -> str:
        """Waits."""
        held.set()
        await trio.Event().wait()
        return ""

    async with lab.open(response(say("one")), response(call("wait"))) as opened:
        async with opened.session(lab.settings(), tools=[wait]) as session:
            await session.run("first")
            turn = await session.start_turn("second")
            await held.wait()
            shown = (await opened.threads.turns(session.thread_id)).turns
            assert [(each.id == turn.id, each.status) for each in shown] == [(True, "inProgress"), (False, "completed")]
            async with engine.open_threads(home=lab.home) as others:
                assert (await others.turns(session.thread_id)).turns[0].status == "interrupted"
                with pytest.raises(engine.ConflictError):
                    await others.delete(session.thread_id)
            with pytest.raises(engine.ConflictError, match="is running"):
                await opened.threads.delete(session.thread_id)
            await turn.interrupt()
            assert (await opened.threads.turns(session.thread_id)).turns[0].status == "interrupted"


async def test_a_store_of_the_hosts_own(lab: Lab) -> None:
    store = engine.InMemoryThreadStore()
    async with lab.open(reply("one"), store=store) as opened, opened.session(lab.settings()) as session:
        await session.run("first")
        assert [found.preview for found in (await opened.threads.list()).threads] == ["first"]
        assert len((await opened.threads.turns(session.thread_id)).turns) == 1
        assert (await opened.threads.fork(session.thread_id)).forked_from_id == session.thread_id
        assert opened.threads.indexing is None
        assert await opened.threads.reindex() is None


async def test_nothing_is_left_of_looking(lab: Lab) -> None:
    async with engine.open_threads(home=lab.home / "nowhere") as threads:
        assert (await threads.list()).threads == ()
        progress = await threads.reindex()
        assert progress is not None
        assert not progress.running
        assert threads.indexing == progress
    assert [thread.name for thread in threading.enumerate() if "index" in thread.name] == []
