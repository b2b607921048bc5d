"""Engines for session tests: a temporary home, a scripted model, no user configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import engine
from engine.models.scripts import ScriptLike
from engine.models.scripts import script as make_script
from engine.protocol.events import Event, EventMsg
from engine.protocol.wire import JsonObject


class Lab:
    """Opens engines on one home and looks at what they left."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.cwd = root / "work"
        self.home.mkdir()
        self.cwd.mkdir()
        self.model: engine.ScriptedModel = engine.ScriptedModel([])

    @asynccontextmanager
    async def open(self, *answers: object, **options: object) -> AsyncIterator[engine.Engine]:
        """An engine whose model gives `answers`, in order."""
        self.model = engine.ScriptedModel(make_script(*answers))  # type: ignore[arg-type]
        async with engine.open_engine(home=self.home, model=self.model, **options) as opened:  # type: ignore[arg-type]
            yield opened

    def settings(self, **changes: object) -> engine.SessionSettings:
        """Settings of a session that may run commands in the work folder."""
        return engine.SessionSettings(cwd=self.cwd, sandbox="danger-full-access", **changes)  # type: ignore[arg-type]

    @asynccontextmanager
    async def session(
        self, *answers: object, tools: tuple[engine.Tool, ...] = (), **settings: object
    ) -> AsyncIterator[engine.Session]:
        """A session in an engine of its own."""
        async with self.open(*answers) as opened:
            async with opened.session(self.settings(**settings), tools=tools) as session:
                yield session

    def input(self, request: int = -1) -> list[JsonObject]:
        """The `input` of a request the model has seen."""
        items = self.model.requests[request].body["input"]
        assert isinstance(items, list)
        return items

    def rollouts(self) -> list[Path]:
        """All rollout files."""
        return sorted(self.home.glob("sessions/*/*/*/*.jsonl"))

    def lines(self) -> list[JsonObject]:
        """The lines of the only rollout file."""
        import json

        (path,) = self.rollouts()
        return [json.loads(line) for line in path.read_text().splitlines()]

    def kinds(self) -> list[str]:
        """The kinds of the lines of the only rollout file, events and items by their own type."""
        found: list[str] = []
        for line in self.lines():
            payload = line["payload"]
            assert isinstance(payload, dict)
            kind = payload.get("type") if line["type"] in ("event_msg", "response_item") else line["type"]
            found.append(f"{kind}:{payload['role']}" if kind == "message" else str(kind))
        return found


def texts(items: list[JsonObject]) -> list[str]:
    """The texts of all messages of a request."""
    found: list[str] = []
    for item in items:
        content = item.get("content")
        if isinstance(content, list):
            found.extend(part["text"] for part in content if "text" in part)
    return found


async def collect(turn: engine.Turn) -> list[EventMsg]:
    """All events of a turn."""
    return [event.msg async for event in turn]


def types(events: list[EventMsg] | list[Event]) -> list[str]:
    """The types of events."""
    return [event.msg.type if isinstance(event, Event) else event.type for event in events]


__all__ = ["Lab", "ScriptLike", "collect", "texts", "types"]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)
