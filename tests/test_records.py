"""Classes built later are the classes attrs makes at once: the same in every way that can be seen."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import records
from engine.protocol.wire import Wire

T = TypeVar("T")
Maker = Callable[..., Any]


def waits(cls: type) -> bool:
    """Whether attrs has not built the class yet."""
    return type(cls.__dict__["__init__"]).__name__ == "_Placeholder"


def point(decorate: Maker, **arguments: object) -> Any:
    @decorate(**arguments)
    class Point:
        """A place."""

        unit: ClassVar[str] = "m"
        x: int
        y: int = 0
        names: list[str] = attrs.field(factory=list)
        far: bool = attrs.field(init=False, default=False)

        @property
        def size(self) -> int:
            return abs(self.x) + abs(self.y)

        def moved(self, by: int) -> Any:
            return attrs.evolve(self, x=self.x + by)  # type: ignore[misc]  # it depends on `decorate`

    return Point


PAIRS = [
    pytest.param(attrs.frozen, records.frozen, {}, id="frozen"),
    pytest.param(attrs.frozen, records.frozen, {"kw_only": True}, id="frozen-kw_only"),
    pytest.param(attrs.frozen, records.frozen, {"eq": False}, id="frozen-eq"),
    pytest.param(attrs.frozen, records.frozen, {"repr": False}, id="frozen-repr"),
    pytest.param(attrs.define, records.define, {}, id="define"),
    pytest.param(attrs.define, records.define, {"eq": False, "kw_only": True}, id="define-eq-kw_only"),
]


def members(cls: type) -> dict[str, object]:
    """What a class has, in a form that can be compared."""
    seen: dict[str, object] = {}
    for name in sorted({*dir(cls)} - {"__recipe__", "__attrs_props__", "__attrs_base_of_slotted__"}):
        found = inspect.getattr_static(cls, name)
        seen[name] = found if isinstance(found, str | int | tuple) else type(found).__name__
    return seen


@pytest.mark.parametrize(("at_once", "later", "arguments"), PAIRS)
def test_a_class_built_later_has_the_members_of_one_built_at_once(
    at_once: Maker, later: Maker, arguments: Mapping[str, object]
) -> None:
    one, two = point(at_once, **arguments), point(later, **arguments)
    repr(two(x=1)), two(x=1) == two(x=1)
    assert members(two) == members(one)
    assert str(inspect.signature(two)) == str(inspect.signature(one))
    assert attrs.fields(two) == attrs.fields(one)


@pytest.mark.parametrize(("at_once", "later", "arguments"), PAIRS)
@pytest.mark.parametrize(
    "act",
    [
        lambda cls: repr(cls(x=1, y=2)).partition(" object at ")[0],
        lambda cls: cls(x=1) == cls(x=1),
        lambda cls: cls(x=1) != cls(x=2),
        lambda cls: cls(x=1) == 1,
        lambda cls: len({cls(x=1, names=()), cls(x=1, names=())}),
        lambda cls: cls.__hash__ is None,
        lambda cls: cls.__match_args__,
        lambda cls: [field.name for field in attrs.fields(cls)],
        lambda cls: attrs.has(cls),
        lambda cls: attrs.asdict(cls(x=1)),
        lambda cls: cls(x=1).moved(4).x,
        lambda cls: cls(x=1, y=-4).size,
        lambda cls: setattr(cls(x=1), "x", 2),
        lambda cls: delattr(cls(x=1), "x"),
        lambda cls: setattr(cls(x=1), "new", 2),
        lambda cls: cls(x=1).__dict__,
        lambda cls: cls(),
        lambda cls: cls(1, 2, [], True, False),
        lambda cls: cls(1, 2).y,
        lambda cls: cls(x=1, nothing=2),
        lambda cls: cls.unit + str(cls.__doc__),
        lambda cls: weakref.ref(cls(x=1))(),
        lambda cls: copy.copy(cls(x=1, y=7)).y,
        lambda cls: copy.deepcopy(cls(x=1, names=["a"])).names,
        lambda cls: isinstance(cls(x=1), cls),
        lambda cls: cls.__name__ + cls.__module__,
        lambda cls: cls.__setattr__ is object.__setattr__,
        lambda cls: object.__new__(cls).x,
        lambda cls: cls.nothing,
    ],
)
def test_the_first_use_of_either_does_the_same(
    at_once: Maker, later: Maker, arguments: Mapping[str, object], act: Callable[[Any], object]
) -> None:
    def outcome(decorate: Maker) -> object:
        try:
            return act(point(decorate, **arguments))
        except Exception as exc:
            return type(exc), str(exc)

    assert outcome(later) == outcome(at_once)


def family(decorate: Maker) -> tuple[Any, ...]:
    @decorate
    class Base(Generic[T]):
        a: int
        extra: str = attrs.field(default="", kw_only=True, repr=False)

    @decorate
    class Middle(Base[T]):
        b: int = 5

        def __repr__(self) -> str:
            return f"<{self.a} {self.b}>"

    @decorate(eq=False)
    class Last(Middle[int]):
        b: int = 6
        c: int = 7

        def __attrs_post_init__(self) -> None:
            object.__setattr__(self, "a", self.a + self.c)

    class Plain(Last):
        def __init__(self, a: int) -> None:
            super().__init__(a, c=a)  # type: ignore[call-arg]

    return Base, Middle, Last, Plain


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize(
    "act",
    [
        lambda cls: repr(cls(1)).partition("Base")[2],
        lambda cls: cls(1) == cls(1),
        lambda cls: [(field.name, field.default, field.inherited) for field in attrs.fields(cls)],
        lambda cls: cls.__match_args__,
        lambda cls: cls.__dict__.get("__slots__"),
        lambda cls: [getattr(cls(1), name) for name in cls.__match_args__],
        lambda cls: setattr(cls(1), "a", 2),
        lambda cls: [base.__name__ for base in cls.__mro__],
    ],
)
def test_families_behave_the_same(at: int, act: Callable[[Any], object]) -> None:
    def outcome(decorate: Maker) -> object:
        try:
            return act(family(decorate)[at])
        except Exception as exc:
            return type(exc), str(exc)

    assert outcome(records.frozen) == outcome(attrs.frozen)


def test_nothing_is_built_before_it_is_used_and_bases_with_what_is_below_them() -> None:
    base, middle, last, _ = family(records.frozen)
    assert all(map(waits, (base, middle, last)))
    assert issubclass(middle, base)
    assert waits(middle)
    middle(1)
    assert not waits(base)
    assert not waits(middle)
    assert waits(last)


def test_showing_and_comparing_come_later_still() -> None:
    cls = point(records.frozen)
    cls(1)
    assert not waits(cls)
    assert type(cls.__dict__["__eq__"]).__name__ == "_Placeholder"
    assert cls(1) == cls(1)
    assert type(cls.__dict__["__eq__"]).__name__ == "function"
    assert type(cls.__dict__["__repr__"]).__name__ == "function"


def test_a_class_that_uses_super_is_built_at_once() -> None:
    @records.frozen
    class Loud(Wire):
        text: str

        def __attrs_post_init__(self) -> None:
            object.__setattr__(self, "text", self.text.upper())

        def __str__(self) -> str:
            return super().__str__() + "!"

    assert not waits(Loud)
    assert str(Loud("hi")).endswith("(text='HI')!")


def test_cached_properties_are_attrs_affair() -> None:
    @records.frozen
    class Slow:
        number: int

        @functools.cached_property
        def double(self) -> int:
            return self.number * 2

    assert Slow(2).double == 4


def test_a_mutable_class_below_a_frozen_one_is_frozen_as_attrs_has_it() -> None:
    base = point(records.frozen)

    @records.define
    class Below(base):  # type: ignore[misc,valid-type]
        z: int = 0

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Below(1).z = 2


@records.frozen
class Parcel:
    """At module level, so that pickle finds it."""

    to: str
    weight: int = 1
    note: str | None = None


@given(st.text(), st.integers(), st.none() | st.text())
def test_instances_survive_copies_and_pickles(to: str, weight: int, note: str | None) -> None:
    parcel = Parcel(to, weight, note)
    for twin in (copy.copy(parcel), copy.deepcopy(parcel), pickle.loads(pickle.dumps(parcel)), attrs.evolve(parcel)):
        assert twin == parcel
        assert repr(twin) == repr(parcel)
    assert attrs.evolve(parcel, weight=weight + 1) != parcel


def test_a_pickle_may_be_the_first_thing_a_process_sees() -> None:
    text = pickle.dumps(Parcel("me", 3)).hex()
    program = f"import pickle; print(pickle.loads(bytes.fromhex({text!r})))"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout == "Parcel(to='me', weight=3, note=None)\n"


def test_threads_may_meet_at_the_first_use() -> None:
    for _ in range(20):
        cls = point(records.frozen)
        gate = threading.Barrier(4)
        seen: list[object] = []

        def use(cls: Any = cls, gate: threading.Barrier = gate, seen: list[object] = seen) -> None:
            gate.wait()
            seen.append((cls(1) == cls(1), attrs.fields(cls)))

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 4
        assert all(one == (True, attrs.fields(cls)) for one in seen)
        assert len({id(one[1]) for one in seen if isinstance(one, tuple)}) == 1
