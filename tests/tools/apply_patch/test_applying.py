"""Writing a patch: order, failures half way, links and devices, deltas; disk and memory agree (tools.md 2.4)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import pytest
from hypothesis import given

from engine.errors import InvalidRequest
from engine.tools.apply_patch import (
    AppliedAdd,
    AppliedDelete,
    AppliedUpdate,
    ApplyPatchError,
    DeleteFailed,
    FileSystem,
    InvalidPath,
    MemoryFileSystem,
    PatchDelta,
    PatchResult,
    PathStatus,
    RealFileSystem,
    UpdateReadFailed,
    WriteFailed,
    apply_patch,
    parse_patch,
)
from tests.tools.apply_patch.strategies import file_texts, near_patches

DISK = RealFileSystem()


def run(root: Path | str, *lines: str, fs: FileSystem = DISK) -> PatchResult:
    return apply_patch(parse_patch("\n".join(["*** Begin Patch", *lines, "*** End Patch"])), root, fs)


def test_every_kind_of_change_is_in_the_delta(tmp_path: Path) -> None:
    for name, text in {"old": "o\n", "gone": "g\n", "edit": "e\n", "from": "f\n", "to": "t\n"}.items():
        (tmp_path / name).write_text(text)
    result = run(
        tmp_path,
        *("*** Add File: old", "+O", "*** Add File: d/new", "+n", "*** Delete File: gone"),
        *("*** Update File: edit", "-e", "+E", "*** Update File: from", "*** Move to: to", "-f", "+F"),
    )
    at = str(tmp_path)
    assert result.delta == PatchDelta(
        (
            AppliedAdd(f"{at}/old", "O\n", "o\n"),
            AppliedAdd(f"{at}/d/new", "n\n"),
            AppliedDelete(f"{at}/gone", "g\n"),
            AppliedUpdate(f"{at}/edit", "e\n", "E\n"),
            AppliedUpdate(f"{at}/from", "f\n", "F\n", f"{at}/to", "t\n"),
        )
    )
    assert result.output == "Success. Updated the following files:\nA old\nA d/new\nM edit\nM to\nD gone\n"


def test_what_was_written_before_a_failure_stays_and_is_reported(tmp_path: Path) -> None:
    result = run(tmp_path, "*** Add File: made", "+x", "*** Update File: none", "-a")
    assert result.delta == PatchDelta((AppliedAdd(f"{tmp_path}/made", "x\n"),))
    assert isinstance(result.error, UpdateReadFailed)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (f"Failed to read file to update {tmp_path}/none: No such file or directory (os error 2)\n")
    assert (tmp_path / "made").read_text() == "x\n"


def test_deltas_of_two_attempts_become_one() -> None:
    one, two = PatchDelta((AppliedAdd("/a", ""),)), PatchDelta((AppliedDelete("/a", ""),), exact=False)
    assert PatchDelta.concatenate([one, two]) == PatchDelta((*one.changes, *two.changes), exact=False)
    assert PatchDelta.concatenate([]) == PatchDelta()


def test_a_move_onto_itself_is_reported_as_the_deletion_that_it_is(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a\n")
    result = run(tmp_path, "*** Update File: f", "*** Move to: ./f", "-a", "+b")
    assert result.delta == PatchDelta((AppliedDelete(f"{tmp_path}/f", "a\n"),))
    assert not (tmp_path / "f").exists()


def test_a_link_is_written_through_and_makes_the_delta_inexact(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("a\n")
    (tmp_path / "link").symlink_to("target")
    result = run(tmp_path, "*** Update File: link", "-a", "+b")
    assert (tmp_path / "target").read_text() == "b\n"
    assert (tmp_path / "link").is_symlink()
    assert not result.delta.exact
    assert not run(tmp_path, "*** Delete File: link").delta.exact
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_dangling_link_can_be_filled_but_not_updated_or_deleted(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    assert isinstance(run(tmp_path, "*** Update File: link", "-a").error, UpdateReadFailed)
    assert isinstance(run(tmp_path, "*** Delete File: link").error, DeleteFailed)
    assert run(tmp_path, "*** Add File: link", "+x").exit_code == 0
    assert (tmp_path / "target").read_text() == "x\n"


def test_parents_that_cannot_be_made_have_their_own_text(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    result = run(tmp_path, "*** Add File: link/x", "+x")
    assert result.stderr == f"Failed to create parent directories for {tmp_path}/link/x\n"
    assert isinstance(result.error, WriteFailed)
    assert result.error.parents


@pytest.mark.parametrize("lines", [["*** Update File: pipe", "-a", "+b"], ["*** Add File: pipe", "+b"]])
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path, lines: list[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = run(tmp_path, *lines)
    assert result.exit_code == 1
    assert result.error is not None
    assert result.error.error_kind in {"update_read_failed", "write_failed"}


def test_a_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("a\n")
    path.chmod(0o751)
    run(tmp_path, "*** Update File: f", "-a", "+b")
    assert path.stat().st_mode & 0o777 == 0o751


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a\n\xff\n", "invalid utf-8 sequence of 1 bytes from index 2"),
        (b"a\n\xe2\x80", "incomplete utf-8 byte sequence from index 2"),
    ],
)
def test_a_file_that_is_no_text_is_not_updated(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "f").write_bytes(data)
    result = run(tmp_path, "*** Update File: f", "-a", "+b")
    assert result.stderr == f"Failed to read file to update {tmp_path}/f: {reason}\n"
    assert (tmp_path / "f").read_bytes() == data
    replaced = run(tmp_path, "*** Add File: f", "+text")
    assert (replaced.exit_code, replaced.delta.exact) == (0, False)


def test_a_path_that_no_file_can_have_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    result = run(tmp_path, "*** Add File: ok", "+x", "*** Add File: a\0b", "+x")
    assert isinstance(result.error, InvalidPath)
    assert list(tmp_path.iterdir()) == []


def test_a_relative_cwd_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="absolute"):
        run("somewhere", "*** Add File: f", "+x", fs=MemoryFileSystem())


@attrs.define
class _FailingDisk:
    """A disk in memory whose writes or removals fail the way a full or broken one does."""

    inner: MemoryFileSystem
    operation: str

    def status(self, path: str) -> PathStatus:
        return self.inner.status(path)

    def read_bytes(self, path: str) -> bytes:
        return self.inner.read_bytes(path)

    def make_parents(self, path: str) -> None:
        self.inner.make_parents(path)

    def write_bytes(self, path: str, data: bytes) -> None:
        if self.operation == "write":
            raise OSError(28, "No space left on device", path)
        self.inner.write_bytes(path, data)

    def remove_file(self, path: str) -> None:
        raise OSError(30, "Read-only file system", path)


def test_a_failed_write_is_typed_and_inexact() -> None:
    disk = _FailingDisk(MemoryFileSystem({"/w/f": b"a\n"}), "write")
    result = run("/w", "*** Update File: f", "-a", "+b", fs=disk)
    assert isinstance(result.error, WriteFailed)
    assert result.error.reason == "No space left on device (os error 28)"
    assert result.delta == PatchDelta((), exact=False)


def test_a_move_whose_source_stays_reports_the_copy() -> None:
    disk = _FailingDisk(MemoryFileSystem({"/w/f": b"a\n"}), "remove")
    result = run("/w", "*** Update File: f", "*** Move to: g", "-a", "+b", fs=disk)
    assert result.stderr == "Failed to delete file /w/f\n"
    assert result.delta == PatchDelta((AppliedAdd("/w/g", "b\n"),), exact=False)


@given(near_patches(), file_texts(), file_texts())
def test_memory_and_disk_agree(text: str, first: str, second: str) -> None:
    try:
        patch = parse_patch(text)
    except ApplyPatchError:
        return
    files = {"f": first.encode(), "h": second.encode()}
    with _scratch() as root:
        for name, data in files.items():
            (root / name).write_bytes(data)
        memory = MemoryFileSystem({f"{root}/{name}": data for name, data in files.items()})
        on_disk, in_memory = apply_patch(patch, root, DISK), apply_patch(patch, root, memory)
        left = {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        folders = {str(path) for path in root.rglob("*") if path.is_dir()}
        assert (on_disk.exit_code, on_disk.output, on_disk.delta) == (
            in_memory.exit_code,
            in_memory.output,
            in_memory.delta,
        )
        assert left == memory.files
        assert folders == {path for path in memory.directories if path.startswith(f"{root}/")}


@contextmanager
def _scratch() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name).resolve()
