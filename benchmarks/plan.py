"""Reads bench.toml: how often each scenario repeats, and the budgets."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import attrs

from benchmarks.results import Budget

__all__ = ["BENCH_TOML", "Plan"]

BENCH_TOML = Path(__file__).resolve().parent.parent / "bench.toml"


@attrs.frozen
class Plan:
    """How much is measured, and what it must reach. `sizes` are repetitions and counts, by name."""

    sizes: Mapping[str, int]
    budgets: Mapping[str, Budget]

    @classmethod
    def load(cls, *, quick: bool, path: Path = BENCH_TOML) -> Plan:
        """`quick` takes the short sizes. Raises `ValueError` for what can't be understood, `OSError`."""
        document = tomllib.loads(path.read_text())
        scenarios, budgets = document.get("scenarios"), document.get("budgets")
        if not isinstance(scenarios, dict) or not isinstance(budgets, dict):
            raise ValueError(f"{path}: needs the tables [scenarios] and [budgets]")
        return cls(
            sizes={name: _size(name, sizes, quick) for name, sizes in scenarios.items()},
            budgets={name: Budget.parse(name, table) for name, table in budgets.items()},
        )

    def size(self, name: str) -> int:
        """A size of bench.toml; a missing one is a `KeyError` with its name."""
        return self.sizes[name]


def _size(name: str, sizes: object, quick: bool) -> int:
    if isinstance(sizes, dict) and sizes.keys() == {"full", "quick"}:
        size = sizes["quick" if quick else "full"]
        if isinstance(size, int) and size > 0:
            return size
    raise ValueError(f"scenario size {name!r}: needs {{ full = N, quick = N }}, not {sizes!r}")
