"""Settings of sessions and turns: modes, policies, budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from engine.protocol.wire import Wire, optional
from engine.records import frozen

__all__ = [
    "ApprovalPolicy",
    "CollaborationMode",
    "CollaborationSettings",
    "GitInfo",
    "GranularApproval",
    "ReasoningEffort",
    "ReasoningSummaryMode",
    "SessionSource",
    "TokenUsage",
    "TokenUsageInfo",
    "TruncationPolicy",
    "Verbosity",
]

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
ReasoningSummaryMode = Literal["auto", "concise", "detailed", "none"]
Verbosity = Literal["low", "medium", "high"]


@frozen
class GranularApproval(Wire):
    """Which kinds of prompts may be shown; a false flag turns that kind into a rejection (tools.md 4.1)."""

    sandbox_approval: bool
    rules: bool
    mcp_elicitations: bool
    skill_approval: bool = False
    request_permissions: bool = False


# `untrusted`, `on-failure`, `on-request`, `never`, or the granular table; unknown names survive.
ApprovalPolicy = str | GranularApproval


@frozen
class CollaborationSettings(Wire):
    """What a collaboration mode sets."""

    model: str
    reasoning_effort: str | None = None
    developer_instructions: str | None = None


@frozen
class CollaborationMode(Wire):
    """`default` or `plan`, with its settings."""

    mode: str
    settings: CollaborationSettings


@frozen
class TruncationPolicy(Wire):
    """How much of a tool output the model sees: `limit` bytes, or `limit` tokens of 4 bytes."""

    mode: Literal["bytes", "tokens"]
    limit: int

    @property
    def byte_budget(self) -> int:
        """The budget in bytes."""
        return self.limit if self.mode == "bytes" else self.limit * 4

    @property
    def token_budget(self) -> int:
        """The budget in tokens."""
        return self.limit if self.mode == "tokens" else -(-self.limit // 4)


@frozen
class TokenUsage(Wire):
    """Tokens of one response, or a running total."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_output_tokens: int = 0
    total_tokens: int = 0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_output_tokens=self.reasoning_output_tokens + other.reasoning_output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )


@frozen
class TokenUsageInfo(Wire):
    """Usage of a thread: the running total, the last response, and the window the model effectively has."""

    total_token_usage: TokenUsage
    last_token_usage: TokenUsage
    model_context_window: int | None = None


# `cli`, `vscode`, `exec`, `mcp`, `unknown`, or an object for custom, internal and sub-agent sessions.
SessionSource = str | Mapping[str, object]


@frozen
class GitInfo(Wire):
    """The state of the repository a thread started in."""

    commit_hash: str | None = optional()
    branch: str | None = optional()
    repository_url: str | None = optional()
