"""The steps of a start that exist today (session.md 2.2-2.7); services that come later register theirs in `GRAPH`."""

from __future__ import annotations

import functools
import os
import time
from typing import TYPE_CHECKING, Final, cast

from engine import __version__
from engine.errors import ConfigError, StoreError, ThreadNotFound
from engine.execution.git_info import read_git_info
from engine.execution.shells import refuse_zsh_fork
from engine.models.identity import originator
from engine.models.personality import base_instructions
from engine.protocol.events import DeprecationNotice, SessionConfigured, Warning
from engine.protocol.ids import SessionId, new_thread_id, parse_thread_id
from engine.protocol.rollout_items import BaseInstructions, SessionMeta
from engine.rollout.lines import format_timestamp
from engine.rollout.policy import PersistenceMode
from engine.session.account_plan import with_account_plan
from engine.session.core import SessionCore, absolute_folder
from engine.session.delivery import EventHub
from engine.session.settings import UNSET
from engine.session.startup import Start, Step, check_graph
from engine.thread_store.interface import CreateThread, ResumeThread, ThreadQuery

if TYPE_CHECKING:
    from engine.models.catalogue import ModelInfo
    from engine.protocol.rollout_items import RolloutItem
    from engine.thread_store.stored_tail import StoredTail

__all__ = ["GRAPH"]

ON_FAILURE_DEPRECATED = (
    "`on-failure` approval policy is deprecated and will be removed in a future release. "
    "Use `on-request` for interactive approvals or `never` for non-interactive runs."
)
OTEL_OF_ENGINE = (
    "`[otel]` holds for a whole engine, as it was opened with it; what this session's configuration has there "
    "is ignored."
)
MODEL_CHANGED = (
    "This session was recorded with model `{previous}` but is resuming with `{current}`. "
    "Consider switching back to `{previous}` as it may affect Codex performance."
)


async def _configuration(start: Start) -> None:
    """cwd, configuration, settings: what everything else depends on. A resumed thread goes on in its last cwd."""
    request, services = start.request, start.services
    settings = request.settings
    cwd = _cwd(start)
    start.resolved = resolved = await services.resolver.resolve(
        settings,
        cwd,
        last=None if start.tail is None else start.tail.latest_turn,
    )
    configuration = resolved.configuration
    if request.update is not None:
        moved = None if request.update.cwd is None else absolute_folder(request.update.cwd, cwd)
        configuration = configuration.apply(request.update, cwd=moved)
        configuration = configuration.in_environments(request.update.environments, services.environments)
    tiers = (settings.service_tier, UNSET if request.update is None else request.update.service_tier)
    start.configuration = await with_account_plan(configuration, resolved.provider, services.models, *tiers)


def _cwd(start: Start) -> str:
    wanted = start.request.settings.cwd
    if wanted is None and start.tail is not None and os.path.isdir(start.tail.cwd):
        wanted = start.tail.cwd
    return absolute_folder(wanted or ".", "/" if wanted is not None and os.path.isabs(wanted) else os.getcwd())


async def _stored_thread(start: Start) -> None:
    """Finds the thread to go on with, or to fork, and reads its end."""
    thread = start.request.thread
    if thread is None:
        return
    store = start.services.store
    if thread == "last":
        cwd = None if start.request.any_cwd else str(start.request.settings.cwd or os.getcwd())
        found = await store.latest_thread(ThreadQuery(cwd=cwd))
        if found is None:
            where = "" if cwd is None else f" of {cwd}"
            raise ThreadNotFound(f"there is no stored thread{where} to resume", thread="last")
        thread = found.thread_id
    elif isinstance(thread, str):
        thread = parse_thread_id(thread)
    tail: object = await store.load_tail(thread)
    if not isinstance(getattr(tail, "meta", None), SessionMeta):  # stores may be anybody's
        raise StoreError(f"the thread store gave no end of thread {thread}, but {tail!r}")
    start.tail = cast("StoredTail", tail)


async def _model(start: Start) -> None:
    """The model's metadata and the base instructions."""
    assert start.configuration is not None
    assert start.resolved is not None
    catalogue = start.services.models.catalogue(start.configuration.config)
    start.model = start.resolved.model(start.configuration.model, catalogue)


