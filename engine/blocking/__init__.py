"""The engine for blocking code: the same names as `engine`, as plain methods.

    import engine.blocking

    with engine.blocking.open_engine() as host, host.session() as session:
        print(session.run("What does this project do?").final_message)

The engine runs on a Trio loop in a thread of its own; objects may be used from any thread. Ctrl-C in a waiting call
cancels it there and waits for its cleanup, then it is raised. Errors and context variables cross. Tools and approvers
are plain functions and run in worker threads, which nothing can stop: after an interrupt their result is dropped.
Settings, inputs, events and errors are those of `engine`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, final

import engine
from engine.blocking.host import Approver, CompactionHooks, HooksInThreads, Host, in_thread, refuse, tool
from engine.blocking.session import EventStream, Session, Turn
from engine.blocking.threads import Threads
from engine.config.sources import SYSTEM_FOLDER
from engine.portal import Portal

if TYPE_CHECKING:
    from engine import (
        Config,
        ConfigEdit,
        ConfigWritten,
        ExternalLogin,
        LayerStack,
        Login,
        Model,
        ModelInfo,
        SessionSettings,
        SettingsUpdate,
        ThreadId,
        ThreadStore,
        Tool,
        TurnId,
    )
    from engine.models.manager import RefreshStrategy
    from engine.session.environments import Environment


__all__ = [
    "Approver",
    "CompactionHooks",
    "Engine",
    "EventStream",
    "Session",
    "Threads",
    "Turn",
    "open_engine",
    "open_threads",
    "refuse",
    "tool",
]


S = TypeVar("S")


@final
class Engine:
    """A running engine, as `engine.Engine`; `open_engine` makes it."""

    def __init__(self, host: Host[engine.Engine], inner: engine.Engine) -> None:
        self._host = host
        self._inner = inner

    @property
    def home(self) -> Path:
        """The state directory."""
        return self._inner.home

    def start_session(
        self, settings: SessionSettings | None = None, *, tools: Sequence[Tool] = (), approve: Approver = refuse
    ) -> Session:
        """Starts a new thread. It starts whole, or not at all and leaves nothing."""
        host = self._host
        start = functools.partial(self._inner.start_session, settings, tools=tools, approve=host.approver(approve))
        return Session(host, host.call(start, undo=engine.Session.aclose))

    def resume_session(
        self,
        thread: ThreadId | str | PathLike[str] | Literal["last"],
        update: SettingsUpdate | None = None,
        *,
        settings: SessionSettings | None = None,
        any_cwd: bool = False,
        tools: Sequence[Tool] = (),
        approve: Approver = refuse,
    ) -> Session:
        """Goes on with a stored thread."""
        host = self._host
        resume = functools.partial(
            self._inner.resume_session,
            thread,
            update,
            settings=settings,
            any_cwd=any_cwd,
            tools=tools,
            approve=host.approver(approve),
        )
        return Session(host, host.call(resume, undo=engine.Session.aclose))

    def fork_session(
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
        """Goes on with a copy of a stored thread, under a new id; the thread itself stays as it is."""
        host = self._host
        fork = functools.partial(
            self._inner.fork_session,
            thread,
            update,
            before=before,
            through=through,
            settings=settings,
            any_cwd=any_cwd,
            tools=tools,
            approve=host.approver(approve),
        )
        return Session(host, host.call(fork, undo=engine.Session.aclose))

    @property
    def threads(self) -> Threads:
        """The stored threads; they need not run."""
        return Threads(self._host, self._inner.threads)

    def find_thread(
        self,
        *,
        name: str | None = None,
        cwd: PathLike[str] | str | None = None,
        model_provider: str | None = None,
    ) -> ThreadId | None:
        """The most recently updated stored thread that fits; what is `None` does not matter."""
        return self._host.call(
            functools.partial(self._inner.find_thread, name=name, cwd=cwd, model_provider=model_provider)
        )

    @contextmanager
    def session(
        self, settings: SessionSettings | None = None, *, tools: Sequence[Tool] = (), approve: Approver = refuse
    ) -> Iterator[Session]:
        """A new session for the length of a block; leaving it closes the session."""
        session = self.start_session(settings, tools=tools, approve=approve)
        try:
            yield session
        finally:
            session.aclose()

    def read_config(self, cwd: PathLike[str] | str | None = None) -> LayerStack:
        """The configuration as it stands in its layers now."""
        return self._host.call(self._inner.read_config, cwd)

    def load_config(self, cwd: PathLike[str] | str | None = None) -> Config:
        """The configuration that a session in `cwd` would start with, all values resolved."""
        return self._host.call(self._inner.load_config, cwd)

    def write_config(
        self,
        edits: Sequence[ConfigEdit],
        *,
        expected_version: str | None = None,
        file: PathLike[str] | str | None = None,
        reload: bool = False,
    ) -> ConfigWritten:
        """Changes the user's configuration file, all edits or none."""
        return self._host.call(
            functools.partial(
                self._inner.write_config, edits, expected_version=expected_version, file=file, reload=reload
            )
        )

    def reload_config(self) -> None:
        """Lets the sessions that run see the user's configuration as it stands now."""
        self._host.call(self._inner.reload_config)

    def models(
        self, refresh: RefreshStrategy = "online_if_uncached", *, provider: str | None = None, hidden: bool = False
    ) -> tuple[ModelInfo, ...]:
        """The models to choose from, best first."""
        return self._host.call(functools.partial(self._inner.models, refresh, provider=provider, hidden=hidden))

    def login(self) -> Login | None:
        """Who the sessions are at OpenAI's servers."""
        return self._host.call(self._inner.login)

    def log_in(self, api_key: str) -> None:
        """Stores an API key as the login of the home."""
        self._host.call(self._inner.log_in, api_key)

    def log_out(self) -> bool:
        """Removes the login; whether there was one."""
        return self._host.call(self._inner.log_out)

    def sessions(self) -> tuple[Session, ...]:
        """The sessions that run now, oldest first."""
        return tuple(Session(self._host, inner) for inner in self._host.now(self._inner.sessions))


