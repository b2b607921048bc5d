"""Placeholders for what is protected and missing: made, shared, and gone with the last one who needs them."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from engine.execution import _placeholder
from engine.execution.sandbox import placeholders as placeholders_module
from engine.execution.sandbox.errors import SandboxPolicyError
from engine.execution.sandbox.placeholders import Placeholders


def made(path: Path, *, is_folder: bool = True) -> Placeholders:
    placeholders = Placeholders()
    placeholders.make(str(path), is_folder=is_folder)
    return placeholders


@pytest.mark.parametrize("is_folder", [True, False])
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_it_is_there_while_it_is_held(tmp_path: Path, is_folder: bool, umask: int) -> None:
    path = tmp_path / ".git"
    before = os.umask(umask)
    try:
        held = made(path, is_folder=is_folder)
    finally:
        os.umask(before)
    status = path.lstat()
    assert stat.S_ISDIR(status.st_mode) == is_folder
    assert _placeholder.is_placeholder(status, str(path))
    held.release()
    assert not path.exists()
    held.release()


def test_the_last_of_several_removes_it(tmp_path: Path) -> None:
    first, second, third = (made(tmp_path / ".git") for _ in range(3))
    second.release()
    first.release()
    assert (tmp_path / ".git").is_dir()
    third.release()
    assert not (tmp_path / ".git").exists()


def test_one_left_behind_is_taken_over(tmp_path: Path) -> None:
    made(tmp_path / ".git").close()  # as after a crash: nobody holds it, nobody removed it
    assert (tmp_path / ".git").is_dir()
    made(tmp_path / ".git").release()
    assert not (tmp_path / ".git").exists()


def test_what_is_put_in_stays(tmp_path: Path) -> None:
    held = made(tmp_path / ".git")
    (tmp_path / ".git" / "config").touch()
    held.release()
    assert (tmp_path / ".git" / "config").exists()


def test_a_text_put_in_stays(tmp_path: Path) -> None:
    held = made(tmp_path / "plan.md", is_folder=False)
    (tmp_path / "plan.md").write_text("x")
    held.release()
    assert (tmp_path / "plan.md").read_text() == "x"


def test_something_else_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    placeholders = Placeholders()
    with pytest.raises(SandboxPolicyError, match="came into being just now"):
        placeholders.make(f"{tmp_path}/.git", is_folder=True)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(SandboxPolicyError, match="symbolic links"):
        placeholders.make(f"{tmp_path}/link", is_folder=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SandboxPolicyError, match="came into being"):
        placeholders.make(f"{tmp_path}/pipe", is_folder=False)
    assert placeholders.held == []
    assert (tmp_path / ".git").is_dir()


def test_where_nobody_can_create_anything_nothing_is_needed() -> None:
    placeholders = Placeholders()
    placeholders.make("/proc/.git", is_folder=True)
    assert (placeholders.left_out, placeholders.held) == (["/proc/.git"], [])


def test_a_link_on_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("other")
    for path in ("link/.git", "missing/.git"):
        with pytest.raises(SandboxPolicyError, match="changed while"):
            made(tmp_path / path)
    assert os.listdir(tmp_path / "other") == []


def test_it_is_removed_from_its_folder_wherever_that_is(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    held = made(tmp_path / "folder" / ".git")
    (tmp_path / "folder").rename(tmp_path / "elsewhere")
    (tmp_path / "folder" / ".git").mkdir(parents=True)
    held.release()
    assert os.listdir(tmp_path / "elsewhere") == []
    assert os.listdir(tmp_path / "folder") == [".git"]


def test_that_of_another_user_is_left_to_that_user(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    held = made(place / ".git")
    place.chmod(0o777)
    os.seteuid(65534)
    try:
        other = made(place / ".git")
        assert (other.held, other.left_out) == ([], [f"{place}/.git"])
    finally:
        os.seteuid(0)
    held.release()
    assert not (place / ".git").exists()


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(SandboxPolicyError, match="No space left on device"):
        made(tmp_path / ".git")


def test_file_systems_without_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placeholders_module, "FOLDER_MODE", 0o755)
    monkeypatch.setattr(_placeholder, "unmarked", set())
    monkeypatch.setattr(placeholders_module, "unmarked", _placeholder.unmarked)
    first = made(tmp_path / ".git")
    second = made(tmp_path / ".git")  # known by its identity
    first.release()
    assert (tmp_path / ".git").is_dir()
    second.release()
    assert not (tmp_path / ".git").exists()


def test_many_at_once_leave_none(tmp_path: Path) -> None:
    path, failures = tmp_path / ".git", []

    def come_and_go() -> None:
        for _ in range(200):
            try:
                held = made(path)
                status = path.lstat()
                assert _placeholder.identity(status) == _placeholder.identity(os.fstat(held.held[0][0]))
                held.release()
            except Exception as exc:
                failures.append(exc)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=come_and_go) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []
    assert not path.exists()
