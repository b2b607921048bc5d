"""The one turn of `engine exec`: opens an engine, starts or resumes a session, shows its events as they come."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import time
from typing import TYPE_CHECKING

import trio

from engine.cli.output import Machine, Output
from engine.cli.preparation import ExecPlan
from engine.cli.signals import StopRequest, stop_on_signals
from engine.cli.streams import Stderr, Stdout
from engine.errors import EngineError, SessionStartError
from engine.protocol.codec import json_bytes
from engine.protocol.events import TaskComplete, TurnAborted
from engine.records import define
from engine.runtime import Engine, open_engine
from engine.session.settings import SessionSettings, SettingsUpdate
from engine.telemetry.trace import StartupTrace, TraceRecorder

if TYPE_CHECKING:
    from engine.cli.outcome import TurnOutcome
    from engine.session.session import Session, Turn

__all__ = ["run_turn"]

THREAD_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
INTERRUPT_BOUND = 10.0  # seconds a first signal waits for the turn to end in good order
EVENT_BUFFER = 65_536  # events; deltas are merged beyond that, nothing else is lost


def run_turn(plan: ExecPlan, stdout: Stdout, stderr: Stderr, trace: TraceRecorder) -> int:
    """Runs the plan to its exit code. Raises what `open_engine` and starting a session raise, and `OutputClosed`."""
    with stop_on_signals() as stop:
        return trio.run(_Run(plan, stdout, stderr, trace, stop).main)


@define(eq=False)
class _Run:
    plan: ExecPlan
    stdout: Stdout
    stderr: Stderr
    trace: TraceRecorder
    stop: StopRequest
    active: Turn | None = None
    code: int = 1
    failure: Exception | None = None

    async def main(self) -> int:
        self.stop.arm()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey_stop, nursery.cancel_scope)
            try:
                await self._engine()
            except Exception as exc:
                self.failure = exc  # told outside, so that no group wraps it
            nursery.cancel_scope.cancel()
        if self.failure is not None:
            raise self.failure
        return self.code

    async def _obey_stop(self, everything: trio.CancelScope) -> None:
        await self.stop.wait()
        if self.active is not None:
            with trio.move_on_after(INTERRUPT_BOUND), contextlib.suppress(EngineError):
                await self.active.interrupt()
                return  # its last event ends the run
        everything.cancel(reason="a signal asked to stop")

    async def _engine(self) -> None:
        plan = self.plan
        began = time.perf_counter()
        async with open_engine(
            home=plan.home,
            config=dict(plan.overrides),
            ignore_user_config=plan.arguments.ignore_user_config,
            strict_config=plan.arguments.strict_config,
            config_profile=plan.arguments.profile,
            api_key=os.environ.get("CODEX_API_KEY") or None,
        ) as engine:
            self.trace.add("open engine", began, time.perf_counter())
            try:
                session = await self._start(engine)
            except SessionStartError as exc:
                if exc.startup_trace is not None:
                    self._show_trace(exc.startup_trace)
                raise
            try:
                await self._turn(session)
            finally:
                self._show_trace(session.startup_trace)
                await session.aclose()

    async def _start(self, engine: Engine) -> Session:
        plan, arguments = self.plan, self.plan.arguments
        config: dict[str, object] = {"approval_policy": "never"}  # so that nothing is said about another one
        if plan.writable_roots:
            config["additional_writable_roots"] = list(plan.writable_roots)
        settings = SessionSettings(
            cwd=plan.cwd,
            model=plan.model,
            model_provider=plan.provider,
            approval_policy="never",
            sandbox=plan.sandbox,  # type: ignore[arg-type]  # the parser knows the three modes
            config=config,
            ephemeral=arguments.ephemeral,
            source="exec",
            thread_source=arguments.thread_source,
        )
        began = time.perf_counter()
        session = await self._resume(engine, settings) or await engine.start_session(settings)
        self.trace.add("start session", began, time.perf_counter())
        self.trace.finish()
        return session

    async def _resume(self, engine: Engine, settings: SessionSettings) -> Session | None:
        """The session that was asked for; `None` where a new one starts (app_server.md 6.3)."""
        arguments = self.plan.arguments
        thread: str | None = None
        cwd = None if arguments.all_folders else self.plan.cwd
        if arguments.last:
            thread = await engine.find_thread(cwd=cwd, model_provider=self.plan.config.model_provider_id)
        elif arguments.session is not None and THREAD_ID.fullmatch(arguments.session):
            thread = arguments.session.lower()
        elif arguments.session is not None:
            thread = await engine.find_thread(name=arguments.session, cwd=cwd)
        return None if thread is None else await engine.resume_session(thread, settings=settings)

    async def _turn(self, session: Session) -> None:
        output = self._output()
        output.started(session)
        with session.events(buffer=EVENT_BUFFER, overflow="merge_deltas") as events:
            update = SettingsUpdate(output_schema=self.plan.output_schema) if self.plan.output_schema else None
            self.active = await session.start_turn(self.plan.input, update)
            gc.enable()  # see `main`
            output.outcome.turn_id = self.active.id
            async for event in events:
                output.event(event)
                if event.id == self.active.id and isinstance(event.msg, TaskComplete | TurnAborted):
                    break
        output.finished(_written(session.rollout_path))
        self._write_last_message(output.outcome)
        self.code = output.outcome.exit_code

    def _output(self) -> Output:
        if self.plan.arguments.json:
            return Machine(self.stdout)
        from engine.cli.person import Person

        return Person.of(self.plan, self.stdout, self.stderr)

    def _show_trace(self, session: StartupTrace) -> None:
        """Last of all: what runs in the background has ended by then, or is shown as running."""
        where = self.plan.arguments.trace_startup
        if where is None:
            return
        from engine.cli.terminal import Palette, colour_wanted
        from engine.cli.waterfall import chrome_trace, waterfall

        self.trace.include(session)
        trace = self.trace.trace()
        if not where:
            colour = colour_wanted(self.plan.arguments.color, self.stderr.stream, os.environ)
            self.stderr.write(waterfall(trace, Palette(colour)))
            return
        try:
            with open(where, "wb") as file:
                file.write(json_bytes(chrome_trace(trace)))
        except OSError as exc:
            self.stderr.line(f"Failed to write the startup trace to {where}: {exc.strerror}")

    def _write_last_message(self, outcome: TurnOutcome) -> None:
        name = self.plan.arguments.output_last_message
        if name is None or outcome.status != "completed":
            return
        message = outcome.final_message
        try:
            with open(name, "w", encoding="utf-8", newline="") as file:
                file.write(message or "")
        except OSError as exc:
            self.stderr.line(f"Failed to write last message file {name}: {exc.strerror}")
            return
        if message is None:
            self.stderr.line(f"Warning: no last agent message; wrote empty content to {name}")


def _written(rollout: str | None) -> str | None:
    """The session file, if there is one: an unwritable home leaves none."""
    return rollout if rollout is not None and os.path.exists(rollout) else None