async def _shell(start: Start) -> None:
    """The user's shell, unless the host chose one; discovered once per process. The fork backend of zsh is refused."""
    assert start.configuration is not None
    if start.configuration.shell is not None:
        return
    config = start.configuration.config
    if config.features.get("shell_zsh_fork", False):
        try:
            refuse_zsh_fork(config.zsh_path)
        except ConfigError as exc:
            raise config.placed(exc) from exc
    start.services.shell()


async def _thread_persistence(start: Start) -> None:
    """The live thread. A new one touches no disk; its file comes with the first item worth keeping."""
    configuration, model, resolved = start.configuration, start.model, start.resolved
    assert configuration is not None
    assert resolved is not None
    assert model is not None
    mode: PersistenceMode = "extended" if configuration.persistence == "extended" else "limited"
    forks = start.request.snapshot is not None
    if start.tail is not None and not forks:
        start.thread_id = start.tail.thread_id
        from engine.session.fork import stored_at

        params = ResumeThread(thread=stored_at(start.tail), mode=mode, tail=start.tail)
        start.live = (await start.guard.resume(params)).live
        return
    start.thread_id = new_thread_id()
    if configuration.ephemeral:
        if forks:
            from engine.session.fork import fork_in_memory

            await fork_in_memory(start, start.thread_id, mode)
        return
    cwd = configuration.cwd
    meta = SessionMeta(
        id=start.thread_id,
        timestamp=format_timestamp(time.time_ns()),
        cwd=cwd,
        originator=originator(start.services.environment),
        cli_version=__version__,
        source=configuration.source,
        thread_source=configuration.thread_source,
        model_provider=resolved.provider.id,
        base_instructions=BaseInstructions(_instructions(start)),
        memory_mode=None if configuration.config.memories.generate_memories else "disabled",
    )
    git = functools.partial(read_git_info, cwd)
    if forks:
        from engine.session.fork import fork_stored

        await fork_stored(start, meta, mode, git)
    else:
        start.live = start.guard.create(CreateThread(meta=meta, mode=mode, git=git))


def _instructions(start: Start) -> str:
    assert start.configuration is not None
    assert start.model is not None
    if start.configuration.instructions is not None:
        return start.configuration.instructions
    if start.tail is not None and start.tail.meta.base_instructions is not None:
        return start.tail.meta.base_instructions.text
    return base_instructions(start.model, start.configuration.personality)


async def _session(start: Start) -> None:
    """The session object with what a resumed thread left, then `session_configured` and the notices, in order."""
    configuration, model, thread_id = start.configuration, start.model, start.thread_id
    assert start.resolved is not None
    assert configuration is not None
    assert model is not None
    assert thread_id is not None
    config = configuration.config
    if config.lock is not None:
        from engine.session.config_lock import hold_to_lock

        await hold_to_lock(start, config.lock, _instructions(start))
    hub = EventHub(show_raw_reasoning=config.show_raw_agent_reasoning)
    hub.bind(start.live)
    core = SessionCore(
        services=start.services,
        thread_id=thread_id,
        session_id=SessionId(thread_id),
        configuration=configuration,
        base_instructions=_instructions(start),
        functions=start.request.functions,
        approve=start.request.approve,
        hub=hub,
        compaction_hooks=start.services.compaction_hooks,
        default_model=model.slug,
        rollout_path=start.live.rollout_path if start.live is not None else None,
    )
    previous = _restore(core, start.tail, model) if start.tail is not None else None
    provider = start.resolved.provider
    hub.emit("", _configured(start, core, provider.id))
    for summary, details in config.deprecations:
        hub.emit("", DeprecationNotice(summary, details))
    for text in (*config.warnings, *configuration.warnings):
        hub.emit("", Warning(text))
    if config.otel != start.services.otel:
        hub.emit("", Warning(OTEL_OF_ENGINE))
    if config.unstable_warning is not None:
        hub.emit("", Warning(config.unstable_warning))
    if configuration.approval_policy == "on-failure":
        hub.emit("", Warning(ON_FAILURE_DEPRECATED))
    for text in start.warnings:
        hub.emit("", Warning(text))
    if previous is not None and previous != model.slug and start.request.snapshot is None:
        hub.emit("auto-compact-0", Warning(MODEL_CHANGED.format(previous=previous, current=model.slug)))
    if start.live is not None:
        start.live.on_lost(functools.partial(_from_memory, core))
        start.live.on_notice(lambda text: hub.emit("", Warning(text)))
    if provider.supports_websockets:
        from engine.session.prewarm import Prewarm

        core.prewarm = Prewarm()
    start.core = core


