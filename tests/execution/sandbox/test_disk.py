"""Facts about the disk that a plan rests on, and whether they still hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.execution._placeholder import FILE_MODE, FOLDER_MODE
from engine.execution.sandbox.disk import ObservedDisk
from engine.permissions.view import DiskView


@pytest.fixture
def disk() -> ObservedDisk:
    return ObservedDisk(DiskView({"HOME": "/home/user", "TMPDIR": "/tmp/mine"}))


def test_kinds(disk: ObservedDisk, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "nowhere").symlink_to("missing")
    os.mkfifo(tmp_path / "pipe")
    names = ("file", "folder", "link", "nowhere", "pipe", "missing", "file/below", "\0")
    assert [disk.kind(f"{tmp_path}/{name}") for name in names] == [
        *("file", "directory", "link", "link", "other", "missing", "missing", "missing"),
    ]
    assert disk.link_target(f"{tmp_path}/link") == "folder"
    assert disk.link_target(f"{tmp_path}/file") == ""


def test_it_answers_the_permission_code(disk: ObservedDisk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "nowhere").symlink_to("missing")
    link, nowhere = f"{tmp_path}/link", f"{tmp_path}/nowhere"
    assert (disk.home, disk.tmpdir, disk.process_cwd()) == ("/home/user", "/tmp/mine", os.getcwd())
    assert (disk.is_file(link), disk.is_directory(link), disk.is_directory(str(tmp_path))) == (True, False, True)
    assert (disk.exists(link), disk.is_there(link), disk.is_link(link)) == (True, True, True)
    assert (disk.exists(nowhere), disk.is_there(nowhere), disk.is_link(nowhere)) == (False, True, True)
    assert (disk.resolve(link), disk.resolve(nowhere)) == (f"{tmp_path}/file", None)
    assert (disk.read_text(link), disk.read_text(nowhere)) == ("text", None)


def test_placeholders_count_as_missing(disk: ObservedDisk, tmp_path: Path) -> None:
    folder, file, used = tmp_path / "folder", tmp_path / "file", tmp_path / "used"
    folder.mkdir(FOLDER_MODE)
    used.mkdir(FOLDER_MODE)
    (used / "config").touch()
    os.close(os.open(file, os.O_CREAT | os.O_WRONLY, FILE_MODE))
    assert [disk.kind(str(path)) for path in (folder, file, used)] == ["missing", "missing", "directory"]
    assert (disk.is_directory(str(folder)), disk.is_there(str(folder)), disk.resolve(str(folder))) == (
        *(False, False),
        None,
    )


def a_file_appears(place: Path) -> None:
    (place / "missing").touch()


def a_folder_goes(place: Path) -> None:
    (place / "folder").rmdir()


def a_link_changes(place: Path) -> None:
    (place / "link").unlink()
    (place / "link").symlink_to("elsewhere")


def a_text_changes(place: Path) -> None:
    (place / "file").write_text("gitdir: elsewhere")


@pytest.mark.parametrize("change", [a_file_appears, a_folder_goes, a_link_changes, a_text_changes])
def test_what_changes_is_noticed(disk: ObservedDisk, tmp_path: Path, change: Callable[[Path], None]) -> None:
    (tmp_path / "file").write_text("gitdir: here")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    for name in ("missing", "folder", "link", "file"):
        disk.kind(f"{tmp_path}/{name}")
    disk.link_target(f"{tmp_path}/link")
    disk.read_text(f"{tmp_path}/file")
    assert disk.still_holds()
    change(tmp_path)
    assert not disk.still_holds()


def test_what_nobody_asked_for_may_change(disk: ObservedDisk, tmp_path: Path) -> None:
    disk.kind(str(tmp_path))
    (tmp_path / "new").touch()
    assert disk.still_holds()


def test_a_placeholder_that_comes_changes_nothing(disk: ObservedDisk, tmp_path: Path) -> None:
    assert disk.kind(f"{tmp_path}/.git") == "missing"
    (tmp_path / ".git").mkdir(FOLDER_MODE)
    assert disk.still_holds()
