"""What a patch would do, before it does it: the changes as shown, and the refusals (tools.md 2.6)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from engine.tools.apply_patch import (
    AddChange,
    ApplyPatchError,
    DeleteChange,
    MemoryFileSystem,
    UpdateChange,
    VerifiedFile,
    VerifiedPatch,
    apply_patch,
    changes_to_wire,
    parse_patch,
    verify_patch,
)
from tests.tools.apply_patch.strategies import file_texts, near_patches


def verified(*lines: str, **files: str) -> VerifiedPatch:
    disk = MemoryFileSystem({f"/w/{name}": text.encode() for name, text in files.items()})
    disk.make_parents("/w/d/x")
    before = dict(disk.files)
    try:
        return verify_patch(parse_patch("\n".join(["*** Begin Patch", *lines, "*** End Patch"])), "/w", disk)
    finally:
        assert disk.files == before


def test_the_changes_of_every_kind() -> None:
    patch = verified(
        *("*** Update File: edit", "*** Move to: n/to", "@@", "-2", "+two", "*** Delete File: gone"),
        *("*** Add File: b", "+x", "*** Update File: d/../plain", "+end"),
        edit="0\n1\n2\n3\n4\n",
        gone="g\nh",
        plain="p\n",
    )
    diff = "@@ -2,3 +2,3 @@\n 1\n-2\n+two\n 3\n"
    assert patch.files == (
        VerifiedFile("/w/edit", UpdateChange(diff, "/w/n/to"), "0\n1\ntwo\n3\n4\n"),
        VerifiedFile("/w/gone", DeleteChange("g\nh"), None),
        VerifiedFile("/w/b", AddChange("x\n"), "x\n"),
        VerifiedFile("/w/plain", UpdateChange("@@ -1 +1,2 @@\n p\n+end\n"), "p\nend\n"),
    )
    assert patch.touched_paths == ["/w/edit", "/w/n/to", "/w/gone", "/w/b", "/w/plain"]
    assert json.dumps(changes_to_wire(patch.changes)) == json.dumps(
        {
            "/w/b": {"type": "add", "content": "x\n"},
            "/w/edit": {"type": "update", "unified_diff": diff, "move_path": "/w/n/to"},
            "/w/gone": {"type": "delete", "content": "g\nh"},
            "/w/plain": {"type": "update", "unified_diff": "@@ -1 +1,2 @@\n p\n+end\n", "move_path": None},
        }
    )


def test_a_patch_without_hunks_verifies_to_nothing() -> None:
    assert verified().files == ()


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["*** Update File: f", "-q"], "Failed to find expected lines in /w/f:\nq"),
        (["*** Update File: f", "@@ q", "-a"], "Failed to find context 'q' in /w/f"),
        (
            ["*** Update File: zz", "-q"],
            "Failed to read file to update /w/zz: No such file or directory (os error 2)",
        ),
        (["*** Update File: d", "-q"], "Failed to read file to update /w/d: path `/w/d` is not a file"),
        (["*** Update File: f/x", "-q"], "Failed to read file to update /w/f/x: Not a directory (os error 20)"),
        (["*** Delete File: zz"], "Failed to read /w/zz: No such file or directory (os error 2)"),
        (["*** Delete File: d"], "Failed to read /w/d: path `/w/d` is not a file"),
        (["*** Update File: f", "-a", "*** Delete File: f"], "invalid patch: multiple operations target /w/f"),
        (["*** Delete File: f", "*** Add File: ./d/../f"], "invalid patch: multiple operations target /w/f"),
        (
            ["*** Update File: f", "*** Move to: ./f", "-a", "+b"],
            "invalid patch: multiple operations target /w/f",
        ),
        (
            ["*** Update File: zz", "-q", "*** Delete File: f", "*** Delete File: f"],
            "Failed to read file to update /w/zz: No such file or directory (os error 2)",
        ),
    ],
)
def test_refusals(lines: list[str], text: str) -> None:
    with pytest.raises(ApplyPatchError) as caught:
        verified(*lines, f="a\n")
    assert caught.value.verification_text() == f"apply_patch verification failed: {text}"


@given(near_patches(), file_texts(), file_texts())
def test_what_verifies_is_what_applying_gives(text: str, first: str, second: str) -> None:
    disk = MemoryFileSystem({"/w/f": first.encode(), "/w/h": second.encode()})
    try:
        patch = parse_patch(text)
        shown = verify_patch(patch, "/w", disk)
    except ApplyPatchError:
        return
    result = apply_patch(patch, "/w", disk)
    if result.error is None and not any(
        isinstance(change, UpdateChange) and change.move_path is not None for change in shown.changes.values()
    ):
        for file in shown.files:
            assert disk.files.get(file.path) == (None if file.new_content is None else file.new_content.encode())
