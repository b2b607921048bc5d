"""What is special about blocking hosts: Ctrl-C in a waiting call, many threads, plain functions as callbacks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import engine
import engine.blocking
from engine.models import scripts

FREE = engine.SessionSettings(sandbox="danger-full-access", approval_policy="never")

INTERRUPTED = """
import sys, threading
import engine, engine.blocking
from engine.models import scripts

later = scripts.response(scripts.say("later"), when=scripts.When(user_text="once again"))
model = engine.ScriptedModel([later, scripts.response(scripts.wait(), repeat=None)])
settings = engine.SessionSettings(sandbox="danger-full-access", approval_policy="never")
with engine.blocking.open_engine(home=sys.argv[1], model=model) as host, host.session(settings) as session:
    def tell(stream):
        for event in stream:
            if event.msg.type == "task_started":
                print("ready", flush=True)
                return

    with session.events() as stream:
        telling = threading.Thread(target=tell, args=(stream,))
        telling.start()
        try:
            session.run("x")
        except KeyboardInterrupt:
            print("interrupted", session.status, flush=True)
        telling.join()
    print(session.run("once again").final_message, flush=True)
print([thread.name for thread in threading.enumerate() if not thread.daemon])
"""


def test_ctrl_c_interrupts_the_turn_before_it_is_raised(tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "ready\n"
        os.kill(host.pid, signal.SIGINT)
        rest = host.stdout.read().splitlines()
    assert rest == ["interrupted interrupted", "later", "['MainThread']"]
    assert host.returncode == 0


def test_any_thread_may_use_the_engine(tmp_path: Path) -> None:
    results: dict[str, str | None] = {}
    with engine.blocking.open_engine(
        home=tmp_path, model=engine.ScriptedModel([scripts.reply("hi", repeat=None)])
    ) as host:

        def work(name: str) -> None:
            with host.session(FREE) as session:
                results[name] = session.run(name).final_message

        threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert host.sessions() == ()
    assert results == {f"t{number}": "hi" for number in range(8)}


def test_an_interrupt_does_not_wait_for_a_person(tmp_path: Path) -> None:
    asked, answer = threading.Event(), threading.Event()

    def approve(request: engine.ApprovalRequest, /) -> engine.Decision:
        asked.set()
        answer.wait()
        return "approved"

    @engine.blocking.tool(needs_approval=True)
    def delete(key: str) -> str:
        """Deletes a key."""
        pytest.fail("it ran")

    model = engine.ScriptedModel([scripts.response(scripts.call("delete", key="k")), "done"])
    with engine.blocking.open_engine(home=tmp_path, model=model) as host:
        with host.session(FREE, tools=[delete], approve=approve) as session:
            turn = session.start_turn("go")
            asked.wait()
            turn.interrupt()
            with pytest.raises(engine.TurnInterrupted):
                turn.result()
            answer.set()


def test_a_tool_keeps_its_signature() -> None:
    @engine.blocking.tool(name="add")
    def add(a: int, b: int = 1) -> int:
        """Adds.

        a: The first.
        """
        return a + b

    assert add.name == "add"
    assert add.parameters["required"] == ["a"]
    assert add.description.startswith("Adds.")


def test_closing_from_another_thread_ends_a_waiting_call(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    model = engine.ScriptedModel([scripts.response(scripts.wait())])
    with engine.blocking.open_engine(home=tmp_path, model=model) as host:
        session = host.start_session(FREE)
        turn = session.start_turn("x")

        def wait() -> None:
            try:
                turn.result()
            except engine.EngineError as exc:
                failures.append(exc)

        waiting = threading.Thread(target=wait)
        waiting.start()
    waiting.join()
    assert [type(failure) for failure in failures] in ([engine.TurnInterrupted], [engine.EngineClosed])
