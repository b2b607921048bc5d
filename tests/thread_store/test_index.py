"""The index: right whatever others do to the files or to it, quick, and never missed when it is gone."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import attrs
import pytest
import trio

from engine.errors import InvalidRequest
from engine.protocol.ids import ThreadId, new_thread_id
from engine.protocol.rollout_items import RolloutItem
from engine.rollout.lines import encode_rollout_line
from engine.rollout.names import parse_rollout_name
from engine.thread_store.changes import meta_line
from engine.thread_store.checkpoints import Checkpoint
from engine.thread_store.database import Database, DatabaseUnavailable
from engine.thread_store.finding import list_files
from engine.thread_store.index import INDEX_FILE, ThreadIndex
from engine.thread_store.index_rows import prepare
from engine.thread_store.interface import EdgeStatus, ListThreads, SpawnEdge, StoredThread, ThreadPage
from engine.thread_store.local import LocalThreadStore, open_local_store
from engine.thread_store.names import append_name
from engine.thread_store.summaries import summarise
from tests.telemetry.recording import Recording
from tests.thread_store.stories import create, meta, open_descriptors, said, telling

ROOT = Path(__file__).parents[2]
STAMP = "2025-03-01T00:00:00.000Z"
LIVELY = ListThreads(sort_key="updated_at")


def write(home: Path, number: int, *items: RolloutItem, day: str = "2025/03/01") -> Path:
    """A rollout as another program leaves it, created and written `number` seconds after a fixed moment."""
    thread_id = new_thread_id()
    minute, second = divmod(number, 60)
    moment = f"T03-{minute:02d}-{second:02d}"
    first = attrs.evolve(meta(thread_id), timestamp=f"{day.replace('/', '-')}T03:{minute:02d}:{second:02d}.000Z")
    path = home / "sessions" / day / f"rollout-{day.replace('/', '-')}{moment}-{thread_id}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(encode_rollout_line(item, STAMP) for item in [first, *(items or [said(str(number))])]))
    os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    return path


def previews(page: ThreadPage | None) -> list[str | None]:
    assert page is not None
    return [thread.preview for thread in page.threads]


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("thread index")]


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[ThreadIndex]:
    made = ThreadIndex(tmp_path)
    yield made
    await made.aclose()
    assert our_threads() == []


async def test_a_sweep_is_told(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, number)
    recording = Recording()
    index = ThreadIndex(tmp_path, recording)
    with trio.fail_after(30):
        await index.sweep()
    await index.aclose()
    assert recording.counts("codex.db.backfill") == 3 * [{"status": "upserted"}]
    assert recording.measures("codex.db.backfill.duration_ms") == [{"status": "success"}]
    assert not recording.counts("codex.db.error")


async def test_the_first_page_comes_from_files_and_sets_off_a_sweep(tmp_path: Path) -> None:
    for number in range(200):
        write(tmp_path, number)
    async with open_local_store(tmp_path) as store:
        assert our_threads() == []
        first = await store.list_threads(ListThreads(limit=3))
        assert previews(first) == ["199", "198", "197"]
        assert first.indexing is not None
        assert store.index is not None
        with trio.fail_after(30):
            done = await store.index.sweep()
        assert not done.running
        again = await store.list_threads(ListThreads(limit=3))
        assert again == attrs.evolve(first, indexing=None)
        assert await store.index.page(ListThreads(limit=3)) == again
    assert our_threads() == []


async def test_pages_of_the_index_and_of_the_files_are_the_same(tmp_path: Path, index: ThreadIndex) -> None:
    for number in range(50):
        write(tmp_path, number // 3, day=f"2025/03/{1 + number // 20:02d}")  # many ties
    await index.sweep()
    for sort_key in ("created_at", "updated_at"):
        for direction in ("desc", "asc"):
            query = ListThreads(limit=7, sort_key=sort_key, direction=direction)
            seen: list[StoredThread] = []
            while True:
                page = await index.page(query)
                assert page == list_files(tmp_path, query)
                assert page is not None
                seen += page.threads
                if page.next_cursor is None:
                    break
                query = attrs.evolve(query, cursor=page.next_cursor)
            assert len({thread.thread_id for thread in seen}) == len(seen) == 50
            assert page.backwards_cursor is not None
            back = attrs.evolve(
                query, cursor=page.backwards_cursor, limit=100, direction="asc" if direction == "desc" else "desc"
            )
            returned = await index.page(back)
            assert returned is not None
            first = page.threads[0].thread_id
            at = [thread.thread_id for thread in seen].index(first)
            assert [thread.thread_id for thread in returned.threads] == [
                thread.thread_id for thread in reversed(seen[: at + 1])
            ]
            assert returned == list_files(tmp_path, back)


@pytest.mark.parametrize("cursor", ["x", "", "2025", "2025-03-01T00:00:00Z_nope", "2025-13-01T00:00:00Z"])
async def test_a_bad_cursor_is_told(tmp_path: Path, index: ThreadIndex, cursor: str) -> None:
    query = ListThreads(cursor=cursor)
    if cursor == "2025":
        return  # a year is a time
    with pytest.raises(InvalidRequest, match="invalid cursor: "):
        list_files(tmp_path, query)
    await index.sweep()
    with pytest.raises(InvalidRequest, match="invalid cursor: "):
        await index.page(query)


async def test_a_time_is_a_cursor_too(tmp_path: Path, index: ThreadIndex) -> None:
    for number in (1, 2, 2, 3):
        write(tmp_path, number)
    await index.sweep()
    for direction, expected in (("desc", ["1"]), ("asc", ["3"])):
        query = ListThreads(cursor="2025-03-01T03:00:02Z", direction=direction)  # type: ignore[arg-type]
        assert previews(await index.page(query)) == previews(list_files(tmp_path, query)) == expected


# --- what others do ------------------------------------------------------------------------------


Deed = Callable[[Path, list[Path]], object]


def append(path: Path, *items: RolloutItem) -> None:
    with path.open("ab") as file:
        file.write(b"".join(encode_rollout_line(item, STAMP) for item in items))
    os.utime(path, (1_800_000_000, 1_800_000_000))


def folder(path: Path) -> Path:
    path.mkdir()
    return path


DEEDS: dict[str, tuple[Deed, list[str]]] = {
    "a thread comes": (lambda home, _: write(home, 9), ["9", "2", "1", "0"]),
    "on another day": (lambda home, _: write(home, 9, day="2026/12/31"), ["9", "2", "1", "0"]),
    "a thread goes": (lambda _, paths: paths[1].unlink(), ["2", "0"]),
    "a day goes": (lambda home, _: shutil.rmtree(home / "sessions"), []),
    "one is written": (lambda _, paths: append(paths[2], telling("x")), ["2", "1", "0"]),
    "one is replaced": (
        lambda _, paths: paths[2].write_bytes(paths[2].read_bytes().replace(b'"message":"2"', b'"message":"new"')),
        ["new", "1", "0"],
    ),
    "one is damaged": (lambda _, paths: paths[2].write_bytes(b"nothing"), ["1", "0"]),
    "one is moved": (
        lambda home, paths: paths[2].rename(folder(home / "archived_sessions") / paths[2].name),
        ["1", "0"],
    ),
}


@pytest.mark.parametrize("deed", DEEDS)
async def test_whatever_others_do_the_next_page_is_right(tmp_path: Path, index: ThreadIndex, deed: str) -> None:
    paths = [write(tmp_path, number) for number in range(3)]
    await index.sweep()
    for _ in range(2):
        assert previews(await index.page(ListThreads())) == ["2", "1", "0"]
    do, expected = DEEDS[deed]
    do(tmp_path, paths)
    for query in (ListThreads(), ListThreads(archived=True)):
        page = await index.page(query)
        assert page == list_files(tmp_path, query)
        assert query.archived or previews(page) == expected


async def test_an_old_thread_that_others_went_on_with_comes_first_after_a_sweep(
    tmp_path: Path, index: ThreadIndex
) -> None:
    paths = [write(tmp_path, number) for number in range(40)]
    await index.sweep()
    append(paths[0], telling("x"))
    await index.sweep()
    assert previews(await index.page(attrs.evolve(LIVELY, limit=2))) == ["0", "39"]


async def test_names_given_by_others_are_shown_and_searched(tmp_path: Path, index: ThreadIndex) -> None:
    paths = [write(tmp_path, number) for number in range(3)]
    await index.sweep()
    thread_id = ThreadId(paths[1].stem[-36:])
    for name in ("the second", "another"):
        append_name(tmp_path, thread_id, name, STAMP)
        page = await index.page(ListThreads(search=name))
        assert page is not None
        assert [thread.name for thread in page.threads] == [name]
        assert page == list_files(tmp_path, ListThreads(search=name))
    assert previews(await index.page(ListThreads(search="the second"))) == []
    (tmp_path / "session_index.jsonl").unlink()
    page = await index.page(ListThreads())
    assert page is not None
    assert [thread.name for thread in page.threads] == [None] * 3


async def test_many_new_threads_are_left_to_a_sweep(tmp_path: Path, index: ThreadIndex) -> None:
    write(tmp_path, 0)
    await index.sweep()
    for number in range(1, 200):
        write(tmp_path, number)
    assert await index.page(ListThreads()) is None  # the files answer
    await index.sweep()
    assert previews(await index.page(ListThreads(limit=2))) == ["199", "198"]


# --- what becomes of the index itself ------------------------------------------------------------


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:3000] = b"\xff" * 2900
    path.write_bytes(data)


FOLDER = pytest.param("a folder", marks=pytest.mark.damages_home)  # nobody removes that


@pytest.mark.parametrize("when", ["open", "closed"])
@pytest.mark.parametrize("how", ["deleted", "emptied", "damaged", "no database", FOLDER, "of another version"])
async def test_a_lost_index_is_no_loss(tmp_path: Path, how: str, when: str) -> None:
    for number in range(3):
        write(tmp_path, number)
    path = tmp_path / INDEX_FILE
    async with open_local_store(tmp_path) as store:
        assert store.index is not None
        await store.index.sweep()
        if when == "closed":
            await store.index.aclose()
            store.opened_index = ThreadIndex(tmp_path)
        if how == "deleted":
            for file in tmp_path.glob(INDEX_FILE + "*"):
                file.unlink()
        elif how == "emptied":
            path.write_bytes(b"")
        elif how == "damaged":
            spoil(path)
        elif how == "no database":
            path.write_text("I am no database. " * 1000)
        elif how == "a folder":
            for file in tmp_path.glob(INDEX_FILE + "*"):
                file.unlink()
            path.mkdir()
        else:
            with closing(sqlite3.connect(path)) as other:
                other.execute("PRAGMA user_version = 999")
        write(tmp_path, 3)
        for _ in range(3):
            assert previews(await store.list_threads(ListThreads())) == ["3", "2", "1", "0"]
            with trio.fail_after(30):
                await store.index.sweep()


async def test_an_unwritable_home_is_listed_all_the_same(tmp_path: Path) -> None:
    write(tmp_path, 1)
    home = tmp_path / "nowhere" / "home"
    (tmp_path / "nowhere").write_text("in the way")
    async with open_local_store(home) as store:
        assert (await store.list_threads(ListThreads())).threads == ()


async def test_a_locked_index_is_never_told_of(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, number)
    async with open_local_store(tmp_path) as store:
        assert store.index is not None
        await store.index.sweep()
        with closing(sqlite3.connect(tmp_path / INDEX_FILE, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            live = store.create(create())
            live.append([said("new")])
            await live.flush()  # nobody waits for the index
            page = await store.list_threads(ListThreads())
            assert set(previews(page)) == {"0", "1", "2", "new"}
            other.execute("ROLLBACK")
        assert set(previews(await store.list_threads(ListThreads()))) == {"0", "1", "2", "new"}
        await live.shutdown()


CLIENT = """
import sys, trio
from pathlib import Path
from engine.thread_store.interface import ListThreads
from engine.thread_store.local import open_local_store
from tests.thread_store.stories import create, said

