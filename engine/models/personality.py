"""How a model talks: its base instructions for a personality, and what to say when the personality changes.

A model of the catalogue may bring a template with one text for each personality (config.md 8). The built-in base
instructions are `pragmatic` as they stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engine.models.catalogue import ModelInfo

__all__ = ["PERSONALITIES", "base_instructions", "personality_message"]

PERSONALITIES: Final = ("none", "friendly", "pragmatic")

_PLACEHOLDER: Final = "{{ personality }}"
_BUILT_IN: Final[Mapping[str, str]] = {
    "none": "No particular tone is asked for any more. Write as the task demands.",
    "friendly": (
        "Be warm and encouraging. Talk like a good colleague who enjoys the work: say what is going well, put bad news "
        "kindly and plainly, explain without talking down, and take a question as a reason to help, not as a doubt. "
        "Stay honest and to the point all the same."
    ),
    "pragmatic": (
        "Be matter-of-fact. Say what is, what you did and what follows, in few words and without praise or small talk. "
        "Point out problems directly, with a way to solve them."
    ),
}


def base_instructions(model: ModelInfo, personality: str | None) -> str:
    """The instructions sent with every request to `model`."""
    messages = model.model_messages
    template = None if messages is None else messages.get("instructions_template")
    if not isinstance(template, str):
        return model.base_instructions
    return template.replace(_PLACEHOLDER, _variable(model, personality) or "")


def personality_message(model: ModelInfo, personality: str, instructions: str, *, changed: bool) -> str | None:
    """What the model is to be told of its personality; None where `instructions` say it already.

    `changed`: it has just changed in the course of a conversation. Otherwise only what differs from the usual
    `pragmatic` is worth a word.
    """
    if model.model_messages is not None:
        if not changed and instructions == base_instructions(model, personality):
            return None
        return _variable(model, personality) or None
    return _BUILT_IN.get(personality) if changed or personality == "friendly" else None


def _variable(model: ModelInfo, personality: str | None) -> str | None:
    variables = (model.model_messages or {}).get("instructions_variables")
    if not isinstance(variables, Mapping):
        return None
    name = "personality_default" if personality in (None, "none") else f"personality_{personality}"
    text = variables.get(name)
    return text if isinstance(text, str) else None
