"""What is persisted, decided by one table (rollout.md 1.4)."""

from __future__ import annotations

from typing import Literal

import attrs

from engine.protocol.events import ExecCommandEnd, ItemCompleted
from engine.protocol.items import CompactionTrigger
from engine.protocol.rollout_items import EventLine, ResponseLine, RolloutItem, UnknownLine
from engine.protocol.settings import TruncationPolicy
from engine.protocol.truncation import truncate_text
from engine.protocol.turn_items import PlanItem
from engine.protocol.wire import UnknownVariant

__all__ = ["KNOWN_EVENTS", "PersistenceMode", "is_known", "is_persisted", "persisted_form"]

PersistenceMode = Literal["limited", "extended"]

LIMITED_EVENTS = frozenset(
    {
        "agent_message",
        "agent_reasoning",
        "agent_reasoning_raw_content",
        "context_compacted",
        "entered_review_mode",
        "exited_review_mode",
        "image_generation_end",
        "mcp_tool_call_end",
        "patch_apply_end",
        "task_complete",
        "task_started",
        "thread_goal_updated",
        "thread_rolled_back",
        "token_count",
        "turn_aborted",
        "user_message",
        "web_search_end",
    }
)
EXTENDED_EVENTS = LIMITED_EVENTS | {
    "collab_agent_interaction_end",
    "collab_agent_spawn_end",
    "collab_close_end",
    "collab_resume_end",
    "collab_waiting_end",
    "dynamic_tool_call_request",
    "dynamic_tool_call_response",
    "error",
    "exec_command_end",
    "guardian_assessment",
    "view_image_tool_call",
}
NEVER_EVENTS = frozenset(
    {
        "agent_message_content_delta",
        "agent_message_delta",
        "agent_reasoning_delta",
        "agent_reasoning_raw_content_delta",
        "agent_reasoning_section_break",
        "apply_patch_approval_request",
        "background_event",
        "collab_agent_interaction_begin",
        "collab_agent_spawn_begin",
        "collab_close_begin",
        "collab_resume_begin",
        "collab_waiting_begin",
        "deprecation_notice",
        "elicitation_request",
        "exec_approval_request",
        "exec_command_begin",
        "exec_command_output_delta",
        "guardian_warning",
        "hook_completed",
        "hook_started",
        "image_generation_begin",
        "item_started",
        "mcp_startup_complete",
        "mcp_startup_update",
        "mcp_tool_call_begin",
        "model_reroute",
        "model_verification",
        "patch_apply_begin",
        "patch_apply_updated",
        "plan_delta",
        "plan_update",
        "raw_response_item",
        "reasoning_content_delta",
        "reasoning_raw_content_delta",
        "request_permissions",
        "request_user_input",
        "session_configured",
        "shutdown_complete",
        "stream_error",
        "terminal_interaction",
        "thread_name_updated",
        "turn_diff",
        "warning",
        "web_search_begin",
    }
)
# Every event type of the level this engine writes (0.131); a reader of that level skips lines with any other.
KNOWN_EVENTS = EXTENDED_EVENTS | NEVER_EVENTS | {"item_completed"}

_OUTPUT_KEPT = TruncationPolicy("bytes", 10_000)


def is_persisted(item: RolloutItem, mode: PersistenceMode) -> bool:
    """Whether a live thread in `mode` writes `item`.

    Response items of unknown type are not written; lines of unknown type are, as they only come from other rollouts.
    """
    if isinstance(item, EventLine):
        msg = item.msg
        if isinstance(msg, ItemCompleted):
            return isinstance(msg.item, PlanItem)
        return msg.type in (EXTENDED_EVENTS if mode == "extended" else LIMITED_EVENTS)
    if isinstance(item, ResponseLine):
        return not isinstance(item.item, CompactionTrigger | UnknownVariant)
    return True


def persisted_form(item: RolloutItem, mode: PersistenceMode) -> RolloutItem | None:
    """What a live thread in `mode` writes of `item`, or `None`: the output of commands is cut to 10,000 bytes."""
    if not is_persisted(item, mode):
        return None
    if isinstance(item, EventLine) and isinstance(item.msg, ExecCommandEnd):
        output = truncate_text(item.msg.aggregated_output, _OUTPUT_KEPT)
        return EventLine(attrs.evolve(item.msg, aggregated_output=output, stdout="", stderr="", formatted_output=""))
    return item


def is_known(item: RolloutItem) -> bool:
    """Whether a reader of the level this engine writes can decode `item`; it skips and counts any other line."""
    if isinstance(item, EventLine):
        return item.msg.type in KNOWN_EVENTS
    return not isinstance(item, UnknownLine)
