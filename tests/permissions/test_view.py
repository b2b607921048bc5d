"""The two views of a disk answer alike."""

from __future__ import annotations

import os
from pathlib import Path

from engine.permissions.view import DiskView, MemoryView, View


def test_a_description_answers_like_the_disk_it_describes(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "f").write_text("text")
    (tmp_path / "empty").mkdir()
    views: list[View] = [
        DiskView(),
        MemoryView({f"{tmp_path}/d/f": "text"}, frozenset({f"{tmp_path}/d/e", f"{tmp_path}/empty"})),
    ]
    for name in ("d", "d/e", "d/f", "empty", "missing", "d/f/x", "mpty"):
        path = f"{tmp_path}/{name}"
        for ask in ("is_file", "is_directory", "exists", "read_text"):
            assert len({getattr(view, ask)(path) for view in views}) == 1, (ask, name)


def test_what_can_not_be_read_is_none(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"\xff")
    assert DiskView().read_text(str(file)) is None
    assert DiskView().read_text("a\0b") is None
    assert DiskView().exists("a\0b") is False


def test_the_disk_is_seen_through_links(tmp_path: Path) -> None:
    os.symlink(tmp_path, tmp_path / "link")
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling")
    assert DiskView().is_directory(str(tmp_path / "link"))
    assert not DiskView().exists(str(tmp_path / "dangling"))
