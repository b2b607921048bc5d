"""Figures side by side: samples of both sides, budgets and whether they are kept, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs
from rich.console import Console
from rich.table import Table

from benchmarks.measures import Machine, Summary, summarise

__all__ = ["Budget", "Figure", "Results", "Verdict"]

Verdict = Literal["ok", "MISSED", "not measured", ""]


@attrs.frozen
class Budget:
    """A limit for the median. `times_peer`: `limit` is a multiple of the peer's median in the same run."""

    kind: Literal["at_most", "at_least"]
    limit: float
    times_peer: bool

    @classmethod
    def parse(cls, name: str, table: Mapping[str, object]) -> Budget:
        """A table with one key: `at_most` or `at_least`, maybe with `_times_peer`. Raises `ValueError`."""
        if len(table) == 1:
            [(key, limit)] = table.items()
            if isinstance(limit, int | float) and limit > 0:
                if key == "at_most":
                    return cls("at_most", limit, times_peer=False)
                if key == "at_least":
                    return cls("at_least", limit, times_peer=False)
                if key == "at_most_times_peer":
                    return cls("at_most", limit, times_peer=True)
                if key == "at_least_times_peer":
                    return cls("at_least", limit, times_peer=True)
        raise ValueError(f"budget {name!r}: at_most or at_least, maybe with _times_peer, not {table!r}")

    def text(self, unit: str) -> str:
        """As the table shows it."""
        sign = "<=" if self.kind == "at_most" else ">="
        if not self.times_peer:
            return f"{sign} {self.limit:g} {unit}"
        return f"{sign} 1/{1 / self.limit:g} peer" if self.limit < 1 else f"{sign} {self.limit:g}x peer"

    def judge(self, ours: Summary | None, peer: Summary | None) -> Verdict:
        """Whether our median keeps it."""
        if ours is None or (self.times_peer and peer is None):
            return "not measured"
        limit = self.limit * peer.median if self.times_peer and peer is not None else self.limit
        return "ok" if (ours.median <= limit if self.kind == "at_most" else ours.median >= limit) else "MISSED"


@attrs.define
class Figure:
    """One row: samples of our side and of the peer's, in `unit`. `title` says what was done."""

    key: str
    title: str
    unit: str
    ours: list[float] = attrs.field(factory=list)
    peer: list[float] = attrs.field(factory=list)

    @property
    def ratio(self) -> float | None:
        """Our median over the peer's."""
        ours, peer = summarise(self.ours), summarise(self.peer)
        return None if ours is None or peer is None or not peer.median else ours.median / peer.median


@attrs.define
class Results:
    """All figures of a run, in the order they were first mentioned."""

    budgets: Mapping[str, Budget]
    figures: dict[str, Figure] = attrs.field(factory=dict)
    machine: dict[str, Machine] = attrs.field(factory=dict)
    facts: dict[str, object] = attrs.field(factory=dict)

    def figure(self, key: str, title: str, unit: str = "ms") -> Figure:
        """The row `key`; made on first mention."""
        return self.figures.setdefault(key, Figure(key, title, unit))

    def note_machine(self, scenario: str) -> None:
        """Remembers how busy the machine is as a scenario begins."""
        self.machine[scenario] = Machine.now()

    def verdict(self, figure: Figure) -> Verdict:
        """Whether the figure keeps its budget; empty without one."""
        budget = self.budgets.get(figure.key)
        return "" if budget is None else budget.judge(summarise(figure.ours), summarise(figure.peer))

    def missed(self) -> list[Figure]:
        """The measured figures that don't keep their budgets."""
        return [figure for figure in self.figures.values() if self.verdict(figure) == "MISSED"]

    def show(self, console: Console) -> None:
        """Prints the table and a line about the machine."""
        table = Table(title_justify="left", show_edge=False, pad_edge=False)
        for name in ("figure", "what"):
            table.add_column(name, overflow="fold")
        for name in ("ours", "(min / p95 / p99 / max; n)", "peer", "(min / p95 / p99 / max; n)", "ratio", "budget"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("")
        for figure in self.figures.values():
            ours, peer, ratio = summarise(figure.ours), summarise(figure.peer), figure.ratio
            budget, verdict = self.budgets.get(figure.key), self.verdict(figure)
            style = {"MISSED": "bold red", "ok": "green"}.get(verdict, "")
            table.add_row(
                figure.key,
                figure.title,
                _median(ours, figure.unit),
                _spread(ours),
                _median(peer, figure.unit),
                _spread(peer),
                _ratio(ratio),
                budget.text(figure.unit) if budget is not None else "",
                f"[{style}]{verdict}[/]" if style else verdict,
            )
        console.print(table)
        for scenario, machine in self.machine.items():
            console.print(
                f"machine at {scenario}: load {machine.load:.2f}, fixed loop {machine.fixed_loop_ms:.1f} ms",
                style="dim",
            )

    def as_json(self) -> dict[str, object]:
        """Everything, raw samples included."""
        rows = []
        for figure in self.figures.values():
            ours, peer, budget = summarise(figure.ours), summarise(figure.peer), self.budgets.get(figure.key)
            rows.append(
                {
                    "key": figure.key,
                    "title": figure.title,
                    "unit": figure.unit,
                    "ours": None if ours is None else attrs.asdict(ours),
                    "peer": None if peer is None else attrs.asdict(peer),
                    "ratio": figure.ratio,
                    "budget": None if budget is None else budget.text(figure.unit),
                    "verdict": self.verdict(figure) or None,
                    "samples": {"ours": _rounded(figure.ours), "peer": _rounded(figure.peer)},
                }
            )
        return {
            "facts": self.facts,
            "machine": {name: attrs.asdict(machine) for name, machine in self.machine.items()},
            "figures": rows,
        }


def _number(value: float) -> str:
    """Three digits that mean something."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _median(summary: Summary | None, unit: str) -> str:
    return "-" if summary is None else f"{_number(summary.median)} {unit}"


def _spread(summary: Summary | None) -> str:
    if summary is None:
        return ""
    spread = (summary.minimum, summary.p95, summary.p99, summary.maximum)
    return " / ".join(map(_number, spread)) + f"; {summary.n}"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}" if ratio < 1 else f"{ratio:.1f}x"


def _rounded(samples: list[float]) -> list[float]:
    return [round(sample, 4) for sample in samples]
