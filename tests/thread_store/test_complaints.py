"""What users of other engines complain of, one test each: long threads, bad lines, two programs, ids too early.

Numbers are the rows of the list that the project keeps of such complaints.
"""

from __future__ import annotations

import gc
import importlib
import os
import sqlite3
from pathlib import Path

import pytest

from engine.protocol.events import TaskStarted
from engine.protocol.ids import ThreadId, new_thread_id
from engine.protocol.profiles import ReadOnly
from engine.protocol.rollout_items import Compacted, EventLine, RolloutItem, TurnContext
from engine.rollout.lines import encode_rollout_line
from engine.thread_store.interface import ListThreads, ListTurns, ResumeThread
from engine.thread_store.local import open_local_store
from tests.thread_store.stories import create, kept, meta, said, telling, texts

STAMP = "2025-03-01T00:00:00.000Z"
MB = 1 << 20


def store_thread(home: Path, size: int = 0) -> ThreadId:
    """A thread that says something, has `size` bytes in the middle, and was compacted after them."""
    thread_id = new_thread_id()
    path = home / "sessions/2025/03/01" / f"rollout-2025-03-01T00-00-00-{thread_id}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    middle = encode_rollout_line(telling("x" * 10_000), STAMP) * (size // 10_000)
    before = encode_rollout_line(meta(thread_id), STAMP) + encode_rollout_line(said("first"), STAMP)
    turn = TurnContext(cwd="/", approval_policy="never", sandbox_policy=ReadOnly(), model="m", summary="auto")
    last: list[RolloutItem] = [Compacted("s", ()), EventLine(TaskStarted("t")), turn, said("last")]
    after = b"".join(encode_rollout_line(item, STAMP) for item in last)
    path.write_bytes(before + middle + after)
    return thread_id


async def test_3_a_listing_and_a_resume_read_the_ends_of_long_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = [store_thread(tmp_path, 20 * MB) for _ in range(3)]
    counted = 0
    pread = os.pread

    def counting(handle: int, length: int, offset: int) -> bytes:
        nonlocal counted
        data = pread(handle, length, offset)
        counted += len(data)
        return data

    monkeypatch.setattr(os, "pread", counting)
    async with open_local_store(tmp_path, index=False) as store:
        page = await store.list_threads(ListThreads())
        assert [thread.preview for thread in page.threads] == ["first"] * 3
        assert counted < 3 * 3 * MB  # of 60: what a turn tells at its end is looked for in the last 2 MB of each
        counted = 0
        tail = await store.load_tail(threads[0])
        assert tail.thread_id == threads[0]
        await store.resume(ResumeThread(thread=threads[0], tail=tail))
        assert counted < 8 * MB
        tail.close()


async def test_4_looking_again_and_again_keeps_nothing(tmp_path: Path) -> None:
    for _ in range(20):
        store_thread(tmp_path)
    async with open_local_store(tmp_path) as store:

        async def look() -> None:
            for thread in (await store.list_threads(ListThreads())).threads:
                (await store.load_tail(thread.thread_id)).close()
                await store.list_turns(thread.thread_id, ListTurns())
            live = store.create(create())
            live.append([said("hello")])
            await live.shutdown()
            await store.delete(live.thread_id)

        for _ in range(3):
            await look()
        await store.reindex()
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(10):
            await look()
        gc.collect()
        assert len(gc.get_objects()) - before < 500


@pytest.mark.damages_home
async def test_7_a_bad_line_costs_neither_the_thread_nor_the_list(tmp_path: Path) -> None:
    hurt, healthy = store_thread(tmp_path), store_thread(tmp_path)
    [path] = tmp_path.rglob(f"*{hurt}.jsonl")
    lines = path.read_bytes().splitlines()
    bad = [
        lines[1][:-7],  # a torn write, gone on with by others
        b'{"timestamp":"t","ordinal":7,"type":"response_item","payload":{"type":"reasoning","id":"r","secret":[1]}}',
        b'{"ordinal":8,"type":"event_msg","payload":{"type":"later"}}',
    ]
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join([*lines[:2], *bad, *lines[2:]]) + b"\n")
    async with open_local_store(tmp_path) as store:
        assert {thread.thread_id for thread in (await store.list_threads(ListThreads())).threads} == {hurt, healthy}
        assert kept((await store.load_history(hurt)).items) == ["meta", "first", "last"]
        resumed = await store.resume(ResumeThread(thread=hurt))
        resumed.live.append([telling("more")])
        await resumed.live.shutdown()
        assert kept((await store.load_history(hurt)).items)[-1] == "more"


async def test_8_a_database_that_others_lock_is_nobodys_business(tmp_path: Path) -> None:
    threads = {store_thread(tmp_path) for _ in range(3)}
    async with open_local_store(tmp_path) as store:
        await store.reindex()
        other = sqlite3.connect(tmp_path / "engine_index.sqlite", isolation_level=None)
        try:
            other.execute("BEGIN EXCLUSIVE")
            live = store.create(create())
            live.append([said("hello")])
            await live.flush()
            listed = {thread.thread_id for thread in (await store.list_threads(ListThreads())).threads}
            assert listed == {*threads, live.thread_id}
            assert [turn.status for turn in (await store.list_turns(live.thread_id, ListTurns())).turns] == [
                "interrupted"
            ]
        finally:
            other.close()
        await live.shutdown()
    assert texts(live.rollout_path) == ["meta", "hello"]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (2, "tests.session.test_complaints.test_2_compactions_do_not_copy_the_history"),
        (11, "tests.session.test_complaints.test_11_a_compaction_that_does_not_fit_leaves_no_thread_stuck"),
        (7, "tests.thread_store.test_damage.test_one_bad_line_costs_one_line"),
        (7, "tests.thread_store.test_damage.test_one_bad_file_costs_one_file"),
        (8, "tests.thread_store.test_index.test_several_processes_share_a_home"),
        (12, "tests.session.test_durability.test_a_crash_after_durable_loses_nothing"),
        (12, "tests.session.test_durability.test_an_id_can_be_resumed_in_the_same_engine_as_soon_as_it_is_known"),
    ],
)
def test_the_other_complaints_have_tests_too(row: int, name: str) -> None:
    module, _, function = name.rpartition(".")
    assert callable(getattr(importlib.import_module(module), function)), row
