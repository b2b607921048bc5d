"""Everything the engine's handles offer is there in the facades too, under the same names with the same parameters."""

from __future__ import annotations

import inspect

import pytest

import engine
import engine.aio
import engine.blocking

FACADES = [engine.aio, engine.blocking]
HANDLES = ["Engine", "Session", "Turn", "EventStream", "Threads"]
ITERATION = {"__aiter__": "__iter__", "__anext__": "__next__"}


def _members(cls: type) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(cls).items()
        if (not name.startswith("_") or name in (*ITERATION, *ITERATION.values()))
        and (callable(value) or isinstance(value, property))
    }


@pytest.mark.parametrize("facade", FACADES, ids=lambda module: module.__name__)
@pytest.mark.parametrize("handle", HANDLES)
def test_a_handle_offers_the_same(facade: object, handle: str) -> None:
    ours, theirs = _members(getattr(engine, handle)), _members(getattr(facade, handle))
    expected = {ITERATION.get(name, name) if facade is engine.blocking else name for name in ours}
    assert set(theirs) == expected
    for name, member in ours.items():
        twin = theirs[ITERATION.get(name, name) if facade is engine.blocking else name]
        assert isinstance(twin, property) == isinstance(member, property), name
        if not isinstance(member, property):
            _same_parameters(member, twin, name)


@pytest.mark.parametrize("facade", FACADES, ids=lambda module: module.__name__)
@pytest.mark.parametrize("name", ["open_engine", "open_threads"])
def test_what_opens_them_takes_the_same(facade: object, name: str) -> None:
    _same_parameters(getattr(engine, name), getattr(facade, name), name)


def _same_parameters(ours: object, theirs: object, name: str) -> None:
    assert callable(ours)
    assert callable(theirs)
    expected, found = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
    assert list(found) == list(expected), name
    for parameter in expected.values():
        twin = found[parameter.name]
        assert twin.kind == parameter.kind, (name, parameter.name)
        if parameter.name != "approve":  # the default refuses in each style's own way
            assert twin.default == parameter.default, (name, parameter.name)
