"""What begins a turn, and what is only context."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.items import FunctionCall, InputImage, InputText, Message, OutputText, user_message
from engine.rollout.boundaries import (
    is_contextual_developer_message,
    is_contextual_text,
    is_contextual_user_message,
    is_envelope,
    is_user_turn_boundary,
    user_text,
)

TAGS = (
    "environment_context",
    "skill",
    "user_shell_command",
    "turn_aborted",
    "subagent_notification",
    "goal_context",
)


@pytest.mark.parametrize("tag", TAGS)
def test_tagged_texts_are_context_in_any_case_and_padding(tag: str) -> None:
    for text in (f"<{tag}>x</{tag}>", f" \n<{tag.upper()}>\nx\n</{tag}>\t", f"<{tag}></{tag}>"):
        assert is_contextual_text(text)
    for text in (
        f"<{tag}>x",
        f"x</{tag}>",
        f"see <{tag}>x</{tag}>",
        f"<{tag}>x</{tag}> and more",
        f"<{tag} a='b'>x</{tag}>",
    ):
        assert not is_contextual_text(text)


def test_instructions_and_hook_prompts_are_context() -> None:
    assert is_contextual_text("# AGENTS.md instructions for /repo\n\n<INSTRUCTIONS>\nbe kind\n</INSTRUCTIONS>")
    assert is_contextual_text('<hook_prompt hook_run_id="stop:0:/x">go on</hook_prompt>')
    assert not is_contextual_text("# AGENTS.md instructions for /repo")
    assert not is_contextual_text("<hook_prompts>go on</hook_prompts>")
    assert not is_contextual_text("<\u212aill>x</skill>")


@given(st.text(max_size=30))
def test_plain_texts_begin_turns(text: str) -> None:
    if "<" not in text and not text.startswith("#"):
        assert is_user_turn_boundary(user_message(text))


def test_user_messages() -> None:
    context = InputText("<skill>x</skill>")
    mixed = Message("user", (InputText("hello"), context))
    assert is_user_turn_boundary(user_message("hello"))
    assert is_user_turn_boundary(Message("user", ()))
    assert is_user_turn_boundary(Message("user", (InputImage("data:,"),)))
    assert is_user_turn_boundary(Message("user", (OutputText(context.text),)))  # only input counts
    assert not is_user_turn_boundary(mixed)
    assert is_contextual_user_message(mixed)
    assert not is_contextual_user_message(user_message("hello"))
    assert not is_contextual_user_message(Message("developer", (context,)))
    for role in ("developer", "system", "assistant"):
        assert not is_user_turn_boundary(Message(role, (InputText("hello"),)))
    assert not is_user_turn_boundary(FunctionCall("f", arguments="{}", call_id="c"))


@pytest.mark.parametrize(
    "start",
    [
        "<permissions instructions>",
        " \n<PERMISSIONS INSTRUCTIONS> and more",
        "<model_switch>",
        "<collaboration_mode>",
        "<realtime_conversation>",
        "<personality_spec>",
    ],
)
def test_developer_messages_that_tell_settings(start: str) -> None:
    assert is_contextual_developer_message(user_message("keep", start, role="developer"))
    assert not is_contextual_developer_message(user_message(start))
    assert not is_contextual_developer_message(user_message(f"x {start}", role="developer"))


def mail(**changes: object) -> Message:
    fields = {"author": "/root", "recipient": "/root/w_0", "content": "c", "trigger_turn": False, **changes}
    return Message(
        "assistant", (OutputText(json.dumps({key: part for key, part in fields.items() if part is not ...})),)
    )


def test_mail_between_agents_begins_a_turn() -> None:
    assert is_user_turn_boundary(mail())
    assert is_envelope(mail(other_recipients=["/root/a/b"], unknown=1))
    assert not is_envelope(mail(), triggers_turn=True)
    assert is_envelope(mail(trigger_turn=True), triggers_turn=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"author": ...},
        {"author": "root"},
        {"author": "/root/"},
        {"recipient": "/root/Upper"},
        {"recipient": "/rooty"},
        {"content": 3},
        {"trigger_turn": ...},
        {"trigger_turn": 1},
        {"other_recipients": "x"},
        {"other_recipients": ["x"]},
    ],
)
def test_what_is_no_mail(changes: dict[str, object]) -> None:
    assert not is_user_turn_boundary(mail(**changes))


def test_mail_stands_alone_in_its_message() -> None:
    [part] = mail().content
    assert not is_envelope(Message("assistant", (part, part)))
    assert not is_envelope(Message("user", (part,)))
    assert not is_envelope(Message("assistant", (OutputText("{torn"),)))
    assert not is_envelope(Message("assistant", (OutputText("[]"),)))
    assert not is_envelope(Message("assistant", (InputImage("data:,"),)))


def test_the_text_of_a_message_leaves_out_images_and_their_tags() -> None:
    image = InputImage("data:,")
    wrapped = (InputText("look: "), InputText("<image name='x'>"), image, InputText("</image>"), InputText("nice?"))
    assert user_text(Message("user", wrapped)) == "look: nice?"
    assert user_text(Message("user", (InputText("<image>"), InputText("</image>")))) == "<image></image>"
    assert user_text(Message("user", (image,))) == ""