async def main(home, name):
    async with open_local_store(home) as store:
        for number in range(20):
            live = store.create(create())
            live.append([said(f"{name} {number}")])
            await live.flush()
            page = await store.list_threads(ListThreads(limit=100))
            mine = {thread.preview for thread in page.threads if thread.preview.startswith(name)}
            assert f"{name} {number}" in {t.preview for t in (await store.list_threads(ListThreads(limit=200))).threads}
            await live.shutdown()
            if number % 7 == 3:
                await store.index.sweep()
trio.run(main, Path(sys.argv[1]), sys.argv[2])
"""


async def test_several_processes_share_a_home(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CLIENT, str(tmp_path), f"process {number}"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
        )
        for number in range(4)
    ]
    for process in processes:
        _, errors = await trio.to_thread.run_sync(process.communicate)
        assert (process.returncode, errors.decode()) == (0, "")
    async with open_local_store(tmp_path) as store:
        assert store.index is not None
        expected = sorted(f"process {number} {turn}" for number in range(4) for turn in range(20))
        for _ in range(2):
            assert sorted(map(str, previews(await store.list_threads(ListThreads(limit=100))))) == expected
            await store.index.sweep()


@pytest.mark.parametrize("told", ["moved", "removed"])
async def test_what_is_told_late_takes_nothing_away(tmp_path: Path, index: ThreadIndex, told: str) -> None:
    path = write(tmp_path, 1)
    await index.sweep()
    thread = parse_rollout_name(path.name)
    assert thread is not None
    # Others have brought the file back by the time the index hears where it went.
    if told == "moved":
        index.moved(str(path), f"{tmp_path}/archived_sessions/{path.name}")
    else:
        index.removed(str(path))
    assert await index.place(thread.thread_id) == str(path)
    assert previews(await index.page(ListThreads())) == ["1"]
    path.unlink()
    index.removed(str(path))
    assert await index.place(thread.thread_id) is None


# --- what is written here ------------------------------------------------------------------------


async def test_every_write_is_told_to_the_index(tmp_path: Path) -> None:
    async with open_local_store(tmp_path) as store:
        live = store.create(create())
        live.append([said("hello")])
        await live.shutdown()
    with closing(sqlite3.connect(tmp_path / INDEX_FILE)) as database:  # no listing was asked for
        assert database.execute("SELECT thread_id, preview FROM threads").fetchall() == [(live.thread_id, "hello")]


async def test_a_file_without_items_is_told_to_the_index_too(tmp_path: Path) -> None:
    async with open_local_store(tmp_path) as store:
        live = store.create(create())
        await live.persist()
        assert store.index is not None
        assert await store.index.thread(live.thread_id) is not None
        await live.shutdown()


async def test_a_start_that_never_was_leaves_no_index(tmp_path: Path) -> None:
    async with open_local_store(tmp_path) as store:
        live = store.create(create())
        live.append([said("hello")])
        await live.flush()
        await live.abandon()
        await store.create(create()).shutdown()
    assert not any(tmp_path.iterdir())


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    before = open_descriptors()
    async with open_local_store(tmp_path) as store:
        write(tmp_path, 0)
        await store.list_threads(ListThreads())
    assert open_descriptors() == before
    assert our_threads() == []


async def test_checkpoints_edges_and_tools_are_kept(tmp_path: Path, index: ThreadIndex) -> None:
    assert await index.checkpoint("/a") is None
    for offset in (10, 20):
        index.note_checkpoint("/a", Checkpoint(1, 2, offset, 3, b"mark"))
    assert await index.checkpoint("/a") == Checkpoint(1, 2, 20, 3, b"mark")
    rollout = write(tmp_path, 0)
    parent, child = new_thread_id(), ThreadId(rollout.stem[-36:])
    assert await index.children([parent]) is None  # not every file was looked at
    await index.sweep()
    statuses: tuple[EdgeStatus, ...] = ("open", "closed")
    for status in statuses:
        edge = SpawnEdge(parent=parent, child=child, status=status)
        summary = summarise(str(rollout))
        assert summary is not None
        line = meta_line(summary.facts, git=None, memory_mode="enabled", edge=edge)
        with rollout.open("ab") as file:
            file.write(encode_rollout_line(line, STAMP))
        index.edge_changed(child)
        assert await index.children([parent]) == [edge]
        index.edge_changed(child)  # told late, by another process
        assert await index.children([parent]) == [edge]
    index.edge_changed(new_thread_id())
    assert await index.children([parent]) == [edge]
    assert await index.tools(new_thread_id()) is None
    path = write(tmp_path, 1)
    path.write_bytes(path.read_bytes().replace(b'"source":', b'"dynamic_tools":[{"name":"t"}],"source":', 1))
    assert await index.tools(ThreadId(path.stem[-36:])) is None  # it is not known yet
    assert previews(await index.page(ListThreads())) == ["1", "0"]
    assert await index.tools(ThreadId(path.stem[-36:])) == ({"name": "t"},)


async def test_a_closed_index_knows_nothing(tmp_path: Path, index: ThreadIndex) -> None:
    await index.aclose()
    await index.aclose()
    assert await index.page(ListThreads()) is None
    index.touch("/a")
    index.removed("/a")


# --- the database --------------------------------------------------------------------------------


async def test_errors_of_the_work_are_its_own(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "x.sqlite"), prepare)

    def fail(_: sqlite3.Connection) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.run(fail)
    with pytest.raises(DatabaseUnavailable):
        await database.run(lambda connection: connection.execute("SELECT * FROM nothing").fetchall())
    await database.aclose()


async def test_who_is_cancelled_leaves_the_work_to_itself(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "x.sqlite"), prepare)
    gate = threading.Event()
    done: list[int] = []

    def work(_: sqlite3.Connection) -> None:
        gate.wait()
        done.append(1)

    with trio.move_on_after(0.05):
        await database.run(work)
    gate.set()
    assert await database.run(lambda _: len(done)) == 1
    await database.aclose()


async def test_a_page_of_a_large_home_is_quick(tmp_path: Path, index: ThreadIndex) -> None:
    """The figure itself is the benchmark's; this one catches a listing that looks at every file."""
    for number in range(600):
        write(tmp_path, number, day=f"2025/{1 + number % 12:02d}/{1 + number % 28:02d}")
    await index.sweep()
    await index.page(ListThreads())
    times: list[float] = []
    for _ in range(10):
        began = time.perf_counter()
        page = await index.page(ListThreads(limit=25))
        times.append(time.perf_counter() - began)
        assert page is not None
        assert len(page.threads) == 25
    assert min(times) < 0.05


def test_stores_may_do_without(tmp_path: Path) -> None:
    async def story() -> None:
        async with open_local_store(tmp_path, index=False) as store:
            assert isinstance(store, LocalThreadStore)
            assert store.index is None
            live = store.create(create())
            live.append([said("x")])
            await live.shutdown()
            assert previews(await store.list_threads(ListThreads())) == ["x"]
            assert await store.spawned(live.thread_id) == ()

    trio.run(story)
    assert not (tmp_path / INDEX_FILE).exists()
