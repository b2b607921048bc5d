"""Starts, turns, memory and imports of this engine beside the real binary: a table and JSON out, budgets checked.

    python -m benchmarks.startup [--peer PATH] [--quick] [--check] [--only NAMES] [--json FILE]

Sizes and budgets stand in bench.toml; docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # run as a file: the package lies one folder up

from rich.console import Console

from benchmarks.isolation import IsolationError, isolate
from benchmarks.lab import Bench, open_bench
from benchmarks.peer import PeerError, find_peer
from benchmarks.plan import Plan
from benchmarks.progress import Progress
from engine import __version__
from engine.accel import implementation

__all__ = ["main"]

SCENARIOS = (
    "warm",
    "turns",
    "cold",
    "memory",
    "idle",
    "resume",
    "imports",
    "scanner",
    "permissions",
    "sandbox",
    "threads",
)
RESULTS = Path("bench-results") / "startup.json"
WIDTH = 200  # columns of a table that goes to a file


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 where something failed, or with `--check` where a measured budget is missed; 2 for wrong flags."""
    arguments = _parser().parse_args(argv)
    stderr = Console(stderr=True, highlight=False)
    names = arguments.only or SCENARIOS
    try:
        if arguments.isolate:
            isolate()
        plan = Plan.load(quick=arguments.quick)
        peer = None if arguments.no_peer else find_peer(arguments.peer)
        with Progress(stderr) as progress, open_bench(plan, progress, peer, arguments.scratch) as bench:
            bench.results.facts.update(_facts(peer, quick=arguments.quick))
            for name in names:
                _run(bench, name)
    except (PeerError, IsolationError, OSError, ValueError, RuntimeError, subprocess.SubprocessError) as exc:
        stderr.print(f"error: {exc}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        stderr.print("interrupted")
        return 130
    return _report(bench, Path(arguments.json), check=arguments.check, stderr=stderr)


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="benchmarks.startup", description=__doc__.splitlines()[0])
    parser.add_argument("--peer", metavar="PATH", help="the real binary (default: the one of the extra `conformance`)")
    parser.add_argument("--no-peer", action="store_true", help="measure this side only")
    parser.add_argument("--quick", action="store_true", help="few repetitions: to see that it works, not to quote")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a measured budget is missed")
    parser.add_argument(
        "--only",
        type=lambda text: _names(text),
        metavar="NAMES",
        help=f"scenarios to run, with commas: {', '.join(SCENARIOS)}",
    )
    parser.add_argument("--json", metavar="FILE", default=str(RESULTS), help=f"where samples go (default: {RESULTS})")
    parser.add_argument("--scratch", metavar="DIR", help="where temporary homes go; the disk matters for cold starts")
    parser.add_argument("--isolate", action="store_true", help="run in a network namespace that has only loopback")
    return parser


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    wrong = [name for name in names if name not in SCENARIOS]
    if wrong:
        raise argparse.ArgumentTypeError(f"no such scenario: {', '.join(wrong)}")
    return names


def _run(bench: Bench, name: str) -> None:
    """Runs a scenario. What it raises comes out as one error, not as a group."""
    try:
        importlib.import_module(f"benchmarks.{name}").run(bench)
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from group


def _facts(peer: Path | None, *, quick: bool) -> dict[str, object]:
    version = None
    if peer is not None:
        done = subprocess.run([peer, "--version"], stdout=subprocess.PIPE, text=True, check=True)
        version = done.stdout.strip()
    return {
        "engine": f"{__version__} ({'compiled' if implementation() == 'c' else 'pure Python'})",
        "peer": version,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
    }


def _report(bench: Bench, target: Path, *, check: bool, stderr: Console) -> int:
    results = bench.results
    out = Console(highlight=False)
    if not out.is_terminal:
        out = Console(highlight=False, width=WIDTH)
    facts = results.facts
    out.print(
        f"engine {facts['engine']}, peer: {facts['peer'] or 'none'}, Python {facts['python']}, "
        f"{facts['processors']} processors, {facts['time']}"
    )
    results.show(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    stderr.print(f"samples: {target}", markup=False)
    missed = [figure.key for figure in results.missed()]
    if missed:
        stderr.print(f"budgets missed: {', '.join(missed)}", markup=False)
    return 1 if missed and check else 0


if __name__ == "__main__":
    sys.exit(main())
