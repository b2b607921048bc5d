"""Threads opened by their end: what is told at once, what is read later, counting compactions, what goes wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from engine.errors import StoreError, ThreadNotFound
from engine.protocol.events import TaskComplete, TaskStarted, TokenCount, UserMessage
from engine.protocol.items import user_message
from engine.protocol.profiles import ReadOnly
from engine.protocol.rollout_items import Compacted, EventLine, ResponseLine, RolloutItem, TurnContext
from engine.protocol.settings import TokenUsage, TokenUsageInfo, TruncationPolicy
from engine.rollout.lines import encode_rollout_line
from engine.rollout.loading import load
from engine.rollout.reconstruction import PreviousTurnSettings, reconstruct
from engine.thread_store import stored_tail
from engine.thread_store.checkpoints import Checkpoint
from engine.thread_store.interface import ResumeThread
from engine.thread_store.local import LocalThreadStore, open_local_store
from engine.thread_store.memory import InMemoryThreadStore
from engine.thread_store.stored_tail import RolloutFileTail, StoredTail
from tests.thread_store.stories import create, meta, open_descriptors

POLICY = TruncationPolicy("bytes", 10_000)
USAGE = TokenUsageInfo(TokenUsage(total_tokens=7), TokenUsage(total_tokens=7), None)


def turn(number: int) -> list[RolloutItem]:
    return [
        EventLine(TaskStarted(f"{number}")),
        TurnContext(
            turn_id=f"{number}",
            cwd=f"/cwd{number}",
            approval_policy="never",
            sandbox_policy=ReadOnly(),
            model=f"model{number}",
            summary="auto",
        ),
        ResponseLine(user_message(f"asked {number}")),
        EventLine(UserMessage(f"asked {number}")),
        EventLine(TokenCount(attrs.evolve(USAGE))),
        EventLine(TaskComplete(f"{number}")),
    ]


def compaction(text: str = "summary") -> RolloutItem:
    return Compacted(text, (user_message(text),))


def encoded(items: list[RolloutItem]) -> bytes:
    return b"".join(encode_rollout_line(item, "2025-01-02T03:04:05.678Z") for item in items)


def story(*items: RolloutItem | list[RolloutItem], folder: Path) -> Path:
    """A rollout of these items."""
    path = folder / "rollout-2025-01-02T03-04-05-01900000-0000-7000-8000-000000000001.jsonl"
    flat = [part for item in items for part in (item if isinstance(item, list) else [item])]
    path.write_bytes(encoded([meta(), *flat]))
    return path


LONG = [part for number in range(200) for part in turn(number)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything beyond a few lines counts as much."""
    monkeypatch.setattr(stored_tail, "AT_ONCE", 3000)
    monkeypatch.setattr(stored_tail, "EVENTS_KEPT", 1000)
    monkeypatch.setattr(stored_tail, "LIGHT", 1500)


def holds_open(path: Path) -> bool:
    return str(path) in open_descriptors().values()


def check(path: Path) -> RolloutFileTail:
    tail = RolloutFileTail(path)
    loaded = load(path.read_bytes())
    expected = reconstruct(loaded.items, POLICY)
    assert tail.previous_turn_settings == expected.previous_turn_settings
    assert (tail.thread_id, tail.meta, tail.path) == (loaded.thread_id, loaded.meta, str(path))
    generation = tail.generation
    if generation is None:
        generation, _ = tail.count(None)
    assert generation == loaded.generation
    assert tail.reconstruct(POLICY) == expected
    assert not holds_open(path)
    return tail


# --- what is there at once -----------------------------------------------------------------------


def test_a_short_thread_is_all_there_at_once(tmp_path: Path) -> None:
    path = story(turn(1), compaction(), turn(2), folder=tmp_path)
    tail = RolloutFileTail(path)
    assert not holds_open(path)
    assert not tail.heavy
    assert tail.generation == 1
    assert (tail.cwd, tail.usage, tail.damaged) == ("/cwd2", USAGE, 0)
    assert tail.previous_turn_settings == PreviousTurnSettings("model2")
    assert [event.type for event in tail.events] == ["task_started", "user_message", "token_count", "task_complete"]
    path.unlink()
    assert len(tail.reconstruct(POLICY).history) == 2
    with pytest.raises(StoreError, match="not open any more"):
        tail.reconstruct(POLICY)


@pytest.mark.parametrize("live", [1, 3, 150])
@pytest.mark.parametrize("before", [0, 200])
def test_a_long_thread_gives_the_same(tmp_path: Path, small: None, before: int, live: int) -> None:
    path = story(LONG[: 6 * before], compaction("one"), compaction("two"), LONG[: 6 * live], folder=tmp_path)
    tail = check(path)
    assert tail.heavy == (live != 1)
    assert tail.cwd == f"/cwd{live - 1}"
    assert tail.usage == USAGE
    assert [event.type for event in tail.events][-1] == "task_complete"
    assert len(tail.events) <= 4 * live


