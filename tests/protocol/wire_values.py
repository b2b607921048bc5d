"""Generates values of wire classes from their declarations, with fields and variants that nobody knows."""

from __future__ import annotations

import collections.abc
import functools
import types
import typing
from typing import Any

import attrs
from hypothesis import strategies as st

from engine.protocol.settings import TruncationPolicy
from engine.protocol.wire import UNWRITTEN, UnknownVariant, Wire

__all__ = ["UNKNOWN_TAG", "json_values", "values_of"]

UNKNOWN_TAG = "of_the_future"

# No lone surrogates: JSON text has no form for them.
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_integers = st.integers(-(2**40), 2**40)
json_values: st.SearchStrategy[object] = st.recursive(
    st.one_of(st.none(), st.booleans(), _integers, _texts),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(_texts, inner, max_size=2)),
    max_leaves=4,
)
_objects = st.dictionaries(st.sampled_from(["a", "b"]), json_values, max_size=2)
_strangers = st.dictionaries(st.sampled_from(["x_later", "x_other"]), json_values, max_size=1)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values that a field (or a whole) of type `kind` may have."""
    return st.deferred(lambda: _values_of(kind))


@functools.cache
def _values_of(kind: Any) -> st.SearchStrategy[Any]:
    simple = {str: _texts, int: _integers, bool: st.booleans(), float: st.floats(allow_nan=False, allow_infinity=False)}
    if kind in simple:
        return simple[kind]
    if kind is object or kind is Any:
        return json_values
    if kind is type(None):
        return st.none()
    if kind is UnknownVariant:
        return _objects.map(lambda fields: UnknownVariant({"type": UNKNOWN_TAG, **fields}))
    if isinstance(kind, typing.NewType):
        return values_of(kind.__supertype__)
    if isinstance(kind, type) and issubclass(kind, Wire):
        return _wire_values(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values_of(member) for member in arguments])
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (tuple, collections.abc.Sequence):
        return st.lists(values_of(arguments[0]), max_size=2).map(tuple)
    if origin in (dict, collections.abc.Mapping):
        return st.dictionaries(_texts, values_of(arguments[1]), max_size=2)
    raise NotImplementedError(f"no values for {kind!r}")


def _wire_values(cls: Any) -> st.SearchStrategy[Any]:
    attrs.resolve_types(cls)
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for field in attrs.fields(cls):
        if field.name == "extra":
            fields["extra"] = _strangers
        elif not field.metadata.get(UNWRITTEN):
            fields[field.name] = values_of(field.type)
    if cls is TruncationPolicy:
        fields["limit"] = st.integers(0, 2**40)
    return st.fixed_dictionaries(fields).map(lambda given: cls(**given))
