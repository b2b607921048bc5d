"""The appender: order, acknowledgement, errors that stay with their writer, back-pressure, an end without leaks."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import StoreError
from engine.rollout.lines import encode_rollout_line
from engine.thread_store.appender import Appender, Durability, InlineAppender, Limits, open_appender
from engine.thread_store.batches import Patience
from engine.thread_store.rollout_writer import RolloutWriter
from tests.thread_store.faults import FaultyFiles, short
from tests.thread_store.stories import meta, open_descriptors, telling, texts


def head(stamp: str) -> bytes:
    return encode_rollout_line(meta(), stamp)


def writer_in(folder: Path, appender: Appender, name: str = "a") -> RolloutWriter:
    return RolloutWriter(appender, str(folder / "2025" / "01" / f"{name}.jsonl"), head)


def failing(writer: RolloutWriter) -> bool:
    return writer.error is not None


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rollout ")]


@pytest.fixture(params=["os", "fsync"])
async def appender(request: pytest.FixtureRequest) -> AsyncIterator[Appender]:
    durability: Durability = request.param
    async with open_appender(durability=durability) as made:
        yield made


async def test_items_are_written_in_order_after_one_first_line(tmp_path: Path, appender: Appender) -> None:
    writer = writer_in(tmp_path, appender)
    for number in range(100):
        writer.append([telling(f"{number}a"), telling(f"{number}b")])
    assert writer.submitted == 200
    assert writer.acknowledged == 0  # nothing waits, nothing is known yet
    await writer.flush()
    assert writer.written == writer.acknowledged == 200
    assert writer.queued == 0
    assert appender.queued == 0
    assert texts(writer.path) == ["meta", *(f"{number}{half}" for number in range(100) for half in "ab")]


async def test_a_writer_without_items_makes_no_file_unless_it_is_persisted(tmp_path: Path, appender: Appender) -> None:
    untouched, asked, persisted = (writer_in(tmp_path, appender, name) for name in ("u", "f", "p"))
    await asked.flush()
    await asked.close()
    await untouched.drop()
    assert not any(tmp_path.iterdir())
    await persisted.persist()
    await persisted.persist()
    assert texts(persisted.path) == ["meta"]
    assert persisted.exists


async def test_nothing_starts_before_it_is_needed_and_nothing_is_left(tmp_path: Path) -> None:
    before = open_descriptors()
    async with open_appender(durability="fsync") as appender:
        assert our_threads() == []
        writers = [writer_in(tmp_path, appender, str(number)) for number in range(5)]
        for writer in writers:
            writer.append([telling("x")])
        assert sorted(our_threads()) == ["rollout sync", "rollout writer"]
        await writers[0].flush()
    assert our_threads() == []
    assert open_descriptors() == before
    assert [texts(writer.path) for writer in writers] == [["meta", "x"]] * 5  # closing writes what was handed in


async def test_closing_twice_is_closing_once_and_sending_afterwards_is_an_error(tmp_path: Path) -> None:
    async with open_appender() as appender:
        writer = writer_in(tmp_path, appender)
        writer.append([telling("x")])
    await appender.aclose()
    with pytest.raises(StoreError, match="closed"):
        writer.append([telling("y")])


async def test_observers_hear_of_acknowledged_numbers_and_may_fail(
    tmp_path: Path, appender: Appender, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int] = []

    def fail(number: int) -> None:
        heard.append(number)
        raise RuntimeError("an observer's bug")

    writer, other = writer_in(tmp_path, appender), writer_in(tmp_path, appender, "b")
    writer.observe(fail)
    with caplog.at_level(logging.ERROR):
        writer.append([telling("x")])
        other.append([telling("y")])
        await writer.flush()  # the host's run goes on, the barrier is answered
        await other.flush()
    assert heard == [1]
    assert "an observer of acknowledged items failed" in caplog.text


async def test_a_waiting_flush_can_be_abandoned_and_the_items_are_written_all_the_same(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with open_appender(files=files) as appender:
        writer = writer_in(tmp_path, appender)
        files.gate.clear()
        writer.append([telling("x")])
        with trio.move_on_after(0.01) as scope:
            await writer.flush()
        assert scope.cancelled_caught
        assert writer.acknowledged == 0
        files.gate.set()
        await writer.flush()
    assert texts(writer.path) == ["meta", "x"]


async def test_errors_stay_with_their_writer_and_the_rest_is_retried_in_order(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("in the way of a folder")
    async with open_appender() as appender:
        bad, good = writer_in(blocked, appender), writer_in(tmp_path, appender)
        heard: list[int] = []
        bad.observe(heard.append)
        bad.append([telling("1")])
        good.append([telling("1")])
        with pytest.raises(StoreError, match="failed to write") as caught:
            await bad.flush()
        assert isinstance(caught.value.__cause__, OSError)
        await good.flush()
        assert (failing(bad), failing(good)) == (True, False)
        # The turn goes on: what was tried is acknowledged, though it is not written.
        assert (heard, bad.acknowledged, bad.written) == ([1], 1, 0)
        bad.append([telling("2")])
        with pytest.raises(StoreError):
            await bad.flush()
        blocked.unlink()
        bad.append([telling("3")])
        await bad.flush()
        assert not failing(bad)
        assert (bad.acknowledged, bad.written, bad.queued, appender.queued) == (3, 3, 0, 0)
    assert texts(bad.path) == ["meta", "1", "2", "3"]


async def test_one_failure_is_retried_at_once_with_a_fresh_handle(tmp_path: Path) -> None:
    files = FaultyFiles([errno.EIO])
    async with open_appender(files=files) as appender:
        writer = writer_in(tmp_path, appender)
        writer.append([telling("x")])
        await writer.flush()
    assert (files.calls["create"], files.calls["open"]) == (1, 1)
    assert texts(writer.path) == ["meta", "x"]


async def test_closing_a_writer_that_cannot_write_keeps_it_alive(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.broken = errno.ENOSPC
    async with open_appender(files=files) as appender:
        writer = writer_in(tmp_path, appender)
        writer.append([telling("x")])
        with pytest.raises(StoreError, match="No space left"):
            await writer.close()
        files.broken = 0
        writer.append([telling("y")])
        await writer.close()
        assert files.open_handles == set()
    assert texts(writer.path) == ["meta", "x", "y"]


async def test_dropping_forgets_what_is_queued_and_keeps_what_is_written(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with open_appender(files=files) as appender:
        writer, never = writer_in(tmp_path, appender), writer_in(tmp_path, appender, "b")
        writer.append([telling("1")])
        await writer.flush()
        files.gate.clear()
        files.writing.clear()
        writer.append([telling("2")])
        await trio.to_thread.run_sync(files.writing.wait)
        writer.append([telling("3")])
        never.append([telling("1")])
        dropping = [writer.drop_nowait(), never.drop_nowait()]
        files.gate.set()
        for barrier in dropping:
            assert barrier is not None
            await barrier.wait()
        assert files.open_handles == set()
        assert appender.queued == 0
    assert texts(writer.path) == ["meta", "1", "2"]  # 2 was being written
    assert not os.path.exists(never.path)


async def test_erasing_removes_the_file_and_the_folders_it_made(tmp_path: Path, appender: Appender) -> None:
    (tmp_path / "2025").mkdir()
    writer = writer_in(tmp_path, appender)
    writer.append([telling("x")])
    await writer.flush()
    assert os.path.exists(writer.path)
    await writer.drop(erase=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["2025"]


async def test_erasing_never_removes_a_file_that_was_there_before(tmp_path: Path, appender: Appender) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(head("x"))
    writer = RolloutWriter(appender, str(path), None)
    writer.append([telling("x")])
    await writer.flush()
    await writer.drop(erase=True)
    assert texts(path) == ["meta", "x"]


LARGE = b'{"text":"' + b"x" * 100_000


@pytest.mark.parametrize(
    ("before", "after", "aside"),
    [
        (b"", b"", None),
        (b"whole\n", b"whole\n", None),
        (b"whole\ntorn", b"whole\n", b"torn\n"),
        (b"torn", b"", b"torn\n"),
        (b"whole\n\0\0\0\0", b"whole\n", b"\0\0\0\0\n"),
        (b"whole\n" + LARGE, b"whole\n", LARGE + b"\n"),
        (b'whole\n{"no": "line end"}', b'whole\n{"no": "line end"}\n', None),
        (b'whole\n{"no": "end}', b"whole\n", b'{"no": "end}\n'),
    ],
)
async def test_a_torn_last_line_is_kept_aside_and_swallows_no_item(
    tmp_path: Path, appender: Appender, before: bytes, after: bytes, aside: bytes | None
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(before)
    writer = RolloutWriter(appender, str(path), None)
    await writer.flush()
    assert path.read_bytes() == before  # nothing is repaired before there is something to write
    writer.append([telling("x")])
    writer.append([telling("y")])
    await writer.flush()
    data = path.read_bytes()
    assert data.startswith(after)
    assert [json.loads(line)["payload"]["message"] for line in data[len(after) :].splitlines()] == ["x", "y"]
    assert sorted(tmp_path.iterdir()) == sorted([path] if aside is None else [path, tmp_path / "a.jsonl.torn"])
    assert aside is None or (tmp_path / "a.jsonl.torn").read_bytes() == aside


async def test_more_files_than_handles(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with aclosing(Appender(files=files, open_files=10)) as appender:
        writers = [writer_in(tmp_path, appender, str(number)) for number in range(200)]
        for turn in range(3):
            for writer in writers:
                writer.append([telling(str(turn))])
        for writer in writers:
            await writer.flush()
        assert files.most_open <= 10
    assert all(texts(writer.path) == ["meta", "0", "1", "2"] for writer in writers)


async def test_running_out_of_descriptors_gives_back_the_idle_ones(tmp_path: Path) -> None:
    files = FaultyFiles(opening=True)
    async with open_appender(files=files) as appender:
        writers = [writer_in(tmp_path, appender, str(number)) for number in range(4)]
        for writer in writers[:3]:
            writer.append([telling("x")])
            await writer.flush()
        files.script.append(errno.EMFILE)
        writers[3].append([telling("x")])
        await writers[3].flush()
        assert len(files.open_handles) == 1
    assert all(texts(writer.path) == ["meta", "x"] for writer in writers)


# --- back-pressure -----------------------------------------------------------------------------


async def test_room_waits_for_the_writer_and_for_the_engine(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with open_appender(files=files, limits=Limits(writer=1000, engine=2500)) as appender:
        one, two = writer_in(tmp_path, appender), writer_in(tmp_path, appender, "b")
        files.gate.clear()
        one.append([telling("x" * 2000)])
        with trio.move_on_after(0.01) as scope:
            await one.room()
        assert scope.cancelled_caught
        await two.room()  # another writer has its own measure ...
        two.append([telling("x" * 800)])
        with trio.move_on_after(0.01) as scope:
            await two.room()  # ... until the engine's is full
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.room)
            nursery.start_soon(two.room)
            await trio.testing.wait_all_tasks_blocked()
            files.gate.set()
        await two.flush()
        assert appender.queued == 0


async def test_a_full_disk_holds_nobody_up(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with open_appender(files=files, limits=Limits(writer=1000, engine=2500)) as appender:
        full, fine = writer_in(tmp_path, appender), writer_in(tmp_path, appender, "b")
        files.broken = errno.ENOSPC
        full.append([telling("x" * 5000)])
        with pytest.raises(StoreError):
            await full.flush()
        await full.room()
        full.append([telling("y" * 5000)])
        await full.room()
        await fine.room()
        assert appender.queued == 0
        assert full.queued > 10_000
        files.broken = 0
        await full.flush()
        assert (full.queued, appender.queued) == (0, 0)


# --- durability --------------------------------------------------------------------------------


async def test_a_new_file_is_synced_with_the_folders_it_is_found_by(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with open_appender(files=files, durability="fsync") as appender:
        writer = writer_in(tmp_path, appender)
        writer.append([telling("x")])
        await writer.flush()
        assert files.calls["sync"] == 4  # the file, and three folders that have a new entry
        writer.append([telling("y")])
        await writer.flush()
        await writer.flush()
        assert files.calls["sync"] == 5


async def test_many_files_are_synced_together(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with open_appender(files=files, durability="fsync") as appender:
        files.gate.clear()
        writers = [writer_in(tmp_path, appender, str(number)) for number in range(50)]
        for writer in writers:
            writer.append([telling("x")])
        files.gate.set()
        for writer in writers:
            await writer.flush()
        assert files.calls["sync_file_system"] >= 1
        assert files.calls["sync"] < 50
        assert all(writer.written == 1 for writer in writers)


async def test_after_a_failed_sync_nothing_counts_as_stored_any_more(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with open_appender(files=files, durability="fsync") as appender:
        writer, other = writer_in(tmp_path, appender), writer_in(tmp_path, appender, "b")
        writer.append([telling("1")])
        await writer.flush()
        files.broken_sync.add(writer.path)
        for text in ("2", "3"):
            writer.append([telling(text)])
            other.append([telling(text)])
            with pytest.raises(StoreError, match="failed to sync"):
                await writer.flush()
            await other.flush()
            files.broken_sync.clear()  # the system says it once only
        assert (writer.acknowledged, writer.written) == (3, 1)
        assert other.written == 2
    assert texts(writer.path) == ["meta", "1", "2", "3"]


# --- the end -----------------------------------------------------------------------------------


async def test_an_end_that_takes_too_long_is_given_up_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = FaultyFiles()
    appender = Appender(files=files)
    writer = writer_in(tmp_path, appender)
    files.gate.clear()
    writer.append([telling("x")])
    with caplog.at_level(logging.ERROR):
        await appender.aclose(grace=0.01)
    assert "did not finish" in caplog.text
    files.gate.set()
    with trio.fail_after(5):
        await appender._over.wait()
    for thread in appender._threads:
        thread.join()
    assert texts(writer.path) == ["meta", "x"]


async def test_whoever_still_waits_at_the_end_is_told(tmp_path: Path) -> None:
    files = FaultyFiles(opening=True)
    appender = Appender(files=files, patience=Patience(descriptors=1000.0, glance=1000.0))
    writer = writer_in(tmp_path, appender)
    files.broken = errno.EMFILE
    writer.append([telling("x")])
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(StoreError, match="before the end"):
                    await writer.flush()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await appender.aclose()
    assert (writer.written, writer.acknowledged) == (0, 1)


async def test_closing_is_not_cut_short_by_a_cancellation(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_appender() as appender:
            writer = writer_in(tmp_path, appender)
            writer.append([telling(str(number)) for number in range(100)])
            scope.cancel()
    assert len(texts(writer.path)) == 101
    assert our_threads() == []


def test_closing_is_not_cut_short_by_ctrl_c(tmp_path: Path) -> None:
    files = FaultyFiles()

    async def press() -> None:
        await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGINT)  # a system task is protected, so the main task gets it
        await trio.testing.wait_all_tasks_blocked()
        files.gate.set()

    async def host() -> None:
        async with open_appender(files=files) as appender:
            files.gate.clear()
            writer_in(tmp_path, appender).append([telling("last words")])
            trio.lowlevel.spawn_system_task(press)

    with pytest.raises(KeyboardInterrupt):
        trio.run(host)
    assert "rollout writer" not in {thread.name for thread in threading.enumerate()}
    assert files.open_handles == set()
    assert texts(tmp_path / "2025" / "01" / "a.jsonl") == ["meta", "last words"]


def test_a_run_that_ends_without_closing_does_not_hang_the_thread(tmp_path: Path) -> None:
    files = FaultyFiles()
    made: list[Appender] = []

    async def host() -> None:
        made.append(Appender(files=files))
        files.gate.clear()
        writer_in(tmp_path, made[0]).append([telling("x")])

    trio.run(host)
    files.gate.set()
    made[0]._jobs.put(None)
    for thread in made[0]._threads:
        thread.join(5)
        assert not thread.is_alive()
    assert texts(tmp_path / "2025" / "01" / "a.jsonl") == ["meta", "x"]


# --- the synchronous twin ------------------------------------------------------------------------


async def test_the_inline_appender_does_everything_on_the_spot(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    appender = InlineAppender(durability="fsync")
    writer = writer_in(tmp_path, appender)
    heard: list[int] = []
    writer.observe(heard.append)
    writer.append([telling("x")])
    assert (writer.acknowledged, writer.written, heard) == (1, 1, [1])
    with trio.fail_after(1):
        await writer.flush()
        await writer.persist()
        await writer.room()
        await writer.close()
    await appender.aclose()
    assert our_threads() == []
    assert texts(writer.path) == ["meta", "x"]


# --- faults ------------------------------------------------------------------------------------

faults = st.lists(
    st.one_of(st.just(0), st.sampled_from([errno.ENOSPC, errno.EIO]), st.integers(1, 90).map(short)), max_size=30
)
appends = st.lists(st.one_of(st.integers(1, 5), st.just("flush")), min_size=1, max_size=12)


@pytest.mark.parametrize("inline", [False, True])
@given(faults, appends, st.booleans(), st.sampled_from([b"", b"torn"]))
def test_faults_keep_the_order_and_never_duplicate(
    tmp_path_factory: pytest.TempPathFactory,
    inline: bool,
    script: list[int],
    steps: list[int | str],
    opening: bool,
    before: bytes,
) -> None:
    folder = tmp_path_factory.mktemp("faults")
    files = FaultyFiles(script, opening=opening)
    path = folder / "a.jsonl"
    if before:
        path.write_bytes(before)
    told: list[str] = []

    async def story() -> None:
        appender = InlineAppender(files=files) if inline else Appender(files=files)
        writer = RolloutWriter(appender, str(path), None if before else head)
        for step in steps:
            if isinstance(step, int):
                items = [str(len(told) + number) for number in range(step)]
                told.extend(items)
                writer.append([telling(text) for text in items])
            else:
                try:
                    await writer.flush()
                except StoreError:
                    assert writer.error is not None
                else:
                    assert writer.written == len(told)
        files.script.clear()
        await writer.flush()
        assert writer.written == len(told)
        await writer.close()
        await appender.aclose()

    trio.run(story)
    assert files.open_handles == set()
    if not told:
        assert not path.exists() or path.read_bytes() == before
    elif before:
        assert texts(path) == told
        # Where setting it aside was tried twice, it is there twice.
        assert set((folder / "a.jsonl.torn").read_bytes().splitlines()) == {before}
    else:
        assert texts(path) == ["meta", *told]


# --- hand-overs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["os", "fsync"])
@pytest.mark.parametrize("seed", range(4))
async def test_no_wait_is_ever_forgotten(tmp_path: Path, durability: Durability, seed: int) -> None:
    """Writers, barriers and the end in any order, with faults in between: everybody is answered."""
    chance = random.Random(seed)
    files = FaultyFiles(opening=True)
    appender = Appender(
        files=files,
        durability=durability,
        open_files=3,
        patience=Patience(first=0.001, longest=0.004, descriptors=0.01),
    )
    answered = 0

    async def live(number: int) -> None:
        nonlocal answered
        writer = writer_in(tmp_path, appender, f"{seed} {number}")
        writer.on_lost(lambda: [telling(str(item)) for item in range(writer.submitted)])
        for _ in range(20):
            with trio.move_on_after(chance.choice([0, 0.001, 1000])):
                try:
                    writer.append([telling(str(writer.submitted))])
                    match chance.randrange(7):
                        case 0:
                            files.script.extend(
                                chance.choices([errno.EIO, errno.EMFILE, errno.ENOSPC, short(3), 0], k=3)
                            )
                        case 1 if writer.exists:
                            os.truncate(writer.path, 10)
                        case 2:
                            await writer.persist()
                        case 3:
                            await writer.room()
                        case _:
                            await writer.flush()
                except (StoreError, OSError):
                    pass
            answered += 1
        await writer.drop()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(live, number)
        await appender.aclose()
    assert answered == 240
    assert our_threads() == []
    assert files.open_handles == set()
