"""Picks compiled or pure implementations of the hot paths and tells which runs.

`ENGINE_PURE_PYTHON=1` forces the pure twins; without it a compiled module that is there is used.
A compiled module that is present but fails to import is an error, not a silent fallback.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType
from typing import Literal

__all__ = ["Implementation", "implementation", "load_twin", "pure_python_forced"]

Implementation = Literal["c", "python"]

COMPILED = ("_speedups.scan", "_speedups.projection")


def pure_python_forced() -> bool:
    """Whether the environment forbids compiled modules."""
    return os.environ.get("ENGINE_PURE_PYTHON", "") not in ("", "0")


def compiled_available() -> bool:
    """Whether all compiled modules were built, for a process uses all or none; looks for files, imports nothing."""
    return all(map(_is_built, COMPILED))


def _is_built(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None and not spec.origin.endswith((".py", ".pyx"))


def implementation() -> Implementation:
    """Which implementation this process uses: `"c"` or `"python"`."""
    return "c" if not pure_python_forced() and compiled_available() else "python"


def load_twin(compiled: str, pure: str) -> ModuleType:
    """The module to use of a pair of twins, e.g. `load_twin("_speedups.scan", "engine.rollout._scan_py")`."""
    return importlib.import_module(compiled if implementation() == "c" else pure)
