"""Editing a document: the text reads as the edited table, and what no edit is about stays as it was written."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.editing import ConfigEdit, edited_table, edited_text
from engine.config.key_paths import format_key_path
from engine.config.merge import merge
from tests.config.documents import Document, documents, values


def edit(path: str, value: object, **more: Any) -> ConfigEdit:
    return ConfigEdit(path, value, **more)


BEFORE = """\
# mine
model = "a" # the good one
# about features
[features]
# on purpose
hooks = true
goals = false # not yet

# the projects
[projects."/p"]
trust_level = "trusted"
"""


@pytest.mark.parametrize(
    ("before", "edits", "after"),
    [
        ("", [edit("model", "b")], 'model = "b"\n'),
        ('model = "a"', [edit("model", "b")], 'model = "b"\n'),
        ("", [edit('projects."/x.y".trust_level', "trusted")], '[projects."/x.y"]\ntrust_level = "trusted"\n'),
        ("", [edit("a.b", None)], ""),
        (BEFORE, [edit("model", "b")], BEFORE.replace('"a"', '"b"')),
        (BEFORE, [edit("review_model", "r")], BEFORE.replace("one\n", 'one\nreview_model = "r"\n')),
        (BEFORE, [edit("features.shell_tool", True)], BEFORE.replace("yet\n", "yet\nshell_tool = true\n")),
        (BEFORE, [edit("features.goals", None)], BEFORE.replace("goals = false # not yet\n", "")),
        (BEFORE, [edit("features", {"goals": True}, merge_strategy="upsert")], BEFORE.replace("= false", "= true")),
        (BEFORE, [edit("features", {"hooks": True})], BEFORE.replace("goals = false # not yet\n", "")),
        (BEFORE, [edit("tui.theme", "x")], BEFORE + '\n[tui]\ntheme = "x"\n'),
        (BEFORE, [edit("features.hooks", True)], BEFORE),
        ("n = { a = 1 } # x\nm = 2\n", [edit("n.b", 2)], "n = { a = 1, b = 2} # x\nm = 2\n"),
        ("features = 1\nm = 2\n", [edit("features.x.y", True)], "m = 2\n\n[features.x]\ny = true\n"),
        ("a.b = 1 # x\nc = 2\n", [edit("a.d.e", 3)], "a.b = 1 # x\nc = 2\n\n[a.d]\ne = 3\n"),
        ("a.b = 1 # x\nc = 2\n", [edit("a.d", 3)], "a.b = 1 # x\na.d = 3\nc = 2\n"),
    ],
)
def test_only_what_an_edit_is_about_is_written_anew(before: str, edits: list[ConfigEdit], after: str) -> None:
    assert edited_text(before, edits) == after
    assert tomllib.loads(after) == edited_table(tomllib.loads(before), edits)


def test_edits_see_those_before_them() -> None:
    edits = [edit("a", {"x": 1}), edit("a", {"y": 2}, merge_strategy="upsert"), edit("a.x", None), edit("b", 1)]
    assert edited_table({}, edits) == {"a": {"y": 2}, "b": 1}
    assert tomllib.loads(edited_text("", edits)) == {"a": {"y": 2}, "b": 1}


def test_a_table_is_left_as_it_is() -> None:
    table: dict[str, Any] = {"a": {"b": 1}}
    assert edited_table(table, [edit("a.b", 2)]) == {"a": {"b": 2}}
    assert table == {"a": {"b": 1}}


def test_a_value_without_notation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the value of `a\.b` can't be written"):
        edited_text("x = 1\n", [edit("a.b", object())])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Document, list[ConfigEdit]]:
    """A document, and edits of keys that are there and of others."""
    document = draw(documents())
    known = [tuple(map(str, path)) for path in document.places if all(isinstance(part, str) and part for part in path)]
    free = st.lists(st.sampled_from(["a", "b", "new", "x.y"]), min_size=1, max_size=3).map(tuple)
    paths = st.one_of(free, st.sampled_from(known)) if known else free
    made = [
        ConfigEdit(
            format_key_path(draw(paths)),
            draw(st.one_of(st.none(), values)),
            draw(st.sampled_from(["replace", "upsert"])),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    return document, made


@given(cases())
def test_the_text_reads_as_the_edited_table(case: tuple[Document, list[ConfigEdit]]) -> None:
    document, edits = case
    assert tomllib.loads(edited_text(document.text, edits)) == edited_table(document.table, edits)


@given(documents())
def test_no_change_leaves_the_text_alone(document: Document) -> None:
    edits = [ConfigEdit(format_key_path((key,)), value) for key, value in document.table.items() if key]
    whole = document.text if not document.text or document.text.endswith("\n") else document.text + "\n"
    assert edited_text(document.text, edits) == whole


@given(documents(), st.dictionaries(st.sampled_from(["a", "b"]), values))
def test_upsert_merges_as_layers_do(document: Document, value: dict[str, Any]) -> None:
    below = {"t": {"a": {"k": 1}, "c": 2}}
    assert edited_table(below, [edit("t", value, merge_strategy="upsert")]) == merge(below, {"t": value})
