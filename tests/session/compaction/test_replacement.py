"""What stays of a history: the newest words of the user, in their order, within a budget; context where it belongs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.items import (
    CompactionItem,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Message,
    OutputText,
    ResponseItem,
    message_text,
    user_message,
)
from engine.protocol.truncation import approx_tokens
from engine.session.compaction.replacement import (
    IMAGE_LEFT_OUT,
    USER_TOKENS,
    after_local_summary,
    after_remote,
    with_context,
    within_window,
    without_oldest,
)
from engine.session.compaction.texts import OTHER_PREFIX_LENGTH, is_summary, summary_text

CONTEXT = user_message("<environment_context>\n  <cwd>/</cwd>\n</environment_context>")
RULES = user_message("<permissions instructions>x", role="developer")
SAID = Message("assistant", (OutputText("said"),))
SUMMARY = user_message(summary_text("note"))


def texts(items: list[ResponseItem]) -> list[str]:
    return [message_text(item) for item in items if isinstance(item, Message)]


def test_user_messages_stay_and_the_summary_comes_last() -> None:
    history = [RULES, CONTEXT, user_message("one"), SAID, SUMMARY, user_message("two"), SAID]
    assert texts(after_local_summary(history, "S")) == ["one", "two", "S"]


def test_images_are_left_out() -> None:
    pictured = Message("user", (InputText("look"), InputImage("data:image/png;base64,AAAA")))
    only = Message("user", (InputImage("data:image/png;base64,AAAA"),))
    assert texts(after_local_summary([pictured, only], "S")) == ["look", "S"]


def test_the_oldest_that_stays_is_cut() -> None:
    history = [user_message("old"), user_message("a" * 60_000), user_message("b" * 40_000)]
    first, second, summary = texts(after_local_summary(history, "S"))
    assert "tokens truncated" in first
    assert len(first) < 40_100
    assert (second, summary) == ("b" * 40_000, "S")


def test_a_budget_that_is_used_up_leaves_nothing_more() -> None:
    assert texts(after_local_summary([user_message("x" * 8), user_message("y" * 8)], "S", 2)) == ["y" * 8, "S"]


@given(st.lists(st.text(max_size=200), max_size=20), st.integers(0, 100))
def test_what_the_user_said_is_within_the_budget(said: list[str], budget: int) -> None:
    history: list[ResponseItem] = [user_message(text) for text in said]
    kept = texts(after_local_summary(history, "S", budget))
    assert kept[-1] == "S"
    whole = [text for text in kept[:-1] if "truncated…" not in text]
    assert sum(map(approx_tokens, whole)) <= budget
    assert len(kept) - 1 - len(whole) <= 1
    wanted = [text for text in said if text]
    assert whole == wanted[len(wanted) - len(whole) :] if whole else True


def test_summaries_are_known_again() -> None:
    assert is_summary(summary_text("x"))
    assert is_summary(summary_text(None))
    assert not is_summary("x")
    assert not is_summary("x" * OTHER_PREFIX_LENGTH + "\nnote")
    assert summary_text("").endswith("\n(no summary available)")
    assert USER_TOKENS == 20_000


def test_of_a_servers_answer_talk_and_compactions_stay() -> None:
    opaque = CompactionItem("sealed")
    pictured = Message("user", (InputText("look"), InputImage("data:image/png;base64,AAAA"), InputImage("https://x/y")))
    call, output = FunctionCall("f", arguments="{}", call_id="1"), FunctionCallOutput("1", "x")
    made = after_remote([RULES, CONTEXT, pictured, call, output, SAID, opaque])
    assert made[1:] == [SAID, opaque]
    assert made[0] == Message("user", (InputText("look"), InputText(IMAGE_LEFT_OUT), InputImage("https://x/y")))


def test_of_a_servers_answer_the_newest_words_of_the_user_stay() -> None:
    opaque = CompactionItem("sealed")
    history: list[ResponseItem] = [
        user_message("old"),
        SAID,
        user_message("a" * 60_000),
        SAID,
        user_message("b" * 40_000),
        opaque,
    ]
    first, cut, second, third, last = after_remote(history)
    assert (first, second, third, last) == (SAID, SAID, user_message("b" * 40_000), opaque)
    assert isinstance(cut, Message)
    assert "tokens truncated" in message_text(cut)
    assert len(message_text(cut)) < 40_100
    assert after_remote(history, 10_000) == [SAID, SAID, user_message("b" * 40_000), opaque]


def test_context_comes_before_the_last_words_of_the_user() -> None:
    one, two, opaque = user_message("one"), user_message("two"), CompactionItem("sealed")
    assert with_context([one, two, SUMMARY], [CONTEXT]) == [one, CONTEXT, two, SUMMARY]
    assert with_context([SUMMARY], [CONTEXT]) == [CONTEXT, SUMMARY]
    assert with_context([SAID, opaque], [CONTEXT]) == [SAID, CONTEXT, opaque]
    assert with_context([SAID], [CONTEXT]) == [SAID, CONTEXT]


def test_the_oldest_goes_with_its_other_half() -> None:
    call, output = FunctionCall("f", arguments="{}", call_id="1"), FunctionCallOutput("1", "x")
    assert without_oldest([call, SAID, output, SUMMARY]) == [SAID, SUMMARY]
    assert without_oldest([SAID, call, output], 2) == []


def test_outputs_at_the_end_go_where_the_window_is_too_small() -> None:
    call, output = FunctionCall("f", arguments="{}", call_id="1"), FunctionCallOutput("1", "x" * 4000)
    assert within_window([SAID, call, output, RULES], 500, "") == [SAID, call]
    assert within_window([SAID, call, output], 5000, "") == [SAID, call, output]
    assert within_window([SAID, call, output], None, "") == [SAID, call, output]
    assert within_window([user_message("x" * 4000)], 5, "") == [user_message("x" * 4000)]
