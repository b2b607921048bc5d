"""The catalogue: lookup, fallback, configuration on top."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.loading import load_config
from engine.config.model import Config
from engine.models.catalogue import BUNDLED, default_model, find_model, look_up, picker_models
from engine.protocol.settings import TruncationPolicy


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(tmp_path, cwd=tmp_path, env={})


def with_(config: Config, **fields: Any) -> Config:
    return attrs.evolve(config, **fields)


@pytest.mark.parametrize(
    ("asked", "entry"),
    [
        ("gpt-5.5", "gpt-5.5"),
        ("gpt-5.4-mini-x", "gpt-5.4-mini"),
        ("gpt-5.4-2026", "gpt-5.4"),
        ("corp/gpt-5.2", "gpt-5.2"),
        ("a_b-1/gpt-5.3-codex-high", "gpt-5.3-codex"),
    ],
)
def test_the_longest_prefix_wins_and_the_asked_name_stays(asked: str, entry: str) -> None:
    found = look_up(asked)
    assert found.slug == asked
    assert found.display_name == next(model.display_name for model in BUNDLED if model.slug == entry)
    assert not found.is_fallback


@pytest.mark.parametrize("asked", ["a/b/gpt-5.2", "a.b/gpt-5.2", "/gpt-5.2", "mock-model", "", "gpt-5", "GPT-5.5"])
def test_everything_else_gets_fallback_metadata(asked: str) -> None:
    found = look_up(asked)
    assert (found.slug, found.is_fallback) == (asked, True)
    assert (found.context_window, found.max_context_window) == (272_000, 272_000)
    assert found.truncation_policy == TruncationPolicy("bytes", 10_000)
    assert (found.supported_reasoning_levels, found.supports_reasoning_summaries) == ((), False)
    assert (found.support_verbosity, found.apply_patch_tool_type, found.supports_parallel_tool_calls) == (
        False,
        None,
        False,
    )
    assert (found.shell_type, found.visibility, found.priority, found.web_search_tool_type) == (
        "default",
        "none",
        99,
        "text",
    )


def test_the_bundled_numbers() -> None:
    assert [(model.slug, model.priority) for model in BUNDLED] == [
        ("gpt-5.5", 0),
        ("gpt-5.4", 2),
        ("gpt-5.4-mini", 4),
        ("gpt-5.3-codex", 6),
        ("gpt-5.2", 10),
        ("codex-auto-review", 29),
    ]
    assert {model.slug for model in BUNDLED if model.truncation_policy.mode == "bytes"} == {"gpt-5.2"}
    assert {model.max_context_window for model in BUNDLED if model.slug != "gpt-5.4"} == {272_000}
    for model in BUNDLED:
        assert (model.context_window, model.auto_compact_limit) == (272_000, 244_800)
        assert model.effective_context_window == 258_400
        assert [level.effort for level in model.supported_reasoning_levels] == ["low", "medium", "high", "xhigh"]
        assert model.default_reasoning_level == "medium"


def test_the_picker_hides_and_ranks() -> None:
    assert [model.slug for model in picker_models()] == [
        "gpt-5.5",
        "gpt-5.4",
        "gpt-5.4-mini",
        "gpt-5.3-codex",
        "gpt-5.2",
    ]
    assert picker_models(hidden=True)[-1].slug == "codex-auto-review"
    closed = tuple(attrs.evolve(model, supported_in_api=False) for model in BUNDLED)
    assert picker_models(closed) == ()
    assert len(picker_models(closed, chatgpt=True)) == 5
    assert default_model(tuple(attrs.evolve(model, visibility="hide") for model in BUNDLED)).slug == "gpt-5.5"


def test_without_a_name_the_default_model_is_found(config: Config) -> None:
    assert find_model(None, config).slug == "gpt-5.5"


def test_configuration_comes_on_top(config: Config) -> None:
    found = find_model(
        "mock",
        with_(
            config,
            model_supports_reasoning_summaries=True,
            model_context_window=1_000_000,
            model_auto_compact_token_limit=1000,
            tool_output_token_limit=50,
            base_instructions="Be good.",
        ),
    )
    assert found.supports_reasoning_summaries
    assert found.context_window == 272_000
    assert found.auto_compact_limit == 1000
    assert found.truncation_policy == TruncationPolicy("bytes", 200)
    assert found.base_instructions == "Be good."
    assert find_model("gpt-5.5", with_(config, tool_output_token_limit=50)).truncation_policy == TruncationPolicy(
        "tokens", 50
    )
    assert find_model("gpt-5.4", with_(config, model_context_window=500_000)).context_window == 500_000
    assert not find_model("mock", with_(config, model_supports_reasoning_summaries=False)).supports_reasoning_summaries


def test_a_compact_limit_above_nine_tenths_is_cut(config: Config) -> None:
    assert find_model("x", with_(config, model_auto_compact_token_limit=10**9)).auto_compact_limit == 244_800


def test_the_built_in_instructions_name_the_tools(config: Config) -> None:
    text = find_model("x", config).base_instructions
    for tool in ("exec_command", "write_stdin", "apply_patch", "update_plan", "view_image"):
        assert f"`{tool}`" in text


@given(st.text(max_size=12) | st.sampled_from([model.slug for model in BUNDLED]), st.text(max_size=5))
def test_any_name_is_answered_with_itself(slug: str, more: str) -> None:
    assert look_up(slug + more).slug == slug + more