@contextmanager
def open_engine(
    *,
    home: PathLike[str] | str | None = None,
    config: Mapping[str, object] | None = None,
    store: ThreadStore | None = None,
    model: Model | None = None,
    api_key: str | None = None,
    auth: Callable[[str | None], ExternalLogin] | None = None,
    attestation: Callable[[str], str | None] | None = None,
    grace: float = 10.0,
    on_crash: Callable[[Session, Exception], None] | None = None,
    ignore_user_config: bool = False,
    strict_config: bool = False,
    config_profile: str | None = None,
    system_folder: PathLike[str] | str = SYSTEM_FOLDER,
    environments: Sequence[Environment] = (),
    compaction_hooks: CompactionHooks | None = None,
) -> Iterator[Engine]:
    """An engine for the length of a block, on a Trio loop in a thread of its own. Parameters as `engine.open_engine`.

    `auth`, `attestation` and `compaction_hooks` are called in worker threads, `on_crash` in a thread of its own.
    Several engines may be open at once, each with its own thread.
    """
    crashed: Callable[[engine.Session, Exception], None] | None = None
    if on_crash is not None:
        told = on_crash

        def crashed(inner: engine.Session, error: Exception) -> None:
            threading.Thread(target=told, args=(Session(host, inner), error), name="on_crash", daemon=True).start()

    opening = functools.partial(
        engine.open_engine,
        home=home,
        config=config,
        store=store,
        model=model,
        api_key=api_key,
        auth=None if auth is None else in_thread(auth),
        attestation=None if attestation is None else in_thread(attestation),
        grace=grace,
        on_crash=crashed,
        ignore_user_config=ignore_user_config,
        strict_config=strict_config,
        config_profile=config_profile,
        system_folder=system_folder,
        environments=environments,
        compaction_hooks=None if compaction_hooks is None else HooksInThreads(compaction_hooks),
    )
    host = Host(Portal(opening, "engine"))
    with _opened(host) as inner:
        yield Engine(host, inner)


@contextmanager
def open_threads(*, home: PathLike[str] | str | None = None) -> Iterator[Threads]:
    """The stored threads of a home for the length of a block, without an engine. As `engine.open_threads`."""
    host = Host(Portal(functools.partial(engine.open_threads, home=home), "engine threads"))
    with _opened(host) as inner:
        yield Threads(host, inner)


@contextmanager
def _opened(host: Host[S]) -> Iterator[S]:
    """Starts the portal of a host and opens what it is for; both are over at the end of the block."""
    host.portal.start()
    try:
        yield host.call(host.portal.open)
    finally:
        try:
            host.call(host.portal.close)
        finally:
            host.portal.end()
