"""A request as a script sees it: whose turn it is, what the user and the tools said last, what is offered."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Final

from engine.errors import ScriptError
from engine.protocol.wire import JsonObject
from engine.rollout.boundaries import is_contextual_text

__all__ = ["ScriptedRequest", "check_template", "check_templates", "fill"]

_PLACEHOLDER: Final = re.compile(r"\$\{([a-z_]+)(?:\[(-?\d+)\])?\}")


class ScriptedRequest:
    """One request to the scripted model. Texts are worked out when first asked for.

    `number` counts the requests of the model, from 1. Header names are in lower case. `frame` is what came over a
    WebSocket, where `body` may be more: the input is complete.
    """

    def __init__(
        self, body: JsonObject, headers: Mapping[str, str], number: int = 1, frame: JsonObject | None = None
    ) -> None:
        self.body = body
        self.frame = frame
        self.headers = headers
        self.number = number

    @property
    def thread_id(self) -> str:
        """The thread the request belongs to; `""` where neither header nor body tells."""
        named = self.headers.get("thread-id") or self.body.get("prompt_cache_key")
        return named if isinstance(named, str) else ""

    @property
    def model(self) -> str:
        """The requested model."""
        model = self.body.get("model")
        return model if isinstance(model, str) else ""

    @property
    def input(self) -> list[JsonObject]:
        """The input items."""
        items = self.body.get("input")
        return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []

    @functools.cached_property
    def tools(self) -> tuple[str, ...]:
        """Names of the offered tools; for hosted ones their type."""
        offered = self.body.get("tools")
        tools = [tool for tool in offered if isinstance(tool, dict)] if isinstance(offered, list) else []
        found = (tool.get("name") or tool.get("type") for tool in tools)
        return tuple(name for name in found if isinstance(name, str))

    @functools.cached_property
    def user_texts(self) -> tuple[str, ...]:
        """What the user said, oldest first, without the context the engine adds."""
        texts = (_texts(item) for item in self.input if _is_user(item))
        return tuple("".join(parts) for parts in texts if not _is_context(parts))

    @functools.cached_property
    def tool_outputs(self) -> tuple[str, ...]:
        """Outputs of tools, oldest first."""
        return tuple(
            "".join(_texts(item))
            for item in self.input
            if item.get("type") in ("function_call_output", "custom_tool_call_output")
        )

    @property
    def user_turn(self) -> int:
        """How many user messages the history holds, the newest included."""
        return len(self.user_texts)

    @functools.cached_property
    def step(self) -> int:
        """Which request of its turn this is, from 1: one begins wherever tool outputs follow the model's items."""
        steps, outputs = 1, False
        for item in self.input:
            kind = item.get("type")
            if _is_user(item) and not _is_context(_texts(item)):
                steps, outputs = 1, False
            elif kind in ("function_call_output", "custom_tool_call_output"):
                if not outputs:
                    steps += 1
                outputs = True
            elif kind in ("function_call", "custom_tool_call", "reasoning") or item.get("role") == "assistant":
                outputs = False
        return steps

    @functools.cached_property
    def all_texts(self) -> str:
        """All text of the input, tool calls included, one part per line."""
        return "\n".join(text for item in self.input for text in (*_texts(item), *_call_texts(item)))


def _is_user(item: JsonObject) -> bool:
    return item.get("role") == "user" and item.get("type", "message") == "message"


def _texts(item: JsonObject) -> list[str]:
    """The text parts of a message or a tool output."""
    content = item.get("content", item.get("output"))
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        return []
    return [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]


def _call_texts(item: JsonObject) -> list[str]:
    return [value for key in ("arguments", "input") if isinstance(value := item.get(key), str)]


def _is_context(parts: list[str]) -> bool:
    """Whether a message of the role `user` was written by the engine (rollout.md 5.1)."""
    return any(is_contextual_text(part) for part in parts)


def _first(texts: tuple[str, ...], index: int) -> str:
    return texts[index] if texts else ""


_PLAIN: Final[Mapping[str, Callable[[ScriptedRequest], str]]] = {
    "turn": lambda request: str(request.user_turn),
    "step": lambda request: str(request.step),
    "request": lambda request: str(request.number),
    "thread_id": lambda request: request.thread_id,
    "model": lambda request: request.model,
    "first_user_text": lambda request: _first(request.user_texts, 0),
    "last_user_text": lambda request: _first(request.user_texts, -1),
    "last_tool_output": lambda request: _first(request.tool_outputs, -1),
}
_LISTS: Final[Mapping[str, Callable[[ScriptedRequest], tuple[str, ...]]]] = {
    "user_texts": lambda request: request.user_texts,
    "tool_outputs": lambda request: request.tool_outputs,
}


def check_template(text: str) -> None:
    """Raises `ScriptError` if `text` has a placeholder that nothing can fill."""
    for found in _PLACEHOLDER.finditer(text):
        name, index = found[1], found[2]
        if name not in _LISTS and (index is not None or name not in _PLAIN):
            known = ", ".join(sorted({*_PLAIN, *_LISTS}))
            raise ScriptError(f"unknown placeholder {found[0]}; known are: {known}")


def check_templates(value: object) -> None:
    """`check_template` for all texts in a JSON value."""
    if isinstance(value, str):
        check_template(value)
    elif isinstance(value, Mapping):
        for part in value.values():
            check_templates(part)
    elif isinstance(value, list | tuple):
        for part in value:
            check_templates(part)


def fill(text: str, request: ScriptedRequest) -> str:
    """`text` with its placeholders filled in; a list is joined with `, `, an index out of range gives nothing."""

    def value(found: re.Match[str]) -> str:
        name, index = found[1], found[2]
        if name in _LISTS:
            texts = _LISTS[name](request)
            if index is None:
                return ", ".join(texts)
            position = int(index)
            return texts[position] if -len(texts) <= position < len(texts) else ""
        return _PLAIN[name](request) if name in _PLAIN and index is None else found[0]

    return _PLACEHOLDER.sub(value, text)
