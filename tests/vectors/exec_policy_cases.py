"""Runs one golden case of exec policy: rules loaded as a set, one command checked (the README beside the vectors)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.exec_policy.errors import RulesError
from engine.exec_policy.loading import RulesText, load_set

__all__ = ["run_case"]


def run_case(
    case: Mapping[str, object], area: Mapping[str, object], root: Path
) -> tuple[dict[str, object], dict[str, object]]:
    """Run a case; returns (expected, got). `area` and `root` are there for uniformity: the check needs no disk."""
    del area, root
    rules, command, expected = case["rules"], case["command"], case["expect"]
    assert isinstance(rules, list)
    assert isinstance(command, list)
    assert isinstance(expected, dict)
    try:
        policy = load_set(RulesText(f"{number}.rules", text) for number, text in enumerate(rules))
    except RulesError:
        return expected, {"load": "error"}
    found = policy.check([command], resolve_host_executables=case["resolve_host_executables"] is True).to_json()
    return expected, {
        "load": "ok",
        "decision": found.get("decision"),
        "matched_rules": found["matchedRules"],
    }
