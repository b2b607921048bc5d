"""Model entries of servers: every field, what is cautious where one is missing, and how they are applied."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.models.catalogue import BUNDLED, ModelInfo, ReasoningLevel, fallback_model
from engine.models.entries import applied, model_entries, model_entry
from engine.protocol.settings import TruncationPolicy

ENTRY: dict[str, Any] = {
    "slug": "m",
    "display_name": "M",
    "description": "about",
    "default_reasoning_level": "high",
    "supported_reasoning_levels": [{"effort": "high", "description": "hard"}, {"description": "no effort"}],
    "supports_reasoning_summaries": True,
    "default_reasoning_summary": "none",
    "support_verbosity": True,
    "default_verbosity": "low",
    "shell_type": "shell_command",
    "apply_patch_tool_type": "freeform",
    "web_search_tool_type": "text_and_image",
    "supports_parallel_tool_calls": True,
    "supports_image_detail_original": True,
    "supports_search_tool": True,
    "experimental_supported_tools": ["a", 1],
    "input_modalities": ["text"],
    "truncation_policy": {"mode": "tokens", "limit": 5},
    "context_window": 100,
    "max_context_window": 200,
    "effective_context_window_percent": 90,
    "auto_compact_token_limit": 50,
    "visibility": "list",
    "supported_in_api": False,
    "priority": 3,
    "service_tiers": [{"id": "priority", "name": "Fast"}, "flex"],
    "additional_speed_tiers": ["fast"],
    "availability_nux": {"message": "new"},
    "upgrade": {"model": "n"},
    "model_messages": {"instructions_template": "x"},
    "base_instructions": "be good",
    "unheard_of": [1],
}
MODEL = ModelInfo(
    slug="m",
    display_name="M",
    description="about",
    default_reasoning_level="high",
    supported_reasoning_levels=(ReasoningLevel("high", "hard"),),
    supports_reasoning_summaries=True,
    default_reasoning_summary="none",
    support_verbosity=True,
    default_verbosity="low",
    shell_type="shell_command",
    apply_patch_tool_type="freeform",
    web_search_tool_type="text_and_image",
    supports_parallel_tool_calls=True,
    supports_image_detail_original=True,
    supports_search_tool=True,
    experimental_supported_tools=("a",),
    input_modalities=("text",),
    truncation_policy=TruncationPolicy("tokens", 5),
    context_window=100,
    max_context_window=200,
    effective_context_window_percent=90,
    auto_compact_token_limit=50,
    visibility="list",
    supported_in_api=False,
    priority=3,
    service_tiers=("priority", "flex"),
    additional_speed_tiers=("fast",),
    availability_nux="new",
    upgrade="n",
    model_messages={"instructions_template": "x"},
    own_instructions="be good",
)


def test_every_field_is_read() -> None:
    assert model_entry(ENTRY) == MODEL


def test_what_is_missing_is_as_for_a_model_nobody_knows() -> None:
    found, guessed = model_entry({"slug": "m"}), fallback_model("m")
    assert found is not None
    assert not found.is_fallback
    assert (found.context_window, found.truncation_policy, found.priority, found.visibility) == (
        guessed.context_window,
        guessed.truncation_policy,
        guessed.priority,
        guessed.visibility,
    )
    assert found.base_instructions == guessed.base_instructions


@pytest.mark.parametrize(
    ("field", "value", "attribute", "expected"),
    [
        ("context_window", -5, "window", 200),
        ("context_window", True, "window", 200),
        ("context_window", None, "window", 200),
        ("effective_context_window_percent", 150, "effective_context_window_percent", 95),
        ("truncation_policy", {"limit": 5}, "truncation_policy", TruncationPolicy("bytes", 10_000)),
        ("truncation_policy", {"mode": "bytes", "limit": 7}, "truncation_policy", TruncationPolicy("bytes", 7)),
        ("truncation_policy", "tokens", "truncation_policy", TruncationPolicy("bytes", 10_000)),
        ("visibility", "secret", "visibility", "none"),
        ("visibility", "hide", "visibility", "hide"),
        ("apply_patch_tool_type", "function", "apply_patch_tool_type", None),
        ("priority", "first", "priority", 99),
        ("base_instructions", "  ", "own_instructions", None),
        ("upgrade", "n", "upgrade", "n"),
        ("model_messages", "x", "model_messages", None),
    ],
)
def test_odd_values(field: str, value: object, attribute: str, expected: object) -> None:
    found = model_entry({**ENTRY, field: value})
    assert getattr(found, attribute) == expected


def test_entries_without_a_name_are_left_out() -> None:
    assert [model.slug for model in model_entries([{"slug": "a"}, {}, "x", {"slug": " "}, {"slug": "b"}])] == ["a", "b"]
    assert model_entries({"slug": "a"}) == ()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from(sorted(ENTRY)), anything, max_size=12), max_size=4))
def test_no_answer_of_a_server_is_an_error(entries: list[dict[str, Any]]) -> None:
    for model in model_entries(entries):
        assert model.slug.strip()
        assert model.window is not None
        assert model.window > 0
        assert 0 < model.effective_context_window_percent <= 100


def test_a_chatgpt_login_sees_what_its_server_lists() -> None:
    told = (MODEL,)
    assert applied(told, chatgpt=True) == told
    hidden = model_entries([{**ENTRY, "visibility": "hide"}])
    assert [model.slug for model in applied(hidden, chatgpt=True)] == [*(model.slug for model in BUNDLED), "m"]


def test_everybody_else_gets_it_merged_by_slug() -> None:
    told = model_entries([{**ENTRY, "slug": "gpt-5.4"}, ENTRY])
    merged = applied(told, chatgpt=False)
    assert [model.slug for model in merged] == [*(model.slug for model in BUNDLED), "m"]
    assert next(model for model in merged if model.slug == "gpt-5.4").description == "about"
    assert applied((), chatgpt=True) == BUNDLED
