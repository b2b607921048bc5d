"""Both scanners as one fixture."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

TWINS = {"c": "_speedups.scan", "python": "engine.rollout._scan_py"}


@pytest.fixture(params=list(TWINS))
def scanner(request: pytest.FixtureRequest) -> ModuleType:
    """The scanner module: compiled (where it was built), then pure."""
    if request.param == "c":
        compiled: ModuleType = pytest.importorskip(TWINS["c"], reason="the compiled scanner was not built")
        return compiled
    return importlib.import_module(TWINS["python"])
