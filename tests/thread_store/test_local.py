"""Threads on the disk: where files are, how they are found and read, what damaged ones cost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
import trio

from engine.errors import ConflictError, StoreError, ThreadNotFound
from engine.protocol.ids import ThreadId, new_thread_id
from engine.protocol.profiles import DangerFullAccess
from engine.protocol.rollout_items import EventLine, RolloutItem, SessionMeta, TurnContext, UnknownLine
from engine.protocol.wire import UnknownVariant
from engine.rollout.lines import encode_rollout_line
from engine.thread_store.appender import Appender, open_appender
from engine.thread_store.hop import on_the_spot
from engine.thread_store.index import ThreadIndex
from engine.thread_store.interface import ResumeThread, StoredThread, ThreadQuery
from engine.thread_store.local import LocalThreadStore, open_local_store
from engine.thread_store.locks import ThreadLocked
from tests.thread_store.stories import create, kept, meta, open_descriptors, said, telling, texts

STAMP = "2025-03-01T00:00:00.000Z"
MOMENT = datetime(2025, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC).timestamp()  # of every meta


@pytest.fixture
async def appender() -> AsyncIterator[Appender]:
    async with open_appender() as made:
        yield made


@pytest.fixture
async def store(tmp_path: Path, appender: Appender) -> AsyncIterator[LocalThreadStore]:
    made = LocalThreadStore(tmp_path, appender)
    yield made
    await made.aclose()


def context(cwd: str) -> TurnContext:
    return TurnContext(cwd=cwd, approval_policy="never", sandbox_policy=DangerFullAccess(), model="m", summary="auto")


def write(home: Path, items: list[RolloutItem], *, day: str = "2025/03/01", age: float = 0) -> Path:
    """A rollout as another program leaves it; the first item is its meta. `age` in seconds is that of its file."""
    first = items[0]
    assert isinstance(first, SessionMeta)
    path = home / "sessions" / day / f"rollout-{day.replace('/', '-')}T00-00-00-{first.id}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(encode_rollout_line(item, STAMP) for item in items))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


# --- places ------------------------------------------------------------------------------------


async def test_a_file_is_named_after_the_local_time_of_creation(tmp_path: Path, appender: Appender) -> None:
    moment = time.struct_time((2025, 1, 2, 3, 4, 5, 0, 0, -1))
    store = LocalThreadStore(tmp_path, appender, local_time=lambda: moment)
    live = store.create(create())
    assert live.rollout_path == str(
        tmp_path / "sessions" / "2025" / "01" / "02" / f"rollout-2025-01-02T03-04-05-{live.thread_id}.jsonl"
    )
    assert not any(tmp_path.iterdir())
    live.append([telling("x")])
    await live.flush()
    [line, _] = Path(live.rollout_path).read_text().splitlines()
    assert list(json.loads(line)) == ["timestamp", "type", "payload"]
    await live.shutdown()


async def test_creating_touches_no_disk_and_starts_no_thread(appender: Appender) -> None:
    store = LocalThreadStore("/nonexistent/home", appender)
    before = open_descriptors()
    live = store.create(create())
    await live.shutdown()
    assert open_descriptors() == before
    assert appender._threads == []


async def test_threads_are_found_by_id_wherever_they_are(store: LocalThreadStore, tmp_path: Path) -> None:
    recent, old, random = new_thread_id(), new_thread_id(), ThreadId("6fa459ea-ee8a-4ca4-894e-db77e160355e")
    today = time.strftime("%Y/%m/%d")
    paths = {
        recent: write(tmp_path, [meta(recent)], day=today),
        old: write(tmp_path, [meta(old)], day="2019/12/31"),
        random: write(tmp_path, [meta(random)], day="2024/02/29"),
    }
    for thread_id, path in paths.items():
        found = await store.find_thread(thread_id)
        assert found is not None
        assert found == StoredThread(
            thread_id=thread_id,
            path=str(path),
            created_at=MOMENT,
            updated_at=path.stat().st_mtime_ns / 1e9,
            cwd="/somewhere",
            latest_cwd="/somewhere",
            source="exec",
            originator="tests",
            cli_version="0.1.0",
            model_provider="scripted",
        )
        assert (await store.load_history(thread_id)).path == str(path)
        assert (await store.load_history(path)).thread_id == thread_id
    assert await store.find_thread(new_thread_id()) is None


async def test_other_files_are_in_nobodys_way(store: LocalThreadStore, tmp_path: Path) -> None:
    thread_id = new_thread_id()
    path = write(tmp_path, [meta(thread_id), said("hello")], day="2025/03/01")
    (path.parent / "notes.txt").write_text("x")
    (path.parent / "rollout-2025-03-01T00-00-00-nope.jsonl").write_text("x")
    (tmp_path / "sessions" / "not-a-year").mkdir()
    (tmp_path / "sessions" / "2031").write_text("a file where a folder should be")
    found = await store.latest_thread(ThreadQuery())
    assert found is not None
    assert found.thread_id == thread_id
    assert await store.find_thread(thread_id) is not None


async def test_a_home_without_sessions_has_no_threads(store: LocalThreadStore) -> None:
    assert await store.latest_thread(ThreadQuery()) is None
    assert await store.find_thread(new_thread_id()) is None
    with pytest.raises(ThreadNotFound, match="no rollout found for thread id"):
        await store.load_history(new_thread_id())


# --- the latest --------------------------------------------------------------------------------


@pytest.mark.damages_home
async def test_the_latest_is_the_one_written_last(store: LocalThreadStore, tmp_path: Path) -> None:
    old, new, silent, broken = (new_thread_id() for _ in range(4))
    write(tmp_path, [meta(old), said("an older name, written later")], day="2024/01/01", age=10)
    write(tmp_path, [meta(new), said("x")], day="2025/01/01", age=100)
    write(tmp_path, [meta(silent), telling("nobody said anything")], age=5)
    write(tmp_path, [meta(broken), said("x")], age=1).write_text("{not a rollout\n")
    newest = await store.latest_thread(ThreadQuery())
    assert newest is not None
    assert (newest.thread_id, newest.preview) == (old, "an older name, written later")


async def test_the_cwd_is_that_of_the_latest_turn(store: LocalThreadStore, tmp_path: Path) -> None:
    moved, stayed = new_thread_id(), new_thread_id()
    long = [telling("x" * 10_000)] * 30  # the context is far from the end, and behind the first look at it
    write(tmp_path, [meta(moved, cwd="/a"), context("/a"), said("x"), context("/b"), *long], age=1)
    write(tmp_path, [meta(stayed, cwd="/a"), said("x")], age=2)
    for cwd, expected in (("/a", stayed), ("/b", moved), (None, moved)):
        found = await store.latest_thread(ThreadQuery(cwd=cwd))
        assert found is not None
        assert found.thread_id == expected
    assert await store.latest_thread(ThreadQuery(cwd="/c")) is None
    history = await store.load_history(moved)
    assert history.cwd == "/b"


async def test_the_cwd_may_be_named_by_a_link(store: LocalThreadStore, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(tmp_path, [meta(cwd=str(tmp_path / "real")), said("x")])
    assert await store.latest_thread(ThreadQuery(cwd=str(tmp_path / "link"))) is not None


async def test_the_provider_can_be_asked_for(store: LocalThreadStore, tmp_path: Path) -> None:
    one, two = new_thread_id(), new_thread_id()
    write(tmp_path, [meta(one, provider="one"), said("x")], age=2)
    write(tmp_path, [meta(two, provider="two"), said("x")], age=1)
    found = await store.latest_thread(ThreadQuery(model_provider="one"))
    assert found is not None
    assert found.thread_id == one
    assert await store.latest_thread(ThreadQuery(model_provider="three")) is None


async def test_the_first_words_may_come_late(store: LocalThreadStore, tmp_path: Path) -> None:
    write(tmp_path, [meta(), *[telling("x" * 2000)] * 150, said("## My request for Codex: \n late ")])
    found = await store.latest_thread(ThreadQuery())
    assert found is not None
    assert found.preview == "late"
    write(tmp_path, [meta(), *[telling("x")] * 300, said("too late")], age=-10)
    assert await store.latest_thread(ThreadQuery()) == found


@pytest.mark.damages_home
async def test_threads_have_the_last_name_they_were_given(store: LocalThreadStore, tmp_path: Path) -> None:
    one, two, three = (new_thread_id() for _ in range(3))
    for age, thread_id in enumerate((one, two, three)):
        write(tmp_path, [meta(thread_id, cwd=f"/{age}"), said("x")], age=age)
    entries = [(one, "work"), (two, "work"), (three, "work"), (one, "play"), (three, "WORK"), (two.upper(), "work")]
    lines = [json.dumps({"id": thread_id, "thread_name": name, "updated_at": STAMP}) for thread_id, name in entries]
    (tmp_path / "session_index.jsonl").write_text("\n".join([lines[0], "{torn", "[]", *lines[1:]]))
    found = await store.latest_thread(ThreadQuery(name="work"))
    assert found is not None
    assert found.thread_id == two
    assert await store.latest_thread(ThreadQuery(name="work", cwd="/0")) is None
    assert await store.latest_thread(ThreadQuery(name="nobody")) is None


# --- damage ------------------------------------------------------------------------------------


@pytest.mark.damages_home
async def test_one_bad_line_costs_one_line(store: LocalThreadStore, tmp_path: Path) -> None:
    thread_id = new_thread_id()
    path = write(tmp_path, [meta(thread_id), telling("one"), telling("two")])
    first, one, two = path.read_bytes().splitlines()
    bad = [b"{not json", b"\xff\xfe\x00", b"\x00" * 100, b"[]", one[:-20], one.replace(b'"one"', b'"\xc3"')]
    foreign = [
        b'{"timestamp":"x","type":"world_state","payload":{"a":1}}',
        one.replace(b"agent_message", b"later_event"),
    ]
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([first, *bad, one, b"", *foreign, b"  ", two, two[:-9]]))
    history = await store.load_history(thread_id)
    assert kept(history.items) == ["meta", "one", "two"]
    assert (history.damaged, history.foreign, history.skipped) == (7, 2, 9)
    unknown = [item for item in history.items if isinstance(item, UnknownLine)]
    assert unknown == [UnknownLine("world_state", {"a": 1})]
    assert isinstance(history.items[3], EventLine)
    assert isinstance(history.items[3].msg, UnknownVariant)


async def test_a_torn_file_is_resumed_behind_its_last_whole_line(store: LocalThreadStore, tmp_path: Path) -> None:
    thread_id = new_thread_id()
    path = write(tmp_path, [meta(thread_id), telling("one"), telling("two")])
    torn = path.read_bytes()[:-10]
    path.write_bytes(torn)
    resumed = await store.resume(ResumeThread(thread=thread_id))
    assert kept(resumed.history.items) == ["meta", "one"]
    assert path.read_bytes() == torn
    resumed.live.append([telling("three")])
    await resumed.live.shutdown()
    whole, _, rest = torn.rpartition(b"\n")
    assert path.read_bytes().startswith(whole + b"\n")
    assert path.with_name(path.name + ".torn").read_bytes() == rest + b"\n"
    assert texts(path) == ["meta", "one", "three"]
    assert kept((await store.load_history(thread_id)).items) == ["meta", "one", "three"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b'{"timestamp":"x","type":"compacted","payload":{"message":""}}\n', "no readable session_meta"),
    ],
)
@pytest.mark.damages_home
async def test_what_is_no_thread_is_an_error(
    store: LocalThreadStore, tmp_path: Path, content: bytes, message: str
) -> None:
    thread_id = new_thread_id()
    path = write(tmp_path, [meta(thread_id)])
    path.write_bytes(content)
    for thread in (thread_id, path):
        with pytest.raises(StoreError, match=message):
            await store.load_history(thread)
        with pytest.raises(StoreError, match=message):
            await store.resume(ResumeThread(thread=thread))
    assert await store.find_thread(thread_id) is None
    assert store.live_threads() == ()


async def test_a_path_that_is_not_there(store: LocalThreadStore, tmp_path: Path) -> None:
    with pytest.raises(ThreadNotFound, match="no rollout found at"):
        await store.resume(ResumeThread(thread=tmp_path / "nowhere.jsonl"))
    with pytest.raises(StoreError, match="failed to read"):
        await store.load_history(tmp_path)
    assert store.live_threads() == ()


@pytest.mark.damages_home
async def test_a_file_that_cannot_be_written_is_not_resumed(store: LocalThreadStore, tmp_path: Path) -> None:
    thread_id = new_thread_id()
    path = write(tmp_path, [meta(thread_id)])
    history = await store.load_history(thread_id)
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match=r"failed to resume local thread recorder: .*Is a directory"):
        await store.resume(ResumeThread(thread=thread_id, history=history))
    assert store.live_threads() == ()


async def test_an_unwritable_home_keeps_the_items_until_it_can_be_written(
    store: LocalThreadStore, tmp_path: Path
) -> None:
    (tmp_path / "sessions").write_text("in the way")
    live = store.create(create())
    live.append([telling("1")])
    with pytest.raises(StoreError, match="failed to write"):
        await live.flush()
    live.append([telling("2")])
    (tmp_path / "sessions").unlink()
    await live.flush()
    assert texts(live.rollout_path) == ["meta", "1", "2"]


# --- resuming ----------------------------------------------------------------------------------


async def test_a_thread_can_be_resumed_by_path_and_with_a_history(store: LocalThreadStore, tmp_path: Path) -> None:
    thread_id = new_thread_id()
    path = write(tmp_path, [meta(thread_id), telling("one")])
    elsewhere = tmp_path / "moved.jsonl"
    path.rename(elsewhere)
    resumed = await store.resume(ResumeThread(thread=elsewhere))
    assert resumed.live.thread_id == thread_id
    with pytest.raises(ConflictError):
        await store.resume(ResumeThread(thread=elsewhere))
    assert (await store.load_history(thread_id)).path == str(elsewhere)  # that of the live thread
    await resumed.live.shutdown()
    short = attrs.evolve(resumed.history, items=())
    again = await store.resume(ResumeThread(thread=thread_id, history=short))
    assert again.history is short
    again.live.append([telling("two")])
    await again.live.shutdown()
    assert texts(elsewhere) == ["meta", "one", "two"]
    elsewhere.unlink()
    with pytest.raises(ThreadNotFound, match=f"no rollout found at {elsewhere}"):
        await store.resume(ResumeThread(thread=thread_id, history=short))
    assert store.live_threads() == ()


async def test_two_that_resume_at_once_are_told_apart(store: LocalThreadStore, tmp_path: Path) -> None:
    thread_id = new_thread_id()
    path = write(tmp_path, [meta(thread_id)])
    outcomes: list[str] = []

    async def resume(thread: ThreadId | Path) -> None:
        try:
            await store.resume(ResumeThread(thread=thread))
        except ConflictError:
            outcomes.append("conflict")
        else:
            outcomes.append("ok")

    async with trio.open_nursery() as nursery:
        for thread in (thread_id, thread_id, path, path):
            nursery.start_soon(resume, thread)
    assert sorted(outcomes) == ["conflict", "conflict", "conflict", "ok"]
    assert store.live_threads() == (thread_id,)


async def test_the_hop_is_a_seam(tmp_path: Path, appender: Appender, autojump_clock: trio.testing.MockClock) -> None:
    store = LocalThreadStore(tmp_path, appender, hop=on_the_spot)
    thread_id = new_thread_id()
    write(tmp_path, [meta(thread_id), said("x")])
    with trio.fail_after(1):
        assert await store.find_thread(thread_id) is not None
        assert await store.latest_thread(ThreadQuery()) is not None
        resumed = await store.resume(ResumeThread(thread=thread_id))
    resumed.live.forget()


# --- one writer ----------------------------------------------------------------------------------


async def test_another_store_on_the_same_file_is_refused(store: LocalThreadStore, tmp_path: Path) -> None:
    live = store.create(create())
    async with open_local_store(tmp_path) as other:
        live.append([telling("one")])
        await live.flush()
        with pytest.raises(ThreadLocked, match=f"is being written by process {os.getpid()} "):
            await other.resume(ResumeThread(thread=live.thread_id))
        assert live.rollout_path is not None
        with pytest.raises(ConflictError):
            await other.resume(ResumeThread(thread=Path(live.rollout_path)))
        assert other.live_threads() == ()
        assert kept((await other.load_history(live.thread_id)).items) == ["meta", "one"]  # reading is free
        await live.shutdown()
        resumed = await other.resume(ResumeThread(thread=live.thread_id))
        with pytest.raises(ThreadLocked):
            await store.resume(ResumeThread(thread=live.thread_id))
        await resumed.live.shutdown()
    assert not list(tmp_path.rglob("*.lock"))


@pytest.mark.damages_home
async def test_a_resume_that_fails_or_is_abandoned_locks_nothing(store: LocalThreadStore, tmp_path: Path) -> None:
    path = write(tmp_path, [meta()])
    path.write_text("nothing of a thread\n")
    with pytest.raises(StoreError):
        await store.resume(ResumeThread(thread=path))
    write(tmp_path, [meta(thread_id := new_thread_id())])
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.resume(ResumeThread(thread=thread_id))
    await (await store.resume(ResumeThread(thread=thread_id))).live.discard()
    assert not list(tmp_path.rglob("*.lock"))
    assert store.live_threads() == ()


async def test_the_index_is_made_when_it_is_needed_and_not_after_the_end(tmp_path: Path) -> None:
    made: list[ThreadIndex] = []

    def index() -> ThreadIndex:
        made.append(ThreadIndex(tmp_path))
        return made[-1]

    async with open_appender() as appender:
        store = LocalThreadStore(tmp_path, appender, index=index)
        live, unused = store.create(create()), store.create(create())
        assert made == []
        live.append([said("hello")])
        await live.flush()
        assert len(made) == 1
        await live.shutdown()
        await unused.shutdown()
        await store.aclose()
    late = LocalThreadStore(tmp_path, appender, index=index)
    await late.aclose()
    assert late.index is None
    assert store.index is made[0]
    assert len(made) == 1