def test_a_long_thread_without_compactions_gives_the_same(tmp_path: Path, small: None) -> None:
    tail = check(story(LONG, folder=tmp_path))
    assert tail.heavy
    assert 0 < len(tail.events) < 20


def test_a_thread_that_never_had_a_turn_has_the_cwd_of_its_meta(tmp_path: Path) -> None:
    tail = check(story(folder=tmp_path))
    assert (tail.cwd, tail.usage, tail.previous_turn_settings) == ("/somewhere", None, None)
    assert list(tail.events) == []


# --- while others work on the file ---------------------------------------------------------------


@pytest.mark.parametrize("what", ["append", "remove", "replace", "move"])
def test_what_happens_to_the_file_meanwhile_does_not_matter(tmp_path: Path, small: None, what: str) -> None:
    path = story(LONG, folder=tmp_path)
    expected = reconstruct(load(path.read_bytes()).items, POLICY)
    tail = RolloutFileTail(path)
    match what:
        case "append":
            with path.open("ab") as file:
                file.write(encoded([compaction(), *turn(7)]))
        case "remove":
            path.unlink()
        case "replace":
            other = tmp_path / "other"
            other.write_bytes(b"nothing\n")
            other.replace(path)
        case "move":
            path.rename(tmp_path / "elsewhere")
    assert tail.count(None)[0] == 0
    assert tail.reconstruct(POLICY) == expected


def test_a_torn_rest_that_is_taken_away_later_is_not_missed(tmp_path: Path, small: None) -> None:
    path = story(LONG, folder=tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + encoded(turn(9))[:50])
    tail = RolloutFileTail(path)
    assert tail.damaged == 1
    path.write_bytes(whole + encoded([compaction(), *turn(10)]))
    assert tail.count(None)[0] == 0
    assert tail.reconstruct(POLICY) == reconstruct(load(whole).items, POLICY)


def test_a_file_that_was_cut_is_told(tmp_path: Path, small: None) -> None:
    path = story(LONG, folder=tmp_path)
    tail = RolloutFileTail(path)
    os.truncate(path, 1000)
    with pytest.raises(StoreError, match="was cut while it was being read"):
        tail.reconstruct(POLICY)
    with pytest.raises(StoreError, match="was cut"):
        tail.count(None)
    tail.close()
    assert not holds_open(path)
    with pytest.raises(StoreError, match="not open any more"):
        tail.reconstruct(POLICY)
    with pytest.raises(StoreError, match="not open any more"):
        tail.count(None)


# --- counting ------------------------------------------------------------------------------------


@pytest.fixture
def counted(tmp_path: Path, small: None) -> Path:
    """A thread with 5 compactions, three of them long ago."""
    return story([compaction()] * 3, LONG, compaction(), LONG, compaction(), turn(1), folder=tmp_path)


def test_counting_goes_on_from_a_checkpoint(counted: Path) -> None:
    count, checkpoint = RolloutFileTail(counted).count(None)
    assert count == 5
    assert checkpoint is not None
    data = counted.read_bytes()
    assert checkpoint.count == data.count(b'"type":"compacted"', 0, checkpoint.offset) >= 3
    assert data[: checkpoint.offset].endswith(checkpoint.mark)
    assert data[checkpoint.offset - 1 : checkpoint.offset] == b"\n"
    trusted = attrs.evolve(checkpoint, count=checkpoint.count + 1000)
    assert RolloutFileTail(counted).count(trusted)[0] == 1005
    with counted.open("ab") as file:
        file.write(encoded([*LONG, compaction(), *LONG]))
    again, following = RolloutFileTail(counted).count(trusted)
    assert again == 1006
    assert following is not None
    assert following.offset > trusted.offset


def test_a_checkpoint_may_lie_in_what_was_read_already(counted: Path) -> None:
    size = counted.stat().st_size
    found = counted.stat()
    data = counted.read_bytes()
    at = data.rfind(b'{"timestamp":"2025-01-02T03:04:05.678Z","type":"compacted"')
    for offset, count in ((size, 1000), (at, 1001)):
        checkpoint = Checkpoint(found.st_dev, found.st_ino, offset, 1000, data[offset - 64 : offset])
        assert RolloutFileTail(counted).count(checkpoint) == (count, None)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda good: attrs.evolve(good, inode=good.inode + 1),
        lambda good: attrs.evolve(good, device=good.device + 1),
        lambda good: attrs.evolve(good, offset=10**9),
        lambda good: attrs.evolve(good, offset=-1),
        lambda good: attrs.evolve(good, offset=good.offset - 1),
        lambda good: attrs.evolve(good, mark=b"x" * 64),
        lambda good: attrs.evolve(good, offset=3),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_not_used(counted: Path, spoil: Callable[[Checkpoint], Checkpoint]) -> None:
    _, good = RolloutFileTail(counted).count(None)
    assert good is not None
    assert RolloutFileTail(counted).count(attrs.evolve(spoil(good), count=1000))[0] == 5


