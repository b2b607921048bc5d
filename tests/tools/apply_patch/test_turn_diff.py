"""The net diff of a turn (tools.md 2.8)."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tools.apply_patch import (
    AppliedAdd,
    AppliedChange,
    AppliedDelete,
    AppliedUpdate,
    MemoryFileSystem,
    PatchDelta,
    TurnDiffTracker,
    apply_patch,
    parse_patch,
)


def blob(text: str | None) -> str:
    if text is None:
        return "0" * 40
    return hashlib.sha1(f"blob {len(text.encode())}\0{text}".encode()).hexdigest()


def edited(name: str, old: str, new: str, *, to: str | None = None) -> str:
    return (
        f"diff --git a/{name} b/{to or name}\nindex {blob(old)}..{blob(new)}\n--- a/{name}\n+++ b/{to or name}\n"
        f"@@ -1 +1 @@\n-{old}+{new}"
    )


def added(name: str, text: str) -> str:
    return (
        f"diff --git a/{name} b/{name}\nnew file mode 100644\nindex {blob(None)}..{blob(text)}\n"
        f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+{text}"
    )


def deleted(name: str, text: str) -> str:
    return (
        f"diff --git a/{name} b/{name}\ndeleted file mode 100644\nindex {blob(text)}..{blob(None)}\n"
        f"--- a/{name}\n+++ /dev/null\n@@ -1 +0,0 @@\n-{text}"
    )


def moved(name: str, to: str) -> str:
    return f"diff --git a/{name} b/{to}\nsimilarity index 100%\nrename from {name}\nrename to {to}\n"


def add(name: str, text: str, over: str | None = None) -> AppliedAdd:
    return AppliedAdd(f"/w/{name}", text, over)


def delete(name: str, text: str) -> AppliedDelete:
    return AppliedDelete(f"/w/{name}", text)


def update(name: str, old: str, new: str, to: str | None = None, over: str | None = None) -> AppliedUpdate:
    return AppliedUpdate(f"/w/{name}", old, new, None if to is None else f"/w/{to}", over)


@pytest.mark.parametrize(
    ("changes", "diff"),
    [
        ([update("f", "a\n", "b\n")], edited("f", "a\n", "b\n")),
        ([update("f", "a\n", "b\n"), update("f", "b\n", "c\n")], edited("f", "a\n", "c\n")),
        ([update("f", "a\n", "b\n"), update("f", "b\n", "a\n")], ""),
        # Somebody else wrote in between: the turn is still judged by its own first and last text.
        ([update("f", "a\n", "b\n"), update("f", "zz\n", "c\n")], edited("f", "a\n", "c\n")),
        ([add("f", "a\n")], added("f", "a\n")),
        ([add("f", "b\n", "a\n")], edited("f", "a\n", "b\n")),
        ([add("f", "a\n"), delete("f", "a\n")], ""),
        ([delete("f", "a\n")], deleted("f", "a\n")),
        ([delete("f", "a\n"), add("f", "a\n")], ""),
        ([delete("f", "a\n"), add("g", "a\n")], deleted("f", "a\n") + added("g", "a\n")),
        # Moves: source and destination share a block while the destination is new and the source gone.
        ([update("f", "a\n", "b\n", "g")], edited("f", "a\n", "b\n", to="g")),
        ([update("f", "a\n", "a\n", "g")], moved("f", "g")),
        ([update("f", "a\n", "a\n", "g"), update("g", "a\n", "b\n", "h")], edited("f", "a\n", "b\n", to="h")),
        ([update("f", "a\n", "b\n"), update("f", "b\n", "b\n", "h")], edited("f", "a\n", "b\n", to="h")),
        ([update("f", "a\n", "a\n", "h"), update("h", "a\n", "b\n")], edited("f", "a\n", "b\n", to="h")),
        ([update("f", "a\n", "b\n", "g"), update("g", "b\n", "a\n", "f")], ""),
        ([update("f", "a\n", "b\n", "g"), update("g", "b\n", "c\n", "f")], edited("f", "a\n", "c\n")),
        ([update("f", "a\n", "b\n", "g", "old\n")], deleted("f", "a\n") + edited("g", "old\n", "b\n")),
        ([update("f", "a\n", "b\n", "g"), add("f", "n\n")], edited("f", "a\n", "n\n") + added("g", "b\n")),
        ([update("f", "a\n", "b\n", "g"), delete("g", "b\n")], deleted("f", "a\n")),
        ([update("f", "a\n", "b\n", "g"), add("g", "x\n", "b\n")], deleted("f", "a\n") + added("g", "x\n")),
        ([add("g", "x\n"), update("g", "x\n", "y\n", "h")], added("h", "y\n")),
        ([add("g", "x\n"), update("f", "a\n", "b\n", "g", "x\n")], edited("f", "a\n", "b\n", to="g")),
        (
            [update("f", "a\n", "b\n", "g"), update("h", "a\n", "b\n", "g", "b\n")],
            deleted("f", "a\n") + edited("h", "a\n", "b\n", to="g"),
        ),
        (
            [update("f", "a\n", "b\n", "g"), update("g", "b\n", "c\n", "k"), add("g", "n\n")],
            edited("f", "a\n", "c\n", to="k") + added("g", "n\n"),
        ),
        (
            [update("f", "a\n", "b\n", "g"), add("f", "q\n"), update("f", "q\n", "r\n", "h")],
            edited("f", "a\n", "r\n", to="h") + added("g", "b\n"),
        ),
        # In the order of the paths as shown, a moved file in its source's place.
        (
            [update("z", "a\n", "b\n", "a"), add("b/x", "1\n"), add("b.x", "1\n"), add("B", "1\n"), add("ü", "1\n")],
            added("B", "1\n")
            + added("b.x", "1\n")
            + added("b/x", "1\n")
            + edited("z", "a\n", "b\n", to="a")
            + added("ü", "1\n"),
        ),
    ],
)
def test_net_diff(changes: list[AppliedChange], diff: str) -> None:
    together, one_by_one = TurnDiffTracker("/w"), TurnDiffTracker("/w")
    together.record(PatchDelta(tuple(changes)))
    for change in changes:
        one_by_one.record(PatchDelta((change,)))
    assert together.unified_diff() == one_by_one.unified_diff() == diff


def test_an_empty_file_has_a_header_and_no_hunks() -> None:
    tracker = TurnDiffTracker("/w")
    tracker.record(PatchDelta((add("f", ""),)))
    assert tracker.unified_diff() == (
        "diff --git a/f b/f\nnew file mode 100644\n"
        "index 0000000000000000000000000000000000000000..e69de29bb2d1d6434b8b29ae775ad8c2e48c5391\n"
    )


def test_paths_outside_the_root_are_shown_whole() -> None:
    tracker = TurnDiffTracker("/w/repo")
    tracker.record(PatchDelta((add("other", "1\n"),)))
    assert (tracker.unified_diff() or "").startswith("diff --git a//w/other b//w/other\n")
    assert (tracker.unified_diff("/w") or "").startswith("diff --git a/other b/other\n")


def test_nothing_recorded_is_not_the_same_as_nothing_changed() -> None:
    tracker = TurnDiffTracker("/w")
    assert tracker.unified_diff() is None
    tracker.record(PatchDelta())
    assert tracker.unified_diff() is None
    tracker.record(PatchDelta((update("f", "a\n", "a\n"),)))
    assert tracker.unified_diff() == ""


def test_events_follow_the_diff_and_say_when_it_is_gone() -> None:
    tracker = TurnDiffTracker("/w")
    assert tracker.announce(PatchDelta()) is None
    assert tracker.announce(PatchDelta((update("f", "a\n", "a\n"),))) is None
    assert tracker.announce(PatchDelta((update("f", "a\n", "b\n"),))) == edited("f", "a\n", "b\n")
    assert tracker.announce(PatchDelta((update("f", "b\n", "a\n"),))) == ""
    assert tracker.announce(PatchDelta((add("g", "x\n"),))) == added("g", "x\n")
    assert tracker.announce(PatchDelta(exact=False)) == ""
    assert tracker.announce(PatchDelta((add("h", "x\n"),))) is None
    assert not tracker.exact
    assert tracker.unified_diff() == ""


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "delete", "update", "move"]),
        st.sampled_from("fgh"),
        st.sampled_from("fgh"),
        st.integers(),
    ),
    max_size=8,
)


@given(STEPS)
def test_the_diff_names_exactly_the_files_that_differ(steps: list[tuple[str, str, str, int]]) -> None:
    before = {"/w/f": b"f\n", "/w/g": b"g\n"}
    disk = MemoryFileSystem(before)
    tracker = TurnDiffTracker("/w")
    for kind, name, other, number in steps:
        lines = {
            "add": [f"*** Add File: {name}", f"+{number}"],
            "delete": [f"*** Delete File: {name}"],
            "update": [f"*** Update File: {name}", f"+{number}"],
            "move": [f"*** Update File: {name}", f"*** Move to: {other}", f"+{number}"],
        }[kind]
        patch = parse_patch("\n".join(["*** Begin Patch", *lines, "*** End Patch"]))
        tracker.record(apply_patch(patch, "/w", disk).delta)
    diff = tracker.unified_diff() or ""
    named = {
        path
        for line in diff.splitlines()
        if line.startswith("diff --git ")
        for path in (line.split()[2][2:], line.split()[3][2:])
    }
    changed = {path for path in before | disk.files if before.get(path) != disk.files.get(path)}
    assert {f"/w/{name}" for name in named} == changed
