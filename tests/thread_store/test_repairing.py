"""Verifying tells what is wrong and where; repairing keeps everything readable, and the damaged file beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import StoreError
from engine.protocol.ids import ThreadId, new_thread_id
from engine.protocol.rollout_items import RolloutItem, TurnContext
from engine.rollout.lines import decode_rollout_line, encode_rollout_line
from engine.rollout.loading import load
from engine.thread_store.interface import ListThreads, ResumeThread
from engine.thread_store.local import open_local_store
from engine.thread_store.locks import RolloutLocks, ThreadLocked
from engine.thread_store.repairing import (
    FileRepair,
    InUse,
    drop_index,
    drop_stale_locks,
    recovered,
    repair_file,
)
from engine.thread_store.verifying import FileReport, verify_file, verify_home, verify_index
from tests.thread_store.stories import create, kept, meta, said, telling

TIME = "2025-01-02T03:04:05.678Z"
ID = ThreadId("0195aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee")


def line(item: RolloutItem) -> bytes:
    return encode_rollout_line(item, TIME)


FIRST = line(meta(ID))
ONE, TWO = line(said("one")), line(telling("two"))


@pytest.fixture
def rollout(tmp_path: Path) -> Path:
    path = tmp_path / "sessions" / "2025" / "01" / "02" / f"rollout-2025-01-02T03-04-05-{ID}.jsonl"
    path.parent.mkdir(parents=True)
    return path


def verified(path: Path) -> FileReport:
    return verify_file(str(path), RolloutLocks(path.parents[4]))


def repaired(path: Path) -> FileRepair:
    return repair_file(str(path), RolloutLocks(path.parents[4]))


def stands(path: Path) -> list[str]:
    return kept(load(path.read_bytes()).items)


def test_a_line_is_reported_with_its_number_and_place(rollout: Path) -> None:
    rollout.write_bytes(FIRST + b"nonsense\n" + ONE + b'{"timestamp": 3}\n')
    report = verified(rollout)
    assert report.rollout is not None
    assert not report.clean
    assert not report.only_cut_off
    [first, second] = report.rollout.problems
    assert (first.number, first.start) == (2, len(FIRST))
    assert second.number == 4
    assert "type" in second.text


def test_a_torn_tail_is_told_from_damage(rollout: Path) -> None:
    rollout.write_bytes(FIRST + ONE + TWO[:20])
    report = verified(rollout)
    assert not report.clean
    assert report.only_cut_off
    done = repaired(rollout)
    assert (done.lines, done.recovered, done.lost) == (2, 0, 1)
    assert rollout.read_bytes() == FIRST + ONE
    assert done.aside is not None
    assert Path(done.aside).read_bytes() == FIRST + ONE + TWO[:20]
    assert verified(rollout).clean


@pytest.mark.parametrize("data", [b"", FIRST[:30]])
def test_a_start_that_was_cut_off_is_set_aside(rollout: Path, data: bytes) -> None:
    rollout.write_bytes(data)
    report = verified(rollout)
    assert report.only_cut_off
    assert not report.clean
    done = repaired(rollout)
    assert done.gone
    assert not rollout.exists()
    assert done.aside is not None
    assert Path(done.aside).read_bytes() == data


@pytest.mark.parametrize(
    ("damaged", "there"),
    [
        (ONE[:-1] + TWO, ["one", "two"]),  # two lines without a line end between them
        (ONE[:25] + TWO, ["two"]),  # one was cut off, the next one written behind it
        (b"\x00" * 9 + TWO, ["two"]),  # a hole, as a power cut leaves it
        (b"\xef\xbb\xbf\xef\xbb\xbf" + TWO, ["two"]),
        (TWO.replace(b"two", b"t\xffo"), ["t\N{REPLACEMENT CHARACTER}o"]),
        (b"garbage" + TWO[:-1] + b"garbage\n", ["two"]),
        (b"garbage\n", []),
    ],
)
def test_what_can_be_read_of_a_damaged_line_is_kept(rollout: Path, damaged: bytes, there: list[str]) -> None:
    rollout.write_bytes(FIRST + damaged + line(telling("last")))
    before = rollout.stat()
    done = repaired(rollout)
    assert stands(rollout) == ["meta", *there, "last"]
    assert (done.recovered, done.lost) == (len(there), 0 if there else 1)
    assert verified(rollout).clean
    assert (rollout.stat().st_mtime_ns, rollout.stat().st_mode) == (before.st_mtime_ns, before.st_mode)


def test_progress_goes_on_while_it_is_verified_and_written(rollout: Path) -> None:
    rollout.write_bytes(FIRST + b"nonsense\n")
    told: list[int] = []
    size = rollout.stat().st_size
    assert repair_file(str(rollout), RolloutLocks(rollout.parents[4]), told.append).lost == 1
    assert told == sorted(told)
    assert size in told
    assert told[-1] == 2 * size


def test_foreign_lines_stay_byte_for_byte(rollout: Path) -> None:
    foreign = b'{"timestamp":"t",  "type":"new_thing","payload":{"x":[1, 2]},"more":true}\n'
    rollout.write_bytes(FIRST + foreign + b"x\n" + ONE)
    repaired(rollout)
    assert rollout.read_bytes() == FIRST + foreign + ONE
    assert verified(rollout).notes


def test_a_lost_first_line_is_made_anew(rollout: Path) -> None:
    context = json.dumps(
        {
            "timestamp": TIME,
            "type": "turn_context",
            "payload": {
                "cwd": "/where/it/worked",
                "approval_policy": "never",
                "sandbox_policy": {"type": "read-only"},
                "model": "m",
                "summary": "auto",
            },
        }
    ).encode()
    assert isinstance(decode_rollout_line(context), TurnContext)
    rollout.write_bytes(b"broken" + FIRST[:50] + b"\n" + context + b"\n" + ONE)
    assert not verified(rollout).clean
    done = repaired(rollout)
    assert done.made_meta
    found = load(rollout.read_bytes())
    assert found.meta is not None
    assert (found.meta.id, found.meta.cwd) == (ID, "/where/it/worked")
    assert verified(rollout).clean


def test_a_clean_file_is_left_alone(rollout: Path) -> None:
    rollout.write_bytes(FIRST + ONE)
    before = rollout.stat()
    assert repaired(rollout) == FileRepair(path=str(rollout), lines=2)
    assert rollout.stat().st_ino == before.st_ino
    assert os.listdir(rollout.parent) == [rollout.name]


def test_a_file_in_use_is_left_alone(rollout: Path) -> None:
    rollout.write_bytes(FIRST + ONE + b"x\n")
    holder = RolloutLocks(rollout.parents[4])
    lock = holder.take(str(rollout))
    with pytest.raises(ThreadLocked, match=str(os.getpid())):
        repaired(rollout)
    lock.release()
    writer = subprocess.Popen(
        [sys.executable, "-c", "import sys; f = open(sys.argv[1], 'ab'); print(flush=True); input()", str(rollout)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    if sys.platform == "linux":
        with pytest.raises(InUse, match=str(writer.pid)):
            repaired(rollout)
    writer.communicate(b"\n")
    assert rollout.read_bytes() == FIRST + ONE + b"x\n"
    assert repaired(rollout).lost == 1


def test_what_is_no_file_can_not_be_repaired(rollout: Path) -> None:
    rollout.mkdir()
    assert verified(rollout).problems
    with pytest.raises(StoreError, match="no regular file"):
        repaired(rollout)


LINES = st.sampled_from([FIRST, ONE, TWO, b"\n", b"x\n"])


@given(st.lists(LINES, max_size=6), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4))
def test_nothing_readable_is_lost_whatever_the_damage(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], flips: list[tuple[int, int]]
) -> None:
    data = bytearray(b"".join(lines))
    for at, value in flips:
        if data:
            data[at % len(data)] = value
    path = tmp_path_factory.mktemp("home") / "a" / "b" / "c" / "d" / f"rollout-2025-01-02T03-04-05-{ID}.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    readable = kept(load(bytes(data)).items)
    done = repaired(path)
    if done.gone:
        assert not readable
        assert done.aside is not None
        assert Path(done.aside).read_bytes() == bytes(data)
        return
    now = iter(stands(path))
    assert all(text in now for text in readable), "in order"
    assert verified(path).damaged == 0
    assert not repaired(path).aside


@given(st.binary(max_size=200))
def test_recovering_never_raises(data: bytes) -> None:
    assert list(recovered(data)) == []


async def test_a_home_that_was_only_used_is_clean(tmp_path: Path) -> None:
    async with open_local_store(tmp_path) as store:
        ids = [new_thread_id() for _ in range(3)]
        for thread in ids:
            live = store.create(create(thread))
            live.append([said("hello"), telling("there")])
            await live.shutdown()
        await store.set_name(ids[0], "a name")
        await store.archive(ids[1])
        await store.reindex()
        await store.list_threads(ListThreads())
        running = await store.resume(ResumeThread(thread=ids[2]))
        report = await trio.to_thread.run_sync(verify_home, tmp_path)
        assert report.clean
        [held] = [file for file in report.files if file.holder is not None]
        assert held.thread_id == ids[2]
        await running.live.shutdown()
    report = verify_home(tmp_path)
    assert report.clean
    assert (len(report.files), report.index.threads) == (3, 3)
    assert report.stale_locks == ()


@pytest.mark.damages_home
async def test_an_index_that_says_what_is_not_so(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    async with open_local_store(tmp_path) as store:
        live = store.create(create())
        live.append([said("hello")])
        await live.shutdown()
        await store.reindex()
    assert verify_index(tmp_path).problems == ()
    with closing(sqlite3.connect(tmp_path / "engine_index.sqlite")) as connection, connection:
        connection.execute("UPDATE threads SET title = 'something else'")
    [problem] = verify_index(tmp_path).problems
    assert "title" in problem
    drop_index(tmp_path)
    assert verify_index(tmp_path).problems == ()
    (tmp_path / "engine_index.sqlite").write_bytes(b"no database" * 1000)
    [problem] = verify_index(tmp_path).problems
    assert "can't be read" in problem


def test_locks_of_the_dead_are_noted_and_dropped(rollout: Path) -> None:
    rollout.write_bytes(FIRST)
    home = rollout.parents[4]
    dead, alive = RolloutLocks(home), RolloutLocks(home)
    dead.take(str(rollout))
    dead.abandon()
    other = rollout.with_name(rollout.name.replace("eee.jsonl", "eef.jsonl"))
    alive.take(str(other))
    report = verify_home(home)
    assert report.stale_locks == (f"{rollout}.lock",)
    assert report.clean
    assert drop_stale_locks(home) == 1
    assert not os.path.lexists(f"{rollout}.lock")
    assert os.path.lexists(f"{other}.lock")
    alive.close()


def test_doubles_are_noted(rollout: Path) -> None:
    home = rollout.parents[4]
    rollout.write_bytes(FIRST)
    twin = home / "archived_sessions" / rollout.name
    twin.parent.mkdir()
    twin.write_bytes(FIRST)
    (double,) = verify_home(home).notes
    assert str(twin) in double
