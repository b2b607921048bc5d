"""Base instructions and what is said of a personality."""

from __future__ import annotations

import attrs

from engine.models.catalogue import look_up
from engine.models.personality import PERSONALITIES, base_instructions, personality_message

PLAIN = look_up("gpt-5.4")
TEMPLATED = attrs.evolve(
    PLAIN,
    model_messages={
        "instructions_template": "Work well. {{ personality }} Thanks.",
        "instructions_variables": {"personality_default": "", "personality_friendly": "Smile."},
    },
)


def test_the_built_in_text_is_pragmatic() -> None:
    assert base_instructions(PLAIN, "friendly") == base_instructions(PLAIN, None) == PLAIN.base_instructions
    assert [personality_message(PLAIN, name, "", changed=False) is not None for name in PERSONALITIES] == [
        False,
        True,
        False,
    ]
    assert all(personality_message(PLAIN, name, "", changed=True) for name in PERSONALITIES)


def test_a_template_has_a_text_for_each() -> None:
    assert base_instructions(TEMPLATED, "friendly") == "Work well. Smile. Thanks."
    assert base_instructions(TEMPLATED, "none") == base_instructions(TEMPLATED, "unheard of") == "Work well.  Thanks."


def test_what_the_instructions_say_already_is_not_said_again() -> None:
    said = base_instructions(TEMPLATED, "friendly")
    assert personality_message(TEMPLATED, "friendly", said, changed=False) is None
    assert personality_message(TEMPLATED, "friendly", "other words", changed=False) == "Smile."
    assert personality_message(TEMPLATED, "friendly", said, changed=True) == "Smile."
    assert personality_message(TEMPLATED, "none", said, changed=True) is None


def test_a_template_that_is_no_text() -> None:
    odd = attrs.evolve(PLAIN, model_messages={"instructions_template": 3, "instructions_variables": []})
    assert base_instructions(odd, "friendly") == PLAIN.base_instructions
    assert personality_message(odd, "friendly", "", changed=True) is None
