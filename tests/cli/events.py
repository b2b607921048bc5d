"""Event lists that the mapper tests share: the events a session emits for the recorded exec runs."""

from __future__ import annotations

from collections.abc import Iterable

from engine.protocol.events import (
    AgentMessageContentDelta,
    Event,
    EventMsg,
    ExecCommandBegin,
    ExecCommandEnd,
    ItemCompleted,
    ItemStarted,
    TaskComplete,
    TaskStarted,
    TokenCount,
)
from engine.protocol.settings import TokenUsage, TokenUsageInfo
from engine.protocol.turn_items import AgentMessageItem, AgentText, TurnItem

THREAD = "01900000-0000-7000-8000-000000000001"
TURN = "01900000-0000-7000-8000-000000000002"
CWD = "/ws/proj"


def of_turn(*msgs: EventMsg) -> list[Event]:
    return [Event(TURN, msg) for msg in msgs]


def whole_turn(*msgs: EventMsg) -> list[Event]:
    return of_turn(TaskStarted(TURN), *msgs, TaskComplete(TURN))


def started(item: TurnItem) -> ItemStarted:
    return ItemStarted(THREAD, TURN, item)


def completed(item: TurnItem) -> ItemCompleted:
    return ItemCompleted(THREAD, TURN, item)


def said(text: str, item_id: str = "msg_1") -> ItemCompleted:
    return completed(AgentMessageItem(item_id, (AgentText(text),)))


def delta(text: str, item_id: str = "msg_1") -> AgentMessageContentDelta:
    return AgentMessageContentDelta(THREAD, TURN, item_id, text)


def used(responses: int) -> TokenCount:
    one = TokenUsage(100, 10, 20, 5, 120)
    total = TokenUsage()
    for _ in range(responses):
        total += one
    return TokenCount(TokenUsageInfo(total, one))


def command_begin(script: str, call_id: str = "call_1", source: str = "unified_exec_startup") -> ExecCommandBegin:
    return ExecCommandBegin(call_id, TURN, 0, ("/bin/bash", "-c", script), CWD, source=source)


def command_end(
    script: str,
    output: str,
    exit_code: int,
    *,
    call_id: str = "call_1",
    ms: int = 12,
    status: str | None = None,
    source: str = "unified_exec_startup",
) -> ExecCommandEnd:
    return ExecCommandEnd(
        call_id,
        TURN,
        0,
        ("/bin/bash", "-c", script),
        CWD,
        exit_code,
        {"secs": ms // 1000, "nanos": ms % 1000 * 1_000_000},
        status or ("completed" if exit_code == 0 else "failed"),
        aggregated_output=output,
        source=source,
    )


def flat(lists: Iterable[Iterable[Event]]) -> list[Event]:
    return [event for events in lists for event in events]
