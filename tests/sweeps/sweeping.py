"""Runs a case once per point, over several orders of the scheduler, and says what came of it (CONCURRENCY 1.2)."""

from __future__ import annotations

import os
import random
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count, cycle
from pathlib import Path
from typing import Protocol

import attrs
import pytest
import trio

from tests.proofs import tried
from tests.sweeps.points import Point, Points, scheduled

__all__ = ["FULL", "SEEDS", "Case", "Places", "Result", "sizes", "sweep"]

SOAK = os.environ.get("ENGINE_TEST_PROFILE") == "soak"
FULL = 1 << 30
SEEDS = range(1, 9) if SOAK else range(1, 4)
SAMPLE_SEED = 20
ROUNDS = 6  # of further tries for points that were not reached
HOPELESS = 0.2  # of the points, and more than FEW: it would take long, and it is no matter of luck
FEW = 5
UNREACHED = 0.02  # of the points; they vary where a run branches on what a thread or a process has done meanwhile

# Runs one case in a folder of its own: does the action it arms the points with, checks, and says what happened in a
# word. Raises `AssertionError`.
Case = Callable[["Places", Path], str]


class Places(Protocol):
    """Sees the points of a run between `arm` and `disarm`, and does something at one of them."""

    target: Point | None
    seen: set[Point]
    hit: bool
    error: str | None

    def arm(self, action: Callable[[], object], root: trio.lowlevel.Task | None = None) -> None:
        """From now on."""

    def disarm(self) -> None:
        """What follows has no points."""


@attrs.define
class Result:
    """What a sweep found. `points`: of all seeds; `chosen`: those that were tried."""

    points: int = 0
    chosen: int = 0
    runs: int = 0
    unreached: list[Point] = attrs.field(factory=list)
    outcomes: Counter[str] = attrs.field(factory=Counter)
    problems: list[str] = attrs.field(factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        outcomes = ", ".join(f"{number} {outcome}" for outcome, number in sorted(self.outcomes.items()))
        return (
            f"{self.chosen} of {self.points} points, {self.runs} runs in {self.seconds:.1f} s: {outcomes}; "
            f"{len(self.unreached)} not reached, {len(self.problems)} problems"
        )

    @property
    def too_many_unreached(self) -> bool:
        """Whether it was more than `UNREACHED` of those tried."""
        return len(self.unreached) > max(1, UNREACHED * self.chosen)

    def check(self) -> None:
        """Fails where a point had a problem, or too many were not reached."""
        print(self)
        tried(
            sweeps=1,
            points=self.points,
            points_tried=self.chosen,
            runs=self.runs,
            not_reached=len(self.unreached),
            problems=len(self.problems),
        )
        if self.problems:
            pytest.fail(f"{self}\n\n" + "\n\n".join(self.problems[:5]), pytrace=False)
        if self.too_many_unreached:
            pytest.fail(f"{self}\n" + "\n".join(map(str, self.unreached)), pytrace=False)


def sizes(sample: int, at_most: int = FULL) -> pytest.MarkDecorator:
    """Two sizes of one sweep: a fixed sample of `sample` points, and with `make soak` all of them, or `at_most`."""
    return pytest.mark.parametrize(
        "size",
        [
            pytest.param(sample, id="sample"),
            pytest.param(
                at_most, id="all", marks=[pytest.mark.soak, pytest.mark.skipif(not SOAK, reason="only `make soak`")]
            ),
        ],
    )


def sweep(
    case: Case,
    folder: Path,
    size: int = FULL,
    *,
    seeds: Sequence[int] = SEEDS,
    stop_at: int = 5,
    make: Callable[[Point | None], Places] = Points,
) -> Result:
    """Surveys the points of `case` under every seed, then runs it once for each of (at most `size`) points.

    Ends after `stop_at` problems. `make` says what points are: steps of tasks, or lines.
    """
    began = time.perf_counter()
    result = Result()
    numbers = count()
    where: dict[Point, int] = {}

    def run(target: Point | None, seed: int) -> Places:
        points = make(target)
        place = folder / str(next(numbers))
        place.mkdir()
        what = "undisturbed" if target is None else str(target)
        result.runs += 1
        try:
            with scheduled(seed):
                outcome = case(points, place)
            if points.error:
                raise AssertionError(points.error)
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt) and not points.hit:
                raise  # a real one
            result.problems.append(f"{what} (seed {seed}): {''.join(traceback.format_exception(exc, limit=-6))}")
        else:
            if target is None or points.hit:
                result.outcomes[outcome] += 1
            shutil.rmtree(place)
        return points

    run(None, seeds[0])  # fills the caches of the process; that is no part of later runs
    surveys = Counter[Point]()
    for seed in seeds:
        for point in run(None, seed).seen:
            where.setdefault(point, seed)
            surveys[point] += 1
    result.points = len(where)
    # A sample is the same each time: points of an interleaving that only one survey met are for the full sweep.
    recurring = {point: seed for point, seed in where.items() if surveys[point] > 1} if size < FULL else {}
    chosen = _sample(recurring or where, size)
    result.chosen = len(chosen)
    for point in chosen:
        if len(result.problems) >= stop_at:
            break
        others = [seed for seed in seeds if seed != where[point]]
        if not any(run(point, seed).hit for seed in (where[point], *others)):
            result.unreached.append(point)
    for _ in range(ROUNDS):  # rare ones, where processes and servers take part: their luck may turn
        hopeless = len(result.unreached) > max(FEW, HOPELESS * result.chosen)
        if result.problems or not result.too_many_unreached or hopeless:
            break
        result.unreached = [point for point in result.unreached if not any(run(point, seed).hit for seed in seeds)]
    result.seconds = time.perf_counter() - began
    return result


def _sample(points: dict[Point, int], size: int) -> list[Point]:
    """At most `size` points, the same ones each time, from all tasks in turn."""
    ordered = sorted(points)
    if len(ordered) <= size:
        return ordered
    choice = random.Random(SAMPLE_SEED)
    by_task: dict[tuple[str, ...], list[Point]] = {}
    for point in ordered:
        by_task.setdefault(point.path, []).append(point)
    for group in by_task.values():
        choice.shuffle(group)
    paths = list(by_task)
    choice.shuffle(paths)
    chosen: list[Point] = []
    for path in cycle(paths):
        if by_task[path]:
            chosen.append(by_task[path].pop())
            if len(chosen) == size:
                break
    return sorted(chosen)
