"""The events of a command come once, in order, and with the turn until it is handed over."""

from __future__ import annotations

from engine.protocol.events import ExecCommandBegin, ExecCommandEnd, ExecCommandOutputDelta
from engine.tools.command_events import CommandEvents

from .bench import Bench


def events_of(still: Bench) -> CommandEvents:
    return CommandEvents(still.context, "call", ("bash", "-c", "ls"), "/", "agent")


def test_no_end_without_a_begin_and_only_one(still: Bench) -> None:
    events = events_of(still)
    events.end(exit_code=0, seconds=1.0, stdout="")
    assert still.events == []
    events.begin()
    events.end(exit_code=0, seconds=61.25, stdout="a", stderr="b", aggregated="ab", shown="c")
    events.end(exit_code=1, seconds=2.0, stdout="")
    begin, end = still.events
    assert isinstance(begin, ExecCommandBegin)
    assert isinstance(end, ExecCommandEnd)
    assert (begin.process_id, begin.parsed_cmd) == (None, ({"type": "list_files", "cmd": "ls", "path": None},))
    assert end.parsed_cmd == begin.parsed_cmd
    assert (end.duration, end.status) == ({"secs": 61, "nanos": 250_000_000}, "completed")
    assert (end.stdout, end.stderr, end.aggregated_output, end.formatted_output) == ("a", "b", "ab", "c")


def test_status_tells_failures_and_refusals_apart(still: Bench) -> None:
    for exit_code, declined in [(0, False), (1, False), (-1, True)]:
        events = events_of(still)
        events.begin()
        events.end(exit_code=exit_code, seconds=-1.0, stdout="", declined=declined)
    ends = still.of(ExecCommandEnd)
    assert [end.status for end in ends] == ["completed", "failed", "declined"]
    assert ends[0].duration == {"secs": 0, "nanos": 0}


def test_events_outlive_the_turn_once_the_command_does(still: Bench) -> None:
    events = events_of(still)
    events.begin(1234)
    still.open = False
    events.output("stdout", b"dropped")
    events.hand_over()
    events.output("stdout", b"kept")
    events.end(exit_code=0, seconds=0.0, stdout="kept")
    assert [type(event) for event in still.events] == [ExecCommandBegin]
    assert [type(event) for event in still.later] == [ExecCommandOutputDelta, ExecCommandEnd]
    assert [end.process_id for end in still.of(ExecCommandEnd)] == ["1234"]
