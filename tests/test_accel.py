"""Which implementation runs: all compiled modules, or none."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from engine import accel


def test_a_partial_build_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENGINE_PURE_PYTHON", raising=False)
    monkeypatch.setattr(accel, "COMPILED", ("_speedups.scan", "_speedups.never_built"))
    assert accel.implementation() == "python"
    chosen = accel.load_twin("_speedups.never_built", "engine.permissions._projection_py")
    assert isinstance(chosen, ModuleType)
    assert chosen is sys.modules["engine.permissions._projection_py"]


def test_the_environment_forces_the_pure_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    for forced, implementation in (("1", "python"), ("yes", "python")):
        monkeypatch.setenv("ENGINE_PURE_PYTHON", forced)
        assert accel.implementation() == implementation
    monkeypatch.setenv("ENGINE_PURE_PYTHON", "0")
    assert accel.implementation() == ("c" if accel.compiled_available() else "python")
