"""The rules by which recorded values are compared with real ones."""

from __future__ import annotations

from tests.vectors.placeholders import Comparison

ONE = "01900000-0000-7000-8000-000000000001"
TWO = "01900000-0000-7000-8000-000000000002"
REAL = "0198b4a5-1c2d-7e3f-8a9b-0c1d2e3f4a5b"
OTHER = "0198b4a5-1c2d-7e3f-8a9b-0c1d2e3f4a5c"


def test_ids_are_paired_by_first_appearance() -> None:
    comparison = Comparison()
    assert comparison.matches({"a": ONE, "b": f"thread {TWO}."}, {"a": REAL, "b": f"thread {OTHER}."})
    assert comparison.matches(ONE, REAL)
    assert not comparison.matches(ONE, OTHER)
    assert not comparison.matches(TWO, REAL)
    assert not comparison.matches(ONE, "no id")


def test_values_are_compared_by_type_and_value() -> None:
    matches = Comparison().matches
    assert matches({"a": [1, None, True]}, {"a": [1, None, True]})
    assert not matches(1, True)
    assert not matches(1, 1.0)
    assert not matches([1], [1, 2])
    assert not matches({"a": 1}, {"a": 1, "b": 2})
    assert not matches({"a": 1, "b": 2}, {"a": 1})


def test_free_texts_are_not_compared() -> None:
    matches = Comparison().matches
    assert matches("<free text>", "anything")
    assert matches("URL", "http://h")
    assert matches("boom: <free text>", "boom: really")
    assert not matches("boom: <free text>", "bang")
    assert matches("expected one of `a`", "expected one of `b`, `c`")


def test_an_older_recording_says_less() -> None:
    old, new = Comparison(older=True), Comparison()
    warning = {"type": "item.completed", "item": {"id": "item_0", "type": "error"}}
    recorded = [{"type": "item.started", "item": {"id": "item_0", "type": "todo_list"}}]
    ours = [warning, {"type": "item.started", "item": {"id": "item_1", "type": "todo_list"}}]
    old.same_lines("stdout", recorded, ours)
    new.same_lines("stdout", recorded, ours)
    assert not old.expected
    assert new.expected
    assert old.matches({"input_tokens": 1}, {"input_tokens": 1, "cache_write_input_tokens": 0})


def test_differences_are_named_and_missing_lines_shown() -> None:
    comparison = Comparison()
    comparison.same_lines("stdout", [{"type": "a"}, {"type": "b"}], [{"type": "a"}])
    comparison.same("exit", 0, 1)
    comparison.same("exit", 0, 2)
    assert comparison.expected == {"stdout from line 2": [{"type": "b"}], "exit": 0, "exit'": 0}
    assert comparison.got == {"stdout from line 2": [], "exit": 1, "exit'": 2}
