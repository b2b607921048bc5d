"""What a person sees on stderr."""

from __future__ import annotations

from collections.abc import Iterable

from engine.cli.human import Header, HumanOutput, tokens_used
from engine.cli.terminal import Palette
from engine.protocol.events import (
    DynamicToolCallRequest,
    DynamicToolCallResponse,
    ErrorEvent,
    Event,
    PlanStep,
    PlanUpdate,
    StreamError,
    TaskStarted,
    TerminalInteraction,
    TurnAborted,
    ViewImageToolCall,
    Warning,
)
from engine.protocol.settings import TokenUsage
from engine.protocol.turn_items import AddChange, DeleteChange, FileChange, FileChangeItem, ReasoningItem, UpdateChange
from tests.cli.events import (
    TURN,
    command_begin,
    command_end,
    completed,
    delta,
    of_turn,
    said,
    used,
    whole_turn,
)

HEADER = Header(
    version="1.2.3",
    workdir="/ws/proj",
    model="mock-model",
    provider="mock",
    approval="never",
    sandbox="read-only",
    effort="none",
    summaries="none",
    session_id="some-id",
)


class Screen:
    """A `HumanOutput` and what it wrote."""

    def __init__(self, *, colour: bool = False, show_reasoning: bool = True) -> None:
        self.pieces: list[str] = []
        self.human = HumanOutput(self.pieces.append, Palette(colour), show_reasoning=show_reasoning)

    def show(self, events: Iterable[Event]) -> str:
        for event in events:
            self.human.event(event)
        return self.text

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def test_a_whole_run_as_recorded() -> None:
    screen = Screen()
    screen.human.header(HEADER)
    screen.human.prompt("x")
    screen.show([Event(TURN, Warning("Model metadata for `mock-model` not found."))])
    screen.show(whole_turn(delta("hu"), delta("man"), said("human"), used(1)))
    screen.human.finish(None)
    assert screen.text.splitlines() == [
        "Session Engine v1.2.3",
        "--------",
        "workdir: /ws/proj",
        "model: mock-model",
        "provider: mock",
        "approval: never",
        "sandbox: read-only",
        "reasoning effort: none",
        "reasoning summaries: none",
        "session id: some-id",
        "--------",
        "user",
        "x",
        "warning: Model metadata for `mock-model` not found.",
        "codex",
        "human",
        "tokens used",
        "110",
    ]


def test_text_appears_as_it_streams() -> None:
    screen = Screen()
    screen.show(of_turn(TaskStarted(TURN), delta("one ")))
    assert screen.text == "codex\none "
    screen.show(of_turn(delta("two")))
    assert screen.pieces[-1] == "two"
    screen.show(of_turn(said("one two")))
    assert screen.text == "codex\none two\n"
    assert screen.human.ends_with_message


def test_text_that_did_not_stream_is_shown_whole() -> None:
    assert Screen().show(whole_turn(said("all at once"))) == "codex\nall at once\n"


def test_a_message_that_a_command_interrupts_is_not_repeated() -> None:
    shown = Screen().show(whole_turn(delta("first "), command_begin("x"), delta("second"), said("first second")))
    assert shown == "codex\nfirst \nexec\nx in /ws/proj\ncodex\nsecond\n"


def test_a_retry_says_again_what_was_half_said() -> None:
    shown = Screen().show(
        whole_turn(delta("half"), StreamError("Reconnecting... 1/2", additional_details="cut"), said("whole"))
    )
    assert shown == "codex\nhalf\nwarning: Reconnecting... 1/2 (cut)\ncodex\nwhole\n"


def test_a_command_with_exit_code_and_duration() -> None:
    screen = Screen()
    assert screen.show(whole_turn(command_begin("false"), command_end("false", "oh\nno\n", 1, ms=1234))) == (
        "exec\nfalse in /ws/proj\noh\nno\nexit 1 in 1234 ms\n"
    )
    assert not screen.human.ends_with_message


def test_commands_that_overlap_are_named_again() -> None:
    shown = Screen().show(
        whole_turn(
            command_begin("a", "1"),
            command_begin("b", "2"),
            command_end("a", "", 0, call_id="1"),
            command_end("b", "", 0, call_id="2", ms=20_500),
        )
    )
    assert shown.splitlines() == [
        *("exec", "a in /ws/proj", "exec", "b in /ws/proj"),
        *("exec", "a", "exit 0 in 12 ms", "exec", "b", "exit 0 in 20.5 s"),
    ]


