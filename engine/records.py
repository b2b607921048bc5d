"""`attrs.frozen` and `attrs.define` for classes that attrs builds when they are first used, not when they are imported.

attrs generates and compiles the methods of every class it makes: about half a millisecond each, for some three hundred
classes, of which a process that starts a session uses a few dozen (docs/decisions.md has the figures). Here the class
statement only makes the class: its slots, and placeholders where attrs puts methods. The first look at one of those (a
first instance, `attrs.fields`, a comparison) lets attrs build the same class and moves its methods over; from then on
nothing differs from a class that attrs made at once. Checkers see attrs' own decorators.

`repr`, `eq` and `hash` come in a second step, because most classes never need them.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

import attrs

__all__ = ["define", "frozen"]

_FIRST = (
    *("__init__", "__attrs_attrs__", "__attrs_props__", "__match_args__"),
    *("__setattr__", "__delattr__", "__setstate__"),
)
_SECOND = ("__repr__", "__eq__", "__ne__", "__hash__")
# What else attrs makes: to look at it takes an instance, and making one has built the class.
_UNSEEN = ("__getstate__", "__replace__", "__attrs_own_setattr__")

_lock = threading.RLock()  # two threads may use a class first; a build looks at the bases, which builds them


class _Recipe:
    """How to build a class: what its statement made, attrs' decorator, and the decorator's arguments."""

    __slots__ = ("arguments", "body", "decorate")

    def __init__(self, body: type, decorate: Callable[..., type], arguments: Mapping[str, Any]) -> None:
        self.body, self.decorate, self.arguments = body, decorate, arguments


class _Placeholder:
    """Stands in a class for what `complete` puts in its place."""

    __slots__ = ("complete", "name")

    def __init__(self, name: str, complete: Callable[[type], None]) -> None:
        self.name, self.complete = name, complete

    def __get__(self, instance: object, owner: type) -> Any:
        mro = owner.__mro__
        here = next((cls for cls in mro if cls.__dict__.get(self.name) is self), None)
        if here is None:  # another thread was faster
            return getattr(owner if instance is None else instance, self.name)
        self.complete(here)
        for cls in mro[mro.index(here) :]:
            if self.name in cls.__dict__:
                made = cls.__dict__[self.name]
                return made.__get__(instance, owner) if hasattr(type(made), "__get__") else made
        raise AttributeError(self.name)  # this attrs does not make it


def _build(cls: type) -> None:
    """Adds what making an instance takes."""
    with _lock:
        if not isinstance(cls.__dict__.get("__attrs_attrs__"), _Placeholder):
            return
        for base in cls.__mro__[:0:-1]:  # attrs asks whether a base is frozen before it asks for its fields
            _build(base)
        recipe: _Recipe = cls.__dict__["__recipe__"]
        made = recipe.decorate(recipe.body, **{**recipe.arguments, "repr": False, "eq": False})
        _move(made, cls, *_UNSEEN, *_FIRST)


def _build_rest(cls: type) -> None:
    """Adds what showing, comparing and hashing take."""
    with _lock:
        _build(cls)
        recipe: _Recipe | None = cls.__dict__["__recipe__"]
        if recipe is not None:
            _move(recipe.decorate(recipe.body, **recipe.arguments), cls, *_SECOND)
            type.__setattr__(cls, "__recipe__", None)


def _move(made: type, cls: type, *names: str) -> None:
    for name in names:
        if name in made.__dict__:
            type.__setattr__(cls, name, made.__dict__[name])
        elif name in cls.__dict__:
            type.__delattr__(cls, name)  # the bases have it


_PLACEHOLDERS: Mapping[str, object] = {
    **{name: _Placeholder(name, _build) for name in _FIRST},
    **{name: _Placeholder(name, _build_rest) for name in _SECOND},
}


def _outline(cls: type, decorate: Callable[..., type], arguments: Mapping[str, Any]) -> type:
    """The class as attrs would make it, but for the methods."""
    body = dict(cls.__dict__)
    if any(map(_knows_its_class, body.values())):
        return decorate(cls, **arguments)
    fields = [name for name, kind in body.get("__annotations__", {}).items() if not _is_class_variable(kind)]
    for name in (*fields, "__dict__", "__weakref__"):
        body.pop(name, None)
    bases = cls.__mro__[1:-1]
    inherited = {name for base in bases for name in getattr(base, "__slots__", ())}
    weak = () if any("__weakref__" in base.__dict__ for base in bases) else ("__weakref__",)
    outline = {**_PLACEHOLDERS, **body}
    if arguments.get("eq") is False:
        for name in ("__eq__", "__ne__", "__hash__"):
            if name not in body:
                del outline[name]
    elif decorate is attrs.define and "__hash__" not in body:
        outline["__hash__"] = None
    outline["__slots__"] = (*(name for name in fields if name not in inherited), *weak)
    outline["__qualname__"] = cls.__qualname__
    outline["__recipe__"] = _Recipe(cls, decorate, arguments)
    return type(cls)(cls.__name__, cls.__bases__, outline)


def _knows_its_class(value: object) -> bool:
    """Whether a method uses `super()` or `__class__`, or attrs has to look into it: then attrs builds at once."""
    kind = type(value)
    if kind is FunctionType:
        return "__class__" in value.__code__.co_freevars  # type: ignore[attr-defined]
    if kind is property:
        return _knows_its_class(value.fget)  # type: ignore[attr-defined]
    if kind is staticmethod or kind is classmethod:
        return _knows_its_class(value.__func__)  # type: ignore[attr-defined]
    return kind is functools.cached_property


def _is_class_variable(annotation: object) -> bool:
    return str(annotation).startswith(("ClassVar", "typing.ClassVar"))


if TYPE_CHECKING:
    from attrs import define as define
    from attrs import frozen as frozen
else:

    def frozen(cls=None, /, **arguments):
        """`attrs.frozen`; for classes with slots."""
        return functools.partial(frozen, **arguments) if cls is None else _outline(cls, attrs.frozen, arguments)

    def define(cls=None, /, **arguments):
        """`attrs.define`; for classes with slots."""
        return functools.partial(define, **arguments) if cls is None else _outline(cls, attrs.define, arguments)
