"""Ties shell snapshots to a session: its environment, its tasks, the stored threads (session.md 2.8)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from engine.execution.environment import THREAD_ID_VARIABLE, build_environment
from engine.protocol.ids import ThreadId

if TYPE_CHECKING:
    from engine.execution.shell_snapshot import ShellSnapshots
    from engine.session.core import SessionCore

__all__ = ["session_snapshots"]


def session_snapshots(core: SessionCore) -> ShellSnapshots | None:
    """The snapshots of a session; None where the feature is off. Nothing is started before a command asks."""
    config, services = core.configuration.config, core.services
    if not config.features.get("shell_snapshot", True):
        return None
    from engine.execution.shell_snapshot import ShellSnapshots

    policy = config.shell_environment_policy
    return ShellSnapshots(
        supervisor=services.supervisor,
        folder=services.snapshots,
        thread_id=core.thread_id,
        shell=core.configuration.shell or services.shell(),
        environment=build_environment(policy, services.environment, core.thread_id),
        kept={*policy.set, THREAD_ID_VARIABLE},
        spawn=core.ward.start_soon,
        last_used=lambda thread: _last_used(services.home, ThreadId(thread)),
    )


def _last_used(home: Path, thread: ThreadId) -> float | None:
    """When the rollout of a thread was last written to. Blocks."""
    from engine.thread_store.finding import find_anywhere

    path = find_anywhere(home, thread)
    try:
        return None if path is None else os.stat(path).st_mtime
    except FileNotFoundError:
        return None
