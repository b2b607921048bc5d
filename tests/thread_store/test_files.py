"""A file and its folders are made in one, however often others take the folders back meanwhile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from engine.thread_store.files import TRIES, RealFiles, create_with_folders


def test_what_was_made_is_told_innermost_first(tmp_path: Path) -> None:
    made: list[str] = []
    os.close(create_with_folders(RealFiles(), f"{tmp_path}/a/b/file", made))
    assert made == [f"{tmp_path}/a/b", f"{tmp_path}/a"]
    os.close(create_with_folders(RealFiles(), f"{tmp_path}/a/c/file", made))
    assert made == [f"{tmp_path}/a/c", f"{tmp_path}/a/b", f"{tmp_path}/a"]


def test_what_was_made_is_told_where_the_file_can_not_be_made(tmp_path: Path) -> None:
    made: list[str] = []
    with pytest.raises(OSError, match="too long"):
        create_with_folders(RealFiles(), f"{tmp_path}/a/{'x' * 300}", made)
    assert made == [f"{tmp_path}/a"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    made: list[str] = []
    with pytest.raises(OSError):
        create_with_folders(RealFiles(), f"{tmp_path}/a/b/file", made)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        create_with_folders(RealFiles(), f"{tmp_path}/file", made)
    assert made == []


class TakenBack(RealFiles):
    """Others take the folders back whenever they were made, `before` times while that goes on, then `after` times."""

    def __init__(self, folder: Path, *, before: int, after: int) -> None:
        self.folder, self.before, self.after = folder, before, after

    def make_directories(self, path: str) -> list[str]:
        if self.before > 0:
            self.before -= 1
            raise FileNotFoundError(2, "a folder was taken back", path)
        made = super().make_directories(path)
        if self.after > 0:
            self.after -= 1
            shutil.rmtree(self.folder)
        return made


@pytest.mark.parametrize(("before", "after"), [(1, 0), (0, 1), (3, 3), (0, TRIES - 1), (TRIES - 1, 0)])
def test_others_take_the_folders_back(tmp_path: Path, before: int, after: int) -> None:
    made: list[str] = []
    files = TakenBack(tmp_path / "a", before=before, after=after)
    os.close(create_with_folders(files, f"{tmp_path}/a/b/file", made))
    assert (tmp_path / "a" / "b" / "file").exists()
    assert made == [f"{tmp_path}/a/b", f"{tmp_path}/a"]


@pytest.mark.parametrize(("before", "after"), [(TRIES, 0), (0, TRIES)])
def test_others_who_never_stop_are_an_error(tmp_path: Path, before: int, after: int) -> None:
    files = TakenBack(tmp_path / "a", before=before, after=after)
    with pytest.raises(FileNotFoundError):
        create_with_folders(files, f"{tmp_path}/a/b/file", [])
