"""How fast are rollout lines told apart, compiled and pure?"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable
from types import ModuleType

from benchmarks.lab import Bench
from benchmarks.rollouts import MB, sample

__all__ = ["run"]

TWINS = {"compiled": "_speedups.scan", "pure": "engine.rollout._scan_py"}


def _drain(lines: Iterable[object]) -> None:
    for _line in lines:
        pass


WAYS: dict[str, tuple[str, Callable[[ModuleType, bytes], object]]] = {
    "forward": ("rollout lines forward", lambda module, data: _drain(module.Scan(data).forward())),
    "backward": ("rollout lines backward", lambda module, data: _drain(module.Scan(data).backward())),
    "count": ("compactions counted", lambda module, data: module.Scan(data).count(module.COMPACTED)),
    "marks": (
        "what a replay needs, backward",
        lambda module, data: _drain(
            module.Scan(data).marks_backward(wanted=module.ALL_MARKS & ~(module.OTHER_ITEM | module.OTHER_EVENT))
        ),
    ),
}


def run(bench: Bench) -> None:
    """The rows `scan.*`. The compiled one is missing where there is no compiled module."""
    rounds = bench.plan.size("scans")
    data = sample(bench.plan.size("scan_mb") * MB)
    bench.results.note_machine("scanner")
    speeds: dict[str, list[float]] = {}
    with bench.progress.stage("scanner", rounds):
        for _ in range(rounds):
            for twin, name in TWINS.items():
                try:
                    module = importlib.import_module(name)
                except ModuleNotFoundError:
                    continue
                for way, (_, scan) in WAYS.items():
                    began = time.perf_counter()
                    scan(module, data)
                    speeds.setdefault(f"{way}.{twin}", []).append(len(data) / MB / (time.perf_counter() - began))
            bench.progress.step()
    for way, (title, _) in WAYS.items():
        for twin in TWINS:
            if f"{way}.{twin}" in speeds:
                figure = bench.results.figure(f"scan.{way}.{twin}", f"{title}, {twin}", "MB/s")
                figure.ours.extend(speeds[f"{way}.{twin}"])
        pairs = zip(speeds.get(f"{way}.compiled", ()), speeds[f"{way}.pure"], strict=False)
        ratio = [compiled / pure for compiled, pure in pairs]
        if ratio:
            bench.results.figure(f"scan.{way}.ratio", "... compiled over pure", "x").ours.extend(ratio)
