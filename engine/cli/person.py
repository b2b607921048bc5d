"""What `engine exec` shows to people: progress on stderr, the final message on stdout (app_server.md 6.5)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from engine import __version__
from engine.cli.human import Header, HumanOutput
from engine.cli.outcome import TurnOutcome
from engine.cli.preparation import ExecPlan
from engine.cli.streams import Stderr, Stdout, same_terminal
from engine.cli.terminal import Palette, colour_wanted
from engine.protocol.events import Event, SessionConfigured
from engine.protocol.profiles import SandboxPolicy, WorkspaceWrite
from engine.records import define

if TYPE_CHECKING:
    from engine.session.session import Session

__all__ = ["Person"]


@define(eq=False)
class Person:
    """Progress on stderr, the final message on stdout."""

    plan: ExecPlan
    stdout: Stdout
    human: HumanOutput

    @classmethod
    def of(cls, plan: ExecPlan, stdout: Stdout, stderr: Stderr) -> Person:
        """For a plan; colour as it asks for."""
        colour = colour_wanted(plan.arguments.color, stderr.stream, os.environ)
        return cls(
            plan,
            stdout,
            HumanOutput(stderr.write, Palette(colour), show_reasoning=not plan.config.hide_agent_reasoning),
        )

    @property
    def outcome(self) -> TurnOutcome:
        return self.human.outcome

    def started(self, session: Session) -> None:
        pass  # the header needs the first event

    def event(self, event: Event) -> None:
        if isinstance(event.msg, SessionConfigured):
            self.human.header(header_of(event.msg, self.plan))
            self.human.prompt(self.plan.prompt)
        else:
            self.human.event(event)

    def finished(self, rollout: str | None) -> None:
        shown = self.human.ends_with_message and same_terminal()
        self.human.finish(rollout)
        message = self.outcome.final_message
        if self.outcome.status == "completed" and message is not None and not shown:
            self.stdout.line(message.encode("utf-8", "replace"))


def header_of(msg: SessionConfigured, plan: ExecPlan) -> Header:
    return Header(
        version=__version__,
        workdir=msg.cwd,
        model=msg.model,
        provider=msg.model_provider_id,
        approval=str(msg.approval_policy),
        sandbox=sandbox_text(plan.config.sandbox_policy),
        effort=msg.reasoning_effort or "none",
        summaries=plan.config.model_reasoning_summary or "none",
        session_id=msg.thread_id,
    )


def sandbox_text(policy: SandboxPolicy) -> str:
    """The mode, and what may be written under it."""
    if not isinstance(policy, WorkspaceWrite):
        return policy.type
    places = ["workdir"]
    if not policy.exclude_slash_tmp:
        places.append("/tmp")
    if not policy.exclude_tmpdir_env_var:
        places.append("$TMPDIR")
    network = " (network access enabled)" if policy.network_access else ""
    return f"{policy.type} [{', '.join([*places, *policy.writable_roots])}]{network}"
