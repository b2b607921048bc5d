"""What an engine lends to its sessions: the store, processes, models, and facts that are looked up once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine.records import frozen
from engine.telemetry.analytics import NO_ANALYTICS

if TYPE_CHECKING:
    from engine.config.model import Config
    from engine.execution.sandbox.launcher import Sandbox
    from engine.execution.shells import Shell
    from engine.execution.snapshot_folder import SnapshotFolder
    from engine.execution.supervisor import Supervisor
    from engine.models.base import Model
    from engine.models.opening import ModelPool
    from engine.session.compaction.hooks import CompactionHooks
    from engine.session.core import SessionCore
    from engine.session.environments import EnvironmentManager
    from engine.session.resolving import SettingsResolver
    from engine.telemetry.analytics import AnalyticsClient
    from engine.telemetry.bundles import Bundles
    from engine.telemetry.handle import Telemetry
    from engine.telemetry.settings import OtelSettings
    from engine.thread_store.interface import ThreadStore

__all__ = ["Services"]


@frozen(eq=False, kw_only=True)
class Services:
    """Owned by the engine; outlives every session."""

    home: Path
    environment: Mapping[str, str]
    store: ThreadStore
    supervisor: Supervisor
    sandbox: Callable[[], Sandbox]
    """What holds commands to their permissions; made for the first turn, and it looks at the machine for the first
    command."""
    protected: tuple[str, ...]
    """Paths that the sandbox keeps from being written by accident: the state directory."""
    grace: float
    """Seconds that an orderly stop may take."""
    resolver: SettingsResolver
    """Finds what the settings of a session come to."""
    models: ModelPool
    """The models of the engine, with its login."""
    model_for: Callable[[Config, str], Model]
    """The model behind a provider id. Raises `UnknownProvider`."""
    installation_id: Callable[[], Awaitable[str]]
    """Resolved once per engine, on first use."""
    environments: EnvironmentManager
    """Where commands can run."""
    shell: Callable[[], Shell]
    """The user's shell; discovered once."""
    snapshots: SnapshotFolder
    """Where shell snapshots stand."""
    telemetry: Telemetry
    """What is told about sessions, and to whom."""
    otel: OtelSettings
    """The configuration of that, as the engine was opened with it."""
    bundles: Bundles | None = None
    """Where rollout traces go, if they are wanted."""
    analytics: AnalyticsClient = NO_ANALYTICS
    """Who counts what sessions do: nobody."""
    compaction_hooks: CompactionHooks
    """Asked before and after each compaction."""
    crashed: Callable[[SessionCore, Exception], None]
    """Told when a running session ends by an error of its own."""
