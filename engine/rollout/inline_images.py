"""An inline image of the user stands once in a rollout: in the message for the model. Pure.

The event that shows the same message to people would carry it a second time. What is stored of that event has a
stand-in for each inline image, and readers put the image back from the message before it. The stand-in is a tiny PNG,
so that a program which knows nothing of this shows a grey dot, and still lists a thread that begins with an image.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, final

import attrs

from engine.protocol.events import EventMsg, ItemCompleted, UserMessage
from engine.protocol.inputs import ImageInput
from engine.protocol.items import InputImage, Message
from engine.protocol.rollout_items import EventLine, ResponseLine, RolloutItem
from engine.protocol.turn_items import UserMessageItem

__all__ = ["STAND_IN", "ImagesBack", "ImagesOnce", "events_with_images", "items_with_images", "stand_in"]

STAND_IN: Final = b"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptV"
"""How every stand-in begins, and hardly anything else: up to its size."""


@functools.lru_cache(64)
def stand_in(position: int) -> str:
    """The URL that stands for the image at `position` among those of the message before; the same for ever."""
    import base64  # with the first image: writing begins with no need of them
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = b"\0\x80"  # no filter, one grey pixel
    # Stored, not compressed: compressors differ in what they make of it.
    data = b"\x78\x01\x01" + struct.pack("<HH", len(pixels), len(pixels) ^ 0xFFFF) + pixels
    png = b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
            chunk(b"tEXt", b"Comment\0see the message before, image %d" % (position + 1)),
            chunk(b"IDAT", data + struct.pack(">I", zlib.adler32(pixels))),
            chunk(b"IEND", b""),
        )
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _images_of(item: RolloutItem) -> tuple[str, ...] | None:
    """The images of a user's message, none where one of them is a stand-in itself; `None` for any other item."""
    if not isinstance(item, ResponseLine) or not isinstance(item.item, Message) or item.item.role != "user":
        return None
    images = tuple(part.image_url for part in item.item.content if isinstance(part, InputImage))
    if not images:
        return None
    return () if any(url == stand_in(at) for url in images for at in range(len(images))) else images


def _exchanged(msg: EventMsg, urls: Mapping[str, str]) -> EventMsg:
    """The event of a user's message with other URLs; any other event as it is."""
    match msg:
        case UserMessage(images=images) if images and any(url in urls for url in images):
            return attrs.evolve(msg, images=tuple(urls.get(url, url) for url in images))
        case ItemCompleted(item=UserMessageItem() as shown) if urls:
            parts = tuple(
                attrs.evolve(part, image_url=urls.get(part.image_url, part.image_url))
                if isinstance(part, ImageInput)
                else part
                for part in shown.content
            )
            return attrs.evolve(msg, item=attrs.evolve(shown, content=parts))
    return msg


@final
class ImagesOnce:
    """For who writes: is shown all items in order."""

    __slots__ = ("_stand_ins",)

    def __init__(self) -> None:
        self._stand_ins: dict[str, str] = {}

    def stored(self, item: RolloutItem) -> RolloutItem:
        """What is stored of an item: where it shows inline images that stand in the message before, stand-ins."""
        images = _images_of(item)
        if images is not None:
            self._stand_ins = {
                url: stand_in(at)
                for at, url in enumerate(images)
                if url.startswith("data:") and len(url) > len(stand_in(at))
            }
        elif self._stand_ins and isinstance(item, EventLine):
            exchanged = _exchanged(item.msg, self._stand_ins)
            return item if exchanged is item.msg else EventLine(exchanged)
        return item


@final
class ImagesBack:
    """For who reads: hears the user's messages, and shows the events, in order."""

    __slots__ = ("_images",)

    def __init__(self) -> None:
        self._images: dict[str, str] = {}

    def hear(self, item: RolloutItem) -> None:
        """Takes note of the images, if the item is a user's message that has some."""
        images = _images_of(item)
        if images is not None:
            self._images = {stand_in(at): url for at, url in enumerate(images)}

    def shown(self, msg: EventMsg) -> EventMsg:
        """An event as it was before it was stored. A stand-in whose message is lost stays."""
        return _exchanged(msg, self._images)


def items_with_images(items: Iterable[RolloutItem]) -> Iterator[RolloutItem]:
    """Stored items, in order, as they were before they were stored."""
    back = ImagesBack()
    for item in items:
        back.hear(item)
        yield EventLine(back.shown(item.msg)) if isinstance(item, EventLine) else item


def events_with_images(items: Iterable[RolloutItem]) -> Iterator[EventMsg]:
    """The events among stored items, in order, as they were before they were stored."""
    return (item.msg for item in items_with_images(items) if isinstance(item, EventLine))
