"""A file and its folders are made in one, however often others take the folders back meanwhile."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from engine.thread_store.files import RealFiles, create_with_folders


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


def test_others_take_the_folders_back(tmp_path: Path) -> None:
    over = threading.Event()

    def disturb() -> None:
        while not over.is_set():
            for folder in ("a/b/c", "a/b", "a"):
                try:
                    os.rmdir(tmp_path / folder)
                except OSError:
                    pass

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(300):
            os.close(create_with_folders(RealFiles(), f"{tmp_path}/a/b/c/file", []))
            shutil.rmtree(tmp_path / "a", ignore_errors=True)
    finally:
        over.set()
        thread.join()
