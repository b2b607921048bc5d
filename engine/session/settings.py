"""What callers say about a session and a turn: settings at start, updates later, input, results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Literal

import attrs

from engine.errors import InvalidRequest
from engine.protocol.ids import TurnId
from engine.protocol.inputs import TextInput, UserInput
from engine.protocol.profiles import SandboxMode, SandboxPolicy
from engine.protocol.settings import (
    ApprovalPolicy,
    CollaborationMode,
    ReasoningEffort,
    ReasoningSummaryMode,
    SessionSource,
    TokenUsage,
)
from engine.protocol.wire import JsonObject
from engine.records import frozen
from engine.session.environments import EnvironmentSelection

__all__ = ["UNSET", "Input", "SessionSettings", "SettingsUpdate", "TurnResult", "Unset", "as_input"]


class Unset:
    """The type of `UNSET`: a setting that is left as it is, where `None` means something."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()

Input = str | UserInput | Sequence[UserInput]


@frozen(kw_only=True)
class SettingsUpdate:
    """Changes to a session's settings; what is `None` (or `UNSET`) stays as it is. All or nothing.

    `permissions` names a permission profile and can't be combined with `sandbox`, whose modes mean what the
    configuration says about them; `workspace_roots` are relative to the new cwd. `collaboration_mode` is a name
    (`default`, `plan`), which brings a reasoning effort of its own, or a mode with all it sets. What is given with a
    turn holds from that turn on, but `output_schema` (a JSON Schema for the final message) and `environments`, which
    hold for that turn alone.
    """

    cwd: PathLike[str] | str | None = None
    model: str | None = None
    approval_policy: ApprovalPolicy | None = None
    approvals_reviewer: str | None = None
    sandbox: SandboxMode | SandboxPolicy | None = None
    permissions: str | None = None
    workspace_roots: Sequence[PathLike[str] | str] | None = None
    reasoning_effort: ReasoningEffort | str | Unset | None = UNSET
    reasoning_summary: ReasoningSummaryMode | str | None = None
    service_tier: str | Unset | None = UNSET
    personality: str | None = None
    collaboration_mode: CollaborationMode | str | None = None
    environments: Sequence[EnvironmentSelection] | None = None
    output_schema: JsonObject | None = None


@frozen(kw_only=True)
class SessionSettings:
    """How a session starts. What is `None` comes from the configuration; `cwd` from the process.

    - `service_tier`: left out, the one of the configuration or of the login's plan; `None` means none
    - `permissions`: the id of a permission profile, not together with `sandbox`; `workspace_roots` are the directories
      the session works in, relative to the cwd, by default that alone
    - `collaboration_mode`: a name (`default`, `plan`) or a mode with all it sets; `personality`: `none`, `friendly` or
      `pragmatic`
    - `environments`: where commands run, this machine by default; with none there are no tools that touch files or run
      commands, and no AGENTS.md
    - `shell`: runs commands instead of the user's shell; by name (`bash`) or path
    - `config`: more configuration, as dotted keys or nested tables, above everything in files
    - `ephemeral`: nothing is written to disk and the thread can't be resumed
    - `persistence`: `"extended"` also keeps command output and tool calls of the host in the rollout
    - `source`: who runs the session (`vscode` is the neutral default of the format)
    - `instructions`: replaces the base instructions; `developer_instructions` adds to them
    - `trace_context`: the trace the session belongs to, as the W3C headers `traceparent` and `tracestate`; by default
      the host's own span. `service_name`: on its metrics, which of a host's services it serves
    """

    cwd: PathLike[str] | str | None = None
    model: str | None = None
    model_provider: str | None = None
    approval_policy: ApprovalPolicy | None = None
    sandbox: SandboxMode | SandboxPolicy | None = None
    permissions: str | None = None
    workspace_roots: Sequence[PathLike[str] | str] | None = None
    reasoning_effort: ReasoningEffort | str | None = None
    reasoning_summary: ReasoningSummaryMode | str | None = None
    service_tier: str | Unset | None = UNSET
    personality: str | None = None
    collaboration_mode: CollaborationMode | str | None = None
    environments: Sequence[EnvironmentSelection] | None = None
    instructions: str | None = None
    developer_instructions: str | None = None
    shell: PathLike[str] | str | None = None
    config: Mapping[str, object] = attrs.field(factory=dict)
    ephemeral: bool = False
    persistence: Literal["limited", "extended"] = "limited"
    source: SessionSource = "vscode"
    thread_source: str | None = None
    trace_context: Mapping[str, str] = attrs.field(factory=dict)
    service_name: str | None = None


@frozen(kw_only=True)
class TurnResult:
    """How a turn ended. `usage` is what this turn used, `total_usage` what the thread used so far."""

    id: TurnId
    final_message: str | None
    usage: TokenUsage
    total_usage: TokenUsage
    duration_ms: int


def as_input(value: Input) -> tuple[UserInput, ...]:
    """Input in its full form. Raises `InvalidRequest` when there is nothing in it."""
    if isinstance(value, str):
        items: tuple[UserInput, ...] = (TextInput(value),)
    elif isinstance(value, UserInput):
        items = (value,)
    else:
        items = tuple(value)
    if not items or all(isinstance(item, TextInput) and not item.text for item in items):
        raise InvalidRequest("input must not be empty")
    return items
