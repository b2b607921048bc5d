"""The tool as a program: ways to be called, exit codes, usage (tools.md 2.4)."""

from __future__ import annotations

import pytest

from engine.tools.apply_patch import MemoryFileSystem, is_standalone, run_standalone

PATCH = "*** Begin Patch\n*** Add File: f\n+x\n*** End Patch"
SUCCESS = (0, "Success. Updated the following files:\nA f\n", "")
USAGE = "Usage: apply_patch 'PATCH'\n       echo 'PATCH' | apply_patch\n"
FLAG = "--codex-run-as-apply-patch"


def no_stdin() -> bytes:
    raise AssertionError("stdin is read only where the patch comes from it")


@pytest.mark.parametrize(
    "argv",
    [["apply_patch", PATCH], ["/opt/bin/applypatch", PATCH], ["engine", FLAG, PATCH], ["engine", FLAG, PATCH, "x"]],
)
def test_patch_as_argument(argv: list[str]) -> None:
    disk = MemoryFileSystem()
    assert is_standalone(argv)
    assert run_standalone(argv, no_stdin, "/w", disk) == SUCCESS
    assert disk.files == {"/w/f": b"x\n"}


def test_patch_from_stdin() -> None:
    disk = MemoryFileSystem()
    assert run_standalone(["apply_patch"], PATCH.encode, "/w", disk) == SUCCESS
    assert disk.files == {"/w/f": b"x\n"}


@pytest.mark.parametrize(
    ("argv", "stdin", "outcome"),
    [
        (["apply_patch"], b"", (2, "", USAGE)),
        (["apply_patch", "a", "b"], b"", (2, "", "Error: apply_patch accepts exactly one argument.\n")),
        (["apply_patch", "\udcff"], b"", (1, "", "Error: apply_patch requires a UTF-8 PATCH argument.\n")),
        (
            ["apply_patch"],
            b"\xff",
            (1, "", "Error: Failed to read PATCH from stdin.\nstream did not contain valid UTF-8\n"),
        ),
        (["engine", FLAG], b"", (1, "", f"Error: {FLAG} requires a UTF-8 PATCH argument.\n")),
        (["apply_patch", ""], b"", (1, "", "Invalid patch: The last line of the patch must be '*** End Patch'\n")),
        (["apply_patch"], b" \n", (1, "", "Invalid patch: The last line of the patch must be '*** End Patch'\n")),
    ],
)
def test_wrong_calls(argv: list[str], stdin: bytes, outcome: tuple[int, str, str]) -> None:
    assert run_standalone(argv, lambda: stdin, "/w", MemoryFileSystem()) == outcome


def test_stdin_that_cannot_be_read() -> None:
    def broken() -> bytes:
        raise OSError(5, "Input/output error")

    code, stdout, stderr = run_standalone(["apply_patch"], broken, "/w", MemoryFileSystem())
    assert (code, stdout, stderr) == (1, "", "Error: Failed to read PATCH from stdin.\nInput/output error\n")


@pytest.mark.parametrize("argv", [[], ["engine"], ["engine", "exec", PATCH], ["engine", "exec", FLAG]])
def test_other_programs(argv: list[str]) -> None:
    assert not is_standalone(argv)
