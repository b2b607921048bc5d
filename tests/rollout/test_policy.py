"""The table of what is persisted."""

from __future__ import annotations

import typing
from typing import Any, cast

import attrs
import pytest

from engine.protocol.events import EventMsg, ExecCommandEnd, ItemCompleted, WebSearchEnd
from engine.protocol.items import CompactionTrigger, ResponseItem, user_message
from engine.protocol.rollout_items import Compacted, EventLine, ResponseLine, RolloutItem, UnknownLine
from engine.protocol.turn_items import PlanItem, ReasoningItem
from engine.protocol.wire import UnknownVariant
from engine.rollout.policy import KNOWN_EVENTS, PersistenceMode, is_known, is_persisted, persisted_form

MODES: tuple[PersistenceMode, ...] = ("limited", "extended")
LIMITED = [
    "user_message",
    "agent_message",
    "agent_reasoning",
    "agent_reasoning_raw_content",
    "patch_apply_end",
    "token_count",
    "thread_goal_updated",
    "context_compacted",
    "entered_review_mode",
    "exited_review_mode",
    "mcp_tool_call_end",
    "thread_rolled_back",
    "turn_aborted",
    "task_started",
    "task_complete",
    "web_search_end",
    "image_generation_end",
]
EXTENDED = [
    "error",
    "guardian_assessment",
    "exec_command_end",
    "view_image_tool_call",
    "collab_agent_spawn_end",
    "collab_agent_interaction_end",
    "collab_waiting_end",
    "collab_close_end",
    "collab_resume_end",
    "dynamic_tool_call_request",
    "dynamic_tool_call_response",
]


def event(name: str) -> EventLine:
    return EventLine(cast(EventMsg, UnknownVariant({"type": name})))


@pytest.mark.parametrize("name", sorted(KNOWN_EVENTS | {"of_the_future"}))
def test_events_are_kept_as_the_table_says(name: str) -> None:
    kept = [is_persisted(event(name), mode) for mode in MODES]
    assert kept == [name in LIMITED, name in LIMITED + EXTENDED]


def test_every_event_of_ours_is_known() -> None:
    ours = {member.type for member in typing.get_args(EventMsg) if member is not UnknownVariant}
    assert ours <= KNOWN_EVENTS


@pytest.mark.parametrize("mode", MODES)
def test_completed_items_are_kept_if_they_are_plans(mode: PersistenceMode) -> None:
    for item, kept in ((PlanItem("i", "do it"), True), (ReasoningItem("i", ()), False)):
        assert is_persisted(EventLine(ItemCompleted("t", "u", item)), mode) is kept


@pytest.mark.parametrize("mode", MODES)
def test_response_items_are_kept_unless_they_are_triggers_or_unknown(mode: PersistenceMode) -> None:
    cases: list[tuple[ResponseItem, bool]] = [
        (user_message("x"), True),
        (CompactionTrigger(), False),
        (UnknownVariant({"type": "later"}), False),
    ]
    for item, kept in cases:
        assert is_persisted(ResponseLine(item), mode) is kept
        assert persisted_form(ResponseLine(item), mode) == (ResponseLine(item) if kept else None)


@pytest.mark.parametrize("mode", MODES)
def test_other_lines_are_always_kept(mode: PersistenceMode) -> None:
    lines: list[RolloutItem] = [Compacted(""), UnknownLine("world_state", {})]
    for line in lines:
        assert persisted_form(line, mode) is line


def test_the_output_of_commands_is_cut_and_written_once() -> None:
    end = ExecCommandEnd(
        call_id="c",
        turn_id="t",
        completed_at_ms=0,
        command=("true",),
        cwd="/",
        exit_code=0,
        duration={},
        status="completed",
        stdout="out",
        stderr="err",
        aggregated_output="é" * 6000,
        formatted_output="formatted",
    )
    form = persisted_form(EventLine(end), "extended")
    cut = "é" * 2500 + "…1000 chars truncated…" + "é" * 2500
    assert form == EventLine(attrs.evolve(end, stdout="", stderr="", formatted_output="", aggregated_output=cut))
    assert persisted_form(EventLine(end), "limited") is None


def test_what_an_older_reader_knows() -> None:
    cases: list[tuple[Any, bool]] = [
        (EventLine(WebSearchEnd("c", "q")), True),
        (event("mcp_tool_call_end"), True),
        (event("thread_settings_applied"), False),
        (ResponseLine(UnknownVariant({"type": "later"})), True),
        (UnknownLine("world_state", {}), False),
    ]
    for item, known in cases:
        assert is_known(item) is known