def test_counting_can_be_given_up(counted: Path) -> None:
    before = open_descriptors()
    with pytest.raises(StoreError, match="given up") as caught:
        (tail := RolloutFileTail(counted)).count(None, lambda: False)
    tail.close()
    assert open_descriptors() == before, "whoever keeps the error keeps no file open"
    assert caught.value.__traceback__ is not None


def test_an_error_of_reading_keeps_no_file_open(tmp_path: Path) -> None:
    before = open_descriptors()
    for content in ("", "no thread\n"):
        (tmp_path / "thread").write_text(content)
        with pytest.raises(StoreError) as caught:
            RolloutFileTail(tmp_path / "thread")
        assert open_descriptors() == before
        assert caught.value.__traceback__ is not None
    with pytest.raises(StoreError, match="no regular file") as caught:
        RolloutFileTail(tmp_path)
    assert open_descriptors() == before


class Notebook:
    """Checkpoints in memory."""

    def __init__(self) -> None:
        self.notes: dict[str, Checkpoint] = {}

    async def checkpoint(self, path: str) -> Checkpoint | None:
        return self.notes.get(path)

    def note_checkpoint(self, path: str, checkpoint: Checkpoint) -> None:
        self.notes[path] = checkpoint


async def test_the_store_asks_for_checkpoints_and_keeps_them(counted: Path, tmp_path: Path) -> None:
    notes = Notebook()
    async with open_local_store(tmp_path) as opened:
        store = LocalThreadStore(tmp_path, opened._appender, checkpoints=notes)
        tail = await store.load_tail(counted)
        assert (tail.generation, await store.count_generation(tail)) == (None, 5)
        assert (tail.generation, await store.count_generation(tail)) == (5, 5)
        (note,) = notes.notes.values()
        notes.notes[str(counted)] = attrs.evolve(note, count=note.count + 100)
        assert await store.count_generation(await store.load_tail(counted)) == 105
        await store.aclose()


# --- what is no thread ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda path: None, ThreadNotFound, "no rollout found"),
        (lambda path: path.mkdir(), StoreError, "no regular file"),
        (lambda path: os.mkfifo(path), StoreError, "no regular file"),
        (lambda path: path.symlink_to(path), StoreError, "failed to read"),
        (lambda path: path.write_bytes(b""), StoreError, "is empty"),
        (lambda path: path.write_bytes(b" \n\n"), StoreError, "is empty"),
        (lambda path: path.write_bytes(b"\x00" * 10_000), StoreError, "no readable session_meta"),
        (lambda path: path.write_bytes(encoded(turn(1))), StoreError, "no readable session_meta"),
    ],
)
def test_what_is_no_thread_is_told(
    tmp_path: Path, make: Callable[[Path], None], error: type[Exception], text: str
) -> None:
    path = tmp_path / "rollout"
    make(path)
    before = open_descriptors()
    with pytest.raises(error, match=text):
        RolloutFileTail(path)
    assert open_descriptors() == before


# --- both stores ---------------------------------------------------------------------------------


def told(tail: StoredTail) -> list[object]:
    return [
        tail.thread_id,
        tail.meta.cwd,
        tail.cwd,
        tail.previous_turn_settings,
        tail.usage,
        tail.generation,
        tail.damaged,
        tuple(tail.events),
        tail.reconstruct(POLICY),
    ]


async def test_both_stores_tell_the_same(tmp_path: Path) -> None:
    items = [*turn(1), *turn(2), Compacted("legacy"), *turn(3), EventLine(TokenCount())]
    params = create()
    tails: list[list[object]] = []
    async with open_local_store(tmp_path) as local:
        for store in (local, InMemoryThreadStore()):
            live = store.create(params)
            live.append(items)
            await live.shutdown()
            tail = await store.load_tail(params.meta.id)
            assert await store.count_generation(tail) == 1
            resumed = await store.resume(ResumeThread(thread=params.meta.id, tail=tail))
            assert resumed.loaded is None
            live = resumed.live
            assert told(await store.load_tail(live.thread_id)) == told(tail)
            await live.shutdown()
            tails.append(told(await store.load_tail(params.meta.id)))
            with pytest.raises(ThreadNotFound):
                await store.load_tail(meta().id)
    assert tails[0] == tails[1]
