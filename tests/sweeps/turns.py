"""A turn with everything in it, and what must be true of it however it ended (session.md 3.5)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

import engine
from engine.models.catalogue import find_model
from engine.models.scripts import (
    When,
    call,
    cut,
    patch,
    reply,
    response,
    say,
    script,
    shell,
    usage,
)
from engine.models.serving import ScriptServer, serve_script
from engine.protocol.events import Event
from engine.protocol.ids import TurnId
from engine.protocol.wire import JsonObject
from engine.rollout.reconstruction import reconstruct
from engine.session.delivery import EventStream
from engine.session.history import History
from engine.tools.approvals import ToolApproval
from tests.sweeps.leaks import Snapshot, differences

__all__ = ["NO_SNAPSHOT", "Story", "check_events", "check_history", "check_request", "check_rollout", "drained"]

PATCH = "*** Begin Patch\n*** Add File: answer.txt\n+forty\n+two\n*** End Patch\n"
MARKER = "<turn_aborted>"
# Processes are counted, and one that reads a profile belongs to the session, not to what is swept.
NO_SNAPSHOT = {"features.shell_snapshot": False}
ENDINGS = ("task_complete", "turn_aborted")


def model() -> engine.ScriptedModel:
    """Streams text, calls two tools at once (one asks first), runs a command that leaves processes, patches, breaks off
    and is tried again, is steered."""
    return engine.ScriptedModel(
        script(
            response(say("fine", phase="final_answer"), when=When(user_text="next"), repeat=None),
            response(say("I look at it first.", chunk=8, interval=0.001), call("first"), call("second"), usage(9, 3)),
            response(shell("sleep 1000 >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 & echo one")),
            response(patch(PATCH)),
            response(say("Almo", chunk=2, interval=0.001), cut()),
            response(call("third")),
            reply("done", repeat=None),
            usage=None,
        )
    )


async def approve(request: engine.ApprovalRequest, /) -> engine.Decision:
    """Thinks a moment, then says yes."""
    assert isinstance(request, ToolApproval)
    await trio.sleep(0.001)
    return "approved"


@attrs.define(eq=False)
class Story:
    """One session with that turn. `stubborn`: a tool that is slow to let go, so that the turn is fenced off. `network`:
    the model answers over HTTP and server-sent events."""

    cwd: Path
    stubborn: bool = False
    network: bool = False
    persistence: str = "extended"
    model: engine.ScriptedModel = attrs.field(factory=model)
    session: engine.Session = attrs.field(init=False)

    def settings(self) -> engine.SessionSettings:
        """Settings of the session."""
        return engine.SessionSettings(
            cwd=self.cwd,
            sandbox="danger-full-access",
            persistence=self.persistence,  # type: ignore[arg-type]
            config=NO_SNAPSHOT,
        )

    def tools(self) -> tuple[engine.Tool, ...]:
        """Three tools; the last one steers the turn it runs in."""
        met = [trio.Event(), trio.Event()]

        @engine.tool(needs_approval=True)
        async def first() -> str:
            met[0].set()
            await met[1].wait()
            return "first"

        @engine.tool()
        async def second() -> str:
            met[1].set()
            await met[0].wait()
            if self.stubborn:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.02)
            return "second"

        @engine.tool()
        async def third() -> str:
            try:
                await self.session.steer("and this")
            except engine.InvalidRequest:
                pass  # the turn is over, and this call with it
            return "third"

        return first, second, third

    @asynccontextmanager
    async def open(self, home: Path) -> AsyncIterator[engine.Engine]:
        """An engine that talks to the model."""
        if not self.network:
            async with engine.open_engine(home=home, model=self.model, grace=5) as opened:
                yield opened
            return
        servers: list[ScriptServer] = []
        listening, over = trio.Event(), trio.Event()

        async def serve() -> None:  # a system task, because its steps are no points
            async with trio.open_nursery() as nursery:
                servers.append(await nursery.start(serve_script, self.model))
                listening.set()
            over.set()

        trio.lowlevel.spawn_system_task(serve)
        await listening.wait()
        provider = {"name": "network", "base_url": servers[0].url, "wire_api": "responses"}
        config = {"model_provider": "network", "model_providers.network": provider}
        try:
            async with engine.open_engine(home=home, config=config, grace=5) as opened:
                yield opened
        finally:
            servers[0].stop()
            with trio.CancelScope(shield=True):
                await over.wait()

    def left(self, before: Snapshot, after: Snapshot) -> list[str]:
        """What is there that was not. Connections that wait for the next request are kept, and the server's too."""
        found = differences(before, after)
        return [text for text in found if not text.startswith("descriptors")] if self.network else found

    async def start(self, opened: engine.Engine) -> engine.Session:
        """Starts the session."""
        self.session = await opened.start_session(self.settings(), tools=self.tools(), approve=approve)
        return self.session

    def lines(self) -> list[JsonObject]:
        """The lines of the rollout, each of them whole; none before the first."""
        path = self.session.rollout_path
        assert path is not None
        if not Path(path).exists():
            return []
        text = Path(path).read_text()
        assert not text or text.endswith("\n"), "the last line is torn"
        return [json.loads(line) for line in text.splitlines()]

    def check_files(self) -> None:
        """The patch was applied whole or not at all, and left nothing else."""
        found = {path.name: path.read_text() for path in self.cwd.iterdir()}
        assert found in ({}, {"answer.txt": "forty\ntwo\n"}), found


