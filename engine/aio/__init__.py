"""The engine for hosts on asyncio: the same names as `engine`, awaited on the host's loop.

    import asyncio
    import engine.aio

    async def main():
        async with engine.aio.open_engine() as host, host.session() as session:
            print((await session.run("What does this project do?")).final_message)

    asyncio.run(main())

The engine runs on a Trio loop in a thread of its own, so a busy host does not stall it. Cancelling an awaited call
cancels it there and waits for its cleanup; errors and context variables cross. Tools and approvers are coroutine
functions of the host and run on the host's loop, in the context of whoever started the turn; an interrupt cancels them.
Objects belong to the loop that opened the engine. Settings, inputs, events and errors are those of `engine`.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, final

import engine
from engine.aio.host import HooksOnLoop, Host
from engine.aio.session import EventStream, Session, Turn
from engine.aio.threads import Threads
from engine.config.sources import SYSTEM_FOLDER
from engine.portal import Portal
from engine.tools.approvals import refuse

if TYPE_CHECKING:
    from engine import (
        Approver,
        AttestationProvider,
        CompactionHooks,
        Config,
        ConfigEdit,
        ConfigWritten,
        ExternalLogin,
        ExternalTokens,
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


__all__ = ["Engine", "EventStream", "Session", "Threads", "Turn", "open_engine", "open_threads"]


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

    async def start_session(
        self, settings: SessionSettings | None = None, *, tools: Sequence[Tool] = (), approve: Approver = refuse
    ) -> Session:
        """Starts a new thread. It starts whole, or not at all and leaves nothing."""
        host = self._host
        start = functools.partial(
            self._inner.start_session, settings, tools=host.tools(tools), approve=host.approver(approve)
        )
        return Session(host, await host.call(start, undo=engine.Session.aclose))

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
        """Goes on with a stored thread."""
        host = self._host
        resume = functools.partial(
            self._inner.resume_session,
            thread,
            update,
            settings=settings,
            any_cwd=any_cwd,
            tools=host.tools(tools),
            approve=host.approver(approve),
        )
        return Session(host, await host.call(resume, undo=engine.Session.aclose))

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
            tools=host.tools(tools),
            approve=host.approver(approve),
        )
        return Session(host, await host.call(fork, undo=engine.Session.aclose))

    @property
    def threads(self) -> Threads:
        """The stored threads; they need not run."""
        return Threads(self._host, self._inner.threads)

    async def find_thread(
        self,
        *,
        name: str | None = None,
        cwd: PathLike[str] | str | None = None,
        model_provider: str | None = None,
    ) -> ThreadId | None:
        """The most recently updated stored thread that fits; what is `None` does not matter."""
        return await self._host.call(
            functools.partial(self._inner.find_thread, name=name, cwd=cwd, model_provider=model_provider)
        )

    @asynccontextmanager
    async def session(
        self, settings: SessionSettings | None = None, *, tools: Sequence[Tool] = (), approve: Approver = refuse
    ) -> AsyncIterator[Session]:
        """A new session for the length of a block; leaving it closes the session."""
        session = await self.start_session(settings, tools=tools, approve=approve)
        try:
            yield session
        finally:
            await session.aclose()

    async def read_config(self, cwd: PathLike[str] | str | None = None) -> LayerStack:
        """The configuration as it stands in its layers now."""
        return await self._host.call(self._inner.read_config, cwd)

    async def load_config(self, cwd: PathLike[str] | str | None = None) -> Config:
        """The configuration that a session in `cwd` would start with, all values resolved."""
        return await self._host.call(self._inner.load_config, cwd)

    async def write_config(
        self,
        edits: Sequence[ConfigEdit],
        *,
        expected_version: str | None = None,
        file: PathLike[str] | str | None = None,
        reload: bool = False,
    ) -> ConfigWritten:
        """Changes the user's configuration file, all edits or none."""
        return await self._host.call(
            functools.partial(
                self._inner.write_config, edits, expected_version=expected_version, file=file, reload=reload
            )
        )

    async def reload_config(self) -> None:
        """Lets the sessions that run see the user's configuration as it stands now."""
        await self._host.call(self._inner.reload_config)

    async def models(
        self, refresh: RefreshStrategy = "online_if_uncached", *, provider: str | None = None, hidden: bool = False
    ) -> tuple[ModelInfo, ...]:
        """The models to choose from, best first."""
        return await self._host.call(functools.partial(self._inner.models, refresh, provider=provider, hidden=hidden))

    async def login(self) -> Login | None:
        """Who the sessions are at OpenAI's servers."""
        return await self._host.call(self._inner.login)

    async def log_in(self, api_key: str) -> None:
        """Stores an API key as the login of the home."""
        await self._host.call(self._inner.log_in, api_key)

    async def log_out(self) -> bool:
        """Removes the login; whether there was one."""
        return await self._host.call(self._inner.log_out)

    def sessions(self) -> tuple[Session, ...]:
        """The sessions that run now, oldest first."""
        return tuple(Session(self._host, inner) for inner in self._host.now(self._inner.sessions))


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
    """An engine for the length of a block, on a Trio loop in a thread of its own. Parameters as `engine.open_engine`.

    `auth`, `attestation`, `compaction_hooks` and `on_crash` are called on the host's loop. Several engines may be open
    at once, each with its own thread.
    """
    crashed: Callable[[engine.Session, Exception], None] | None = None
    if on_crash is not None:
        told = on_crash

        def crashed(inner: engine.Session, error: Exception) -> None:
            host.loop.call_soon_threadsafe(told, Session(host, inner), error)

    async def tokens(previous_account: str | None, /) -> ExternalLogin:
        assert auth is not None
        return await host.callback(auth)(previous_account)

    async def vouch(thread_id: str, /) -> str | None:
        assert attestation is not None
        return await host.callback(attestation)(thread_id)

    opening = functools.partial(
        engine.open_engine,
        home=home,
        config=config,
        store=store,
        model=model,
        api_key=api_key,
        auth=None if auth is None else tokens,
        attestation=None if attestation is None else vouch,
        grace=grace,
        on_crash=crashed,
        ignore_user_config=ignore_user_config,
        strict_config=strict_config,
        config_profile=config_profile,
        system_folder=system_folder,
        environments=environments,
        compaction_hooks=None if compaction_hooks is None else HooksOnLoop(compaction_hooks),
    )
    host = Host(Portal(opening, "engine"))
    async with _opened(host) as inner:
        yield Engine(host, inner)


@asynccontextmanager
async def open_threads(*, home: PathLike[str] | str | None = None) -> AsyncIterator[Threads]:
    """The stored threads of a home for the length of a block, without an engine. As `engine.open_threads`."""
    host = Host(Portal(functools.partial(engine.open_threads, home=home), "engine threads"))
    async with _opened(host) as inner:
        yield Threads(host, inner)


@asynccontextmanager
async def _opened(host: Host[S]) -> AsyncIterator[S]:
    """Starts the portal of a host and opens what it is for; both are over at the end of the block."""
    host.portal.start()
    try:
        yield await host.call(host.portal.open)
    finally:
        try:
            await host.call(host.portal.close)
        finally:
            host.portal.end()
