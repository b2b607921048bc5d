"""Finding chunks and making the new text without losing any of the old one (tools.md 2.3, 2.9)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tools.apply_patch import ApplyPatchError, ContextNotFound, LinesNotFound, UpdateFile, parse_patch
from engine.tools.apply_patch.content import split_text
from engine.tools.apply_patch.matching import LineFinder, updated_text
from tests.tools.apply_patch.strategies import FileEdit, file_edits, file_texts, near_patches


def updated(old: str, *lines: str) -> str:
    hunk = parse_patch("\n".join(["*** Begin Patch", "*** Update File: f", *lines, "*** End Patch"])).hunks[0]
    assert isinstance(hunk, UpdateFile)
    return updated_text("/f", old, hunk.chunks)


@pytest.mark.parametrize(
    ("old", "lines", "new"),
    [
        # Additions take the ending of the first line; everything else keeps its own.
        ("a\r\nb\nc\r\n", ["-b", "+x"], "a\r\nx\r\nc\r\n"),
        ("a\nb\r\nc\r\n", [" b", "+x"], "a\nb\r\nx\nc\r\n"),
        ("a\rb\rc\n", ["-b", "+x"], "a\rx\rc\n"),
        ("a\r\r\nb\r\n", ["-a", "+x"], "x\r\r\nb\r\n"),
        # A missing last newline is added.
        ("a\nb", [" b"], "a\nb\n"),
        ("a\r\nb", [" b", "+x"], "a\r\nb\r\nx\r\n"),
        ("a", ["-a"], ""),
        # Blank lines at the end stay, and additions go behind them.
        ("a\n\n", ["-a", "+A"], "A\n\n"),
        ("a\n\n", ["+x"], "a\n\nx\n"),
        ("\n", ["+x"], "\nx\n"),
        ("", ["+x"], "x\n"),
        ("a\n\n", ["-a", "+A", "", "*** End of File"], "A\n\n"),
        # Context keeps the file's text, removed and added lines are the patch's.
        ("  x\ny\n", [" x", "+x", "-y"], "  x\nx\n"),
        ("  x\ny\n", ["-x", "+x"], "x\ny\n"),
        # A blank last old line may be absent.
        ("a\nb\n", ["-a", "+A", ""], "A\nb\n"),
        ("a\nb\n", [" a", "", "+x", "+"], "a\n\nx\nb\n"),
        ("a\n\nb\n", [" a", "", "-"], "a\nb\n"),
        ("a\n\nb\n", [" a", "-", ""], "a\nb\n"),
        ("a\nb\n", ["-", "+x"], "x\na\nb\n"),
        # Pure additions go to the end, in order, before later additions at the same place.
        ("a\nb\n", ["@@ a", "+x", "@@", "+y"], "a\nb\nx\ny\n"),
        ("a\nb\n", ["@@", "+x", "@@", " b", "+y"], "a\nb\nx\ny\n"),
        ("a\nb\n", ["@@", "+x", "@@", "-b", "+y"], "a\ny\nx\n"),
        # Only Unicode white space counts as white space.
        ("a\x1c\na\n", ["-a", "+x"], "a\x1c\nx\n"),
        ("a\u3000\nb\n", ["-a", "+x"], "x\nb\n"),
    ],
)
def test_new_text(old: str, lines: list[str], new: str) -> None:
    assert updated(old, *lines) == new


@pytest.mark.parametrize(
    ("old", "lines", "missing"),
    [
        ("a\nb\n", ["@@", "-b", "@@", "-a"], ["a"]),
        ("a\nb\n", ["@@", "-a", "*** End of File"], ["a"]),
        ("a\nb\n", ["@@", "-b", "@@", "-b", "*** End of File"], ["b"]),
        ("a\n\n", ["@@", "-a", "*** End of File"], ["a"]),
        ("a\n", ["@@", "-a", "", ""], ["a", "", ""]),
        ("a\x1c\n", ["-a"], ["a"]),
    ],
)
def test_lines_that_are_not_there(old: str, lines: list[str], missing: list[str]) -> None:
    with pytest.raises(LinesNotFound) as caught:
        updated(old, *lines)
    assert str(caught.value) == "Failed to find expected lines in /f:\n" + "\n".join(missing)


def test_context_that_is_not_there() -> None:
    with pytest.raises(ContextNotFound, match="Failed to find context 'a' in /f"):
        updated("a\nb\n", "@@", "-a", "@@ a", "-b")


@given(file_edits())
def test_a_patch_made_from_a_file_gives_the_new_file(edit: FileEdit) -> None:
    hunk = parse_patch(edit.patch).hunks[0]
    assert isinstance(hunk, UpdateFile)
    assert updated_text("/f", edit.old, hunk.chunks) == edit.new


@given(file_texts(), file_texts(), st.sampled_from(["\n", "\r\n", "\r", ""]))
def test_lines_that_no_chunk_names_keep_every_byte(before: str, after: str, ending: str) -> None:
    head = before if before.endswith(("\n", "\r")) or not before else before + "\n"
    # The mark keeps a CR from becoming one ending with an LF behind it.
    tail = f"#{after}" if ending else ""
    old = f"{head}### here{ending}{tail}"
    new = updated(old, "-### here", "+### there")
    assert new.startswith(f"{head}### there")
    rest = new.removeprefix(f"{head}### there")
    newline = split_text(old).newline
    complete = tail if not tail or tail.endswith(("\n", "\r")) else tail + newline
    assert rest == newline + complete


@given(file_texts(), near_patches())
def test_any_patch_on_any_file_gives_a_text_or_an_error(old: str, text: str) -> None:
    try:
        hunks = parse_patch(text).hunks
    except ApplyPatchError:
        return
    for hunk in hunks:
        if isinstance(hunk, UpdateFile):
            kind = "updated"
            try:
                updated_text("/f", old, hunk.chunks)
            except ApplyPatchError as error:
                kind = error.error_kind
            assert kind in {"updated", "context_not_found", "lines_not_found"}


@given(file_texts())
def test_readings_agree_on_what_is_exactly_there(text: str) -> None:
    lines = text.splitlines()
    finder = LineFinder(lines)
    for start in range(len(lines)):
        for end in range(start + 1, len(lines) + 1):
            found = finder.find(lines[start:end], start)
            assert found == start
            assert finder.find(lines[start:end], 0) == next(
                at for at in range(len(lines)) if lines[at : at + end - start] == lines[start:end]
            )
    assert finder.find([*lines, "more"], 0) is None


def test_many_chunks_of_a_large_file_cost_one_walk() -> None:
    count = 100_000
    old = "".join(f"    line number {number} of a file that is rather large\n" for number in range(count))
    lines: list[str] = []
    for number in range(0, count, 20):
        lines += ["@@", f"-    line number {number} of a file that is rather large", f"+{number}"]
    began = time.perf_counter()
    new = updated(old, *lines)
    assert new.count("\n") == count
    # Walking the file once per chunk would take minutes; the bound only has to tell the two apart.
    assert time.perf_counter() - began < 20