def check_events(events: Sequence[Event], turn: TurnId) -> str | None:
    """One end, and nothing of the turn after it. Returns how it ended; `None` where it never began."""
    of_the_turn = [event.msg.type for event in events if event.id == turn]
    if not of_the_turn:
        return None
    assert [kind for kind in of_the_turn if kind in ENDINGS] == of_the_turn[-1:], of_the_turn
    return of_the_turn[-1]


def check_rollout(lines: Sequence[JsonObject], turn: TurnId) -> str | None:
    """The turn ends once: with the marker and `turn_aborted`, or with `task_complete`; nothing of it comes after that.

    Returns how it ended.
    """
    kinds = [_kind(line) for line in lines]
    ends = [
        position
        for position, line in enumerate(lines)
        if line["type"] == "event_msg" and _payload(line).get("turn_id") == turn and kinds[position] in ENDINGS
    ]
    assert len(ends) <= 1, [kinds[position] for position in ends]
    if not ends:
        assert "task_started" not in kinds, f"the turn has no end: {kinds}"
        return None
    (end,) = ends
    following = kinds[end + 1 :]
    if following[:2] == ["message", "turn_aborted"]:  # the next turn was stopped before it could tell that it began
        assert _payload(lines[end + 2])["turn_id"] != turn
        assert MARKER in json.dumps(lines[end + 1])
    else:
        assert following[:1] in ([], ["task_started"]), f"after the end: {kinds[end:]}"
    begin = max((position for position in range(end) if kinds[position] == "task_started"), default=0)
    markers = [position for position in range(begin, end + 1) if MARKER in json.dumps(lines[position])]
    assert markers == ([end - 1] if kinds[end] == "turn_aborted" else []), (markers, kinds)
    return kinds[end]


def _payload(line: JsonObject) -> JsonObject:
    payload = line["payload"]
    assert isinstance(payload, dict)
    return payload


def _kind(line: JsonObject) -> str:
    return str(_payload(line).get("type") if line["type"] in ("event_msg", "response_item") else line["type"])


def check_request(body: JsonObject) -> None:
    """Every call has its output right after the calls of its response, and no output is without its call."""
    items = body["input"]
    assert isinstance(items, list)
    called: list[str] = []
    answered: list[str] = []
    for item in items:
        kind = item.get("type", "")
        if kind.endswith("_call"):
            called.append(item["call_id"])
        elif kind.endswith("_call_output"):
            assert item["call_id"] in called, "an output without its call"
            answered.append(item["call_id"])
    assert sorted(called) == sorted(answered), "calls and outputs are no pairs"


async def check_history(opened: engine.Engine, session: engine.Session) -> None:
    """What a resume would send is what the session itself would send."""
    stored = await opened._services.store.load_history(session.thread_id)
    assert stored.skipped == 0
    core = session._core
    policy = find_model(core.configuration.model, core.configuration.config).truncation_policy
    resumed = History()
    resumed.replace(reconstruct(stored.items, policy).history)
    assert resumed.for_request(images=True) == core.history.for_request(images=True)


async def drained(stream: EventStream) -> list[Event]:
    """The events that are there already."""
    found: list[Event] = []
    while stream.pending():
        found.append(await anext(stream))
    return found