def _restore(core: SessionCore, tail: StoredTail, model: ModelInfo) -> str | None:
    from engine.session.resume import restore

    return restore(core, tail, model)


def _from_memory(core: SessionCore) -> list[RolloutItem]:
    from engine.session.from_memory import items_from_memory

    return items_from_memory(core)


def _configured(start: Start, core: SessionCore, provider: str) -> SessionConfigured:
    configuration, model, tail = core.configuration, start.model, start.tail
    assert model is not None
    return SessionConfigured(
        session_id=core.session_id,
        thread_id=core.thread_id,
        forked_from_id=tail.meta.forked_from_id if tail is not None else None,
        thread_source=configuration.thread_source,
        model=model.slug,
        model_provider_id=provider,
        service_tier=configuration.service_tier,
        approval_policy=configuration.approval_policy,
        approvals_reviewer=configuration.approvals_reviewer,
        permission_profile=configuration.permissions.profile,
        active_permission_profile=configuration.permissions.snapshot.active,
        cwd=configuration.cwd,
        reasoning_effort=configuration.reasoning_effort or model.default_reasoning_level,
        initial_messages=tail.events if tail is not None else None,
        rollout_path=core.rollout_path,
    )


async def _window_generation(start: Start) -> None:
    """Counts how often a resumed thread was compacted, where nobody knows yet; the first model request waits for it."""
    core, tail = start.core, start.tail
    assert core is not None
    assert tail is not None
    from engine.session.resume import count_generation

    await count_generation(core, start.services.store, tail)


def _is_uncounted(start: Start) -> bool:
    return start.core is not None and start.core.counting is not None


async def _model_catalogue(start: Start) -> None:
    """The models of the provider: what an earlier session left, and what the server says where that is too old."""
    assert start.configuration is not None
    models = start.services.models
    manager = models.manager(models.get(start.configuration.config))
    if manager is not None:
        await manager.prepare()


def _wants_catalogue(start: Start) -> bool:
    assert start.configuration is not None
    return start.services.models.wants_catalogue(start.configuration.config)


async def _prewarm(start: Start) -> None:
    """Connects to a model that takes WebSockets; the first turn finds the connection there."""
    assert start.core is not None
    assert start.core.prewarm is not None
    await start.core.prewarm.run(start.core)


def _has_prewarm(start: Start) -> bool:
    return start.core is not None and start.core.prewarm is not None


# Seconds. A disk or a network that hangs must not hang a start; a large thread on a slow disk takes its time.
WAITS: Final = 60.0
COPIES: Final = 600.0

GRAPH: tuple[Step, ...] = (
    Step("stored_thread", _stored_thread, deadline=WAITS, waits=lambda start: start.request.thread is not None),
    Step(
        "configuration",
        _configuration,
        needs=("stored_thread",),
        budget_ms=0.2,
        deadline=WAITS,
        gives=("resolved", "configuration"),
    ),
    Step("shell", _shell, needs=("configuration",)),
    Step("model", _model, needs=("configuration",), gives=("model",)),
    Step(
        "thread_persistence",
        _thread_persistence,
        needs=("model",),
        budget_ms=0.2,
        deadline=COPIES,
        waits=lambda start: start.tail is not None,
        gives=("thread_id",),
    ),
    Step(
        "session",
        _session,
        needs=("thread_persistence", "shell"),
        budget_ms=0.2,
        deadline=WAITS,
        waits=lambda start: start.configuration is not None and start.configuration.config.lock is not None,
        gives=("core",),
    ),
    Step(
        "window_generation",
        _window_generation,
        needs=("session",),
        when="background",
        applies=_is_uncounted,
        on_failure="warn",
        deadline=COPIES,
    ),
    Step(
        "model_catalogue",
        _model_catalogue,
        needs=("session",),
        when="background",
        applies=_wants_catalogue,
        on_failure="log",
        deadline=WAITS,
    ),
    Step(
        "prewarm",
        _prewarm,
        needs=("session",),
        when="background",
        applies=_has_prewarm,
        on_failure="log",
        deadline=WAITS,
    ),
)
check_graph(GRAPH)
