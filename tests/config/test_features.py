"""The feature table, older names, order of decisions, notices and warnings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.features import (
    FEATURE_ALIASES,
    FEATURES,
    Stage,
    beta_features,
    multi_agent_v2_problem,
    resolve_features,
    unstable_warning,
)

DEFAULTS = {key: feature.default for key, feature in FEATURES.items()}


def enabled(*tables: dict[str, Any], legacy: tuple[bool | None, ...] = ()) -> dict[str, bool]:
    return dict(resolve_features(tables, legacy).enabled)


def test_defaults() -> None:
    assert enabled() == DEFAULTS
    on = {key for key, value in DEFAULTS.items() if value}
    assert {"shell_tool", "unified_exec", "multi_agent", "terminal_resize_reflow", "fast_mode", "sqlite"} <= on
    assert not {"goals", "memories", "code_mode", "multi_agent_v2", "web_search_request", "undo"} & on
    assert all(not DEFAULTS[key] for key, feature in FEATURES.items() if feature.stage is Stage.UNDER_DEVELOPMENT)
    assert set(FEATURE_ALIASES.values()) <= set(FEATURES)
    assert not set(FEATURE_ALIASES) & set(FEATURES)


def test_an_alias_turns_the_feature_off_and_is_announced_once() -> None:
    made = resolve_features([{"collab": False}, {"collab": False}])
    assert made.enabled["multi_agent"] is False
    assert [summary for summary, _ in made.deprecations] == [
        "`[features].collab` is deprecated. Use `[features].multi_agent` instead."
    ]


def test_keys_are_applied_sorted_not_as_written() -> None:
    assert enabled({"multi_agent": True, "collab": False})["multi_agent"] is True
    assert enabled({"memory_tool": False, "memories": True})["memories"] is False


def test_notices_are_sorted_by_name_and_deprecated_features_have_their_own_text() -> None:
    made = resolve_features(
        [{"web_search_cached": True, "web_search": False, "use_legacy_landlock": True, "codex_hooks": True}],
        [True],
    )
    assert [summary for summary, _ in made.deprecations] == [
        "`[features].codex_hooks` is deprecated. Use `[features].hooks` instead.",
        "`[features].experimental_use_unified_exec_tool` is deprecated. Use `[features].unified_exec` instead.",
        "`[features].use_legacy_landlock` is deprecated and will be removed soon.",
        "`[features].web_search` is deprecated because web search is enabled by default.",
        "`[features].web_search_cached` is deprecated because web search is enabled by default.",
    ]
    assert all(details for _, details in made.deprecations)


def test_base_then_profile_then_session() -> None:
    assert enabled({"goals": True}, {"goals": False})["goals"] is False
    assert enabled({"goals": False}, {"goals": True}, {"goals": False})["goals"] is False
    assert enabled({}, {}, legacy=(False, True))["unified_exec"] is True
    assert enabled({"unified_exec": True}, legacy=(False,))["unified_exec"] is True


def test_what_features_imply() -> None:
    made = enabled({"enable_fanout": True, "multi_agent": False, "code_mode_only": True})
    assert made["multi_agent"]
    assert made["code_mode"]


def test_removed_features_change_nothing_and_unknown_ones_neither() -> None:
    assert enabled({"undo": True, "js_repl": True, "tui_app_server": False, "brand_new": True}) == DEFAULTS
    assert enabled({"search_tool": True})["search_tool"] is True


def test_features_with_a_table() -> None:
    assert enabled({"multi_agent_v2": {"enabled": True}})["multi_agent_v2"]
    assert not enabled({"multi_agent_v2": {"usage_hint_enabled": True}})["multi_agent_v2"]
    assert enabled({"apps_mcp_path_override": {"path": "/x"}})["apps_mcp_path_override"]
    assert not enabled({"apps_mcp_path_override": {"path": "/x", "enabled": False}})["apps_mcp_path_override"]
    assert enabled({"network_proxy": {"enabled": True}}, {"network_proxy": False})["network_proxy"] is False


@given(st.lists(st.dictionaries(st.sampled_from([*FEATURES, *FEATURE_ALIASES, "odd"]), st.booleans()), max_size=3))
def test_all_features_are_always_resolved(tables: list[dict[str, Any]]) -> None:
    made = resolve_features(tables)
    assert made.enabled.keys() == FEATURES.keys()
    assert resolve_features([*tables, {}]) == made
    names = [summary.split("`")[1] for summary, _ in made.deprecations]
    assert names == sorted(names)
    assert len(set(names)) == len(names)


def test_the_unstable_warning_lists_what_is_explicitly_on_and_under_development() -> None:
    table: dict[str, Any] = {
        "runtime_metrics": True,
        "remote_compaction_v2": True,
        "hooks": True,
        "goals": True,
        "code_mode": False,
        "telepathy": True,
        "multi_agent_v2": {"enabled": True},
        "odd": True,
    }
    assert unstable_warning(table, enabled(table), "/h/config.toml") == (
        "Under-development features enabled: remote_compaction_v2, runtime_metrics. Under-development features are "
        "incomplete and may behave unpredictably. To suppress this warning, set "
        "`suppress_unstable_features_warning = true` in /h/config.toml."
    )
    assert unstable_warning({"hooks": True, "goals": True}, DEFAULTS, "x") is None
    assert unstable_warning({"code_mode": True}, DEFAULTS, "x") is None


def test_the_beta_header() -> None:
    assert beta_features(DEFAULTS) == "terminal_resize_reflow"
    assert beta_features({**DEFAULTS, "remote_compaction_v2": True}) == "terminal_resize_reflow,remote_compaction_v2"
    assert beta_features({**DEFAULTS, "goals": True, "memories": True, "terminal_resize_reflow": False}) == (
        "memories,goals"
    )
    assert beta_features(dict.fromkeys(DEFAULTS, False)) == ""


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({}, None),
        ({"max_concurrent_threads_per_session": 1, "tool_namespace": "agents-2_x"}, None),
        ({"max_concurrent_threads_per_session": 0}, "max_concurrent_threads_per_session"),
        ({"min_wait_timeout_ms": -1}, "min_wait_timeout_ms"),
        ({"max_wait_timeout_ms": 3_600_001}, "max_wait_timeout_ms"),
        ({"min_wait_timeout_ms": 5000, "max_wait_timeout_ms": 4000}, "min_wait_timeout_ms"),
        ({"default_wait_timeout_ms": 9999}, "default_wait_timeout_ms"),
        ({"max_wait_timeout_ms": 20_000}, "default_wait_timeout_ms"),
        ({"tool_namespace": ""}, "tool_namespace"),
        ({"tool_namespace": "x" * 65}, "tool_namespace"),
        ({"tool_namespace": "ä"}, "tool_namespace"),
        ({"tool_namespace": "mcp"}, "tool_namespace"),
        ({"tool_namespace": "mcp__x"}, "tool_namespace"),
    ],
)
def test_settings_of_multi_agent_v2(table: dict[str, Any], key: str | None) -> None:
    problem = multi_agent_v2_problem(table)
    assert (problem and problem[0]) == key
