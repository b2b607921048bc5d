"""What a user hands in for a turn: text, images, mentions (app_server.md 2.5 in core spelling)."""

from __future__ import annotations

from typing import ClassVar

from engine.protocol.wire import JsonObject, UnknownVariant, Wire, optional
from engine.records import frozen

__all__ = ["ImageInput", "LocalImageInput", "MentionInput", "SkillInput", "TextInput", "UserInput"]


@frozen
class TextInput(Wire):
    """Plain text."""

    type: ClassVar[str] = "text"
    text: str
    text_elements: tuple[JsonObject, ...] = ()


@frozen
class ImageInput(Wire):
    """An image by URL (http, https or `data:`)."""

    type: ClassVar[str] = "image"
    image_url: str
    detail: str | None = optional()


@frozen
class LocalImageInput(Wire):
    """An image file on this machine; read and inlined when the turn starts."""

    type: ClassVar[str] = "local_image"
    path: str
    detail: str | None = optional()


@frozen
class SkillInput(Wire):
    """An explicit mention of a skill."""

    type: ClassVar[str] = "skill"
    name: str
    path: str


@frozen
class MentionInput(Wire):
    """An explicit mention of an app or a file."""

    type: ClassVar[str] = "mention"
    name: str
    path: str


UserInput = TextInput | ImageInput | LocalImageInput | SkillInput | MentionInput | UnknownVariant
