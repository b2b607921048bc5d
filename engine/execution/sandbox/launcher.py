"""From a command and its permissions to what has to be started instead (tools.md 6.1, 6.2).

One `Sandbox` per engine. A plan is kept for each policy and reused as long as the disk answers every question as it
did when the plan was made; what is left for each start is a few system calls.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import final

import trio

from engine.execution.sandbox.assembly import Assembly, SandboxedCommand
from engine.execution.sandbox.capability import Capability, probe
from engine.execution.sandbox.plans import Plan, PolicyInPlace, make_plan
from engine.execution.supervisor import Supervisor
from engine.permissions.additional import needs_platform_sandbox
from engine.permissions.view import DiskView
from engine.protocol.profiles import FileSystemSandboxPolicy, NetworkAccess

__all__ = ["NETWORK_VARIABLE", "Sandbox", "SandboxedCommand"]

# Tells a command that it has no network (tools.md 3.1).
NETWORK_VARIABLE = "CODEX_SANDBOX_NETWORK_DISABLED"
_MOST_PLANS = 64


@final
class Sandbox:
    """Runs commands under policies. `environment` is the engine's own: where programs are looked up, what `tmpdir` is.

    `protected` are paths that no policy makes writable by accident: only an entry for just that place does.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        environment: Mapping[str, str] | None = None,
        protected: Sequence[str] = (),
    ) -> None:
        self._supervisor = supervisor
        self._environment = os.environ if environment is None else environment
        self._view = DiskView(self._environment)
        self._protected = tuple(os.path.realpath(path) for path in protected)
        self._capability: Capability | None = None
        self._probing = trio.Lock()
        self._plans: OrderedDict[PolicyInPlace, Plan] = OrderedDict()

    @property
    def protected(self) -> tuple[str, ...]:
        """Paths that no policy makes writable by accident, without links."""
        return self._protected

    async def capability(self) -> Capability:
        """What this machine can do; found out at the first call, some ten ms. Raises `ProcessError`."""
        async with self._probing:
            if self._capability is None:
                self._capability = await probe(self._supervisor, self._environment)
        return self._capability

    async def prepare(
        self,
        argv: Sequence[str],
        *,
        file_system: FileSystemSandboxPolicy,
        network: NetworkAccess,
        policy_cwd: str,
        cwd: str,
        env: Mapping[str, str],
        tty: bool = False,
    ) -> SandboxedCommand:
        """What to start for a command that is to run in `cwd` under a policy, whose symbols mean `policy_cwd`.

        Both are absolute; `env` is complete; `tty` says that it will be started with a terminal. A policy that asks for
        no sandbox gets none; any other gets one or an error: `SandboxUnavailable`, `SandboxPolicyError`, `SpawnError`
        for arguments that can't be passed. Makes placeholders on the disk, which the command's end removes.
        Cancellation leaves nothing behind.
        """
        env = {**env, NETWORK_VARIABLE: "1"} if network == "restricted" else dict(env)
        if not needs_platform_sandbox(file_system, network, managed_requirements=False):
            return SandboxedCommand(tuple(argv), env, "external" if file_system.kind == "external-sandbox" else "none")
        capability = await self.capability()
        plan = await self._plan(PolicyInPlace(file_system, network, policy_cwd), capability)
        # From here on without an await, so that nothing can be lost.
        return Assembly(argv, cwd, env, network, tty, capability).command(plan)

    async def _plan(self, request: PolicyInPlace, capability: Capability) -> Plan:
        cached = self._plans.get(request)
        given_up = threading.Event()

        def work() -> Plan:
            if cached is not None and not cached.has_globs and cached.disk.still_holds():
                return cached
            return make_plan(
                request,
                capability,
                self._view,
                protected=self._protected,
                is_wanted=lambda: not given_up.is_set(),
            )

        try:
            plan = await trio.to_thread.run_sync(work, abandon_on_cancel=True)
        finally:
            given_up.set()
        self._plans[request] = plan
        self._plans.move_to_end(request)
        while len(self._plans) > _MOST_PLANS:
            self._plans.popitem(last=False)
        return plan
