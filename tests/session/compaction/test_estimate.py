"""Estimates: bytes of JSON by four, images and encrypted content by what they are worth."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.codec import encode, json_bytes
from engine.protocol.items import (
    CompactionItem,
    FunctionCallOutput,
    InputImage,
    InputText,
    Message,
    OutputText,
    Reasoning,
    ResponseItem,
    user_message,
)
from engine.session.compaction.estimate import active_tokens, history_tokens, item_tokens

SAID = Message("assistant", (OutputText("said"),))


def png(width: int, height: int, size: int = 3000) -> str:
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)
    return "data:image/png;base64," + base64.b64encode(head + bytes(size)).decode()


@given(st.text(max_size=300))
def test_text_counts_by_its_bytes(text: str) -> None:
    item = user_message(text)
    assert item_tokens(item) == -(-len(json_bytes(encode(item))) // 4)


def test_an_inline_image_counts_the_same_whatever_its_size() -> None:
    small, large = (Message("user", (InputImage(png(10, 10, size)),)) for size in (3000, 300_000))
    assert item_tokens(small) == item_tokens(large)
    assert 7373 // 4 <= item_tokens(small) < 7373 // 4 + 50


@pytest.mark.parametrize(("width", "height", "tokens"), [(320, 64, 20), (321, 64, 22), (320_000, 32_000, 10_000)])
def test_an_original_image_counts_by_its_squares(width: int, height: int, tokens: int) -> None:
    image = InputImage(png(width, height), detail="original")
    empty = Message("user", (InputImage("data:image/png;base64,", detail="original"),))
    plain = -(-len(json_bytes(encode(empty))) // 4)
    assert abs(item_tokens(Message("user", (image,))) - plain - tokens) <= 1


def test_images_in_outputs_and_elsewhere() -> None:
    output = FunctionCallOutput("1", (InputText("x"), InputImage(png(10, 10, 300_000))))
    assert item_tokens(output) < 2000
    assert item_tokens(Message("user", (InputImage("https://example.org/x.png"),))) < 50


def test_encrypted_content_is_smaller_than_it_looks() -> None:
    assert item_tokens(Reasoning(encrypted_content="x" * 4000)) == -(-(3000 - 650) // 4)
    assert item_tokens(CompactionItem("x" * 10)) == 0


def test_what_came_since_the_last_response_is_added() -> None:
    output = FunctionCallOutput("1", "x" * 400)
    assert active_tokens([user_message("y" * 900), SAID, output], 899, reasoning_included=True) == 899 + item_tokens(
        output
    )
    assert active_tokens([user_message("y")], 7, reasoning_included=True) == 7
    assert active_tokens([], 0, reasoning_included=False) == 0


def test_reasoning_of_earlier_turns_is_added_where_the_server_leaves_it_out() -> None:
    thought = Reasoning(encrypted_content="x" * 4000)
    history: list[ResponseItem] = [user_message("one"), thought, SAID, user_message("two"), thought, SAID]
    assert active_tokens(history, 100, reasoning_included=False) == 100 + item_tokens(thought)
    assert active_tokens(history, 100, reasoning_included=True) == 100


def test_instructions_count_too() -> None:
    assert history_tokens([SAID], "x" * 40) == 10 + item_tokens(SAID)
