"""Another program archives a thread and brings it back, again and again, while it is written, read, forked, resumed."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from engine.errors import InvalidRequest, ThreadNotFound
from engine.protocol.ids import ThreadId, new_thread_id
from engine.thread_store import finding, opening
from engine.thread_store.appender import Appender
from engine.thread_store.files import FileStatus, RealFiles
from engine.thread_store.finding import at_its_place, find_archived, find_rollout
from engine.thread_store.interface import ForkThread, GitPatch, Interrupted, ListTurns, MetadataPatch, ResumeThread
from engine.thread_store.local import LocalThreadStore, open_local_store
from engine.thread_store.places import archived_place, places_of
from engine.thread_store.rollout_writer import RolloutWriter
from engine.thread_store.threads import Threads
from tests.thread_store.stories import create, meta, said, telling, texts

MOVES = 60
PAUSE = 0.0005  # seconds; no program that moves a thread is quicker again
NAME = "rollout-2025-01-02T03-04-05-01a2125d-4220-76bc-855f-b233a83bc21c.jsonl"
HEAD = b'{"type":"session_meta"}\n'


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalThreadStore]:
    async with open_local_store(tmp_path / "home") as made:
        yield made


async def stored(store: LocalThreadStore) -> tuple[ThreadId, str]:
    """A thread that nobody writes, and where it is."""
    live = store.create(params := create())
    live.append([said("before"), telling("answer")])
    await live.shutdown()
    assert live.rollout_path is not None
    return params.meta.id, live.rollout_path


@contextmanager
def moved_to_and_fro(home: Path, path: str) -> Iterator[Callable[[], bool]]:
    """Moves the file as long as the block lasts; it ends where it was."""
    away, over = archived_place(home, path), threading.Event()
    os.makedirs(os.path.dirname(away), exist_ok=True)
    moves = 0

    def move() -> None:
        nonlocal moves
        while not over.is_set():
            os.rename(path, away)
            over.wait(PAUSE if moves % 5 else 0)
            os.rename(away, path)
            over.wait(PAUSE if moves % 7 else 0)
            moves += 1

    mover = threading.Thread(target=move)
    mover.start()
    try:
        yield lambda: moves < MOVES
    finally:
        over.set()
        mover.join()


async def test_a_live_thread_is_written_where_it_is(store: LocalThreadStore) -> None:
    live = store.create(create())
    notices: list[str] = []
    live.on_notice(notices.append)
    live.append([said("0")])
    await live.flush()
    path = live.rollout_path
    assert path is not None
    told = ["0"]
    with moved_to_and_fro(store.home, path) as going_on:
        while going_on():
            told.append(str(len(told)))
            live.append([telling(told[-1])])
            await live.flush()
    await live.shutdown()
    assert texts(path) == ["meta", *told]
    assert notices == []
    assert [found.name for found in store.home.rglob("rollout-*")] == [Path(path).name]


async def test_a_thread_of_another_engine_is_found_at_every_look(store: LocalThreadStore) -> None:
    thread, path = await stored(store)
    with moved_to_and_fro(store.home, path) as going_on:
        while going_on():
            found = await store.find_thread(thread)
            assert found is not None
            page = await store.list_turns(thread, ListTurns())
            assert len(page.turns) == 1
            assert await store.dynamic_tools(thread) == ()


async def test_its_metadata_is_changed_where_it_is(store: LocalThreadStore) -> None:
    thread, path = await stored(store)
    branches: list[str] = []
    with moved_to_and_fro(store.home, path) as going_on:
        while going_on():
            branch = f"branch {len(branches)}"
            with suppress(ThreadNotFound):  # moved whenever it was held; then nothing was written
                await store.update_metadata(thread, MetadataPatch(git=GitPatch(branch=branch)))
                branches.append(branch)
    found = await store.find_thread(thread)
    assert found is not None
    assert found.git is not None
    assert found.git.branch == branches[-1]


@pytest.mark.parametrize(
    "action", ["resume", "resume a tail", "resume a file", "fork", "fork a file", "read", "read a file"]
)
async def test_it_is_taken_up_or_said_to_be_archived(store: LocalThreadStore, action: str) -> None:
    thread, path = await stored(store)

    async def act() -> None:
        if action == "resume":
            await (await store.resume(ResumeThread(thread=thread))).live.shutdown()
        elif action in ("resume a tail", "resume a file"):  # a session resumes the file it has read
            tail = await store.load_tail(thread)
            try:
                named = thread if action == "resume a tail" or tail.path is None else Path(tail.path)
                await (await store.resume(ResumeThread(thread=named, tail=tail))).live.shutdown()
            finally:
                tail.close()
        elif action in ("fork", "fork a file"):  # a session forks the file it has read
            source = thread if action == "fork" else Path(path)
            await (await store.fork(ForkThread(source=source, meta=meta(), snapshot=Interrupted()))).discard()
        else:
            source = thread if action == "read" else Path(path)
            assert (await store.load_history(source)).thread_id == thread

    with moved_to_and_fro(store.home, path) as going_on:
        while going_on():
            with suppress(InvalidRequest):  # while it is archived
                await act()
    await act()
    assert store.live_threads() == ()
    assert store.locks.holder(path) is None


async def test_all_of_it_can_be_read_wherever_it_is(store: LocalThreadStore) -> None:
    thread, path = await stored(store)
    threads = Threads._of(store)
    with moved_to_and_fro(store.home, path) as going_on:
        while going_on():
            assert (await threads.history(thread)).thread_id == thread
    with pytest.raises(ThreadNotFound):
        await threads.history(new_thread_id())


class MovesAsItIsLookedFor(RealFiles):
    """Before the looks named in `at`, the file goes to its other place."""

    def __init__(self, one: Path, other: Path) -> None:
        self.at: set[int] = set()
        self._looks = 0
        self._places = (one, other)

    def status(self, path: str) -> FileStatus | None:
        self._looks += 1
        if self._looks in self.at:
            one, other = self._places if self._places[0].exists() else reversed(self._places)
            one.rename(other)
        return super().status(path)

    def move_before(self, *looks: int) -> None:
        self.at = {self._looks + look for look in looks}


@pytest.mark.parametrize("open_files", [1, 10])
@pytest.mark.parametrize("looks", [(1,), (2,), (1, 2), (1, 2, 3), (1, 3, 5), (1, 2, 4, 5), (1, 2, 3, 4, 5, 6, 7)])
async def test_a_writer_that_misses_it_everywhere_looks_again(
    tmp_path: Path, looks: tuple[int, ...], open_files: int
) -> None:
    home = tmp_path / "home"
    path = (
        home
        / "sessions"
        / "2025"
        / "01"
        / "02"
        / "rollout-2025-01-02T03-04-05-01a2125d-4220-76bc-855f-b233a83bc21c.jsonl"
    )
    away = Path(archived_place(home, str(path)))
    away.parent.mkdir(parents=True)
    files = MovesAsItIsLookedFor(path, away)
    appender = Appender(files=files, open_files=open_files)
    try:
        writer = RolloutWriter(appender, str(path), lambda _: HEAD, places=lambda: places_of(home, str(path)))
        notices: list[str] = []
        writer.on_notice(notices.append)
        writer.append([telling("1")])
        await writer.flush()
        other = RolloutWriter(appender, str(tmp_path / "other.jsonl"), lambda _: HEAD)
        other.append([telling("x")])  # takes the handle, where there is one only
        await other.flush()
        files.move_before(*looks)
        writer.append([telling("2")])
        await writer.flush()
        writer.append([telling("3")])
        await writer.close()
        await other.close()
    finally:
        await appender.aclose()
    [left] = [found for found in (path, away) if found.exists()]
    assert texts(left) == ["meta", "1", "2", "3"]
    assert notices == []


def test_a_file_that_is_never_there_is_not_looked_for_forever(tmp_path: Path) -> None:
    looks = 0

    def act(path: Path) -> None:
        nonlocal looks
        looks += 1
        raise ThreadNotFound("gone", thread=str(path))

    with pytest.raises(ThreadNotFound):
        at_its_place(lambda: tmp_path, act)
    assert 1 < looks < 100


async def test_it_is_found_though_it_is_always_where_nobody_looks(
    store: LocalThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread, path = await stored(store)
    away, moves = archived_place(store.home, path), 0
    os.makedirs(os.path.dirname(away), exist_ok=True)

    def moving(find: Callable[[Path, ThreadId], Path | None], to: str) -> Callable[[Path, ThreadId], Path | None]:
        def find_and_move(home: Path, wanted: ThreadId) -> Path | None:
            nonlocal moves
            found = find(home, wanted)
            if found is None and moves < 5:
                os.rename(path if to == away else away, to)
                moves += 1
            return found

        return find_and_move

    for module in (finding, opening):
        monkeypatch.setattr(module, "find_rollout", moving(find_rollout, path))
        monkeypatch.setattr(module, "find_archived", moving(find_archived, away))
    for find in (finding.find_anywhere, opening.current_path):
        os.rename(path, away)
        moves = 0
        assert find(store.home, thread) == Path(path)
        assert moves == 5


async def test_a_thread_that_is_nowhere_is_looked_for_once(
    store: LocalThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = await stored(store)
    folder = Path(archived_place(store.home, path)).parent
    folder.mkdir(exist_ok=True)
    os.utime(folder, (0, 0))
    asked: list[ThreadId] = []
    monkeypatch.setattr(finding, "find_rollout", lambda _, wanted: asked.append(wanted))
    assert finding.find_anywhere(store.home, new_thread_id()) is None
    assert len(asked) == 1
