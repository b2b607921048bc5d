"""By default nothing leaves the machine, nothing is imported, and telling costs a start nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.models.scripts import reply
from engine.telemetry.analytics import NO_ANALYTICS, Fact, ThreadInitialized, TurnEnded
from tests.session.conftest import Lab

# Everything that may look like a wish to be measured, short of an address.
WISHES = {
    "analytics": {"enabled": True},
    "feedback": {"enabled": True},
    "otel": {
        "environment": "prod",
        "exporter": "statsig",
        "trace_exporter": "statsig",
        "metrics_exporter": "statsig",
        "log_user_prompt": True,
        "span_attributes": {"a": "b"},
    },
}

GUARDED = """
import os, socket, sys
reached = []
def hear(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        address = arguments[1] if event.startswith(("socket.connect", "socket.sendto")) else arguments[0]
        if not isinstance(address, (str, bytes)) or event in ("socket.getaddrinfo", "socket.gethostbyname"):
            reached.append((event, address))
sys.addaudithook(hear)
import tempfile, trio, engine
from engine.models.scripts import call, reply, response
async def main():
    with tempfile.TemporaryDirectory() as home:
        os.environ["CODEX_HOME"] = home
        answers = [response(call("exec_command", cmd="true")), reply("a"), reply("b"), reply("c")]
        options = dict(home=home, model=engine.ScriptedModel(answers), config=%(config)r)
        async with engine.open_engine(**options) as opened:
            settings = engine.SessionSettings(sandbox="danger-full-access")
            session = await opened.start_session(settings)
            await session.run("hi")
            await session.compact()
            await session.aclose()
            fork = await opened.fork_session(session.thread_id)
            await fork.run("again")
            try:
                await opened.start_session(engine.SessionSettings(cwd="/nowhere/at/all"))
            except engine.SessionStartError:
                pass
trio.run(main)
print(reached)
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("opentelemetry", "google", "grpc", "requests")))
print(sorted(name for name in sys.modules if name in (
    "engine.telemetry.otel", "engine.telemetry.exporters", "engine.telemetry.bundles", "engine.session.tracing")))
"""


def test_no_configuration_but_an_address_reaches_out() -> None:
    """Guards every connection, datagram and look-up of a name, in a process of its own."""
    script = GUARDED % {"config": WISHES}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[]\n[]\n[]\n"


def test_the_guard_hears_what_an_address_sets_off() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra `otel` is not installed")
    config = {"otel": {"exporter": {"otlp-http": {"endpoint": "http://127.0.0.1:1/v1/logs"}}}}
    script = GUARDED % {"config": config}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "127.0.0.1" in done.stdout.splitlines()[0]


async def test_a_warm_start_runs_none_of_it(lab: Lab) -> None:
    """Counts the calls into rooms that tell, of a start and a turn with everything off."""
    called: list[str] = []

    def watch(frame: object, event: str, argument: object) -> None:
        if event == "call":
            code = frame.f_code  # type: ignore[attr-defined]
            file = code.co_filename.replace("\\", "/")
            if "/engine/telemetry/" in file or file.endswith(("/telling.py", "/request_telling.py", "/tracing.py")):
                called.append(f"{file.rpartition('/engine/')[2]}:{code.co_name}")

    async with lab.open(reply("a", repeat=None)) as opened:
        async with opened.session(lab.settings()) as warm:
            await warm.run("hi")
        sys.setprofile(watch)
        try:
            session = await opened.start_session(lab.settings())
        finally:
            sys.setprofile(None)
        of_start = [name for name in called if not name.startswith("telemetry/trace.py")]
        called.clear()
        sys.setprofile(watch)
        try:
            await session.run("hi")
        finally:
            sys.setprofile(None)
        await session.aclose()
    # A start asks once; the loop of the session has a span that is nothing.
    assert set(of_start) <= {"session/telling.py:begin_telling", "telemetry/handle.py:span"}
    assert len(of_start) <= 2
    # An operation, a turn, its input, its request: one question each; none of them does anything.
    questions = {
        "session/telling.py:telling_operation",
        "session/telling.py:telling",
        "session/telling.py:tell_input",
        "session/request_telling.py:ask",
    }
    assert set(called) <= questions | {"telemetry/handle.py:current"}
    assert len(called) <= 6


async def test_analytics_are_nobody(lab: Lab) -> None:
    async with lab.open(reply("a"), config={"analytics.enabled": True}) as opened:
        async with opened.session(lab.settings()) as session:
            assert session._core.services.analytics is NO_ANALYTICS
            await session.run("hi")
    assert not NO_ANALYTICS.enabled
    NO_ANALYTICS.track(TurnEnded("t", "u", "regular", "m", 1, completed=True))


class Counting:
    """An analytics client that keeps what it is told."""

    enabled = True

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def track(self, fact: Fact, /) -> None:
        self.facts.append(fact)


async def test_the_place_of_a_client_is_told_facts_without_words(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Counting()
    monkeypatch.setattr("engine.opening.NO_ANALYTICS", client)
    async with lab.session(reply("my secret answer")) as session:
        result = await session.run("my secret question")
    first, second = client.facts
    assert isinstance(first, ThreadInitialized)
    assert (first.thread_id, first.kind, first.ephemeral) == (session.thread_id, "new", False)
    assert isinstance(second, TurnEnded)
    assert (second.thread_id, second.turn_id, second.kind) == (session.thread_id, result.id, "regular")
    assert second.completed
    assert "secret" not in str(client.facts)
