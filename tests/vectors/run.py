"""Runs golden cases: `python tests/vectors/run.py DIR...` runs every case file below each directory.

The kind of a file is told from its content: a list of cases with `op`, an object with `area` or `kind`, an index of
recordings, or a transcript of lines with `dir`. Each kind has its module here, with one function

    run_case(case, area, root) -> (expected, got)

where `area` is the object the case stands in (for a list of cases, its file) and `root` a fresh, empty, canonical
directory. A case passes when both are equal. `NotImplementedError` says that the engine can't do it yet (failed, with
the reason), `Skip` that this machine can't. Works from any directory with the installed engine; `ENGINE_PURE_PYTHON=1`
is honoured.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal


def _own_test_package() -> None:
    """Makes `tests` importable for a script without putting the checkout before the installed engine."""
    if "tests" in sys.modules:
        return
    here = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location("tests", here / "__init__.py", submodule_search_locations=[str(here)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tests"] = module
    spec.loader.exec_module(module)


_own_test_package()

__all__ = ["Case", "Outcome", "Skip", "cases_of", "main", "run_one"]

RunCase = Callable[[Any, Any, Path], tuple[object, object]]

# Which module runs what. A kind without a module here is not built yet, and its cases count as failed.
AREAS: Mapping[str, str] = {
    "apply_patch": "apply_patch_cases",
    "command_safety": "command_safety_cases",
    "exec_policy": "exec_policy_cases",
}
CONFIG_KINDS = "config_cases"
OPERATIONS = ("rollout_cases", "permission_cases", "sandbox_cases")
RECORDINGS = "rollout_cases"
TRANSCRIPTS = "exec_transcripts"


class Skip(Exception):
    """This machine can't run the case."""


@dataclass(frozen=True)
class Case:
    """One case of a file, and what runs it; `reason` says why nothing can."""

    id: str
    run: Callable[[Path], tuple[object, object]] | None
    reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a case went."""

    id: str
    verdict: Literal["passed", "failed", "skipped"]
    expected: object = None
    got: object = None


@dataclass
class Tally:
    """Counts of a file or of all."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    problems: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        setattr(self, outcome.verdict, getattr(self, outcome.verdict) + 1)
        if outcome.verdict != "passed":
            self.problems.append(outcome)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


# --- finding -----------------------------------------------------------------------------------------


def case_files(places: Sequence[Path]) -> Iterator[Path]:
    """Every file that may hold cases, in a stable order. Helper folders beside transcripts hold none."""
    for place in places:
        found = [place] if place.is_file() else sorted(place.rglob("*"))
        for file in found:
            if file.is_file() and file.suffix in (".json", ".jsonl") and file.parent.name != "tools":
                yield file


def cases_of(file: Path) -> list[Case] | None:
    """The cases of a file; `None` for a file that only helps others."""
    if file.suffix == ".jsonl":
        return _transcript(file)
    try:
        content = json.loads(file.read_text())
    except ValueError as exc:
        return [Case(file.name, None, f"not JSON: {exc}")]
    if isinstance(content, list):
        return [_operation(case, at, file) for at, case in enumerate(content)]
    if isinstance(content, dict):
        return _object_cases(content, file)
    return [Case(file.name, None, "neither a list of cases nor an object")]


def _object_cases(content: dict[str, Any], file: Path) -> list[Case] | None:
    if "recordings" in content:
        rows = [row for row in content["recordings"] if "expected" in row]
        return [_case(str(row.get("file") or at), row, content, file, RECORDINGS) for at, row in enumerate(rows)]
    if "area" in content or "kind" in content:
        kind = str(content.get("area") or content.get("kind"))
        module = AREAS.get(kind) if "area" in content else CONFIG_KINDS
        cases = content.get("cases", [])
        return [_case(str(case.get("id", at)), case, content, file, module, kind) for at, case in enumerate(cases)]
    if content and all(isinstance(value, dict) and "dirs" in value for value in content.values()):
        return None  # layouts
    return [Case(file.name, None, "an object without `area`, `kind` or `recordings`")]


