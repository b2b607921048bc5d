"""The folder of snapshots: private files, and a sweep that knows what is nobody's."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest

from engine.execution.snapshot_folder import KEPT_SECONDS, SnapshotFolder

MINE, STORED, OLD, UNKNOWN = (f"0198f7a2-0000-7000-8000-00000000000{number}" for number in range(4))


def last_used(thread: str) -> float | None:
    """`STORED` was used just now, `OLD` long ago; others have no rollout."""
    return {STORED: time.time(), OLD: time.time() - KEPT_SECONDS - 60}.get(thread)


def test_only_files_of_threads_in_use_survive_a_sweep(tmp_path: Path) -> None:
    folder = SnapshotFolder(str(tmp_path), {MINE})
    kept = {f"{MINE}.1.sh", f"{MINE}.tmp-2", f"{STORED}.3.sh"}
    gone = {f"{OLD}.4.sh", f"{OLD}.tmp-4", f"{UNKNOWN}.5.sh", "notes.txt", f"{STORED}.sh", f"{STORED}.x.sh"}
    for name in kept | gone:
        (tmp_path / name).write_text("")
    (tmp_path / "folder").mkdir()
    folder.sweep(last_used)
    assert {path.name for path in tmp_path.iterdir()} == kept | {"folder"}


def test_the_first_file_sweeps_and_makes_the_folder_for_the_user_alone(tmp_path: Path) -> None:
    folder = SnapshotFolder.of(tmp_path)
    file = Path(folder.path, f"{MINE}.tmp-1")
    folder.write(str(file), b"one", last_used)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    Path(folder.path, "left").write_text("")
    folder.write(str(file.with_name("two")), b"two", last_used)
    assert {path.name for path in file.parent.iterdir()} == {file.name, "two", "left"}
    SnapshotFolder.of(tmp_path).write(str(file.with_name("three")), b"", last_used)
    assert {path.name for path in file.parent.iterdir()} == {"three"}  # another engine has swept


def test_a_file_that_is_there_or_a_link_is_not_written_to(tmp_path: Path) -> None:
    folder = SnapshotFolder(str(tmp_path))
    target = tmp_path / "target"
    target.write_text("old")
    folder.sweep(lambda thread: time.time())
    link = tmp_path / f"{STORED}.1.sh"
    other = tmp_path.parent / "outside"
    other.write_text("old")
    link.symlink_to(other)
    with pytest.raises(FileExistsError):
        folder.write(str(link), b"new", last_used)
    assert other.read_text() == "old"


def test_a_folder_that_is_not_there_is_no_fault(tmp_path: Path) -> None:
    SnapshotFolder.of(tmp_path / "missing").sweep(last_used)
