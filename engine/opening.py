"""What an engine lends to its sessions, opened around its users: the store first, so that the last flush finds it.

What only turns need (the sandbox, running a command) is imported when somebody first asks for it.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from engine import __version__
from engine.errors import StoreError
from engine.execution.shells import discover_shell
from engine.execution.snapshot_folder import SnapshotFolder
from engine.execution.supervisor import open_supervisor
from engine.models.opening import open_models
from engine.records import define
from engine.session.compaction.hooks import NO_HOOKS
from engine.session.resolving import SettingsResolver
from engine.session.services import Services
from engine.session.session import Session
from engine.telemetry.analytics import NO_ANALYTICS
from engine.telemetry.opening import open_bundles, open_telemetry
from engine.thread_store.local import open_local_store

if TYPE_CHECKING:
    from engine.auth.commands import RunCommand
    from engine.config.cache import Configurations
    from engine.execution.oneshot import CommandResult
    from engine.execution.sandbox.launcher import Sandbox
    from engine.execution.supervisor import Supervisor
    from engine.models.base import Model
    from engine.models.opening import HostIdentity
    from engine.session.compaction.hooks import CompactionHooks
    from engine.session.core import SessionCore
    from engine.session.environments import EnvironmentManager
    from engine.telemetry.handle import Telemetry
    from engine.thread_store.interface import ThreadStore

__all__ = ["open_services"]

logger = logging.getLogger("engine")


@asynccontextmanager
async def open_services(
    configurations: Configurations,
    environments: EnvironmentManager,
    store: ThreadStore | None,
    model: Model | None,
    host: HostIdentity,
    grace: float,
    compaction_hooks: CompactionHooks | None,
    on_crash: Callable[[Session, Exception], None] | None,
) -> AsyncIterator[Services]:
    """The services for the length of a block; arguments as `open_engine` has them. Raises `ConfigError`."""
    folder, environment = configurations.home, configurations.environment
    base = await configurations.get({}, os.getcwd())

    def crashed(core: SessionCore, error: Exception) -> None:
        logger.error("session %s ended by an error", core.thread_id, exc_info=error)
        if on_crash is not None:
            try:
                on_crash(Session._of(core), error)
            except Exception:
                logger.exception("on_crash failed")

    def opened_store(telemetry: Telemetry) -> AbstractAsyncContextManager[ThreadStore]:
        if store is not None:
            return nullcontext(store)
        return open_local_store(folder, durability=base.durability, grace=grace, telemetry=telemetry)

    protected = (str(folder),)
    async with (
        open_telemetry(base.otel, version=__version__) as telemetry,
        open_bundles(environment) as bundles,
        opened_store(telemetry) as threads,
        open_supervisor() as supervisor,
        open_models(
            base,
            model=model,
            home=folder,
            env=environment,
            host=host,
            run=_command_runner(supervisor),
            version=__version__,
        ) as models,
    ):
        yield Services(
            home=folder,
            environment=environment,
            store=threads,
            supervisor=supervisor,
            sandbox=functools.cache(functools.partial(_sandbox, supervisor, environment, protected)),
            protected=protected,
            grace=grace,
            resolver=SettingsResolver(configurations, models, environments),
            models=models,
            model_for=models.get,
            installation_id=_InstallationId(folder).get,
            environments=environments,
            shell=discover_shell,
            snapshots=SnapshotFolder.of(folder),
            telemetry=telemetry,
            otel=base.otel,
            bundles=bundles,
            analytics=NO_ANALYTICS,
            compaction_hooks=NO_HOOKS if compaction_hooks is None else compaction_hooks,
            crashed=crashed,
        )


def _sandbox(supervisor: Supervisor, environment: Mapping[str, str], protected: tuple[str, ...]) -> Sandbox:
    from engine.execution.sandbox.launcher import Sandbox

    return Sandbox(supervisor, environment=environment, protected=protected)


def _command_runner(supervisor: Supervisor) -> RunCommand:
    async def run(argv: Sequence[str], cwd: str, env: Mapping[str, str], timeout_ms: int) -> CommandResult:
        from engine.execution.oneshot import run_command

        return await run_command(supervisor, argv, cwd=cwd, env=env, timeout_ms=timeout_ms)

    return run


@define(eq=False)
class _InstallationId:
    """Resolved once, on first use; a home that can't be written gives this engine an id of its own."""

    home: Path
    _value: str | None = None
    _lock: trio.Lock = attrs.field(factory=trio.Lock)

    async def get(self) -> str:
        """The id of this installation."""
        async with self._lock:
            if self._value is None:
                self._value = await trio.to_thread.run_sync(_installation_id, self.home)
            return self._value


def _installation_id(home: Path) -> str:
    import uuid

    from engine.thread_store.installation import resolve_installation_id

    try:
        return resolve_installation_id(home)
    except StoreError:
        return str(uuid.uuid4())
