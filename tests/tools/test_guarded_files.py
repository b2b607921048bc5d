"""Files as a policy allows them: places, links, protected names, and links that come in between."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.permissions.profiles import file_system_of, materialize_profile, workspace_write
from engine.permissions.view import DiskView
from engine.protocol.profiles import FileSystemEntry, FileSystemSandboxPolicy, GlobPath, LiteralPath
from engine.tools import guarded_files
from engine.tools.apply_patch.filesystem import FileKind
from engine.tools.guarded_files import GuardedFileSystem


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A workspace, with a folder beside it that is none of its business."""
    (tmp_path / "work" / ".git").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("theirs")
    return tmp_path / "work"


def guarded(work: Path, *entries: FileSystemEntry) -> GuardedFileSystem:
    symbolic = workspace_write(exclude_tmpdir_env_var=True, exclude_slash_tmp=True, view=DiskView())
    profile = materialize_profile(symbolic, [str(work)])
    policy = file_system_of(profile)
    policy = FileSystemSandboxPolicy("restricted", None, (*policy.entries, *entries))
    return GuardedFileSystem(policy, str(work), DiskView())


def test_what_lies_in_the_workspace_is_written_and_removed(work: Path) -> None:
    files = guarded(work)
    path = str(work / "a" / "b" / "c.txt")
    files.make_parents(path)
    files.write_bytes(path, b"one")
    files.write_bytes(path, b"two")
    assert files.read_bytes(path) == b"two"
    assert files.status(path).kind is FileKind.FILE
    files.remove_file(path)
    assert not os.path.exists(path)


def test_what_matches_a_denied_glob_is_neither_read_nor_written(work: Path) -> None:
    (work / "key.pem").write_text("secret")
    (work / "alias").symlink_to("key.pem")
    files = guarded(work, FileSystemEntry(GlobPath(f"{work}/**/*.pem"), "none"))
    for name in ("key.pem", "alias", "deep/new.pem"):
        path = str(work / name)
        assert files.refused([path, str(work / "fine")]) == [path]
        assert not files.may_read(path)
        assert files.status(path).kind is FileKind.ABSENT
        with pytest.raises(PermissionError):
            files.read_bytes(path)
        with pytest.raises(PermissionError):
            files.write_bytes(path, b"x")
    with pytest.raises(PermissionError):
        files.remove_file(str(work / "key.pem"))
    assert (work / "key.pem").read_text() == "secret"


def test_a_denied_glob_without_a_meaning_denies_everything(work: Path) -> None:
    files = guarded(work, FileSystemEntry(GlobPath(f"{work}/{{a"), "none"))
    assert not files.may_read(str(work / "fine"))
    assert files.refused([str(work / "fine")])


@pytest.mark.parametrize("place", ["outside/file", "outside/new", "work/.git/config", "work/../outside/file", "work"])
def test_other_places_are_refused(work: Path, place: str) -> None:
    path = os.path.normpath(work.parent / place) if place != "work" else str(work / ".git")
    files = guarded(work)
    assert files.refused([path, str(work / "fine")]) == [path]
    with pytest.raises(PermissionError):
        files.write_bytes(path, b"x")
    with pytest.raises(PermissionError):
        files.remove_file(path)
    with pytest.raises(PermissionError):
        files.make_parents(path + "/below/it")
    assert (work.parent / "outside" / "file").read_text() == "theirs"


def test_links_count_as_where_they_lead(work: Path) -> None:
    outside = work.parent / "outside"
    (work / "link").symlink_to(outside)
    (work / "file").symlink_to(outside / "file")
    (work / "inside").symlink_to(work / "real")
    files = guarded(work)
    for name in ("link/file", "link/new", "file"):
        with pytest.raises(PermissionError):
            files.write_bytes(str(work / name), b"x")
    with pytest.raises(PermissionError):
        files.make_parents(str(work / "link" / "below" / "x"))
    files.write_bytes(str(work / "inside"), b"fine")
    assert (work / "real").read_bytes() == b"fine"
    files.remove_file(str(work / "file"))  # the link itself is ours
    assert sorted(path.name for path in outside.iterdir()) == ["file"]
    assert (outside / "file").read_text() == "theirs"


def test_a_workspace_behind_a_link_is_one(work: Path) -> None:
    link = work.parent / "shortcut"
    link.symlink_to(work)
    files = guarded(link)
    files.write_bytes(str(link / "a"), b"x")
    assert (work / "a").read_bytes() == b"x"
    with pytest.raises(PermissionError):
        files.write_bytes(str(link / ".git" / "config"), b"x")


