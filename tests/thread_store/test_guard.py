"""The guard owns a live thread for life: uncommitted it takes the start back, committed it saves."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from engine.errors import InvalidRequest, StoreError
from engine.thread_store.guard import LiveThreadGuard
from engine.thread_store.interface import CreateThread, ResumedThread, ResumeThread
from engine.thread_store.live_thread import LiveThread
from engine.thread_store.local import LocalThreadStore, open_local_store
from engine.thread_store.memory import InMemoryThreadStore
from tests.thread_store.faults import FaultyFiles
from tests.thread_store.stories import create, kept, telling, texts


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
async def store(tmp_path: Path, files: FaultyFiles) -> AsyncIterator[LocalThreadStore]:
    async with open_local_store(tmp_path, files=files, index=False) as made:
        yield made


async def test_a_start_that_fails_leaves_nothing(store: LocalThreadStore, tmp_path: Path) -> None:
    guard = LiveThreadGuard(store, 5)

    async def start() -> None:
        async with guard:
            guard.create(create()).append([telling("x")])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await start()
    assert guard.error is None
    assert store.live_threads() == ()
    assert not any(tmp_path.iterdir())


async def test_a_start_that_made_its_file_takes_it_back(store: LocalThreadStore, tmp_path: Path) -> None:
    async with LiveThreadGuard(store, 5) as guard:
        live = guard.create(create())
        live.append([telling("x")])
        await live.persist()
        assert list(tmp_path.rglob("*.jsonl"))
    assert guard.error is None
    assert not any(tmp_path.iterdir())


async def test_a_failed_resume_keeps_the_file(store: LocalThreadStore) -> None:
    first = store.create(create())
    await first.persist()
    await first.shutdown()
    async with LiveThreadGuard(store, 5) as guard:
        resumed = await guard.resume(ResumeThread(thread=first.thread_id))
        resumed.live.append([telling("x")])
        await resumed.live.flush()
    assert store.live_threads() == ()
    assert texts(first.rollout_path) == ["meta", "x"]


async def test_a_committed_thread_is_saved_even_when_cancelled(store: LocalThreadStore) -> None:
    with trio.CancelScope() as scope:
        async with LiveThreadGuard(store, 5) as guard:
            live = guard.create(create())
            guard.commit()
            assert guard.committed
            live.append([telling("x")])
            scope.cancel()
            await trio.sleep_forever()
    assert guard.error is None
    assert store.live_threads() == ()
    assert texts(live.rollout_path) == ["meta", "x"]


async def test_a_thread_that_cannot_be_saved_is_let_go_and_told(store: LocalThreadStore, files: FaultyFiles) -> None:
    files.broken = errno.ENOSPC
    async with LiveThreadGuard(store, 5) as guard:
        live = guard.create(create())
        guard.commit()
        live.append([telling("x")])
    assert isinstance(guard.error, StoreError)
    assert "No space left" in str(guard.error)
    assert live.closed
    assert store.live_threads() == ()


@pytest.mark.parametrize("committed", [False, True])
async def test_the_end_is_bounded_by_the_grace(store: LocalThreadStore, files: FaultyFiles, committed: bool) -> None:
    async with LiveThreadGuard(store, 0.02) as guard:
        live = guard.create(create())
        if committed:
            guard.commit()
        files.gate.clear()
        live.append([telling("x")])
        await trio.to_thread.run_sync(files.writing.wait)
    files.gate.set()
    assert isinstance(guard.error, StoreError)
    assert "within 0.02 s" in str(guard.error)
    assert store.live_threads() == ()


async def test_a_guard_that_owns_nothing_or_a_closed_thread_does_nothing() -> None:
    store = InMemoryThreadStore()
    async with LiveThreadGuard(store, 5) as guard:
        guard.commit()
    assert guard.error is None
    async with LiveThreadGuard(store, 5) as guard:
        await guard.create(create()).shutdown()
        guard.commit()
    assert guard.error is None
    assert store.calls == {"create": 1, "shutdown": 1}


async def test_a_start_has_one_thread() -> None:
    store = InMemoryThreadStore()
    async with LiveThreadGuard(store, 5) as guard:
        live = guard.create(create())
        with pytest.raises(InvalidRequest, match="already has the thread"):
            guard.create(create())
        with pytest.raises(InvalidRequest, match="already has the thread"):
            await guard.resume(ResumeThread(thread=live.thread_id))
    assert store.live_threads() == ()


async def test_entering_is_no_checkpoint() -> None:
    store = InMemoryThreadStore()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with LiveThreadGuard(store, 5) as guard:
            live = guard.create(create())  # reached although the scope is cancelled
            guard.commit()
            live.append([telling("x")])
    assert kept(store.items(live.thread_id)) == ["meta", "x"]


async def test_no_interrupt_comes_between_the_store_and_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    store = InMemoryThreadStore()
    create_thread, resume_thread = store.create, store.resume
    protected: dict[str, bool] = {}

    def creating(params: CreateThread) -> LiveThread:
        protected["create"] = trio.lowlevel.currently_ki_protected()
        return create_thread(params)

    async def resuming(params: ResumeThread) -> ResumedThread:
        protected["resume"] = trio.lowlevel.currently_ki_protected()
        return await resume_thread(params)

    def releasing(live: LiveThread) -> None:
        protected["release"] = trio.lowlevel.currently_ki_protected()

    monkeypatch.setattr(store, "create", creating)
    monkeypatch.setattr(store, "resume", resuming)
    assert not trio.lowlevel.currently_ki_protected()
    async with LiveThreadGuard(store, 5) as guard:
        live = guard.create(create())
        await live.persist()
        await live.shutdown()
    monkeypatch.setattr(store, "_release", releasing)
    async with LiveThreadGuard(store, 5) as guard:
        await guard.resume(ResumeThread(thread=live.thread_id))
    assert protected == {"create": True, "resume": True, "release": True}


async def test_being_cancelled_while_resuming_leaves_nothing_registered(store: LocalThreadStore) -> None:
    first = store.create(create())
    await first.persist()
    await first.shutdown()
    async with LiveThreadGuard(store, 5) as guard:
        with trio.CancelScope() as scope:
            scope.cancel()
            await guard.resume(ResumeThread(thread=first.thread_id))
        assert guard.live is None
        assert store.live_threads() == ()
        await guard.resume(ResumeThread(thread=first.thread_id))
    assert store.live_threads() == ()
