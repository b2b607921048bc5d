"""One writer per rollout: refused with the holder's name, given back, taken over from the dead."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.errors import ConflictError
from engine.thread_store import locks
from engine.thread_store.locks import LOCK_SUFFIX, LOCKS_DIRECTORY, RolloutLock, RolloutLocks, ThreadLocked
from tests.thread_store.stories import open_descriptors

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from engine.thread_store.locks import RolloutLocks
lock = RolloutLocks(sys.argv[1]).take(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
if sys.argv[3] == "release":
    lock.release()
"""


def hold(home: Path, path: Path, end: str = "die") -> subprocess.Popen[bytes]:
    """Another process that holds a lock until its stdin ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home), str(path), end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.communicate()


@pytest.fixture
def rollout(tmp_path: Path) -> Path:
    folder = tmp_path / "sessions" / "2025"
    folder.mkdir(parents=True)
    return folder / "rollout.jsonl"


def test_a_second_writer_is_refused_with_the_name_of_the_first(tmp_path: Path, rollout: Path) -> None:
    one, two = RolloutLocks(tmp_path), RolloutLocks(tmp_path)
    held = one.take(str(rollout))
    with pytest.raises(ThreadLocked) as caught:
        two.take(str(rollout))
    assert isinstance(caught.value, ConflictError)
    holder = caught.value.holder
    assert (holder.pid, holder.host) == (os.getpid(), socket.gethostname())
    assert f"process {os.getpid()} (this process) on {socket.gethostname()}, since 20" in str(caught.value)
    with pytest.raises(ThreadLocked):
        one.take(str(rollout))
    assert one.holder(str(rollout)) == two.holder(str(rollout)) == holder
    held.release()
    held.release()
    assert two.holder(str(rollout)) is None
    two.take(str(rollout)).release()


def test_nothing_is_left_once_nothing_is_held(tmp_path: Path, rollout: Path) -> None:
    before = open_descriptors()
    locks = RolloutLocks(tmp_path)
    held = [locks.take(f"{rollout}-{number}") for number in range(100)]
    assert len(open_descriptors()) == len(before) + 1  # however many there are
    assert len(list(rollout.parent.iterdir())) == 100
    for lock in held:
        lock.release()
    assert [path.name for path in tmp_path.rglob("*")] == ["sessions", "2025"]
    assert open_descriptors() == before


def test_another_process_is_refused_and_the_dead_lose_their_locks(tmp_path: Path, rollout: Path) -> None:
    process = hold(tmp_path, rollout)
    locks = RolloutLocks(tmp_path)
    with pytest.raises(ThreadLocked, match=f"process {process.pid} on "):
        locks.take(str(rollout))
    assert not list((tmp_path / LOCKS_DIRECTORY).glob(f"{os.getpid()}-*"))
    process.kill()
    end(process)
    assert os.path.islink(f"{rollout}.lock")
    assert locks.holder(str(rollout)) is None
    lock = locks.take(str(rollout))
    with pytest.raises(ThreadLocked):
        RolloutLocks(tmp_path).take(str(rollout))
    lock.release()
    assert not os.path.lexists(f"{rollout}.lock")


def test_a_lock_is_released_by_its_holder(tmp_path: Path, rollout: Path) -> None:
    end(hold(tmp_path, rollout, "release"))
    assert not (tmp_path / LOCKS_DIRECTORY).exists()
    RolloutLocks(tmp_path).take(str(rollout)).release()


def test_of_many_who_take_over_from_the_dead_one_wins(tmp_path: Path, rollout: Path) -> None:
    for _ in range(20):
        dead = RolloutLocks(tmp_path)
        dead.take(str(rollout))
        dead.abandon()
        takers = [RolloutLocks(tmp_path) for _ in range(8)]

        def take(locks: RolloutLocks) -> RolloutLock | None:
            try:
                return locks.take(str(rollout))
            except ThreadLocked:
                return None

        with ThreadPoolExecutor(8) as pool:
            won = [lock for lock in pool.map(take, takers) if lock is not None]
        assert len(won) == 1
        won[0].release()
        assert not os.path.lexists(f"{rollout}.lock")


def test_locks_reach_across_homes_and_mounts(tmp_path: Path, rollout: Path) -> None:
    outside = tmp_path / "elsewhere.jsonl"
    lock = RolloutLocks(tmp_path / "one").take(str(outside))
    with pytest.raises(ThreadLocked):
        RolloutLocks(tmp_path / "two").take(str(outside))
    lock.release()
    lock = RolloutLocks(tmp_path).take(str(rollout))
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    moved.symlink_to(tmp_path)
    with pytest.raises(ThreadLocked):
        RolloutLocks(moved).take(str(moved / "sessions" / "2025" / "rollout.jsonl"))
    lock.release()


def test_where_locks_cannot_be_had_there_are_none(tmp_path: Path, rollout: Path) -> None:
    Path(f"{rollout}.lock").mkdir()  # something else stands there
    locks = RolloutLocks(tmp_path)
    lock = locks.take(str(rollout))
    lock.release()
    assert Path(f"{rollout}.lock").is_dir()
    assert not (tmp_path / LOCKS_DIRECTORY).exists()


def test_a_lock_whose_folder_went_is_let_go_of(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    locks = RolloutLocks(tmp_path)
    lock = locks.take(str(folder / "a.jsonl"))
    (folder / "a.jsonl.lock").unlink()
    folder.rmdir()
    lock.release()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("times", [1, 2, locks.TRIES - 1])
def test_the_folder_of_the_locks_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Other stores on this home let go of their last lock just then, and take the folder with it."""
    left, make = times, locks._make_folder

    def taken_back(path: str) -> None:
        nonlocal left
        make(path)
        if left:
            left -= 1
            os.rmdir(path)

    monkeypatch.setattr(locks, "_make_folder", taken_back)
    lock = RolloutLocks(tmp_path).take(str(tmp_path / "rollout"))
    assert (tmp_path / f"rollout{LOCK_SUFFIX}").is_symlink()
    lock.release()
    assert left == 0
    assert not (tmp_path / LOCKS_DIRECTORY).exists()


def test_something_else_stands_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / LOCKS_DIRECTORY).write_text("in the way")
    with pytest.raises(FileExistsError):
        RolloutLocks(tmp_path).take(str(tmp_path / "rollout"))
