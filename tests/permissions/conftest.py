"""Both implementations of the policy arithmetic as one fixture."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

TWINS = {"c": "_speedups.projection", "python": "engine.permissions._projection_py"}


@pytest.fixture(params=list(TWINS))
def arithmetic(request: pytest.FixtureRequest) -> ModuleType:
    """The module: compiled (where it was built), then pure."""
    if request.param == "c":
        compiled: ModuleType = pytest.importorskip(TWINS["c"], reason="the compiled module was not built")
        return compiled
    return importlib.import_module(TWINS["python"])
