"""Counts what the long proofs have tried, and tells it at the end of a run: a line per proof.

A test says `tried(kills=5)`; examples of hypothesis count by themselves. The counts travel in the reports of the tests,
so that they arrive from the processes of pytest-xdist, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator

import pytest

__all__ = ["pytest_runtest_makereport", "pytest_runtest_setup", "pytest_terminal_summary", "tried"]

_PROPERTY = "tried"
_PASSING = re.compile(r"(\d+) passing")

_counts = Counter[str]()  # of the test that runs


def tried(**counts: int) -> None:
    """Adds to what the running test has tried; `not_reached=2` is shown as "2 not reached"."""
    _counts.update(counts)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begins to count."""
    del item
    _counts.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Gives the report of a test what it has counted."""
    report = yield
    if call.when == "call":
        examples = sum(map(int, _PASSING.findall(getattr(item, "hypothesis_statistics", ""))))
        if examples:
            tried(properties=1, examples=examples)
        if _counts:
            report.user_properties.append((_PROPERTY, dict(_counts)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Writes the lines."""
    counts: dict[str, Counter[str]] = {}
    seconds = Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if not isinstance(report, pytest.TestReport) or report.when != "call":
                continue
            for name, told in report.user_properties:
                if name == _PROPERTY and isinstance(told, dict):
                    proof = _proof(report.nodeid, told)
                    counts.setdefault(proof, Counter()).update(told)
                    seconds[proof] += round(report.duration)
    if counts:
        terminalreporter.section("what the proofs have tried")
    for proof in sorted(counts):
        told = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in counts[proof].items())
        terminalreporter.write_line(f"{proof}: {told}; {seconds[proof]} s")


def _proof(nodeid: str, told: dict[str, int]) -> str:
    """Properties are told by folder, there are many; other proofs by module."""
    module = nodeid.partition("::")[0].removeprefix("tests/").removesuffix(".py")
    return f"properties of {module.rpartition('/')[0] or module}" if set(told) == {"properties", "examples"} else module
