"""Live threads on both stores: filtering, numbers, and what each verb of a life does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from engine.errors import ConflictError, InvalidRequest, StoreError, ThreadNotFound
from engine.protocol.events import ExecCommandEnd, Warning
from engine.protocol.ids import ThreadId, new_thread_id
from engine.protocol.items import CompactionTrigger
from engine.protocol.rollout_items import EventLine, ResponseLine
from engine.protocol.wire import UnknownVariant
from engine.thread_store.interface import CreateThread, ResumeThread, ThreadStore
from engine.thread_store.local import LocalThreadStore, open_local_store
from engine.thread_store.memory import InMemoryThreadStore
from tests.thread_store.stories import create, kept, meta, telling

Store = LocalThreadStore | InMemoryThreadStore


@pytest.fixture(params=["local", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield InMemoryThreadStore()
        return
    async with open_local_store(tmp_path) as made:
        yield made


async def stored(store: ThreadStore, thread_id: ThreadId) -> list[str] | None:
    try:
        return kept((await store.load_history(thread_id)).items)
    except ThreadNotFound:
        return None


async def test_a_thread_comes_into_being_with_its_first_kept_item(store: Store) -> None:
    live = store.create(create())
    assert live.append([]) == 0
    assert live.append([EventLine(Warning("never kept")), ResponseLine(CompactionTrigger())]) == 0
    await live.flush()
    assert await stored(store, live.thread_id) is None
    assert live.append([EventLine(Warning("never kept")), telling("one"), telling("two")]) == 2
    await live.flush()
    assert (live.submitted, live.acknowledged, live.written) == (2, 2, 2)
    assert await stored(store, live.thread_id) == ["meta", "one", "two"]


async def test_the_mode_decides_what_is_kept(store: Store) -> None:
    end = EventLine(
        ExecCommandEnd("c", "t", 0, (), "/", 0, {}, "completed", stdout="x", aggregated_output="y" * 20_000)
    )
    unknown = EventLine(UnknownVariant({"type": "of_the_future"}))
    for mode, expected in (("limited", 0), ("extended", 1)):
        live = store.create(CreateThread(meta=meta(), mode="extended" if mode == "extended" else "limited"))
        assert live.append([end, unknown, ResponseLine(UnknownVariant({"type": "of_the_future"}))]) == expected
        await live.persist()
        items = (await store.load_history(live.thread_id)).items
        assert len(items) == 1 + expected
        for item in items[1:]:
            assert isinstance(item, EventLine)
            assert isinstance(item.msg, ExecCommandEnd)
            assert item.msg.stdout == ""
            assert 10_000 < len(item.msg.aggregated_output) < 10_100


async def test_persist_brings_a_thread_into_being_without_items(store: Store) -> None:
    live = store.create(create())
    await live.persist()
    await live.persist()
    assert await stored(store, live.thread_id) == ["meta"]


async def test_an_unused_thread_leaves_nothing(store: Store, tmp_path: Path) -> None:
    for verb in ("shutdown", "discard", "abandon", "forget"):
        live = store.create(create())
        ending = getattr(live, verb)()
        if ending is not None:
            await ending
        assert live.closed
        assert await stored(store, live.thread_id) is None
    assert store.live_threads() == ()
    assert not any(tmp_path.iterdir())


async def test_after_the_end_every_call_that_needs_the_writer_fails(store: Store) -> None:
    for verb in ("shutdown", "discard"):
        live = store.create(create())
        await live.persist()
        await getattr(live, verb)()
        assert live.append([EventLine(Warning("never kept"))]) == 0  # no effect at all, so no error
        with pytest.raises(ThreadNotFound, match="has no live writer"):
            live.append([telling("x")])
        for call in (live.flush, live.persist, live.shutdown, live.discard, live.abandon):
            with pytest.raises(ThreadNotFound):
                await call()
        live.forget()
        assert await stored(store, live.thread_id) == ["meta"]


async def test_discarding_keeps_what_is_stored_and_abandoning_takes_it_back(store: Store) -> None:
    discarded, abandoned = store.create(create()), store.create(create())
    for live in (discarded, abandoned):
        live.append([telling("x")])
        await live.flush()
    await discarded.discard()
    await abandoned.abandon()
    assert await stored(store, discarded.thread_id) == ["meta", "x"]
    assert await stored(store, abandoned.thread_id) is None
    resumed = (await store.resume(ResumeThread(thread=discarded.thread_id))).live
    resumed.append([telling("y")])
    await resumed.flush()
    await resumed.abandon()  # it was there before this life
    assert await stored(store, discarded.thread_id) == ["meta", "x", "y"]


async def test_a_resumed_thread_goes_on_where_it_ended(store: Store) -> None:
    first = store.create(create())
    first.append([telling("one")])
    await first.shutdown()
    again = await store.resume(ResumeThread(thread=first.thread_id))
    assert kept(again.history.items) == ["meta", "one"]
    assert again.history.meta.id == again.live.thread_id == first.thread_id
    await again.live.flush()
    await again.live.persist()
    assert await stored(store, first.thread_id) == ["meta", "one"]  # resuming adds no line
    assert again.live.append([telling("two")]) == 1
    await again.live.shutdown()
    assert await stored(store, first.thread_id) == ["meta", "one", "two"]


async def test_there_is_one_live_writer_per_thread(store: Store) -> None:
    live = store.create(create())
    text = f"^thread {live.thread_id} already has a live local writer$"
    with pytest.raises(ConflictError, match=text):
        store.create(create(live.thread_id))
    await live.persist()
    with pytest.raises(ConflictError, match=text):
        await store.resume(ResumeThread(thread=live.thread_id))
    assert store.live_threads() == (live.thread_id,)
    await live.shutdown()
    (await store.resume(ResumeThread(thread=live.thread_id))).live.forget()
    assert store.live_threads() == ()


async def test_what_is_not_there_cannot_be_resumed(store: Store) -> None:
    thread_id = new_thread_id()
    with pytest.raises(ThreadNotFound, match=f"^no rollout found for thread id {thread_id}$"):
        await store.resume(ResumeThread(thread=thread_id))
    with pytest.raises(InvalidRequest, match="invalid thread id"):
        await store.resume(ResumeThread(thread=ThreadId("nonsense")))
    assert store.live_threads() == ()
    with pytest.raises(InvalidRequest, match="cwd"):
        store.create(CreateThread(meta=meta(cwd="")))
    assert store.live_threads() == ()


async def test_acknowledged_numbers_reach_the_callback(store: Store) -> None:
    live = store.create(create())
    heard: list[int] = []
    live.on_acknowledged(heard.append)
    numbers = [live.append([telling(str(number))]) for number in range(5)]
    await live.flush()
    assert numbers == [1, 2, 3, 4, 5]
    assert heard == sorted(set(heard))
    assert heard[-1] == live.acknowledged == 5


async def test_git_is_asked_for_when_the_thread_comes_into_being(store: Store) -> None:
    from engine.protocol.settings import GitInfo

    asked: list[str] = []

    def git() -> GitInfo:
        asked.append("git")
        return GitInfo(branch="main")

    live = store.create(CreateThread(meta=meta(), git=git))
    await live.flush()
    assert asked == []
    live.append([telling("x")])
    await live.flush()
    live.append([telling("y")])
    await live.flush()
    assert asked == ["git"]
    assert (await store.load_history(live.thread_id)).meta.git == GitInfo(branch="main")


async def test_git_that_cannot_be_read_is_no_git(store: Store) -> None:
    def git() -> None:
        raise OSError("no git here")

    live = store.create(CreateThread(meta=meta(), git=git))
    live.append([telling("x")])
    await live.flush()
    assert (await store.load_history(live.thread_id)).meta.git is None


async def test_a_cancelled_flush_loses_nothing(store: Store) -> None:
    live = store.create(create())
    live.append([telling("x")])
    with trio.CancelScope() as scope:
        scope.cancel()
        await live.flush()
    await live.flush()
    assert await stored(store, live.thread_id) == ["meta", "x"]


async def test_the_memory_store_counts_and_can_refuse_to_write() -> None:
    store = InMemoryThreadStore()
    live = store.create(create())
    store.failure = StoreError("the disk is full")
    assert live.append([telling("1")]) == 1
    assert (live.acknowledged, live.written) == (1, 0)
    assert str(live.last_error) == "the disk is full"
    for call in (live.flush, live.persist, live.shutdown):
        with pytest.raises(StoreError, match="the disk is full"):
            await call()
    store.failure = None
    live.append([telling("2")])
    assert (live.written, str(live.last_error)) == (2, "None")
    await live.shutdown()
    assert kept(store.items(live.thread_id)) == ["meta", "1", "2"]
    assert store.calls == {"create": 1, "append": 2, "flush": 1, "persist": 1, "shutdown": 2}
