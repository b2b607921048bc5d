"""Core events become the recorded JSON lines, row by row of the table."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from engine.cli.jsonl import JsonLines
from engine.protocol.events import (
    ContextCompacted,
    DeprecationNotice,
    ErrorEvent,
    Event,
    EventMsg,
    PlanStep,
    PlanUpdate,
    StreamError,
    TaskComplete,
    TaskStarted,
    TerminalInteraction,
    TurnAborted,
    TurnDiff,
    Warning,
)
from engine.protocol.settings import TokenUsage, TokenUsageInfo
from engine.protocol.turn_items import (
    AddChange,
    DeleteChange,
    FileChange,
    FileChangeItem,
    PlanItem,
    ReasoningItem,
    UpdateChange,
    UserMessageItem,
    WebSearchItem,
)
from engine.protocol.wire import JsonObject
from tests.cli.events import (
    TURN,
    command_begin,
    command_end,
    completed,
    delta,
    of_turn,
    said,
    started,
    used,
    whole_turn,
)

USAGE = {
    "input_tokens": 100,
    "cached_input_tokens": 10,
    "cache_write_input_tokens": 0,
    "output_tokens": 20,
    "reasoning_output_tokens": 5,
}
ZERO = dict.fromkeys(USAGE, 0)


def lines(events: Iterable[Event], mapper: JsonLines | None = None) -> list[JsonObject]:
    mapper = mapper or JsonLines()
    return [line for event in events for line in mapper.map(event)]


def items(*msgs: EventMsg) -> list[tuple[object, object]]:
    """Kind and item of the lines between `turn.started` and the end."""
    return [(line["type"], line["item"]) for line in lines(whole_turn(*msgs)) if "item" in line]


def test_a_whole_run_as_recorded() -> None:
    events = [
        Event(TURN, Warning("Model metadata for `mock-model` not found.")),
        *whole_turn(
            started(ReasoningItem("rs_1", ())),
            completed(ReasoningItem("rs_1", ("Thinking.",))),
            said("Looking.", "msg_0"),
            command_begin("echo one; exit 3"),
            command_end("echo one; exit 3", "one\n", 3),
            used(1),
            delta("Done.", "msg_2"),
            said("Done.", "msg_2"),
            used(2),
        ),
    ]
    command = {"id": "item_3", "type": "command_execution", "command": "/bin/bash -c 'echo one; exit 3'"}
    assert lines(events) == [
        {
            "type": "item.completed",
            "item": {"id": "item_0", "type": "error", "message": "Model metadata for `mock-model` not found."},
        },
        {"type": "turn.started"},
        {"type": "item.completed", "item": {"id": "item_1", "type": "reasoning", "text": "Thinking."}},
        {"type": "item.completed", "item": {"id": "item_2", "type": "agent_message", "text": "Looking."}},
        {
            "type": "item.started",
            "item": {**command, "aggregated_output": "", "exit_code": None, "status": "in_progress"},
        },
        {
            "type": "item.completed",
            "item": {**command, "aggregated_output": "one\n", "exit_code": 3, "status": "failed"},
        },
        {"type": "item.completed", "item": {"id": "item_4", "type": "agent_message", "text": "Done."}},
        {"type": "turn.completed", "usage": {key: 2 * value for key, value in USAGE.items()}},
    ]


def test_usage_is_zero_when_unknown_and_knows_cache_writes() -> None:
    assert lines(whole_turn())[-1] == {"type": "turn.completed", "usage": ZERO}
    usage = TokenUsage(100, 10, 20, 5, 120, extra={"cache_write_input_tokens": 7})
    last = lines(whole_turn(used(1), _count(usage)))[-1]
    assert last == {"type": "turn.completed", "usage": {**USAGE, "cache_write_input_tokens": 7}}


def _count(usage: TokenUsage) -> EventMsg:
    made = used(1)
    assert made.info is not None
    return type(made)(TokenUsageInfo(usage, usage))


def test_reasoning_parts_are_joined_and_blank_reasoning_is_skipped() -> None:
    assert items(completed(ReasoningItem("rs", ("a", "b"), ("raw",)))) == [
        ("item.completed", {"id": "item_0", "type": "reasoning", "text": "a\nb"})
    ]
    assert items(completed(ReasoningItem("rs", (" ", ""))), said("x"))[0][1] == {
        "id": "item_0",
        "type": "agent_message",
        "text": "x",
    }


def test_a_patch_is_started_and_completed_with_one_number() -> None:
    changes: dict[str, FileChange] = {"/p/b": UpdateChange("@@"), "/p/a": AddChange("x"), "/p/c": DeleteChange("y")}
    shown = [
        {"path": "/p/a", "kind": "add"},
        {"path": "/p/b", "kind": "update"},
        {"path": "/p/c", "kind": "delete"},
    ]
    for status, told in (("completed", "completed"), ("failed", "failed"), ("declined", "failed"), (None, "completed")):
        made = items(
            started(FileChangeItem("call_1", changes)), completed(FileChangeItem("call_1", changes, status=status))
        )
        item = {"id": "item_0", "type": "file_change", "changes": shown}
        assert made == [
            ("item.started", {**item, "status": "in_progress"}),
            ("item.completed", {**item, "status": told}),
        ]


def test_commands_that_overlap_keep_their_numbers() -> None:
    made = items(
        command_begin("a", "call_a"),
        command_begin("b", "call_b"),
        command_end("b", "", 0, call_id="call_b"),
        command_end("a", "", 1, call_id="call_a"),
    )
    numbers = [(kind, item["id"]) for kind, item in made if isinstance(item, dict)]
    assert numbers == [
        ("item.started", "item_0"),
        ("item.started", "item_1"),
        ("item.completed", "item_1"),
        ("item.completed", "item_0"),
    ]


def test_a_declined_command() -> None:
    ((kind, item),) = items(command_end("x", "", -1, status="declined"))
    assert kind == "item.completed"
    assert isinstance(item, dict)
    assert (item["status"], item["exit_code"]) == ("declined", -1)


def test_writing_to_a_running_command_is_silent() -> None:
    assert not items(
        command_begin("x", source="unified_exec_interaction"),
        TerminalInteraction("call_2", "10001", "y\n"),
        command_end("x", "", 0, source="unified_exec_interaction"),
    )


def test_a_web_search_shows_the_call_and_takes_a_number() -> None:
    search = WebSearchItem("ws_1", "q1", {"type": "search", "query": "q1"})
    shown = {"id": "ws_1", "type": "web_search", "query": "q1", "action": {"type": "search", "query": "q1"}}
    assert items(started(search), completed(search), said("ok"), completed(WebSearchItem("ws_2", "")), said("z")) == [
        ("item.started", shown),
        ("item.completed", shown),
        ("item.completed", {"id": "item_1", "type": "agent_message", "text": "ok"}),
        ("item.completed", {"id": "ws_2", "type": "web_search", "query": "", "action": {"type": "other"}}),
        ("item.completed", {"id": "item_3", "type": "agent_message", "text": "z"}),
    ]


def _plan(*steps: tuple[str, str]) -> PlanUpdate:
    return PlanUpdate(None, tuple(PlanStep(*step) for step in steps))


def test_the_plan_is_one_list_that_is_completed_just_before_the_turn() -> None:
    made = lines(
        whole_turn(
            _plan(("one", "in_progress"), ("two", "pending")),
            _plan(("one", "completed"), ("two", "in_progress")),
            said("ok"),
        )
    )
    first = [{"text": "one", "completed": False}, {"text": "two", "completed": False}]
    second = [{"text": "one", "completed": True}, {"text": "two", "completed": False}]
    assert made[1:-1] == [
        {"type": "item.started", "item": {"id": "item_0", "type": "todo_list", "items": first}},
        {"type": "item.updated", "item": {"id": "item_0", "type": "todo_list", "items": second}},
        {"type": "item.completed", "item": {"id": "item_1", "type": "agent_message", "text": "ok"}},
        {"type": "item.completed", "item": {"id": "item_0", "type": "todo_list", "items": second}},
    ]
    assert made[-1]["type"] == "turn.completed"


def test_deprecations_are_error_items_like_warnings() -> None:
    made = lines([Event("", DeprecationNotice("old", "use new")), Event("", DeprecationNotice("older"))])
    assert [line["item"] for line in made] == [
        {"id": "item_0", "type": "error", "message": "old (use new)"},
        {"id": "item_1", "type": "error", "message": "older"},
    ]


def test_retries_and_the_final_failure() -> None:
    mapper = JsonLines()
    made = lines(
        whole_turn(
            StreamError("Reconnecting... 1/2", additional_details="busy"),
            StreamError("Reconnecting... 2/2"),
            ErrorEvent("busy", "internal_server_error"),
        ),
        mapper,
    )
    assert made == [
        {"type": "turn.started"},
        {"type": "error", "message": "Reconnecting... 1/2 (busy)"},
        {"type": "error", "message": "Reconnecting... 2/2"},
        {"type": "error", "message": "busy"},
        {"type": "turn.failed", "error": {"message": "busy"}},
    ]
    assert (mapper.outcome.status, mapper.outcome.exit_code) == ("failed", 1)


def test_a_retry_that_succeeds_leaves_no_failure() -> None:
    mapper = JsonLines()
    made = lines(whole_turn(StreamError("Reconnecting... 1/2"), said("fine")), mapper)
    assert made[-1]["type"] == "turn.completed"
    assert (mapper.outcome.exit_code, mapper.outcome.final_message) == (0, "fine")


def test_an_error_beside_the_turn_is_silent() -> None:
    mapper = JsonLines()
    error = ErrorEvent("no", {"active_turn_not_steerable": {"turn_kind": "review"}})
    made = lines(whole_turn(error, ErrorEvent("no", "thread_rollback_failed")), mapper)
    assert [line["type"] for line in made] == ["turn.started", "turn.completed"]
    assert mapper.outcome.exit_code == 0


def test_an_aborted_turn_has_no_terminal_line() -> None:
    mapper = JsonLines()
    made = lines(of_turn(TaskStarted(TURN), command_begin("x"), TurnAborted(TURN)), mapper)
    assert [line["type"] for line in made] == ["turn.started", "item.started"]
    assert (mapper.outcome.status, mapper.outcome.exit_code) == ("aborted", 1)


def test_what_has_no_line() -> None:
    silent = (
        completed(UserMessageItem("u", ())),
        completed(PlanItem("p", "the plan")),
        delta("x"),
        TurnDiff("diff"),
        ContextCompacted(),
    )
    assert not items(*silent)
    mapper = JsonLines()
    lines(whole_turn(*silent), mapper)
    assert mapper.outcome.final_message == "the plan"


def test_other_turns_are_left_out() -> None:
    mapper = JsonLines()
    lines(of_turn(TaskStarted(TURN)), mapper)
    assert not lines([Event("other", TaskStarted("other")), Event("other", said("x"))], mapper)
    assert not lines([Event("other", TaskComplete("other"))], mapper)
    assert mapper.outcome.status == "running"


@given(st.lists(st.sampled_from("bewpmrf"), max_size=30))
def test_numbers_are_dense_and_every_start_is_before_its_end(kinds: str) -> None:
    search = WebSearchItem("ws", "q", {"type": "search"})
    patch = FileChangeItem("patch", {})
    table: dict[str, EventMsg] = {
        "b": command_begin("x"),
        "e": command_end("x", "", 0),
        "w": started(search),
        "p": _plan(("a", "pending")),
        "m": said("m"),
        "r": completed(ReasoningItem("r", ("r",))),
        "f": started(patch),
    }
    mapper = JsonLines()
    seen: set[str] = set()
    for line in lines(whole_turn(*(table[kind] for kind in kinds)), mapper):
        item = line.get("item")
        if isinstance(item, dict) and str(item["id"]).startswith("item_"):
            seen.add(str(item["id"]))
    assert all(int(name.removeprefix("item_")) < mapper._next for name in seen)
