"""Runs one golden case of command safety: all three verdicts on an argv (the README beside the vectors)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.exec_policy.command_safety import is_dangerous, is_known_safe
from engine.exec_policy.scripts import plain_commands

__all__ = ["run_case"]


def run_case(
    case: Mapping[str, object], area: Mapping[str, object], root: Path
) -> tuple[dict[str, object], dict[str, object]]:
    """Run a case; returns (expected, got). `area` and `root` are there for uniformity: the verdicts need no disk."""
    del area, root
    argv, expected = case["argv"], case["expect"]
    released = case.get("release_0_163_0", {})
    assert isinstance(argv, list)
    assert isinstance(expected, dict)
    assert isinstance(released, dict)
    plain = plain_commands(argv)
    got: dict[str, object] = {
        "known_safe": is_known_safe(argv),
        "dangerous": is_dangerous(argv),
        "plain_commands": None if plain is None else [list(words) for words in plain],
    }
    # Where the release was measured its wider rule is ours.
    return {**expected, "dangerous": released.get("dangerous", expected["dangerous"])}, got
