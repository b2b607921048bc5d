"""A value that an administrator constrains: it only ever holds what its validator accepts (permissions.md 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

from engine.errors import InvalidRequest
from engine.records import frozen

__all__ = ["Constrained", "ConstraintError", "EmptyField", "InvalidValue"]

T = TypeVar("T")
Validator = Callable[[T], None]
Normalizer = Callable[[T], T]


class ConstraintError(InvalidRequest):
    """A value that is not allowed here. Nothing was changed."""


class InvalidValue(ConstraintError):
    """The candidate is none of the allowed values; who says so is `requirement_source`."""

    def __init__(self, field_name: str, candidate: str, allowed: str, requirement_source: str) -> None:
        self.field_name = field_name
        self.candidate = candidate
        self.allowed = allowed
        self.requirement_source = requirement_source
        super().__init__(
            f"invalid value for `{field_name}`: `{candidate}` is not in the allowed set {allowed} "
            f"(set by {requirement_source})"
        )


class EmptyField(ConstraintError):
    """A list that must allow something allows nothing."""

    def __init__(self, field_name: str) -> None:
        self.field_name = field_name
        super().__init__(f"field `{field_name}` cannot be empty")


@frozen
class Constrained(Generic[T]):
    """A value and what it must satisfy. It never changes: `set` gives another one, so a refusal leaves all as it was.

    A validator raises `ConstraintError` (or its own error) for what it refuses.
    """

    value: T
    validator: Validator[T] = attrs.field(repr=False, eq=False)
    normalizer: Normalizer[T] | None = attrs.field(default=None, repr=False, eq=False)

    @classmethod
    def new(cls, value: T, validator: Validator[T], normalizer: Normalizer[T] | None = None) -> Constrained[T]:
        """A value that the validator accepts as it is. Raises what the validator raises."""
        validator(value)
        return cls(value, validator, normalizer)

    @classmethod
    def allow_any(cls, value: T) -> Constrained[T]:
        """A value that may become any other."""
        return cls(value, _accept)

    @classmethod
    def allow_only(
        cls, value: T, field_name: str = "value", requirement_source: str = "<unspecified>"
    ) -> Constrained[T]:
        """A value that may only become what equals it."""

        def validate(candidate: T) -> None:
            if candidate != value:
                raise InvalidValue(field_name, str(candidate), f"[{value}]", requirement_source)

        return cls(value, validate)

    def can_set(self, value: T) -> None:
        """Raises what the validator raises for `value` as it is, not normalised."""
        self.validator(value)

    def set(self, value: T) -> Constrained[T]:
        """The same constraint with another value, normalised first. Raises what the validator raises."""
        if self.normalizer is not None:
            value = self.normalizer(value)
        self.validator(value)
        return attrs.evolve(self, value=value)

    def with_validator(self, validator: Validator[T]) -> Constrained[T]:
        """The same value under one more constraint, which it must satisfy already. Raises what `validator` raises."""
        validator(self.value)
        first = self.validator

        def both(candidate: T) -> None:
            first(candidate)
            validator(candidate)

        return attrs.evolve(self, validator=both)


def _accept(value: object) -> None:
    """The constraint that is none."""
