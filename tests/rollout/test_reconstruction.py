"""Replaying rollouts: the worked cases of rollout.md 5.7, and what holds of any rollout."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.events import (
    AgentMessage,
    ContextCompacted,
    TaskComplete,
    TaskStarted,
    ThreadRolledBack,
    TokenCount,
    TurnAborted,
    UserMessage,
)
from engine.protocol.items import (
    CompactionTrigger,
    CustomToolCallOutput,
    FunctionCallOutput,
    InputText,
    Message,
    ResponseItem,
    user_message,
)
from engine.protocol.profiles import ReadOnly
from engine.protocol.rollout_items import Compacted, EventLine, ResponseLine, RolloutItem, TurnContext, UnknownLine
from engine.protocol.settings import TruncationPolicy
from engine.protocol.wire import UnknownVariant
from engine.rollout.boundaries import is_user_turn_boundary
from engine.rollout.reconstruction import (
    PreviousTurnSettings,
    drop_last_turns,
    legacy_compaction,
    reconstruct,
)

POLICY = TruncationPolicy("bytes", 10_000)


def word(item: str) -> RolloutItem:
    """An item by the short spelling of the worked cases: `U1`, `A1`, `S1`, `E1`, `M`, `C1`, `K[X]`, `k`, `R1`."""
    head, rest = item[0], item[1:]
    turn = rest.rstrip("'") or "1"
    match head:
        case "U":
            return ResponseLine(user_message(item))
        case "A":
            return ResponseLine(Message("assistant", (InputText(item),)))
        case "S":
            return EventLine(TaskStarted(turn))
        case "E":
            return EventLine(TaskComplete(turn))
        case "M":
            return EventLine(UserMessage("said"))
        case "C":
            return context(item, turn)
        case "K":
            return Compacted("sum", tuple(user_message(text) for text in rest[1:-1].split(",") if text))
        case "k":
            return Compacted("s")
        case "R":
            return EventLine(ThreadRolledBack(int(rest)))
    raise ValueError(item)


def context(model: str, turn: str | None = None) -> TurnContext:
    return TurnContext(
        turn_id=turn, cwd="/", approval_policy="never", sandbox_policy=ReadOnly(), model=model, summary="auto"
    )


def texts(items: Sequence[ResponseItem]) -> list[str]:
    found: list[str] = []
    for item in items:
        assert isinstance(item, Message)
        found += [part.text for part in item.content if isinstance(part, InputText)]
    return found


TWO_TURNS = "S1 M C1 U1 A1 E1 S2 M C2 U2 A2 E2"


@pytest.mark.parametrize(
    ("rollout", "history", "previous", "reference"),
    [
        ("S1 M C1 U1 A1 E1", "U1 A1", "C1", "C1"),
        ("C1", "", None, None),
        (f"{TWO_TURNS} R1", "U1 A1", "C1", "C1"),
        (f"{TWO_TURNS} R2", "", None, None),
        (f"{TWO_TURNS} R9", "", None, None),
        ("S1 M C1 U1 A1 E1 S2 M C2 U2 R1", "U1 A1", "C1", "C1"),
        ("S1 M C1 U1 A1 E1 K[X]", "X", "C1", None),
        ("S1 M C1 U1 A1 K[X] C1' E1", "X", "C1", "C1'"),
        ("U1 A1 k", "U1 s", None, None),
        ("S1 M C1 U1 E1 S2 M C2 U2 E2 S3 E3 R1", "U1", "C1", "C1"),
        # settings of a turn are those of its oldest context, the reference is the newest
        ("S1 M C1 U1 C1' E1", "U1", "C1", "C1'"),
        # a context of another turn does not speak for this one
        ("S1 M C2 U1 E1", "U1", None, None),
        ("S1 M C1 U1 E1 K[X] S2 M C2 U2 E2", "X U2", "C2", "C2"),
        ("S1 M C1 U1 E1 K[X] R1", "", None, None),
        ("", "", None, None),
    ],
)
def test_worked_cases(rollout: str, history: str, previous: str | None, reference: str | None) -> None:
    made = reconstruct([word(item) for item in rollout.split()], POLICY)
    assert texts(made.history) == history.split()
    assert made.previous_turn_settings == (None if previous is None else PreviousTurnSettings(previous))
    assert (made.reference_context_item and made.reference_context_item.model) == reference


def test_a_turn_aborted_without_an_id_ends_like_any_other() -> None:
    aborted = EventLine(TurnAborted(None))
    items = [word("S1"), word("M"), word("C1"), word("U1"), aborted, EventLine(TurnAborted("9"))]
    made = reconstruct(items, POLICY)
    assert texts(made.history) == ["U1"]


def test_what_does_not_belong_into_a_history_is_left_out() -> None:
    lines: list[RolloutItem] = [
        ResponseLine(Message("system", ())),
        ResponseLine(CompactionTrigger()),
        ResponseLine(UnknownVariant({"type": "later"})),
        UnknownLine("world_state", {}),
        EventLine(AgentMessage("x")),
        EventLine(ContextCompacted()),
        EventLine(TokenCount()),
    ]
    assert reconstruct(lines, POLICY).history == ()


def test_outputs_get_a_fifth_more_than_the_budget() -> None:
    policy = TruncationPolicy("bytes", 10)
    outputs: list[ResponseItem] = [
        FunctionCallOutput("c", "x" * 12),
        FunctionCallOutput("c", "x" * 13),
        CustomToolCallOutput("c", output=(InputText("x" * 13), InputText("y"))),
    ]
    made = reconstruct([ResponseLine(output) for output in outputs], policy)
    cut = "xxxxxx…1 chars truncated…xxxxxx"
    assert made.history == (
        outputs[0],
        FunctionCallOutput("c", cut),
        CustomToolCallOutput("c", output=(InputText(cut), InputText("[omitted 1 text items ...]"))),
    )


def test_dropping_turns_takes_their_context_along() -> None:
    environment = user_message("<environment_context>x</environment_context>")
    settings = user_message("<model_switch>x", role="developer")
    lasting = user_message("stay", role="developer")
    first, second = user_message("U1"), user_message("U2")
    history: list[ResponseItem] = [environment, settings, first, lasting, settings, environment, second]
    assert drop_last_turns(history, 0) == history
    assert drop_last_turns(history, 1) == [environment, settings, first, lasting]
    assert drop_last_turns(history, 2) == [environment, settings]
    assert drop_last_turns(history, 2**32 - 1) == [environment, settings]
    assert drop_last_turns([environment, settings], 1) == [environment, settings]


def test_a_compaction_without_history_keeps_the_newest_user_messages() -> None:
    history: list[ResponseItem] = [
        user_message("old " + "x" * 40_000),
        Message("assistant", (InputText("an answer"),)),
        user_message("<skill>x</skill>"),
        user_message("PREFIX\nan earlier summary"),
        user_message("PREFIX of something else"),
        user_message("y" * 60_000),
    ]
    made = texts(legacy_compaction(history, "the summary", "PREFIX"))
    assert made[1:] == ["PREFIX of something else", "y" * 60_000, "the summary"]
    assert made[0].startswith("old ")
    left = 20_000 - 15_000 - 6
    assert made[0].endswith(f"…{(40_004 - 4 * left + 3) // 4} tokens truncated…" + "x" * (2 * left))
    assert texts(legacy_compaction([], "")) == ["(no summary available)"]
    assert texts(legacy_compaction([user_message("PREFIX\nx")], "s")) == ["PREFIX\nx", "s"]


TURN_WORDS = ["S1", "S2", "S3", "E1", "E2", "E3", "M", "C1", "C2", "C3", "U1", "U2", "A1"]
OTHER_WORDS = ["k", "K[X]", "K[Y,Z]", "K[]", "R0", "R1", "R2", "R9"]
words = st.sampled_from([*TURN_WORDS, *OTHER_WORDS])


@given(st.lists(words, max_size=20))
def test_what_holds_of_any_rollout(rollout: list[str]) -> None:
    items = [word(item) for item in rollout]
    made = reconstruct(items, POLICY)
    assert made.reference_context_item is None or made.reference_context_item in items
    assert reconstruct([*items, word("R0")], POLICY) == made  # rolling nothing back changes nothing
    everything = reconstruct([*items, word("R99")], POLICY)
    assert everything.previous_turn_settings is None
    assert not any(is_user_turn_boundary(item) for item in everything.history)
    neutral = [part for item in items for part in (item, EventLine(TokenCount()), UnknownLine("later", None))]
    assert reconstruct(neutral, POLICY) == made


@given(st.lists(words, max_size=20))
def test_a_new_turn_on_top_can_be_rolled_back(rollout: list[str]) -> None:
    items = [word(item) for item in rollout]
    turn = [word("S9"), word("M"), word("C9"), ResponseLine(user_message("U9")), word("E9")]
    once = reconstruct([*items, *turn], POLICY)
    assert once.previous_turn_settings == PreviousTurnSettings("C9")
    assert texts(once.history)[-1] == "U9"
    back = reconstruct([*items, *turn, word("R1")], POLICY)
    assert back.history == reconstruct(items, POLICY).history
