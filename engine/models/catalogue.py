"""What the engine knows about models: the bundled catalogue, its lookup, and configuration on top (config.md 8)."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import attrs

from engine.protocol.settings import TruncationPolicy
from engine.records import frozen

if TYPE_CHECKING:
    from engine.config.model import Config

__all__ = [
    "BUNDLED",
    "ModelInfo",
    "ReasoningLevel",
    "default_model",
    "fallback_model",
    "find_model",
    "look_up",
    "picker_models",
]

FALLBACK_WINDOW: Final = 272_000
OUTPUT_LIMIT: Final = 10_000
_NAMESPACED: Final = re.compile(r"[A-Za-z0-9_-]+/([^/]+)")


@frozen
class ReasoningLevel:
    """A reasoning effort a model offers, and what it is good for."""

    effort: str
    description: str


@frozen(kw_only=True)
class ModelInfo:
    """Metadata of one model. Windows and limits are in tokens.

    `is_fallback`: the name is not in the catalogue and these are guesses. `service_tiers` are ids. `own_instructions`
    replaces the built-in base instructions.
    """

    slug: str
    display_name: str
    description: str | None = None
    default_reasoning_level: str | None = None
    supported_reasoning_levels: tuple[ReasoningLevel, ...] = ()
    supports_reasoning_summaries: bool = False
    default_reasoning_summary: str = "auto"
    support_verbosity: bool = False
    default_verbosity: str | None = None
    shell_type: str = "default"
    apply_patch_tool_type: Literal["freeform"] | None = None
    web_search_tool_type: Literal["text", "text_and_image"] = "text"
    supports_parallel_tool_calls: bool = False
    supports_image_detail_original: bool = False
    supports_search_tool: bool = False
    experimental_supported_tools: tuple[str, ...] = ()
    input_modalities: tuple[str, ...] = ("text", "image")
    truncation_policy: TruncationPolicy = TruncationPolicy("bytes", OUTPUT_LIMIT)
    context_window: int | None = FALLBACK_WINDOW
    max_context_window: int | None = FALLBACK_WINDOW
    effective_context_window_percent: int = 95
    auto_compact_token_limit: int | None = None
    visibility: Literal["list", "hide", "none"] = "none"
    supported_in_api: bool = True
    priority: int = 99
    service_tiers: tuple[str, ...] = ()
    additional_speed_tiers: tuple[str, ...] = ()
    availability_nux: str | None = None
    upgrade: str | None = None
    model_messages: Mapping[str, object] | None = None
    own_instructions: str | None = None
    is_fallback: bool = False

    @property
    def base_instructions(self) -> str:
        """The instructions sent with every request; the built-in text is read from disk on first use."""
        return _built_in_instructions() if self.own_instructions is None else self.own_instructions

    @property
    def window(self) -> int | None:
        """The context window, else the largest one the model can have."""
        return self.max_context_window if self.context_window is None else self.context_window

    @property
    def effective_context_window(self) -> int | None:
        """The part of the window that may be filled."""
        return None if self.window is None else self.window * self.effective_context_window_percent // 100

    @property
    def auto_compact_limit(self) -> int | None:
        """The usage at which history is compacted: what is configured, at most nine tenths of the window."""
        if self.window is None:
            return self.auto_compact_token_limit
        most = self.window * 9 // 10
        return most if self.auto_compact_token_limit is None else min(self.auto_compact_token_limit, most)


@functools.cache
def _built_in_instructions() -> str:
    return (Path(__file__).parent / "prompts" / "base_instructions.md").read_text(encoding="utf-8").strip()


_LEVELS: Final = (
    ReasoningLevel("low", "Quick answers with little reasoning"),
    ReasoningLevel("medium", "A balance of speed and depth for everyday work"),
    ReasoningLevel("high", "More reasoning for hard problems"),
    ReasoningLevel("xhigh", "The most reasoning, for the hardest problems"),
)
_TOKENS: Final = TruncationPolicy("tokens", OUTPUT_LIMIT)
_LISTED: Final = ModelInfo(
    slug="",
    display_name="",
    default_reasoning_level="medium",
    supported_reasoning_levels=_LEVELS,
    supports_reasoning_summaries=True,
    support_verbosity=True,
    default_verbosity="low",
    shell_type="shell_command",
    apply_patch_tool_type="freeform",
    web_search_tool_type="text_and_image",
    supports_parallel_tool_calls=True,
    supports_image_detail_original=True,
    truncation_policy=_TOKENS,
    visibility="list",
)

BUNDLED: Final[tuple[ModelInfo, ...]] = (
    attrs.evolve(
        _LISTED,
        slug="gpt-5.5",
        display_name="GPT-5.5",
        description="Frontier model for complex coding, research and everyday work",
        default_reasoning_summary="none",
        service_tiers=("priority",),
        additional_speed_tiers=("fast",),
        priority=0,
    ),
    attrs.evolve(
        _LISTED,
        slug="gpt-5.4",
        display_name="GPT-5.4",
        description="Strong model for everyday coding",
        default_reasoning_summary="none",
        max_context_window=1_000_000,
        service_tiers=("priority",),
        additional_speed_tiers=("fast",),
        priority=2,
    ),
    attrs.evolve(
        _LISTED,
        slug="gpt-5.4-mini",
        display_name="GPT-5.4-Mini",
        description="Small, fast and cheap model for simpler coding tasks",
        default_reasoning_summary="none",
        default_verbosity="medium",
        priority=4,
    ),
    attrs.evolve(
        _LISTED,
        slug="gpt-5.3-codex",
        display_name="GPT-5.3-Codex",
        description="Coding model tuned for agents",
        default_reasoning_summary="none",
        priority=6,
    ),
    attrs.evolve(
        _LISTED,
        slug="gpt-5.2",
        display_name="GPT-5.2",
        description="Model for professional work and long-running agents",
        web_search_tool_type="text",
        supports_image_detail_original=False,
        truncation_policy=TruncationPolicy("bytes", OUTPUT_LIMIT),
        priority=10,
    ),
    attrs.evolve(
        _LISTED,
        slug="codex-auto-review",
        display_name="Codex Auto Review",
        description="Reviews approval requests automatically",
        default_reasoning_summary="none",
        visibility="hide",
        priority=29,
    ),
)


def default_model(catalogue: tuple[ModelInfo, ...] = BUNDLED) -> ModelInfo:
    """The model of a session that names none: the first listed one by priority, else the first."""
    ranked = sorted(catalogue, key=lambda model: model.priority)
    return next((model for model in ranked if model.visibility == "list"), ranked[0])


def picker_models(
    catalogue: tuple[ModelInfo, ...] = BUNDLED, *, chatgpt: bool = False, hidden: bool = False
) -> tuple[ModelInfo, ...]:
    """Models to choose from, best first; without a ChatGPT login only those that the API serves."""
    ranked = sorted(catalogue, key=lambda model: model.priority)
    return tuple(
        model for model in ranked if (hidden or model.visibility == "list") and (chatgpt or model.supported_in_api)
    )


def fallback_model(slug: str) -> ModelInfo:
    """Cautious metadata for a model nobody knows."""
    return ModelInfo(slug=slug, display_name=slug, is_fallback=True)


def _longest_prefix(name: str, catalogue: tuple[ModelInfo, ...]) -> ModelInfo | None:
    matching = [model for model in catalogue if name.startswith(model.slug)]
    return max(matching, key=lambda model: len(model.slug), default=None)


def look_up(slug: str, catalogue: tuple[ModelInfo, ...] = BUNDLED) -> ModelInfo:
    """The entry whose slug is the longest prefix of `slug`, else of the name behind one namespace, else fallback
    metadata. The result keeps the requested slug."""
    found = _longest_prefix(slug, catalogue)
    if found is None and (inner := _NAMESPACED.fullmatch(slug)) is not None:
        found = _longest_prefix(inner[1], catalogue)
    if found is None:
        return fallback_model(slug)
    return found if found.slug == slug else attrs.evolve(found, slug=slug)


def find_model(slug: str | None, config: Config, catalogue: tuple[ModelInfo, ...] = BUNDLED) -> ModelInfo:
    """Metadata for the model `slug` (`None`: the default model), with the configuration on top."""
    found = default_model(catalogue) if slug is None else look_up(slug, catalogue)
    if config.model_supports_reasoning_summaries:
        found = attrs.evolve(found, supports_reasoning_summaries=True)
    if config.model_context_window is not None:
        most = found.max_context_window
        wanted = config.model_context_window if most is None else min(config.model_context_window, most)
        found = attrs.evolve(found, context_window=wanted)
    if config.model_auto_compact_token_limit is not None:
        found = attrs.evolve(found, auto_compact_token_limit=config.model_auto_compact_token_limit)
    if config.tool_output_token_limit is not None:
        limit = TruncationPolicy("tokens", config.tool_output_token_limit)
        if found.truncation_policy.mode == "bytes":
            limit = TruncationPolicy("bytes", limit.byte_budget)
        found = attrs.evolve(found, truncation_policy=limit)
    if config.base_instructions is not None:
        found = attrs.evolve(found, own_instructions=config.base_instructions, model_messages=None)
    if found.model_messages is not None and not config.features.get("personality", False):
        found = attrs.evolve(found, model_messages=None)
    return found
