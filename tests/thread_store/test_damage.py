"""Damage as disks, crashes and other programs leave it: one bad line costs one line, one bad file costs one file.

The same corpus is read, resumed, listed, paged and forked; `verify` says which lines are lost.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from engine.errors import StoreError, ThreadNotFound
from engine.protocol.events import TaskComplete, TaskStarted
from engine.protocol.ids import ThreadId, new_thread_id
from engine.protocol.rollout_items import EventLine, RolloutItem
from engine.rollout.lines import encode_rollout_line
from engine.rollout.verification import verify
from engine.thread_store.interface import ForkThread, Interrupted, ListThreads, ListTurns, ResumeThread
from engine.thread_store.local import LocalThreadStore, open_local_store
from engine.thread_store.rollout_bytes import RolloutBytes
from tests.thread_store.stories import kept, meta, said, telling

pytestmark = pytest.mark.damages_home

STAMP = "2025-03-01T00:00:00.000Z"
HEALTHY, HURT = (ThreadId(f"01900000-0000-7000-8000-00000000000{number}") for number in (1, 2))


def lines(thread_id: ThreadId) -> list[bytes]:
    items: list[RolloutItem] = [meta(thread_id)]
    for turn in ("one", "two", "three"):
        events = (EventLine(TaskStarted(turn)), said(turn), telling(f"re {turn}"), EventLine(TaskComplete(turn)))
        items.extend(events)
    return [encode_rollout_line(item, STAMP) for item in items]


def path_of(home: Path, thread_id: ThreadId) -> Path:
    return home / "sessions/2025/03/01" / f"rollout-2025-03-01T00-00-00-{thread_id}.jsonl"


@pytest.fixture(params=[True, False], ids=["indexed", "not indexed"])
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[LocalThreadStore]:
    for thread_id in (HEALTHY, HURT):
        path = path_of(tmp_path, thread_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(lines(thread_id)))
    async with open_local_store(tmp_path, index=request.param) as made:
        yield made


def flipped(line: bytes, at: int) -> bytes:
    return line[:at] + bytes([line[at] ^ 2]) + line[at + 1 :]


# What becomes of the lines; how many of them are lost; what is told of the thread then.
ONE, TWO, THREE = ["one", "re one"], ["two", "re two"], ["three", "re three"]
Corpus = dict[str, tuple[Callable[[list[bytes]], list[bytes]], int, list[str]]]
CORPUS: Corpus = {
    "a flipped bit": (lambda found: [*found[:6], flipped(found[6], 1), *found[7:]], 1, [*ONE, "re two", *THREE]),
    "a cut in the middle": (lambda found: [*found[:6], found[6][:-9] + b"\n", *found[7:]], 1, [*ONE, "re two", *THREE]),
    "a torn end": (lambda found: [*found[:11], found[11][:-9]], 1, [*ONE, *TWO, "three"]),
    "a duplicated line": (lambda found: [*found[:7], found[6], *found[7:]], 0, [*ONE, "two", "two", "re two", *THREE]),
    "lines out of order": (
        lambda found: [*found[:6], found[7], found[6], *found[8:]],
        0,
        [*ONE, "re two", "two", *THREE],
    ),
    "the meta last": (lambda found: [*found[1:], found[0]], 0, [*ONE, *TWO, *THREE]),
    "invalid UTF-8": (
        lambda found: [*found[:6], found[6].replace(b"two", b"\xc3\x28"), *found[7:]],
        1,
        [*ONE, "re two", *THREE],
    ),
    "NUL bytes": (lambda found: [*found[:6], b"\0" * 4096 + b"\n", *found[6:]], 1, [*ONE, *TWO, *THREE]),
    "foreign lines": (
        lambda found: [*found[:6], b'{"timestamp":"t","type":"world_state","payload":{}}\n', *found[6:]],
        0,
        [*ONE, *TWO, *THREE],
    ),
    "rubbish": (
        lambda found: [*found[:6], os.urandom(999).replace(b"\n", b"."), b"\n", *found[6:]],
        1,
        [*ONE, *TWO, *THREE],
    ),
    "a byte order mark and CRLF": (
        lambda found: [b"\xef\xbb\xbf", *(line.replace(b"\n", b"\r\n") for line in found)],
        0,
        [*ONE, *TWO, *THREE],
    ),
}


def damage(home: Path, name: str) -> tuple[Path, int, list[str]]:
    change, lost, told = CORPUS[name]
    path = path_of(home, HURT)
    path.write_bytes(b"".join(change(lines(HURT))))
    return path, lost, told


@pytest.mark.parametrize("name", CORPUS)
async def test_one_bad_line_costs_one_line(store: LocalThreadStore, tmp_path: Path, name: str) -> None:
    path, lost, told = damage(tmp_path, name)
    history = await store.load_history(HURT)
    assert [text for text in kept(history.items) if text != "meta"] == told
    assert history.damaged == lost
    report = verify(RolloutBytes(path))
    assert (report.damaged, len(report.problems)) == (lost, lost)
    if lost:
        [problem] = report.problems
        assert path.read_bytes()[: problem.start].count(b"\n") == problem.number - 1
        assert problem.text
    found = await store.find_thread(HURT)
    assert found is not None
    assert found.preview == "one"
    tail = await store.load_tail(HURT)
    assert tail.thread_id == HURT
    tail.close()


@pytest.mark.parametrize("name", CORPUS)
async def test_the_list_has_them_all(store: LocalThreadStore, tmp_path: Path, name: str) -> None:
    damage(tmp_path, name)
    for _ in range(2):
        page = await store.list_threads(ListThreads())
        assert {thread.thread_id for thread in page.threads} == {HEALTHY, HURT}
        await store.reindex()


@pytest.mark.parametrize("name", CORPUS)
async def test_it_goes_on_where_it_ended(store: LocalThreadStore, tmp_path: Path, name: str) -> None:
    path, _, told = damage(tmp_path, name)
    before = path.read_bytes()
    resumed = await store.resume(ResumeThread(thread=HURT))
    resumed.live.append([telling("more")])
    await resumed.live.shutdown()
    history = await store.load_history(HURT)
    assert [text for text in kept(history.items) if text != "meta"] == [*told, "more"]
    whole = before[: before.rfind(b"\n") + 1]
    assert path.read_bytes().startswith(whole)  # nothing that was there was touched


@pytest.mark.parametrize("name", CORPUS)
async def test_its_turns_are_paged_and_its_forks_have_every_byte(
    store: LocalThreadStore, tmp_path: Path, name: str
) -> None:
    path, _, _ = damage(tmp_path, name)
    page = await store.list_turns(HURT, ListTurns(view="full", direction="asc"))
    assert {"one", "two", "three"} <= {turn.id for turn in page.turns}
    fork = meta(new_thread_id())
    live = await store.fork(ForkThread(source=HURT, meta=fork, snapshot=Interrupted()))
    assert live.rollout_path is not None
    copied = Path(live.rollout_path).read_bytes().splitlines()
    unreadable = [line for line in path.read_bytes().splitlines() if not _readable(line)]
    assert [line for line in unreadable if line not in copied] == []
    await live.shutdown()


def _readable(line: bytes) -> bool:
    return verify(_Line(line)).damaged == 0


class _Line:
    def __init__(self, data: bytes) -> None:
        self._data = data + b"\n"

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self, start: int, end: int) -> bytes:
        return self._data[start:end]


@pytest.mark.parametrize("store", [True], indirect=True)
async def test_a_line_of_100_mb(store: LocalThreadStore, tmp_path: Path) -> None:
    path = path_of(tmp_path, HURT)
    found = lines(HURT)
    huge = encode_rollout_line(telling("x" * 100_000_000), STAMP)
    path.write_bytes(b"".join([*found[:7], huge, *found[7:]]))
    history = await store.load_history(HURT)
    assert (history.damaged, len(kept(history.items))) == (0, 8)
    page = await store.list_turns(HURT, ListTurns(limit=1))
    assert [turn.id for turn in page.turns] == ["three"]
    assert len((await store.list_threads(ListThreads())).threads) == 2
    resumed = await store.resume(ResumeThread(thread=HURT, tail=await store.load_tail(HURT)))
    resumed.live.append([telling("more")])
    await resumed.live.shutdown()
    assert path.read_bytes().endswith(encode_rollout_line(telling("more"), STAMP)[-20:])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def no_meta(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))


def unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path.chmod(0)


def zeros(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize("become", [empty, folder, loop, pipe, dangling, no_meta, unreadable, zeros])
async def test_one_bad_file_costs_one_file(
    store: LocalThreadStore, tmp_path: Path, become: Callable[[Path], None]
) -> None:
    path = path_of(tmp_path, HURT)
    become(path)
    for _ in range(2):
        page = await store.list_threads(ListThreads())
        assert [thread.thread_id for thread in page.threads] == [HEALTHY]
        await store.reindex()
    with pytest.raises((StoreError, ThreadNotFound)) as caught:
        await store.resume(ResumeThread(thread=HURT))
    assert str(HURT) in str(caught.value)
    with pytest.raises((StoreError, ThreadNotFound)) as caught:
        await store.load_tail(HURT)
    assert str(HURT) in str(caught.value)
    assert store.live_threads() == ()
    assert kept((await store.load_history(HEALTHY)).items)[-1] == "re three"


async def test_a_home_that_is_a_loop_of_links(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "sessions/2025/03").mkdir(parents=True)
    (home / "sessions/2025/03/01").symlink_to(home / "sessions")
    (home / "sessions/2025/loop").symlink_to("loop")
    async with open_local_store(home) as store:
        assert (await store.list_threads(ListThreads())).threads == ()
        await store.reindex()
        assert (await store.list_threads(ListThreads())).threads == ()
        assert await store.find_thread(HURT) is None
