"""Constrained values: what they accept, and that a refusal changes nothing."""

from __future__ import annotations

import pytest

from engine.errors import InvalidRequest
from engine.permissions.constrained import Constrained, EmptyField, InvalidValue


def small(value: int) -> None:
    if value > 9:
        raise InvalidValue("size", str(value), "0..9", "the test")


def even(value: int) -> None:
    if value % 2:
        raise InvalidValue("size", str(value), "even ones", "the test")


def test_a_value_satisfies_its_validator_from_the_start() -> None:
    made = Constrained.new(3, small)
    assert made.set(4).value == 4
    with pytest.raises(InvalidValue):
        Constrained.new(10, small)
    with pytest.raises(InvalidValue):
        made.set(10)
    assert made.value == 3
    made.can_set(5)
    with pytest.raises(InvalidValue):
        made.can_set(10)


def test_values_are_normalised_before_they_are_validated_but_only_by_set() -> None:
    made = Constrained.new(3, small, lambda value: value % 10)
    assert made.set(14).value == 4
    with pytest.raises(InvalidValue):
        made.can_set(14)


def test_one_more_validator_must_hold_already() -> None:
    made = Constrained.new(4, small).with_validator(even)
    for refused in (5, 10):
        with pytest.raises(InvalidValue):
            made.set(refused)
    assert made.set(6).value == 6
    with pytest.raises(InvalidValue):
        Constrained.new(3, small).with_validator(even)


def test_any_and_only() -> None:
    assert Constrained.allow_any("a").set("b").value == "b"
    only = Constrained.allow_only("a", "letter", "the test")
    assert only.set("a") == only
    with pytest.raises(InvalidValue) as caught:
        only.set("b")
    assert str(caught.value) == "invalid value for `letter`: `b` is not in the allowed set [a] (set by the test)"


def test_errors_are_for_callers() -> None:
    error = InvalidValue("field", "x", "[y]", "somebody")
    assert (error.field_name, error.candidate, error.allowed, error.requirement_source) == (
        "field",
        "x",
        "[y]",
        "somebody",
    )
    assert str(EmptyField("field")) == "field `field` cannot be empty"
    assert isinstance(error, InvalidRequest)
