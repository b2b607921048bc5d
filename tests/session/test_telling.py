"""What describes a session never ends it, fails it, or makes it read what it did not need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, get_args

import pytest

import engine
from engine.models.scripts import reply
from engine.session import submissions
from engine.session.telling import _OPERATIONS
from engine.telemetry.handle import Attributes, Beginning, Telemetry
from tests.session.conftest import Lab
from tests.telemetry.recording import Recording


def heard_by(monkeypatch: pytest.MonkeyPatch, handle: Recording) -> None:
    """Engines that open from now on tell `handle`."""

    @asynccontextmanager
    async def opened(*arguments: Any, **options: Any) -> AsyncIterator[Telemetry]:
        yield handle

    monkeypatch.setattr("engine.opening.open_telemetry", opened)


async def test_turns_are_counted_and_a_history_that_nobody_read_stays_unread(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording()
    heard_by(monkeypatch, recording)
    async with lab.open(reply("a"), reply("b")) as opened:
        async with opened.session(lab.settings()) as session:
            await session.run("one")
            await session.run("two")
        again = await opened.resume_session(session.thread_id)
        past = again._core.history
        await again.aclose()
        assert past._deferred is not None
    counted = [value for name, value, _ in recording.counted if name == "codex.conversation.turn.count"]
    assert counted == [2, 0]


async def test_operations_have_the_names_of_the_wire(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording()
    heard_by(monkeypatch, recording)
    async with lab.session(reply("a")) as session:
        await session.run("hi")
        await session.run_shell("true")
        await session.interrupt()
    names = [name for name, _ in recording.spans if name.startswith("op.dispatch.")]
    assert names == [f"op.dispatch.{name}" for name in ("user_turn", "run_user_shell_command", "interrupt", "shutdown")]


def test_each_operation_has_a_name() -> None:
    assert {kind.__name__ for kind in get_args(submissions.Op)} == set(_OPERATIONS)


class Broken(Recording):
    """A handle with bugs."""

    def session(self, beginning: Beginning) -> Telemetry:
        raise RuntimeError("a bug of ours")

    def count(self, name: str, value: int = 1, tags: Attributes | None = None) -> None:
        raise RuntimeError("another bug")


@pytest.mark.parametrize("fails", [False, True])
async def test_a_bug_in_what_describes_a_start_does_not_end_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    heard_by(monkeypatch, Broken())
    async with lab.open(reply("a")) as opened:
        if fails:
            with pytest.raises(engine.SessionStartError) as caught:
                await opened.start_session(engine.SessionSettings(cwd=lab.cwd / "missing"))
            assert caught.value.stage == "configuration"
        else:
            async with opened.session(lab.settings()) as session:
                assert (await session.run("hi")).final_message == "a"
    assert "is not described as it should be" in caplog.text


async def test_a_bug_in_what_describes_an_end_does_not_hold_it_up(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recording = Recording()
    heard_by(monkeypatch, recording)
    async with lab.session(reply("a")) as session:
        await session.run("hi")
        monkeypatch.setattr(recording, "count", Broken().count)
    await session.wait_closed()
    assert "the end of session" in caplog.text


class Propagating(Recording):
    """A handle whose trace goes to the server."""

    def propagation(self) -> Mapping[str, str]:
        return {"traceparent": "00-x"}


async def test_requests_of_turns_and_compactions_carry_the_trace(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    heard_by(monkeypatch, Propagating())
    async with lab.session(reply("a"), reply("What was said.")) as session:
        await session.run("hi")
        await session.compact()
    assert [request.headers["traceparent"] for request in lab.model.requests] == ["00-x", "00-x"]
