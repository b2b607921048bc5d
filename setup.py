"""Builds the compiled twins. Everything else about the package stands in pyproject.toml.

``ENGINE_PURE_PYTHON=1`` skips them; a machine without a compiler gets the pure twins and is told so.
"""

import os
import platform
import sys

from setuptools import Extension, setup

MODULES = ["projection", "scan"]


def extensions() -> list[Extension]:
    if os.environ.get("ENGINE_PURE_PYTHON", "") not in ("", "0") or platform.python_implementation() != "CPython":
        print("session-engine: pure Python build", file=sys.stderr)
        return []
    from Cython.Build import cythonize

    present = [name for name in MODULES if os.path.exists(os.path.join("_speedups", f"{name}.pyx"))]
    built: list[Extension] = cythonize(
        [Extension(f"_speedups.{name}", [f"_speedups/{name}.pyx"]) for name in present],
        compiler_directives={"language_level": "3"},
        quiet=True,
    )
    for extension in built:
        extension.optional = True  # cythonize() drops the flag given to Extension()
    print("session-engine: compiled build (falls back to pure Python without a C compiler)", file=sys.stderr)
    return built


setup(ext_modules=extensions())