def test_long_output_is_cut_in_the_middle() -> None:
    output = "".join(f"{n}\n" for n in range(100))
    lines = Screen().show(whole_turn(command_end("x", output, 0))).splitlines()
    assert lines[2:4] == ["0", "1"]
    assert "... 60 more lines ..." in lines
    assert lines[-2:] == ["99", "exit 0 in 12 ms"]


def test_a_patch_shows_its_diff() -> None:
    changes: dict[str, FileChange] = {
        "/p/new": AddChange("a\nb\n"),
        "/p/old": DeleteChange("x\n"),
        "/p/same": UpdateChange("@@ -1 +1 @@\n-1\n+2\n", "/p/moved"),
    }
    item = FileChangeItem("call_1", changes, status="completed")
    assert Screen().show(whole_turn(completed(item))).splitlines() == [
        "patch",
        *("A /p/new", "+a", "+b"),
        *("D /p/old", "-x"),
        *("M /p/same -> /p/moved", "@@ -1 +1 @@", "-1", "+2"),
    ]
    coloured = Screen(colour=True).show(whole_turn(completed(item)))
    assert "\x1b[32m+2\x1b[0m" in coloured
    assert "\x1b[31m-1\x1b[0m" in coloured


def test_a_failed_patch_says_why() -> None:
    item = FileChangeItem("call_1", {"/p/f": AddChange("")}, status="failed", stderr="no such context\n")
    assert Screen().show(whole_turn(completed(item))) == "patch failed\nA /p/f\nno such context\n"


def test_paths_are_shown_as_seen_from_the_workdir() -> None:
    screen = Screen()
    screen.human.header(HEADER)
    before = len(screen.text)
    changes: dict[str, FileChange] = {
        "/ws/proj/sub/new": AddChange(""),
        "/ws/proj/a": UpdateChange("", "/ws/proj/b"),
        "/ws/other": DeleteChange(""),
    }
    screen.show(whole_turn(command_begin("x"), command_end("x", "", 0), completed(FileChangeItem("call_2", changes))))
    assert screen.text[before:].splitlines() == [
        *("exec", "x", "exit 0 in 12 ms", "patch"),
        *("D /ws/other", "M a -> b", "A sub/new"),
    ]


def test_reasoning_can_be_hidden() -> None:
    item = completed(ReasoningItem("r", ("Thinking.",)))
    assert Screen().show(whole_turn(item)) == "thinking\nThinking.\n"
    assert Screen(show_reasoning=False).show(whole_turn(item)) == ""


def test_plans_tools_images_and_input() -> None:
    shown = Screen().show(
        whole_turn(
            PlanUpdate("why", (PlanStep("a", "completed"), PlanStep("b", "in_progress"), PlanStep("c", "pending"))),
            DynamicToolCallRequest("1", TURN, 0, "look", {"q": 1}),
            DynamicToolCallResponse("1", TURN, 0, "look", {}, (), True, duration={"secs": 0, "nanos": 3_000_000}),
            DynamicToolCallResponse("2", TURN, 0, "look", {}, (), False, error="broken"),
            ViewImageToolCall("3", "/a.png"),
            TerminalInteraction("4", "10001", "y\n"),
            TerminalInteraction("5", "10001", ""),
        )
    )
    assert shown.splitlines() == [
        *("plan", "why", "✓ a", "→ b", "• c"),
        *("tool", "look {'q': 1}", "look: ok in 3 ms", "look: broken"),
        *("image", "/a.png", "input", "to process 10001: 'y\\n'"),
    ]


def test_failures_and_interrupts() -> None:
    screen = Screen()
    assert screen.show(whole_turn(ErrorEvent("broken"))) == "ERROR: broken\n"
    assert screen.human.outcome.exit_code == 1
    assert (
        Screen().show(of_turn(TaskStarted(TURN), delta("par"), TurnAborted(TURN))) == "codex\npar\nturn interrupted\n"
    )


def test_escape_sequences_of_model_and_commands_never_reach_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jx"
    item = FileChangeItem("call_1", {"/p/f\x1b[1m": AddChange(evil)}, status="completed")
    shown = Screen().show(
        whole_turn(delta(evil), said(evil), command_begin(evil), command_end(evil, evil, 0), completed(item))
    )
    assert "\x1b" not in shown


def test_the_end_names_usage_and_the_session_file() -> None:
    screen = Screen()
    screen.show(whole_turn(used(20)))
    screen.human.finish("/home/sessions/rollout.jsonl")
    assert screen.text == "tokens used\n2,200\nrollout\n/home/sessions/rollout.jsonl\n"
    assert tokens_used(TokenUsage(10, 20, 5)) == 5