def _operation(case: Any, at: int, file: Path) -> Case:
    if not isinstance(case, dict) or "op" not in case:
        return Case(f"{file.name}[{at}]", None, "a case without `op`")
    operation, name = str(case["op"]), str(case.get("id", at))
    for module in OPERATIONS:
        loaded = _module(module)
        if loaded is not None and operation in getattr(loaded, "OPERATIONS", ()):
            return _case(name, case, file, file, module)
    return Case(name, None, f"the operation `{operation}` is not built yet")


def _transcript(file: Path) -> list[Case] | None:
    first = file.read_text(errors="replace").partition("\n")[0]
    try:
        head = json.loads(first)
    except ValueError:
        return None
    if not isinstance(head, dict) or "dir" not in head:
        return None  # a recorded session file; its index runs it
    directions = {line.get("dir") for line in map(json.loads, file.read_text().splitlines())}
    if "argv" not in directions:
        return [Case(file.stem, None, "app-server transcripts: the app-server is not built yet")]
    return [_case(file.stem, file, None, file, TRANSCRIPTS)]


def _case(name: str, case: Any, area: Any, file: Path, module: str | None, kind: str = "") -> Case:
    loaded = None if module is None else _module(module)
    if loaded is None:
        return Case(name, None, f"`{kind or module}` is not built yet")
    if module == TRANSCRIPTS:
        return Case(name, lambda root: loaded.replay(file, root))
    if module == RECORDINGS and isinstance(area, dict):
        return Case(name, lambda root: loaded.run_recording(case, file.parent, root))
    run: RunCase = loaded.run_case
    return Case(name, lambda root: run(case, area, root))


def _module(name: str) -> ModuleType | None:
    if importlib.util.find_spec(f"tests.vectors.{name}") is None:
        return None
    return importlib.import_module(f"tests.vectors.{name}")


# --- running -----------------------------------------------------------------------------------------


def run_one(case: Case) -> Outcome:
    """Runs a case in a fresh directory; whatever goes wrong is a failure of that case alone."""
    if case.run is None:
        return Outcome(case.id, "failed", "an engine that can run this", case.reason)
    root = Path(tempfile.mkdtemp(prefix="vectors-")).resolve()
    try:
        expected, got = case.run(root)
    except Skip as exc:
        return Outcome(case.id, "skipped", got=str(exc))
    except NotImplementedError as exc:
        return Outcome(case.id, "failed", "an engine that can run this", str(exc) or "not built yet")
    except Exception as exc:
        return Outcome(case.id, "failed", "no exception", f"{type(exc).__name__}: {exc}")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return Outcome(case.id, "passed" if expected == got else "failed", expected, got)


def main(words: Sequence[str]) -> int:
    """Runs the files below `words`; 0 only if nothing failed and at least one case ran."""
    if not words or any(word.startswith("-") for word in words):
        print("usage: run.py DIR...", file=sys.stderr)
        return 2
    missing = [word for word in words if not Path(word).exists()]
    if missing:
        print(f"no such file or directory: {', '.join(missing)}", file=sys.stderr)
        return 2
    from engine.accel import implementation

    total = Tally()
    for file in case_files([Path(word) for word in words]):
        cases = cases_of(file)
        if cases is None:
            continue
        tally = Tally()
        for case in cases:
            outcome = run_one(case)
            tally.add(outcome)
            total.add(outcome)
        print(f"{file}: {tally}")
        for problem in tally.problems:
            print(_report(problem))
        sys.stdout.flush()
    print(f"total: {total} ({implementation()})")
    return 0 if total.passed and not total.failed else 1


def _report(problem: Outcome) -> str:
    if problem.verdict == "skipped":
        return f"  {problem.id}: skipped: {problem.got}"
    return f"  {problem.id}\n    expected {_json(problem.expected)}\n    got      {_json(problem.got)}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr, sort_keys=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
