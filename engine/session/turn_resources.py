"""What the turns of a session share: what was agreed to, tools, terminals, the line to the model.

Made with the first turn, because a start needs none of it and its imports are the larger part of the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from engine.exec_policy.in_force import RulesInForce
from engine.execution.terminals import TerminalManager
from engine.models.base import ModelSession, SessionFacts, open_model_session
from engine.records import define
from engine.session.history import sent_again
from engine.session.shell_snapshots import session_snapshots
from engine.tools.builtin import session_tools
from engine.tools.registry import ToolRegistry
from engine.tools.turn_permissions import SessionApprovals

if TYPE_CHECKING:
    from engine.execution.shell_snapshot import ShellSnapshots
    from engine.models.base import Model
    from engine.models.catalogue import ModelInfo
    from engine.session.core import SessionCore

__all__ = ["TurnResources"]


@define(eq=False)
class TurnResources:
    """One for each session; `SessionCore.resources` makes it. Raises `RulesError` where required rules are wrong."""

    core: SessionCore
    approvals: SessionApprovals = attrs.field(init=False)
    """What the user agreed to for the whole session."""
    _terminals: TerminalManager | None = attrs.field(default=None, init=False)
    _snapshots: tuple[ShellSnapshots | None] | None = attrs.field(default=None, init=False)
    _registries: dict[tuple[str, bool], ToolRegistry] = attrs.field(factory=dict, init=False)
    _line: tuple[Model, ModelSession] | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.approvals = SessionApprovals(RulesInForce.of(self.core.configuration.config))

    def registry(self, model_info: ModelInfo, *, somewhere: bool = True) -> ToolRegistry:
        """The tools of a turn with this model; `somewhere` says whether it has an environment to work in."""
        key = (model_info.slug, somewhere)
        registry = self._registries.get(key)
        if registry is None:
            config = self.core.configuration.config
            tools = session_tools(config, model_info, self.core.functions, somewhere=somewhere)
            registry = self._registries[key] = ToolRegistry(tools)
        return registry

    def terminals(self) -> TerminalManager:
        """The background terminals."""
        if self._terminals is None:
            self._terminals = TerminalManager(
                self.core.services.supervisor,
                self.core.ward.nursery,
                max_poll_ms=self.core.configuration.config.background_terminal_max_timeout,
            )
        return self._terminals

    def snapshots(self) -> ShellSnapshots | None:
        """What commands load in place of the user's profile; `None` where the session wants none."""
        if self._snapshots is None:
            self._snapshots = (session_snapshots(self.core),)
        return self._snapshots[0]

    def line_to(self, model: Model) -> ModelSession:
        """The session's own line to a model, kept while its turns use that model."""
        if self._line is not None:
            known, line = self._line
            if known is model:
                return line
            line.fall_back()  # lets its connection go
        features = self.core.configuration.config.features
        facts = SessionFacts(
            spawn=self.core.ward.start_soon,
            input_form=sent_again,
            acknowledge=features.get("responses_websocket_response_processed", False),
        )
        line = open_model_session(model, facts)
        self._line = (model, line)
        return line

    async def close(self) -> None:
        """Stops the background terminals."""
        if self._terminals is not None:
            await self._terminals.close()
