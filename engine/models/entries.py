"""Entries of a model catalogue as servers and files tell them (config.md 8).

They come from other programs, newer ones too: what is missing or of another kind gets the cautious value of a model
nobody knows, and an entry without a name is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from engine.errors import ConfigError
from engine.models.catalogue import BUNDLED, FALLBACK_WINDOW, OUTPUT_LIMIT, ModelInfo, ReasoningLevel
from engine.protocol.settings import TruncationPolicy
from engine.protocol.wire import EMPTY, JsonObject

__all__ = ["applied", "model_entries", "model_entry", "read_catalogue"]

MAX_LIMIT: Final = 10**12  # no window and no limit is larger; a number like that is a mistake


def model_entries(values: object) -> tuple[ModelInfo, ...]:
    """The models of a list, in its order; what is no model is left out."""
    if not isinstance(values, list):
        return ()
    found = (model_entry(value) for value in values if isinstance(value, dict))
    return tuple(model for model in found if model is not None)


def model_entry(entry: JsonObject) -> ModelInfo | None:
    """One model; `None` where the entry has no `slug`."""
    slug = _text(entry, "slug")
    if slug is None:
        return None
    window = _number(entry, "context_window")
    most = _number(entry, "max_context_window")
    if window is None and most is None:
        window = FALLBACK_WINDOW
    percent = _number(entry, "effective_context_window_percent")
    priority = entry.get("priority")
    return ModelInfo(
        slug=slug,
        display_name=_text(entry, "display_name") or slug,
        description=_text(entry, "description"),
        default_reasoning_level=_text(entry, "default_reasoning_level"),
        supported_reasoning_levels=_levels(entry.get("supported_reasoning_levels")),
        supports_reasoning_summaries=entry.get("supports_reasoning_summaries") is True,
        default_reasoning_summary=_text(entry, "default_reasoning_summary") or "auto",
        support_verbosity=entry.get("support_verbosity") is True,
        default_verbosity=_text(entry, "default_verbosity"),
        shell_type=_text(entry, "shell_type") or "default",
        apply_patch_tool_type="freeform" if entry.get("apply_patch_tool_type") == "freeform" else None,
        web_search_tool_type="text_and_image" if entry.get("web_search_tool_type") == "text_and_image" else "text",
        supports_parallel_tool_calls=entry.get("supports_parallel_tool_calls") is True,
        supports_image_detail_original=entry.get("supports_image_detail_original") is True,
        supports_search_tool=entry.get("supports_search_tool") is True,
        experimental_supported_tools=_texts(entry.get("experimental_supported_tools")),
        input_modalities=_texts(entry.get("input_modalities")) or ("text", "image"),
        truncation_policy=_policy(entry.get("truncation_policy")),
        context_window=window,
        max_context_window=most,
        effective_context_window_percent=percent if percent is not None and percent <= 100 else 95,
        auto_compact_token_limit=_number(entry, "auto_compact_token_limit"),
        visibility=_visibility(entry.get("visibility")),
        supported_in_api=entry.get("supported_in_api") is not False,
        priority=priority if isinstance(priority, int) and not isinstance(priority, bool) else 99,
        service_tiers=_named(entry.get("service_tiers"), "id"),
        additional_speed_tiers=_texts(entry.get("additional_speed_tiers")),
        availability_nux=_inner(entry.get("availability_nux"), "message"),
        upgrade=_inner(entry.get("upgrade"), "model"),
        model_messages=messages if isinstance(messages := entry.get("model_messages"), dict) else None,
        own_instructions=_text(entry, "base_instructions"),
    )


def applied(told: tuple[ModelInfo, ...], *, chatgpt: bool) -> tuple[ModelInfo, ...]:
    """The catalogue with what a server told: in place of the built-in one where a ChatGPT login sees any model of it,
    else merged into that by slug."""
    if chatgpt and any(model.visibility == "list" for model in told):
        return told
    newer = {model.slug: model for model in told}
    kept = tuple(newer.pop(model.slug, model) for model in BUNDLED)
    return (*kept, *newer.values())


def read_catalogue(path: Path) -> tuple[ModelInfo, ...]:
    """The models of a file: `{"models": [...]}`. Blocks. Raises `ConfigError`, also where there is none in it."""
    key = "model_catalog_json"
    try:
        content = msgspec.json.decode(path.read_bytes())
    except OSError as exc:
        raise ConfigError(f"failed to read {key} path `{path}`: {exc.strerror}", key=key) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigError(f"failed to parse {key} path `{path}` as JSON: {exc}", key=key) from exc
    found = model_entries(content.get("models")) if isinstance(content, dict) else ()
    if not found:
        raise ConfigError(f"{key} path `{path}` must contain at least one model", key=key)
    return found


def _text(table: Mapping[str, object], key: str) -> str | None:
    value = table.get(key)
    return value if isinstance(value, str) and value.strip() else None


def _number(table: Mapping[str, object], key: str) -> int | None:
    value = table.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_LIMIT else None


def _texts(values: object) -> tuple[str, ...]:
    return tuple(value for value in values if isinstance(value, str)) if isinstance(values, list) else ()


def _named(values: object, key: str) -> tuple[str, ...]:
    """Names from a list of names, or of objects that have one."""
    if not isinstance(values, list):
        return ()
    return tuple(name for value in values if (name := _inner(value, key)) is not None)


def _inner(value: object, key: str) -> str | None:
    return value if isinstance(value, str) else _text(value, key) if isinstance(value, dict) else None


def _levels(values: object) -> tuple[ReasoningLevel, ...]:
    entries: Iterable[object] = values if isinstance(values, list) else ()
    tables = [value for value in entries if isinstance(value, dict)]
    named = ((_text(table, "effort"), _text(table, "description") or "") for table in tables)
    return tuple(ReasoningLevel(effort, description) for effort, description in named if effort is not None)


def _policy(value: object) -> TruncationPolicy:
    table: Mapping[str, object] = value if isinstance(value, dict) else EMPTY
    mode: Literal["bytes", "tokens"] = "tokens" if table.get("mode") == "tokens" else "bytes"
    limit = _number(table, "limit")
    # A limit without its unit says nothing.
    known = limit is not None and table.get("mode") in ("bytes", "tokens")
    return TruncationPolicy(mode, limit) if known and limit is not None else TruncationPolicy("bytes", OUTPUT_LIMIT)


def _visibility(value: object) -> Literal["list", "hide", "none"]:
    return "list" if value == "list" else "hide" if value == "hide" else "none"