def test_a_writable_folder_below_another_opens_nothing_when_it_becomes_a_link(work: Path) -> None:
    (work / "sub").symlink_to(work.parent / "outside")
    files = guarded(work, FileSystemEntry(LiteralPath(str(work / "sub")), "write"))
    with pytest.raises(PermissionError):
        files.write_bytes(str(work / "sub" / "file"), b"x")


def test_what_may_not_be_read_is_not(work: Path) -> None:
    (work / "secret").write_text("s")
    (work / "door").symlink_to(work / "secret")
    files = guarded(work, FileSystemEntry(LiteralPath(str(work / "secret")), "none"))
    for name in ("secret", "door"):
        with pytest.raises(PermissionError):
            files.read_bytes(str(work / name))
        assert files.status(str(work / name)).kind is FileKind.ABSENT


def test_a_link_that_comes_in_between_opens_nothing(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "sub").mkdir()
    files = guarded(work)
    really = guarded_files._folder

    def swapped(real: str) -> object:
        if real == str(work / "sub"):
            (work / "sub").rename(work / "gone")
            (work / "sub").symlink_to(work.parent / "outside")
        return really(real)

    monkeypatch.setattr(guarded_files, "_folder", swapped)
    with pytest.raises(PermissionError):
        files.write_bytes(str(work / "sub" / "file"), b"x")
    assert (work.parent / "outside" / "file").read_text() == "theirs"


def test_no_descriptor_is_left(work: Path) -> None:
    files = guarded(work)
    before = len(os.listdir("/proc/self/fd"))
    files.make_parents(str(work / "x" / "y" / "z"))
    files.write_bytes(str(work / "x" / "y" / "z"), b"1")
    for path in (str(work / "nowhere" / "f"), str(work.parent / "outside" / "f")):
        with pytest.raises(OSError):
            files.write_bytes(path, b"1")
    assert len(os.listdir("/proc/self/fd")) == before


_TARGETS = st.sampled_from(
    ["../outside", "../outside/file", "../outside/new", ".git", ".git/new", ".git/config", "..", "a", "b", "a/file"]
)
_NAMES = st.sampled_from(["a", "b"])
_LINK = st.tuples(st.just("link"), _NAMES, _TARGETS)
_OTHER = st.tuples(st.sampled_from(["folder", "file", "link"]), st.sampled_from(["a", "b", "a/b", "a/file"]), _TARGETS)
_LAYOUT = st.tuples(_LINK, st.lists(_OTHER, max_size=3)).flatmap(lambda made: st.permutations([made[0], *made[1]]))
_BELOW = st.sampled_from(
    ["", "/file", "/new", "/b", "/new/new", "/outside/file", "/work/.git/config", "/../outside/new"]
)
_PATHS = st.tuples(_NAMES, _BELOW).map("".join)
_ATTEMPTS = st.lists(st.tuples(st.sampled_from(["write", "parents", "remove"]), _PATHS), min_size=2, max_size=8)


def _lay_out(work: Path, kind: str, name: str, target: str) -> None:
    path = work / name
    try:
        match kind:
            case "folder":
                path.mkdir(parents=True)
            case "file":
                path.write_text(name)
            case "link":
                path.symlink_to(target)
    except OSError:
        pass  # no such layout


def _everything(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in [folder, *folder.rglob("*")]:
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path)] = (path.lstat().st_mode, path.lstat().st_ino, content)
    return found


@given(_LAYOUT, _ATTEMPTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_links_whatsoever_lead_out(
    tmp_path: Path, layout: list[tuple[str, str, str]], attempts: list[tuple[str, str]]
) -> None:
    """Whatever links there are, nothing but the workspace changes, and nothing below its `.git`."""
    base = Path(tempfile.mkdtemp(dir=tmp_path))
    work = base / "work"
    (work / ".git").mkdir(parents=True)
    (base / "outside").mkdir()
    (base / "outside" / "file").write_text("theirs")
    (work / ".git" / "config").write_text("kept")
    for kind, name, target in layout:
        _lay_out(work, kind, name, target)
    files = guarded(work)
    kept = [base / "outside", work / ".git"]
    before = [_everything(folder) for folder in kept]
    names = sorted(path.name for path in base.iterdir())
    for operation, name in attempts:
        path = os.path.normpath(work / name)
        refused = bool(files.refused([path]))
        try:
            match operation:
                case "write":
                    files.write_bytes(path, b"x")
                    assert not refused
                case "parents":
                    files.make_parents(path)
                case "remove":
                    files.remove_file(path)
        except OSError:
            pass  # refused, or not possible
        assert [_everything(folder) for folder in kept] == before
        assert sorted(path.name for path in base.iterdir()) == names
