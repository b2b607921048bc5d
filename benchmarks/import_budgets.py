"""Which modules a fresh process may have loaded at some moments: the lists of bench.toml, and what breaks them.

A clock says how long a start took on this machine today; a list of modules says why, and never changes by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from benchmarks.plan import BENCH_TOML

__all__ = ["ImportBudget", "Loaded", "load_import_budgets", "loaded_by", "loaded_until_output"]

_OPTIONAL: Final = "?"

# Notes who asks for each module first. `_snapshot()` writes what is loaded to the descriptor that it is told.
_WATCH: Final = """
import os, sys
_asked = {}
class _Watch:
    @staticmethod
    def find_spec(name, path=None, target=None):
        frame = sys._getframe(1)
        while frame is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if frame is not None:
            _asked.setdefault(name, f"{frame.f_globals.get('__name__')}, line {frame.f_lineno}")
sys.meta_path.insert(0, _Watch)
def _snapshot():
    names = list(sys.modules)
    import json
    text = json.dumps({name: _asked.get(name, "the interpreter") for name in names})
    with open(_answer, "w") as file:
        file.write(text)
_answer = int(sys.argv.pop(1))
"""
_RUN: Final = "\n_code = sys.argv[1]\nexec(_code, {'__name__': 'the program'})\n_snapshot()\n"
# Ends the process with its first line of output.
_UNTIL_OUTPUT: Final = """
class _Output:
    def __init__(self): self.buffer = self
    def write(self, data):
        _snapshot()
        os._exit(0)
    def flush(self): pass
    def isatty(self): return False
    def fileno(self): return 1
sys.stdout = _Output()
from engine.__main__ import main
main()
"""


@attrs.frozen
class Loaded:
    """The modules of a process at one moment; `asked` names who imported each first."""

    asked: Mapping[str, str]


@attrs.frozen
class ImportBudget:
    """What may be loaded at one moment.

    `engine` are the modules of the engine: all of them, and no others, except that those in `optional` may be missing.
    `absent` are packages of which nothing may be there.
    """

    name: str
    engine: frozenset[str]
    optional: frozenset[str]
    absent: frozenset[str]

    def complaints(self, loaded: Loaded) -> list[str]:
        """What is there and should not be, with who imported it; and what is listed in vain."""
        ours = {name for name in loaded.asked if name == "engine" or name.startswith("engine.")}
        unwanted = [name for name in loaded.asked if any(_belongs(name, package) for package in self.absent)]
        missing = self.engine - self.optional - ours
        # One line for each package: what it brings along follows from it.
        heads = [name for name in unwanted if loaded.asked[name].partition(",")[0].partition(".")[0] != _head(name)]
        return [
            *(f"{name} came in, imported by {loaded.asked[name]}" for name in sorted(ours - self.engine)),
            *(f"{name} came in, imported by {loaded.asked[name]}" for name in sorted(heads or unwanted)),
            *(f"{name} is listed but was not loaded: take it from the list" for name in sorted(missing)),
        ]


def load_import_budgets(path: Path = BENCH_TOML) -> Mapping[str, ImportBudget]:
    """The budgets of `[imports]`, by name. Raises `ValueError` for what can't be understood, `OSError`."""
    tables = tomllib.loads(path.read_text()).get("imports")
    if not isinstance(tables, dict):
        raise ValueError(f"{path}: needs the table [imports]")
    made: dict[str, ImportBudget] = {}
    for name, table in tables.items():
        if not isinstance(table, dict) or not table.keys() <= {"as", "engine", "absent", "present"}:
            raise ValueError(f"[imports.{name!r}]: a table of `as`, `engine`, `absent` and `present`, not {table!r}")
        base = made.get(table["as"]) if "as" in table else ImportBudget("", frozenset(), frozenset(), frozenset())
        if base is None:
            raise ValueError(f"[imports.{name!r}]: {table['as']!r} must stand before it")
        words = [*_modules(table.get("engine", {}))]
        optional = {word.rstrip(_OPTIONAL) for word in words if word.endswith(_OPTIONAL)}
        made[name] = ImportBudget(
            name,
            base.engine | {word.rstrip(_OPTIONAL) for word in words},
            base.optional | optional,
            (base.absent | set(table.get("absent", "").split())) - set(table.get("present", "").split()),
        )
    return made


def loaded_by(code: str) -> Loaded:
    """What a fresh process has loaded after `code`."""
    return _run(_WATCH + _RUN, [code])


def loaded_until_output(words: Sequence[str], home: Path) -> Loaded:
    """What `engine WORDS` has loaded when it writes to stdout for the first time."""
    return _run(_WATCH + _UNTIL_OUTPUT, words, home)


def _run(program: str, arguments: Sequence[str], home: Path | None = None) -> Loaded:
    reading, writing = os.pipe()
    environment = dict(os.environ) if home is None else {**os.environ, "CODEX_HOME": str(home), "HOME": str(home)}
    with os.fdopen(reading) as answer:
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", program, str(writing), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[writing],
                cwd=home,
                env=environment,
            )
        finally:
            os.close(writing)
        with process:
            text = answer.read()
            _, errors = process.communicate()
    if not text:
        raise RuntimeError(f"the process ended without an answer: {errors.decode(errors='replace')[-2000:]}")
    return Loaded(json.loads(text))


def _modules(rooms: object) -> Iterable[str]:
    """`{room = "module module"}` as full names; the room `.` is the package itself."""
    if not isinstance(rooms, dict):
        raise ValueError(f"`engine` is a table of rooms with their modules, not {rooms!r}")
    for room, modules in rooms.items():
        package = "engine" if room == "." else f"engine.{room}"
        yield package
        for module in modules.split():
            yield f"{package}.{module}"


def _head(name: str) -> str:
    return name.partition(".")[0]


def _belongs(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")
