"""Where turns begin in a history, and which messages are context rather than talk (rollout.md 5.1)."""

from __future__ import annotations

import re

from engine.errors import ProtocolError
from engine.protocol.codec import json_value
from engine.protocol.items import InputImage, InputText, Message, OutputText, ResponseItem

__all__ = [
    "is_contextual_developer_message",
    "is_contextual_text",
    "is_contextual_user_message",
    "is_envelope",
    "is_user_turn_boundary",
    "user_text",
]

_PAIRS = (
    ("# AGENTS.md instructions for ", "</INSTRUCTIONS>"),
    *(
        (f"<{tag}>", f"</{tag}>")
        for tag in (
            "environment_context",
            "skill",
            "user_shell_command",
            "turn_aborted",
            "subagent_notification",
            "goal_context",
        )
    ),
)
_CONTEXTUAL = re.compile(
    "|".join(f"{re.escape(opening)}.*{re.escape(closing)}" for opening, closing in _PAIRS),
    re.IGNORECASE | re.DOTALL | re.ASCII,
)
_HOOK_PROMPT = re.compile(r"<hook_prompt(?:\s[^<>]*)?>.*</hook_prompt>", re.DOTALL)
_DEVELOPER = re.compile(
    "<permissions instructions>|<model_switch>|<collaboration_mode>|<realtime_conversation>|<personality_spec>",
    re.IGNORECASE | re.ASCII,
)
_AGENT_PATH = re.compile(r"/root(?:/[a-z0-9_]+)*", re.ASCII)
_IMAGE_OPENING = re.compile(r"<image(?:\s[^<>]*)?>")
_IMAGE_CLOSING = "</image>"


def is_contextual_text(text: str) -> bool:
    """Whether the text of an `input_text` part is context that the engine put in, or the prompt of a hook."""
    text = text.strip()
    return _CONTEXTUAL.fullmatch(text) is not None or _HOOK_PROMPT.fullmatch(text) is not None


def is_contextual_user_message(item: ResponseItem) -> bool:
    """A user message with any contextual part."""
    return isinstance(item, Message) and item.role == "user" and _has_context(item)


def is_contextual_developer_message(item: ResponseItem) -> bool:
    """A developer message with any part that tells settings: permissions, model, mode, personality, realtime."""
    return (
        isinstance(item, Message)
        and item.role == "developer"
        and any(isinstance(part, InputText) and _DEVELOPER.match(part.text.lstrip()) for part in item.content)
    )


def is_user_turn_boundary(item: ResponseItem) -> bool:
    """Whether a turn of a user begins here: a real user message, or mail of another agent."""
    if not isinstance(item, Message):
        return False
    if item.role == "user":
        return not _has_context(item)
    return is_envelope(item)


def is_envelope(item: ResponseItem, *, triggers_turn: bool = False) -> bool:
    """Whether an assistant message is mail between agents; with `triggers_turn`, mail that starts a turn."""
    if not (isinstance(item, Message) and item.role == "assistant" and len(item.content) == 1):
        return False
    part = item.content[0]
    if not isinstance(part, InputText | OutputText) or not part.text.lstrip().startswith("{"):
        return False
    try:
        mail = json_value(part.text)
    except ProtocolError:
        return False
    return (
        isinstance(mail, dict)
        and _is_agent_path(mail.get("author"))
        and _is_agent_path(mail.get("recipient"))
        and isinstance(mail.get("content"), str)
        and isinstance(mail.get("trigger_turn"), bool)
        and _are_agent_paths(mail.get("other_recipients", []))
        and (mail["trigger_turn"] or not triggers_turn)
    )


def user_text(message: Message) -> str:
    """The text of a user message; images and the tags around them are left out."""
    parts = message.content
    texts: list[str] = []
    for position, part in enumerate(parts):
        if not isinstance(part, InputText | OutputText):
            continue
        text = part.text.strip()
        before, after = parts[max(position - 1, 0)], parts[min(position + 1, len(parts) - 1)]
        if isinstance(after, InputImage) and _IMAGE_OPENING.fullmatch(text):
            continue
        if isinstance(before, InputImage) and text == _IMAGE_CLOSING:
            continue
        texts.append(part.text)
    return "".join(texts)


def _has_context(message: Message) -> bool:
    return any(isinstance(part, InputText) and is_contextual_text(part.text) for part in message.content)


def _is_agent_path(value: object) -> bool:
    return isinstance(value, str) and _AGENT_PATH.fullmatch(value) is not None


def _are_agent_paths(value: object) -> bool:
    return isinstance(value, list) and all(_is_agent_path(path) for path in value)
