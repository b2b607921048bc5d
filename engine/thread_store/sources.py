"""Kinds of session sources, as listings filter by them (app_server.md 2.2, 3.1; session.md 1.2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from engine.protocol.settings import SessionSource

__all__ = ["INTERACTIVE", "INTERNAL", "SUB_AGENT_KINDS", "expand_kinds", "source_kind"]

INTERACTIVE: Final = ("cli", "vscode")
SUB_AGENT: Final = "subAgent"
SUB_AGENT_KINDS: Final = ("subAgentReview", "subAgentCompact", "subAgentThreadSpawn", "subAgentOther")
INTERNAL: Final = "internal"  # sessions nobody sees
_PLAIN: Final = {"cli": "cli", "vscode": "vscode", "exec": "exec", "mcp": "appServer"}
_SUB_AGENTS: Final = {"review": "subAgentReview", "compact": "subAgentCompact"}


def source_kind(source: SessionSource) -> str:
    """`cli`, `vscode`, `exec`, `appServer`, one of `SUB_AGENT_KINDS`, `custom`, `internal`, or `unknown`."""
    if isinstance(source, str):
        return _PLAIN.get(source, "unknown")
    if "subagent" in source:
        kind = source["subagent"]
        if isinstance(kind, str):
            return _SUB_AGENTS.get(kind, "subAgentOther")
        return "subAgentThreadSpawn" if isinstance(kind, Mapping) and "thread_spawn" in kind else "subAgentOther"
    for name in ("custom", INTERNAL):
        if name in source:
            return name
    return "unknown"


def expand_kinds(kinds: Collection[str]) -> frozenset[str]:
    """The kinds with `subAgent` replaced by all of its kinds."""
    return frozenset(kinds) | (frozenset(SUB_AGENT_KINDS) if SUB_AGENT in kinds else frozenset())
