"""The engine: starts and resumes sessions, and closes them before what they share (`engine/opening.py`)."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

import trio

from engine.config.cache import Configurations
from engine.config.loading import find_home
from engine.config.sources import SYSTEM_FOLDER
from engine.errors import ConfigError, SessionClosed, SessionCrashed
from engine.models.opening import HostIdentity
from engine.opening import open_services
from engine.protocol.ids import ThreadId, TurnId
from engine.session.core import SessionCore
from engine.session.environments import Environment, EnvironmentManager
from engine.session.session import Session
from engine.session.settings import SessionSettings, SettingsUpdate
from engine.session.startup import StartRequest, Step, start_session
from engine.session.steps import GRAPH
from engine.session.submissions import ReloadConfig, Submission
from engine.session.ward import collapse
from engine.thread_store.interface import ThreadQuery
from engine.thread_store.local import open_local_store
from engine.tools.approvals import refuse

if TYPE_CHECKING:
    from engine.auth.attestation import AttestationProvider
    from engine.auth.manager import ExternalTokens, Login
    from engine.config.editing import ConfigEdit
    from engine.config.layers import LayerStack
    from engine.config.model import Config
    from engine.config.writing import ConfigWritten
    from engine.models.base import Model
    from engine.models.catalogue import ModelInfo
    from engine.models.manager import RefreshStrategy
    from engine.session.compaction.hooks import CompactionHooks
    from engine.session.services import Services
    from engine.thread_store.interface import ThreadStore
    from engine.thread_store.threads import Threads
    from engine.tools.approvals import Approver
    from engine.tools.functions import Tool

__all__ = ["Engine", "open_engine", "open_threads"]

logger = logging.getLogger("engine")


@final
class Engine:
    """A running engine; `open_engine` makes it. Methods may be called from any task of its Trio run."""

    def __init__(self) -> None:
        raise TypeError("use `open_engine()` to get an Engine")

    _services: Services
    _configurations: Configurations
    _nursery: trio.Nursery
    _pending: set[trio.CancelScope]
    _sessions: set[SessionCore]
    _graph: Sequence[Step]
    _closing: bool

    @classmethod
    def _make(
        cls, services: Services, configurations: Configurations, nursery: trio.Nursery, graph: Sequence[Step]
    ) -> Engine:
        engine: Engine = object.__new__(cls)
        engine._services = services
        engine._configurations = configurations
        engine._nursery = nursery
        engine._pending = set()
        engine._sessions = set()
        engine._graph = graph
        engine._closing = False
        return engine

    @property
    def home(self) -> Path:
        """The state directory, shared with the other program on purpose."""
        return self._services.home

    @trio.lowlevel.enable_ki_protection  # what Ctrl-C meets on the way was not started, or is in the caller's hands
    async def start_session(
        self,
        settings: SessionSettings | None = None,
        *,
        tools: Sequence[Tool] = (),
        approve: Approver = refuse,
    ) -> Session:
        """Starts a new thread. It starts whole, or not at all and leaves nothing.

        Raises `SessionStartError` (with `stage` and `cause`) or `EngineClosed`. Being cancelled discards the start.
        """
        return await self._start(
            StartRequest(settings=settings or SessionSettings(), functions=tuple(tools), approve=approve)
        )

    @trio.lowlevel.enable_ki_protection
    async def resume_session(
        self,
        thread: ThreadId | str | PathLike[str] | Literal["last"],
        update: SettingsUpdate | None = None,
        *,
        settings: SessionSettings | None = None,
        any_cwd: bool = False,
        tools: Sequence[Tool] = (),
        approve: Approver = refuse,
    ) -> Session:
        """Goes on with a stored thread: its id, its rollout file, or `"last"` for the newest one of this cwd.

        With `any_cwd`, `"last"` means the newest of all. What `settings` leaves open comes from the thread's last turn
        (its cwd) and the configuration; `update` comes on top. A thread that already runs in this engine is returned as
        it is. Raises as `start_session`; an unknown thread is a `SessionStartError` caused by `ThreadNotFound`.
        """
        running = self._running(thread)
        if running is not None:
            await trio.lowlevel.checkpoint()
            return running
        return await self._start(
            StartRequest(
                settings=settings or SessionSettings(),
                update=update,
                thread=_thread(thread),
                any_cwd=any_cwd,
                functions=tuple(tools),
                approve=approve,
            )
        )

    @trio.lowlevel.enable_ki_protection
    async def fork_session(
        self,
        thread: ThreadId | str | PathLike[str] | Literal["last"],
        update: SettingsUpdate | None = None,
        *,
        before: int | Literal["interrupted"] = "interrupted",
        through: TurnId | str | None = None,
        settings: SessionSettings | None = None,
        any_cwd: bool = False,
        tools: Sequence[Tool] = (),
        approve: Approver = refuse,
    ) -> Session:
        """Goes on with a copy of a stored thread, under a new id; the thread itself stays as it is, also if it runs.

        - `before`: `"interrupted"` copies everything, and a turn that has not ended as an interrupted one; a number,
          what comes before the n-th user message (0-based, without those that were rolled back)
        - `through`: the id of a turn; copies everything up to its end, whatever `before` says

        Everything else is as for `resume_session`. Raises as `start_session`; then no copy is left.
        """
        from engine.thread_store.threads import snapshot_of

        return await self._start(
            StartRequest(
                settings=settings or SessionSettings(),
                update=update,
                thread=_thread(thread),
                any_cwd=any_cwd,
                snapshot=snapshot_of(before, through),
                functions=tuple(tools),
                approve=approve,
            )
        )

    @property
    def threads(self) -> Threads:
        """The stored threads: list, read, rename, archive, delete, page their turns. They need not run."""
        from engine.thread_store.threads import Threads

        return Threads._of(self._services.store, self._active_turn)

    async def find_thread(
        self,
        *,
        name: str | None = None,
        cwd: PathLike[str] | str | None = None,
        model_provider: str | None = None,
    ) -> ThreadId | None:
        """The most recently updated stored thread that fits; what is `None` does not matter.

        `cwd` is the one of its latest turn.
        """
        query = ThreadQuery(name=name, cwd=None if cwd is None else os.fspath(cwd), model_provider=model_provider)
        found = await self._services.store.latest_thread(query)
        return None if found is None else found.thread_id

    @asynccontextmanager
    async def session(
        self,
        settings: SessionSettings | None = None,
        *,
        tools: Sequence[Tool] = (),
        approve: Approver = refuse,
    ) -> AsyncIterator[Session]:
        """A new session for the length of a block; leaving it closes the session."""
        session = await self.start_session(settings, tools=tools, approve=approve)
        try:
            yield session
        finally:
            await session.aclose()

    async def read_config(self, cwd: PathLike[str] | str | None = None) -> LayerStack:
        """The configuration as it stands in its layers now: `table` merged, `origin_layers`, `everything`.

        `cwd` brings the layers of its project; without it there are none. Raises `ConfigError`.
        """
        return await trio.to_thread.run_sync(self._configurations.read, cwd)

    async def load_config(self, cwd: PathLike[str] | str | None = None) -> Config:
        """The configuration that a session in `cwd` (default: the process's) would start with, all values resolved.

        It has the features, what an administrator requires, what is to be said at a start, and what has no effect.
        Raises `ConfigError`.
        """
        return await self._configurations.of_directory(cwd)

    async def write_config(
        self,
        edits: Sequence[ConfigEdit],
        *,
        expected_version: str | None = None,
        file: PathLike[str] | str | None = None,
        reload: bool = False,
    ) -> ConfigWritten:
        """Changes the user's configuration file, all edits or none; comments and the order of keys survive.

        `expected_version` is the fingerprint (`Layer.version`) the caller saw last; `file` the file it means. Sessions
        that run keep what they started with, or see the change with `reload` (`reload_config`). Raises
        `ConfigWriteError`. A write that has begun is finished before a cancellation is heard.
        """
        from engine.config.writing import write_config

        sources = self._configurations.sources(None)
        written = await trio.to_thread.run_sync(
            lambda: write_config(sources, edits, expected_version=expected_version, file=file)
        )
        if reload:
            await self.reload_config()
        return written

    async def reload_config(self) -> None:
        """Lets the sessions that run see the user's configuration as it stands now (session.md 3.1).

        Later changes of settings then find the permission profiles and `[sandbox_workspace_write]` of the file. What a
        start resolves (model, features, approvals, providers) stays as it was for the session's life. Raises
        `ConfigError` where the file is bad; nothing has changed then. A session whose other layers do not go with it
        keeps what it has, with a line in the log.
        """
        fresh = await self.read_config()
        for core in list(self._sessions):
            submission = Submission(ReloadConfig(fresh))
            try:
                await core.submit(submission)
                await submission.reply.wait()
            except (SessionClosed, SessionCrashed):
                continue  # it needs none any more
            except ConfigError as exc:
                logger.warning("session %s keeps its configuration: %s", core.thread_id, exc)

    async def models(
        self, refresh: RefreshStrategy = "online_if_uncached", *, provider: str | None = None, hidden: bool = False
    ) -> tuple[ModelInfo, ...]:
        """The models to choose from, best first; `hidden`: all that are known. Default: of the configured provider.

        `refresh` says where from: `online` asks the server, `offline` reads what is known here, `online_if_uncached`
        asks where that is older than five minutes. Only a ChatGPT login and providers with `auth` ask at all; where a
        server does not answer, the list is what was known before. Raises `ConfigError`, `UnknownProvider`.
        """
        config = await self._configurations.get({}, os.getcwd())
        return await self._services.models.choices(config, refresh, provider_id=provider, hidden=hidden)

    async def login(self) -> Login | None:
        """Who the sessions are at OpenAI's servers, `None` without a login. Renews one that has ended.

        Raises `LoginError` where it can't be read, or where configuration does not allow it.
        """
        return await self._services.models.auth.login()

    async def log_in(self, api_key: str) -> None:
        """Stores an API key as the login of the home. Raises `InvalidRequest`, `LoginError`."""
        await self._services.models.auth.log_in_with_key(api_key)

    async def log_out(self) -> bool:
        """Removes the login from wherever it is kept; whether there was one. Raises `LoginError`."""
        return await self._services.models.auth.log_out()

    def sessions(self) -> tuple[Session, ...]:
        """The sessions that run now, oldest first."""
        running = sorted(self._sessions, key=lambda core: core.thread_id)
        return tuple(Session._of(core) for core in running)

    async def _start(self, request: StartRequest) -> Session:
        core = await start_session(
            self._nursery, self._pending, self._services, request, self._graph, lambda: self._closing
        )
        self._sessions.add(core)
        core.on_finished = self._sessions.discard
        return Session._of(core)

    def _active_turn(self, thread_id: ThreadId) -> str | None:
        """The turn a thread runs now, if it does."""
        turns = (core.active for core in self._sessions if core.thread_id == thread_id)
        return next((turn.id for turn in turns if turn is not None), None)

    def _running(self, thread: object) -> Session | None:
        for core in self._sessions:
            if core.thread_id == thread and not core.closing:
                return Session._of(core)
        return None

    async def _close(self) -> None:
        """Ends every session, orderly within the grace, by force after it."""
        self._closing = True
        for scope in list(self._pending):
            scope.cancel(reason="the engine is closing")
        grace = self._services.grace
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 3 * grace):
            async with trio.open_nursery() as closing:
                for core in list(self._sessions):
                    closing.start_soon(Session._of(core).aclose)


def _thread(thread: ThreadId | str | PathLike[str]) -> ThreadId | Path | Literal["last"]:
    if isinstance(thread, str):
        return "last" if thread == "last" else ThreadId(thread)
    return Path(thread)


def _home(home: PathLike[str] | str | None, environment: Mapping[str, str]) -> Path:
    return find_home(environment) if home is None else Path(home).absolute()


def _absolute(path: PathLike[str] | str) -> str:
    return os.path.abspath(path)


@asynccontextmanager
async def open_engine(
    *,
    home: PathLike[str] | str | None = None,
    config: Mapping[str, object] | None = None,
    store: ThreadStore | None = None,
    model: Model | None = None,
    api_key: str | None = None,
    auth: ExternalTokens | None = None,
    attestation: AttestationProvider | None = None,
    grace: float = 10.0,
    on_crash: Callable[[Session, Exception], None] | None = None,
    ignore_user_config: bool = False,
    strict_config: bool = False,
    config_profile: str | None = None,
    system_folder: PathLike[str] | str = SYSTEM_FOLDER,
    environments: Sequence[Environment] = (),
    compaction_hooks: CompactionHooks | None = None,
) -> AsyncIterator[Engine]:
    """An engine for the length of a block; leaving it ends every session, orderly within `grace` seconds.

    - `home`: the state directory; default `CODEX_HOME`, else `~/.codex`, shared with the other program on purpose
    - `config`: configuration for all sessions, as dotted keys or tables, above the user's file
    - `store`: where threads live; default: rollout files below `home`
    - `model`: what all sessions talk to, e.g. a `ScriptedModel`; default: the provider the configuration names
    - `api_key`: a key for providers that use OpenAI's login
    - `auth`: asked for the tokens of a ChatGPT login when the first request needs them, and when a server refuses them;
      they are kept in memory only. An `api_key` comes first
    - `attestation`: asked before each model request for a header that vouches for this program
    - `on_crash`: told when a running session ends by an error of its own; the others live on
    - `ignore_user_config`: as if `config.toml` of the home were empty; `strict_config`: unknown keys are errors
    - `config_profile`: a profile of the configuration: `<profile>.config.toml` in the home, else `[profiles.<profile>]`
    - `system_folder`: where an administrator's files stand (`config.toml`, `managed_config.toml`, `requirements.toml`)
    - `environments`: where commands can run besides this machine, which sessions and turns may select by their ids
    - `compaction_hooks`: asked before and after each compaction of a session; they may stop it, or the turn after it

    Raises `ConfigError` where the configuration can't be used. Changes no state of the process.
    """
    environment = dict(os.environ)
    folder = _home(home, environment)
    configurations = Configurations(
        folder,
        environment,
        dict(config or {}),
        ignore_user_config,
        strict_config,
        config_profile,
        _absolute(system_folder),
    )
    host = HostIdentity(api_key=api_key, external=auth, attestation=attestation)
    failure: Exception | None = None
    try:
        async with (
            open_services(
                configurations, EnvironmentManager(environments), store, model, host, grace, compaction_hooks, on_crash
            ) as services,
            trio.open_nursery() as nursery,
        ):
            engine = Engine._make(services, configurations, nursery, GRAPH)
            try:
                yield engine
            except Exception as exc:
                failure = exc  # crosses no nursery: raised below, as it came
            finally:
                await engine._close()
                nursery.cancel_scope.cancel(reason="the engine is closed")
    except BaseExceptionGroup as group:
        raise collapse(group) from None  # Ctrl-C, which may come while the services close too
    if failure is not None:
        raise failure


@asynccontextmanager
async def open_threads(*, home: PathLike[str] | str | None = None) -> AsyncIterator[Threads]:
    """The stored threads of a home for the length of a block, without an engine: no configuration, no processes.

    `home`: the state directory; default `CODEX_HOME`, else `~/.codex`. It need not exist. Engines on the same
    home, here or in other processes, may run meanwhile. Raises `ConfigError` for a `CODEX_HOME` that is no directory.
    """
    from engine.thread_store.threads import Threads

    async with open_local_store(_home(home, os.environ)) as store:
        yield Threads._of(store)
