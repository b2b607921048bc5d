"""What a script sees of a request."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ScriptError
from engine.models.script_requests import ScriptedRequest, check_template, fill
from tests.models.exchanges import assistant, body, function_call, output, user

CONTEXT = user("<environment_context>\n  <cwd>/x</cwd>\n</environment_context>")
AGENTS = user("# AGENTS.md instructions for /x\n\n<INSTRUCTIONS>\nbe kind\n</INSTRUCTIONS>")
HISTORY: list[Any] = [
    AGENTS,
    CONTEXT,
    user("first"),
    {"type": "reasoning", "summary": []},
    function_call("a", '{"cmd": "ls"}'),
    function_call("b"),
    output("out a", "a"),
    output("out b", "b"),
    assistant("looked"),
    user("<turn_aborted>\nx\n</turn_aborted>"),
    user("second"),
]


def seen(*items: Any, **headers: str) -> ScriptedRequest:
    return ScriptedRequest(body(*items, tools=("exec_command", "apply_patch")), headers, 3)


def test_user_texts_are_what_the_user_said() -> None:
    request = seen(*HISTORY)
    assert request.user_texts == ("first", "second")
    assert request.user_turn == 2
    assert request.tool_outputs == ("out a", "out b")
    assert request.tools == ("exec_command", "apply_patch")
    assert all(text in request.all_texts for text in ("be kind", "out b", '{"cmd": "ls"}', "looked"))


@pytest.mark.parametrize(("length", "step"), [(3, 1), (4, 1), (6, 1), (7, 2), (8, 2), (9, 2), (10, 2), (11, 1)])
def test_steps_count_the_requests_of_a_turn(length: int, step: int) -> None:
    assert seen(*HISTORY[:length]).step == step


def test_steps_go_on_after_each_round_of_tools() -> None:
    rounds = [part for number in "abc" for part in (function_call(number), output("x", number))]
    assert seen(user("go"), *rounds).step == 4


def test_the_thread_is_told_by_header_or_body() -> None:
    assert ScriptedRequest({"prompt_cache_key": "b"}, {"thread-id": "h"}).thread_id == "h"
    assert ScriptedRequest({"prompt_cache_key": "b"}, {}).thread_id == "b"
    assert ScriptedRequest({}, {}).thread_id == ""


def test_placeholders() -> None:
    request = ScriptedRequest(body(*HISTORY), {"thread-id": "T"}, 3)
    text = "${turn}/${step}/${request} ${thread_id} ${model} ${first_user_text} ${last_user_text} ${last_tool_output}"
    assert fill(text, request) == "2/1/3 T gpt-5.5 first second out b"
    lists = "${user_texts} | ${user_texts[0]} | ${tool_outputs[-2]} | ${tool_outputs[9]}."
    assert fill(lists, request) == "first, second | first | out a | ."
    assert fill("${HOME} $turn ${turn[0]} ${other}", request) == "${HOME} $turn ${turn[0]} ${other}"


@pytest.mark.parametrize("text", ["${nope}", "a ${turn[0]}", "${history}"])
def test_placeholders_that_nothing_fills(text: str) -> None:
    with pytest.raises(ScriptError, match="known are: first_user_text"):
        check_template(text)
    check_template("${turn} ${HOME} ${user_texts[-1]} ${user_texts} plain")


items = st.dictionaries(
    st.sampled_from(["type", "role", "content", "output", "arguments"]),
    st.sampled_from(["message", "user", "assistant", "function_call_output"])
    | st.text(max_size=5)
    | st.integers()
    | st.lists(st.dictionaries(st.just("text"), st.text(max_size=4) | st.none())),
)


@given(
    st.lists(items | st.none()) | st.none() | st.text(),
    st.lists(st.dictionaries(st.just("name"), st.text())) | st.text(),
)
def test_any_body_can_be_looked_at(content: Any, tools: Any) -> None:
    request = ScriptedRequest({"input": content, "tools": tools}, {})
    assert request.step >= 1
    assert request.user_turn == len(request.user_texts)
    assert isinstance(request.all_texts, str)
    assert isinstance(request.tools, tuple)
    fill("${last_user_text}${last_tool_output}${user_texts[3]}", request)
