"""Turns as people see them: rebuilt from items in memory, and from byte ranges of a file; both give the same."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from engine.protocol.events import (
    AgentMessage,
    AgentReasoning,
    AgentReasoningRawContent,
    ContextCompacted,
    ErrorEvent,
    EventMsg,
    ExecCommandEnd,
    ItemCompleted,
    PatchApplyEnd,
    TaskComplete,
    TaskStarted,
    ThreadRolledBack,
    TokenCount,
    TurnAborted,
    UserMessage,
)
from engine.protocol.inputs import TextInput
from engine.protocol.items import InputImage, InputText, Message, OutputText
from engine.protocol.rollout_items import Compacted, EventLine, ResponseLine, RolloutItem
from engine.protocol.thread_items import ThreadTurn, to_json
from engine.protocol.turn_items import AddChange, PlanItem, UpdateChange, UserMessageItem
from engine.protocol.wire import JsonObject, UnknownVariant
from engine.rollout.blocks import MemorySource
from engine.rollout.inline_images import stand_in
from engine.rollout.lines import encode_rollout_line
from engine.rollout.loading import load
from engine.rollout.turn_ranges import Began, Closed, RangeState, RolledBack, Spoke, Strayed, TurnRange, read_turn, scan
from engine.rollout.turns import all_turns, numbered_turns

STAMP = "2025-01-02T03:04:05.678Z"
MAIL = Message(
    role="assistant",
    content=(OutputText('{"author": "/root", "recipient": "/root/a", "content": "c", "trigger_turn": true}'),),
)


def exec_end(turn: str, call: str = "c1") -> ExecCommandEnd:
    return ExecCommandEnd(call, turn, 1, ("echo", "a b"), "/w", 0, {"secs": 1, "nanos": 5_000_000}, "completed")


def events(*msgs: EventMsg) -> list[RolloutItem]:
    return [EventLine(msg) for msg in msgs]


def kinds(turn: ThreadTurn) -> list[str]:
    return [item.type for item in turn.items]


def test_a_turn_has_its_items_times_and_state() -> None:
    [turn] = all_turns(
        events(
            TaskStarted("t1", 10),
            UserMessage("hi", images=("http://i",), local_images=("/p",)),
            AgentReasoning("a"),
            AgentReasoning("b"),
            AgentReasoningRawContent("raw"),
            exec_end("t1"),
            PatchApplyEnd(
                "p1", "t1", "", "", True, {"/b": UpdateChange("@@", "/c"), "/a": AddChange("x")}, "completed"
            ),
            AgentMessage("done", "final_answer"),
            TokenCount(),
            TaskComplete("t1", "done", 12, 2000),
        )
    )
    assert (turn.id, turn.status, turn.started_at, turn.completed_at, turn.duration_ms) == (
        "t1",
        "completed",
        10,
        12,
        2000,
    )
    told = to_json(turn)
    assert told["rootTurnId"] == "t1"
    items = told["items"]
    assert isinstance(items, list)
    assert items[0] == {
        "type": "userMessage",
        "id": "t1-user_message-1",
        "content": [
            {"type": "text", "text": "hi", "text_elements": []},
            {"type": "image", "url": "http://i"},
            {"type": "localImage", "path": "/p"},
        ],
        "clientId": None,
    }
    assert items[1] == {"type": "reasoning", "id": "t1-reasoning-1", "summary": ["a", "b"], "content": ["raw"]}
    assert items[2]["command"] == "echo 'a b'"
    assert (items[2]["exitCode"], items[2]["durationMs"], items[2]["aggregatedOutput"]) == (0, 1005, None)
    assert items[3]["changes"] == [
        {"path": "/a", "kind": {"type": "add"}, "diff": "x"},
        {"path": "/b", "kind": {"type": "update", "move_path": "/c"}, "diff": "@@"},
    ]
    assert items[4]["text"] == "done"


def test_how_a_turn_stands() -> None:
    started = TaskStarted("t1")
    assert all_turns(events(started))[0].status == "interrupted"
    assert all_turns(events(started), active="t1")[0].status == "inProgress"
    assert all_turns(events(started, TurnAborted("t1")))[0].status == "interrupted"
    [failed] = all_turns(events(started, ErrorEvent("no", "usage_limit_exceeded"), TaskComplete("t1")))
    assert to_json(failed)["error"] == {
        "message": "no",
        "codexErrorInfo": "usageLimitExceeded",
        "additionalDetails": None,
    }
    [fine] = all_turns(events(started, ErrorEvent("no", "thread_rollback_failed"), TaskComplete("t1")))
    assert (fine.status, fine.error) == ("completed", None)


def test_older_rollouts_have_a_turn_per_user_message() -> None:
    turns = all_turns(events(UserMessage("a"), AgentMessage("1"), UserMessage("b"), AgentMessage("2")))
    assert [(turn.id, kinds(turn)) for turn in turns] == [
        ("turn-0", ["userMessage", "agentMessage"]),
        ("turn-1", ["userMessage", "agentMessage"]),
    ]


def test_rolled_back_turns_are_gone_with_what_came_after_them() -> None:
    items = events(
        TaskStarted("1"),
        UserMessage("a"),
        TaskComplete("1"),
        TaskStarted("2"),
        UserMessage("b"),
        TaskComplete("2"),
        TaskStarted("3"),
        ContextCompacted(),
        TaskComplete("3"),
        ThreadRolledBack(1),
        TaskStarted("4"),
    )
    assert [(number, turn.id) for number, turn in numbered_turns(items)] == [(0, "1"), (3, "4")]


def test_what_ends_late_belongs_to_the_turn_it_names() -> None:
    first, second = all_turns(
        events(
            TaskStarted("1"), UserMessage("a"), TaskComplete("1"), TaskStarted("2"), exec_end("1"), AgentMessage("x")
        )
    )
    assert kinds(first) == ["userMessage", "commandExecution"]
    assert kinds(second) == ["agentMessage"]


def test_a_later_record_of_an_item_replaces_the_earlier() -> None:
    plan = [ItemCompleted("t", "1", PlanItem("1-plan", text)) for text in ("old", "new")]
    [turn] = all_turns(events(TaskStarted("1"), plan[0], AgentMessage("x"), plan[1]))
    assert [getattr(item, "text", None) for item in turn.items] == ["new", "x"]


def test_kinds_of_other_writers_are_shown_as_they_are() -> None:
    mcp: JsonObject = {
        "type": "mcp_tool_call_end",
        "call_id": "m",
        "invocation": {"server": "s", "tool": "t", "arguments": {}},
        "duration": {"secs": 0, "nanos": 0},
        "result": {"Err": "broken"},
    }
    sleep = UnknownVariant({"type": "Sleep", "id": "s1", "duration_ms": 5})
    review = UnknownVariant({"type": "entered_review_mode", "user_facing_hint": "all"})
    [turn] = all_turns(events(TaskStarted("1"), UnknownVariant(mcp), ItemCompleted("t", "1", sleep), review))
    assert [to_json(item) for item in turn.items][1:] == [
        {"type": "sleep", "id": "s1", "durationMs": 5},
        {"type": "enteredReviewMode", "id": "1-entered_review_mode-1", "review": "all"},
    ]
    told = to_json(turn.items[0])
    assert (told["status"], told["error"]) == ("failed", {"message": "broken"})


# --- byte ranges ---------------------------------------------------------------------------------

ids = st.sampled_from(["1", "2", "3"])
messages: st.SearchStrategy[RolloutItem] = st.one_of(
    ids.map(lambda turn: EventLine(TaskStarted(turn))),
    ids.map(lambda turn: EventLine(TaskComplete(turn))),
    st.one_of(ids, st.none()).map(lambda turn: EventLine(TurnAborted(turn))),
    ids.map(lambda turn: EventLine(exec_end(turn))),
    ids.map(lambda turn: EventLine(ItemCompleted("t", turn, PlanItem(f"{turn}-plan", "p")))),
    ids.map(lambda turn: EventLine(ItemCompleted("t", turn, UserMessageItem("u", (TextInput("hi"),))))),
    st.integers(0, 3).map(lambda count: EventLine(ThreadRolledBack(count))),
    st.sampled_from(
        [
            EventLine(UserMessage("said")),
            EventLine(UserMessage("said")),
            EventLine(AgentMessage('an answer that says "turn_id":"1"')),
            EventLine(AgentReasoning("thought")),
            EventLine(ErrorEvent("error")),
            EventLine(ContextCompacted()),
            EventLine(TokenCount()),
            Compacted("s", (MAIL,)),
            ResponseLine(MAIL),
            ResponseLine(Message(role="user", content=(InputText("said"),))),
            ResponseLine(Message(role="user", content=(InputImage("data:,x"),))),
            EventLine(UserMessage("", images=(stand_in(0),))),
        ]
    ),
)
damage = st.sampled_from(
    [b"", b"\n", b'{"timestamp"', b"\xff\n", b'{"type":"event_msg","payload":{"type":"task_started"}}\n']
)
rollouts = st.lists(st.tuples(messages, damage), max_size=25).map(
    lambda parts: b"".join(encode_rollout_line(item, STAMP) + broken for item, broken in parts)
)


class Table:
    """The table of ranges, as plainly as it can be done."""

    def __init__(self) -> None:
        self.turns: dict[int, TurnRange] = {}
        self.users: set[int] = set()

    def apply(self, changes: list[Began | Spoke | Closed | RolledBack | Strayed]) -> None:
        for change in changes:
            match change:
                case Began():
                    self.turns[change.number] = TurnRange(change.number, change.turn_id, change.start, None)
                case Spoke():
                    self.users.add(change.number)
                case Closed():
                    old = self.turns[change.number]
                    self.turns[change.number] = TurnRange(old.number, old.turn_id, old.start, change.end, old.strays)
                case RolledBack():
                    users = sorted(self.users & self.turns.keys())[-change.count :]
                    for number in [number for number in self.turns if users and number >= users[0]]:
                        del self.turns[number]
                case Strayed():
                    named = [place for place in self.turns.values() if place.turn_id == change.turn_id][-1:]
                    for old in named:
                        strays = (*old.strays, (change.start, change.end))
                        self.turns[old.number] = TurnRange(old.number, old.turn_id, old.start, old.end, strays)


@given(rollouts, st.lists(st.integers(0, 5000), max_size=3), st.sampled_from(["full", "summary", "notLoaded"]))
@example(b"", [], "full")
def test_ranges_give_the_same_turns_however_the_file_grew(data: bytes, cuts: list[int], view: str) -> None:
    assert view in ("full", "summary", "notLoaded")
    source, table, state, start = MemorySource(data), Table(), RangeState(), 0
    for cut in sorted(cuts):
        end = data.rfind(b"\n", 0, cut) + 1
        if end > start:
            for behind, changes in scan(source, start, end, state):
                table.apply(changes)
                state = behind
            start = end
    for _, changes in scan(source, start, len(data), state):
        table.apply(changes)
    found = [
        (number, read_turn(source, place, len(data), "1", view))  # type: ignore[arg-type]
        for number, place in sorted(table.turns.items())
    ]
    assert found == numbered_turns(load(data).items, "1", view)  # type: ignore[arg-type]
