"""The parser: what it takes, what it refuses and in which words (tools.md 2.2, 2.9)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tools.apply_patch import (
    AddFile,
    ApplyPatchError,
    Chunk,
    ChunkLine,
    DeleteFile,
    InvalidHunk,
    InvalidPatch,
    LineKind,
    Patch,
    UpdateFile,
    parse_patch,
)
from tests.tools.apply_patch.strategies import near_patches


def patch_of(*lines: str) -> str:
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch"])


def update(*chunks: Chunk, move_to: str | None = None) -> Patch:
    return Patch(None, (UpdateFile("f", move_to, chunks),))


OLD, NEW = ChunkLine(LineKind.REMOVE, "a"), ChunkLine(LineKind.ADD, "b")
PLAIN = Chunk(None, (OLD, NEW))
LAST = Chunk(None, (OLD, NEW), end_of_file=True)


def test_all_kinds_of_hunks() -> None:
    text = patch_of(
        "*** Environment ID: box",
        "*** Add File: n/new.txt",
        "+one",
        "+",
        "*** Delete File: gone",
        "*** Update File: f",
        "*** Move to: g",
        "@@ class A",
        " x",
        "-a",
        "+b",
        "",
        "*** End of File",
        "@@",
        "-c",
    )
    lines = (ChunkLine(LineKind.CONTEXT, "x"), OLD, NEW, ChunkLine(LineKind.CONTEXT, ""))
    assert parse_patch(text) == Patch(
        "box",
        (
            AddFile("n/new.txt", "one\n\n"),
            DeleteFile("gone"),
            UpdateFile(
                "f", "g", (Chunk("class A", lines, end_of_file=True), Chunk(None, (ChunkLine(LineKind.REMOVE, "c"),)))
            ),
        ),
    )


@pytest.mark.parametrize(
    ("lines", "patch"),
    [
        (["@@", "-a", "+b"], update(PLAIN)),
        (["-a", "+b"], update(PLAIN)),
        (["@@ ", "-a", "+b"], update(PLAIN)),
        (["@@\t", "-a", "+b"], update(PLAIN)),
        (["@@   f() ", "-a", "+b"], update(Chunk("  f()", (OLD, NEW)))),
        (["@@ -1,2 +1,2 @@", "-a", "+b"], update(Chunk("-1,2 +1,2 @@", (OLD, NEW)))),
        (["-a\r", "+b\r"], update(PLAIN)),
        (["-a", "+b", "*** End of File  "], update(LAST)),
        (["-a", "+b", "*** End of File", "", "\t"], update(LAST)),
        (["*** End of File", "-a", "+b"], update(PLAIN)),
        (["*** Move to: to  ", "-a", "+b"], update(PLAIN, move_to="to")),
        (["-a", "+b", "*** End Patch"], update(PLAIN)),
        (["-a", "+b", "*** End Patch", "", "  "], update(PLAIN)),
        ([" *** Move to: to"], update(Chunk(None, (ChunkLine(LineKind.CONTEXT, "*** Move to: to"),)))),
    ],
)
def test_lenient_updates(lines: list[str], patch: Patch) -> None:
    assert parse_patch(patch_of("*** Update File: f", *lines)) == patch


UNEXPECTED = (
    "Unexpected line found in update hunk: '{}'. Every line should start with ' ' (context line), "
    "'+' (added line), or '-' (removed line)"
)
EXPECTED = "Expected update hunk to start with a @@ context marker, got: '{}'"


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        ([], 2, "Update file hunk for path 'f' is empty"),
        (["*** Move to: g"], 2, "Update file hunk for path 'f' is empty"),
        (["*** Add File: g", "+x"], 2, "Update file hunk for path 'f' is empty"),
        (["*** End of File"], 2, "Update file hunk for path 'f' is empty"),
        (["@@"], 4, "Update hunk does not contain any lines"),
        (["@@", "*** End of File"], 4, "Update hunk does not contain any lines"),
        (["@@", "*** End Patch"], 4, "Update hunk does not contain any lines"),
        (["zzz"], 3, UNEXPECTED.format("zzz")),
        (["*** Move To: g", "-a"], 3, UNEXPECTED.format("*** Move To: g")),
        (["*** Move to: ", "-a"], 3, UNEXPECTED.format("*** Move to: ")),
        (["*** Move to: g", "*** Move to: h", "-a"], 4, UNEXPECTED.format("*** Move to: h")),
        (["@@ class A", "@@ def f", "-a"], 4, UNEXPECTED.format("@@ def f")),
        (["@@", "*** Add File: g", "+x"], 4, UNEXPECTED.format("*** Add File: g")),
        (["@@x", "-a"], 3, UNEXPECTED.format("@@x")),
        (["-a", "zzz"], 4, EXPECTED.format("zzz")),
        (["-a", "*** Foo: g"], 4, EXPECTED.format("*** Foo: g")),
        (["-a", "\t", "@@", "-b"], 4, EXPECTED.format("\t")),
        (["-a", "*** End of File", "-b"], 5, EXPECTED.format("-b")),
        (["-a", "*** Move to: g"], 4, EXPECTED.format("*** Move to: g")),
    ],
)
def test_bad_updates(lines: list[str], line: int, message: str) -> None:
    with pytest.raises(InvalidHunk) as caught:
        parse_patch(patch_of("*** Update File: f", *lines))
    assert (caught.value.line, str(caught.value)) == (line, message)
    assert caught.value.cli_text() == f"Invalid patch hunk on line {line}: {message}"
    assert caught.value.verification_text() == (
        f"apply_patch verification failed: invalid hunk at line {line}, {message}"
    )


FIRST = "The first line of the patch must be '*** Begin Patch'"
FINAL = "The last line of the patch must be '*** End Patch'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", FINAL),
        ("  \n", FINAL),
        ("*** Begin Patch", FINAL),
        ("*** End Patch", FIRST),
        ("hello", FIRST),
        ("*** Begin Patch\n*** Frob: x", FINAL),
        ("\ufeff*** Begin Patch\n*** End Patch", FIRST),
        ("\x1c*** Begin Patch\n*** End Patch", FIRST),
        ("<<EOF\n*** Begin Patch\nEOF", FIRST),
        ("<<EOF\n*** Begin Patch\n*** Delete File: f\nEOF", FINAL),
        ("<<'PATCH'\n*** Begin Patch\n*** End Patch\nPATCH", FIRST),
        (patch_of("*** Delete File: f", "*** End Patch", "*** Delete File: g"), FINAL),
        (patch_of("*** Environment ID:  ", "*** Delete File: f"), "apply_patch environment_id cannot be empty"),
        (
            patch_of("*** Environment ID: a", "*** Environment ID: b"),
            "apply_patch environment_id cannot be specified more than once",
        ),
        (patch_of("*** Add File: f", "+\ud800"), "The patch is not valid Unicode text (lone surrogate on line 3)"),
    ],
)
def test_bad_frames(text: str, message: str) -> None:
    with pytest.raises(InvalidPatch) as caught:
        parse_patch(text)
    assert str(caught.value) == message
    assert caught.value.cli_text() == f"Invalid patch: {message}"
    assert caught.value.verification_text() == f"apply_patch verification failed: invalid patch: {message}"


@pytest.mark.parametrize(
    "text",
    [
        "<<EOF\n*** Begin Patch\n*** End Patch\nEOF",
        "<<'EOF'\n  *** Begin Patch\n*** End Patch  \nxxEOF",
        '\n<<"EOF"\n*** Begin Patch\n*** End Patch\nEOF\n',
        "\u00a0*** Begin Patch\r\n*** End Patch\u2028",
        patch_of("*** End Patch"),
    ],
)
def test_frames_that_are_accepted(text: str) -> None:
    assert parse_patch(text) == Patch(None, ())


def test_only_white_space_of_unicode_is_trimmed_from_a_path() -> None:
    assert parse_patch(patch_of("*** Delete File: \u3000f\x1c\u00a0")) == Patch(None, (DeleteFile("f\x1c"),))


@given(st.text())
def test_any_text_gives_a_patch_or_an_error(text: str) -> None:
    for candidate in (text, patch_of(text), patch_of("*** Update File: f", text)):
        kind = "parsed"
        try:
            parse_patch(candidate)
        except ApplyPatchError as error:
            kind = error.error_kind
        assert kind in {"parsed", "invalid_patch", "invalid_hunk"}


@given(near_patches())
def test_a_patch_does_not_depend_on_its_line_endings(text: str) -> None:
    def outcome(candidate: str) -> Patch | str:
        try:
            return parse_patch(candidate)
        except ApplyPatchError as error:
            return error.cli_text()

    assert outcome(text) == outcome(text.replace("\r\n", "\n")) == outcome(f"\n{text}\n\n")
