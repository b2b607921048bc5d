"""What does `import engine` cost a program that has Trio already? Fresh processes, in pairs."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.lab import Bench

__all__ = ["run"]

# The first also holds what a program needs that uses the package, since its names are loaded on first use.
STATEMENTS = {
    "import.engine": ("import trio; import engine", "`import engine` beyond `import trio`"),
    "import.used": ("import trio; from engine import open_engine", "`from engine import open_engine` beyond it"),
}
BASE = "import trio"


def run(bench: Bench) -> None:
    """The rows `import.*`: differences within each pair."""
    rounds = bench.plan.size("imports")
    bench.results.note_machine("imports")
    trio_alone = bench.results.figure("import.trio", "`import trio` alone")
    with bench.progress.stage("imports", rounds + 1):
        for number in range(-1, rounds):
            for key, (statement, title) in STATEMENTS.items():
                # Which goes first alternates, so that a machine that slows down favours neither.
                first, second = (BASE, statement) if number % 2 else (statement, BASE)
                took = {first: _import(bench, first), second: _import(bench, second)}
                if number >= 0:
                    trio_alone.ours.append(took[BASE])
                    bench.results.figure(key, title).ours.append(took[statement] - took[BASE])
            bench.progress.step()


def _import(bench: Bench, statement: str) -> float:
    """Milliseconds of a statement at the start of a fresh process."""
    program = f"import time; began = time.perf_counter(); {statement}; print((time.perf_counter() - began) * 1000)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        stdout=subprocess.PIPE,
        cwd=bench.workspace,
        check=True,
    )
    return float(done.stdout)
