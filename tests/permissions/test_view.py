"""A described machine answers like the real one it describes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import example, given

from engine.permissions.canonical import absolute, canonicalize_preserving, effective
from engine.permissions.memory_view import MemoryView
from engine.permissions.view import DiskView, View
from tests.permissions.policies import disks

ASKED = [
    f"/{one}{two}{three}" for one in ("a", "b", "..") for two in ("", "/a", "/b", "/..") for three in ("", "/.git")
]


def build(disk: MemoryView, root: str) -> MemoryView:
    """The disk for real below `root`, and its description there; absolute links and pointers are moved too."""

    def real(path: str) -> str:
        return root + path if path != "/" else root

    for path in disk.directories:
        os.makedirs(real(path), exist_ok=True)
    for path, text in disk.files.items():
        os.makedirs(os.path.dirname(real(path)), exist_ok=True)
        Path(real(path)).write_text(text)
    for path, target in disk.links.items():
        os.makedirs(os.path.dirname(real(path)), exist_ok=True)
        os.symlink(real(target) if target.startswith("/") else target, real(path))
    return MemoryView(
        files={real(path): text for path, text in disk.files.items()},
        directories=frozenset([root, *map(real, disk.directories)]),
        links={real(path): real(target) if target[0] == "/" else target for path, target in disk.links.items()},
        home="/home",
    )


@given(disks())
@example(MemoryView(files={"/a": ""}))
def test_a_description_answers_like_the_disk_it_describes(disk: MemoryView) -> None:
    if any("\0" in path for path in (*disk.files, *disk.directories, *disk.links, *disk.links.values())):
        return
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.realpath(folder)
        described = build(disk, root)
        views: list[View] = [DiskView({"HOME": "/home"}, "/"), described]
        for asked in (*ASKED, *disk.files, *disk.directories, *disk.links):
            path = root + asked
            for ask in ("is_file", "is_directory", "exists", "is_there", "is_link", "resolve", "read_text"):
                answers = [getattr(view, ask)(path) for view in views]
                assert answers[0] == answers[1], (ask, path)
            for function in (canonicalize_preserving, lambda path, view: effective(absolute(path, view), view)):
                assert function(path, views[0]) == function(path, views[1]), path


def test_what_can_not_be_read_is_none(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"\xff")
    disk = DiskView()
    assert disk.read_text(str(file)) is None
    file.write_text("x" * 70_000)
    assert disk.read_text(str(file)) is None
    assert MemoryView({"/f": "x" * 70_000}).read_text("/f") is None
    for ask in (disk.is_file, disk.is_directory, disk.exists, disk.is_there, disk.is_link):
        assert ask("a\0b") is False
    assert disk.resolve("/a\0b") is None
    assert disk.read_text("a\0b") is None


def test_the_environment() -> None:
    disk = DiskView({"HOME": "/h", "TMPDIR": ""}, "/w")
    assert (disk.home, disk.tmpdir, disk.process_cwd()) == ("/h", None, "/w")
    assert DiskView({"TMPDIR": "/t"}).tmpdir == "/t"
    assert DiskView().process_cwd() == os.getcwd()
    assert DiskView({}).home == os.path.expanduser("~")
    assert absolute("~/x", disk) == "/h/x"
    assert absolute("x", disk, "rel") == "/w/rel/x"
    assert absolute("../x", disk) == "/x"


def test_links_in_a_circle_lead_nowhere() -> None:
    disk = MemoryView(links={"/a": "b", "/b": "/a"})
    assert disk.resolve("/a") is None
    assert disk.is_link("/a")
    assert disk.is_there("/a")
    assert not disk.exists("/a/x")


def test_only_first_level_aliases_are_rewritten() -> None:
    disk = MemoryView(directories=frozenset({"/usr/bin", "/w/repo"}), links={"/bin": "usr/bin", "/w/link": "repo"})
    assert canonicalize_preserving("/bin/sh", disk) == "/bin/sh"
    assert effective("/bin/sh", disk) == "/usr/bin/sh"
    assert effective("/w/link/x", disk) == "/w/link/x"
    assert canonicalize_preserving("/w/link", disk) == "/w/link"
    assert effective("/gone/x", disk) == "/gone/x"
