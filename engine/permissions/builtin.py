"""A sandbox policy as turns record it, with the workspace and the engine's own folder put in (permissions.md 8.5)."""

from __future__ import annotations

from collections.abc import Sequence

from engine.permissions.compatibility import Projection, project
from engine.permissions.legacy import enforcement_of_legacy, from_legacy, from_legacy_for_cwd, network_of_legacy
from engine.permissions.profiles import from_runtime, materialize_policy, with_legacy_writable
from engine.permissions.view import View
from engine.protocol.profiles import SandboxPolicy, WorkspaceWrite

__all__ = ["sandbox_projection"]


def sandbox_projection(
    policy: SandboxPolicy,
    *,
    cwd: str,
    view: View,
    workspace_roots: Sequence[str] = (),
    memory_root: str | None = None,
    updated: bool = False,
) -> Projection:
    """What a turn in `cwd` records for a sandbox policy.

    `workspace_roots` stand for the workspace, by default `cwd` alone; `cwd` is added where it is missing, as the policy
    has no legacy form without it. `memory_root` is a writable folder of the engine's own; it joins policies that came
    from the configuration. A policy that a client set later (`updated`) is bound to `cwd` and gets no such folder.
    """
    roots = list(dict.fromkeys(workspace_roots or (cwd,)))
    if cwd not in roots:
        roots.insert(0, cwd)
    symbolic = from_legacy_for_cwd(policy, cwd, view) if updated else from_legacy(policy, view)
    if memory_root is not None and not updated and isinstance(policy, WorkspaceWrite):
        symbolic = with_legacy_writable(symbolic, (memory_root,), view)
    materialized = materialize_policy(symbolic, roots)
    profile = from_runtime(materialized, network_of_legacy(policy), enforcement_of_legacy(policy))
    return project(profile, cwd, view)
