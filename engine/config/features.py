"""Feature flags: the table, older names, and how layers, profile and session decide them (config.md 6)."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = [
    "FEATURES",
    "FEATURE_ALIASES",
    "Feature",
    "FeatureSet",
    "Stage",
    "beta_features",
    "multi_agent_v2_problem",
    "resolve_features",
    "unstable_warning",
]


EMPTY: Mapping[str, bool] = MappingProxyType({})


class Stage(enum.Enum):
    """How finished a feature is."""

    UNDER_DEVELOPMENT = "under_development"
    EXPERIMENTAL = "experimental"
    STABLE = "stable"
    DEPRECATED = "deprecated"
    REMOVED = "removed"


class Feature(NamedTuple):
    """One feature flag."""

    key: str
    stage: Stage
    default: bool


_UD, _EX, _ST, _DE, _RM = Stage

_WINDOWS = sys.platform == "win32"
_DESKTOP = sys.platform in ("linux", "darwin", "win32")

_OFF: Mapping[Stage, str] = {
    _UD: "shell_zsh_fork code_mode code_mode_only runtime_metrics chronicle child_agents_md "
    "apply_patch_streaming_events exec_permission_approvals request_permissions_tool multi_agent_v2 enable_fanout "
    "enable_mcp_apps apps_mcp_path_override tool_search_always_defer_mcp_tools remote_plugin "
    "skill_env_var_dependency_prompt default_mode_request_user_input auth_elicitation artifact realtime_conversation "
    "responses_websocket_response_processed remote_compaction_v2",
    _EX: "memories network_proxy external_migration mentions_v2 goals",
    _DE: "web_search_request web_search_cached use_legacy_landlock",
    _RM: "undo js_repl js_repl_tools_only search_tool codex_git_commit apply_patch_freeform use_linux_sandbox_bwrap "
    "request_rule experimental_windows_sandbox elevated_windows_sandbox remote_models unavailable_dummy_tools "
    "remote_control image_detail_original workspace_owner_usage_nudge responses_websockets responses_websockets_v2",
}
_ON: Mapping[Stage, str] = {
    _ST: "shell_tool shell_snapshot hooks enable_request_compression multi_agent fast_mode apps tool_search "
    "tool_suggest plugins plugin_hooks in_app_browser browser_use browser_use_external computer_use plugin_sharing "
    "image_generation skill_mcp_dependency_install guardian_approval tool_call_mcp_elicitation personality "
    "workspace_dependencies",
    _EX: "terminal_resize_reflow",
    _RM: "sqlite steer collaboration_modes tui_app_server",
}

# The order in which features are listed, where the order can be seen; the others follow.
_ORDER = (
    "shell_tool unified_exec shell_zsh_fork shell_snapshot code_mode code_mode_only terminal_resize_reflow "
    "web_search_request web_search_cached runtime_metrics memories chronicle child_agents_md "
    "apply_patch_streaming_events exec_permission_approvals hooks request_permissions_tool use_legacy_landlock "
    "enable_request_compression network_proxy multi_agent multi_agent_v2 enable_fanout apps enable_mcp_apps "
    "apps_mcp_path_override tool_search tool_search_always_defer_mcp_tools tool_suggest plugins plugin_hooks "
    "in_app_browser browser_use browser_use_external computer_use remote_plugin plugin_sharing external_migration "
    "image_generation skill_mcp_dependency_install skill_env_var_dependency_prompt mentions_v2 "
    "default_mode_request_user_input guardian_approval goals tool_call_mcp_elicitation auth_elicitation personality "
    "artifact fast_mode realtime_conversation prevent_idle_sleep responses_websocket_response_processed "
    "remote_compaction_v2 workspace_dependencies"
)


def _table() -> dict[str, Feature]:
    made = {key: Feature(key, stage, False) for stage, keys in _OFF.items() for key in keys.split()}
    made |= {key: Feature(key, stage, True) for stage, keys in _ON.items() for key in keys.split()}
    made["unified_exec"] = Feature("unified_exec", _ST, not _WINDOWS)
    made["prevent_idle_sleep"] = Feature("prevent_idle_sleep", _EX if _DESKTOP else _UD, False)
    ordered = {key: made.pop(key) for key in _ORDER.split()}
    return ordered | made


FEATURES: Mapping[str, Feature] = _table()

FEATURE_ALIASES: Mapping[str, str] = {
    "connectors": "apps",
    "enable_experimental_windows_sandbox": "experimental_windows_sandbox",
    "experimental_use_unified_exec_tool": "unified_exec",
    "request_permissions": "exec_permission_approvals",
    "web_search": "web_search_request",
    "collab": "multi_agent",
    "memory_tool": "memories",
    "telepathy": "chronicle",
    "codex_hooks": "hooks",
}

# Removed so thoroughly that setting them changes nothing at all.
_SKIPPED = frozenset(
    (
        "undo",
        "js_repl",
        "js_repl_tools_only",
        "remote_control",
        "apply_patch_freeform",
        "image_detail_original",
        "tui_app_server",
    )
)
_IMPLIED: Mapping[str, str] = {"enable_fanout": "multi_agent", "code_mode_only": "code_mode"}


class FeatureSet(NamedTuple):
    """All features, resolved, and what must be said about the way they were set.

    `deprecations` are (summary, details) pairs in the order in which they are announced.
    """

    enabled: Mapping[str, bool]
    deprecations: tuple[tuple[str, str | None], ...] = ()


def resolve_features(
    tables: Iterable[Mapping[str, object]],
    legacy_unified_exec: Iterable[bool | None] = (),
    pins: Mapping[str, bool] = EMPTY,
) -> FeatureSet:
    """Defaults, then each `[features]` table in turn (base, profile, session), what an administrator pins, and what
    features imply; that may contradict a pin, which is for the caller to see.

    `legacy_unified_exec` has the value of the old key `experimental_use_unified_exec_tool` beside each table, applied
    before it. Within a table keys are applied in sorted order, whatever the order in the file. Unknown keys do nothing.
    """
    enabled = {key: feature.default for key, feature in FEATURES.items()}
    used: dict[str, str] = {}
    before = [*legacy_unified_exec]
    for index, table in enumerate(tables):
        legacy = before[index] if index < len(before) else None
        if legacy is not None:
            enabled["unified_exec"] = legacy
            used["experimental_use_unified_exec_tool"] = "unified_exec"
        for name in sorted(table):
            key = FEATURE_ALIASES.get(name, name)
            wanted = _wanted(name, table[name])
            if key not in FEATURES or key in _SKIPPED or wanted is None:
                continue
            if name != key or FEATURES[key].stage is Stage.DEPRECATED:
                used[name] = key
            enabled[key] = wanted
    enabled |= pins
    for key, implied in _IMPLIED.items():
        if enabled[key]:
            enabled[implied] = True
    return FeatureSet(enabled, tuple(_notice(name, used[name]) for name in sorted(used)))


def _wanted(name: str, value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        flag = value.get("enabled")
        if isinstance(flag, bool):
            return flag
        if name == "apps_mcp_path_override" and "path" in value:
            return True
    return None


def _notice(name: str, key: str) -> tuple[str, str | None]:
    label = f"[features].{name}"
    if key in ("web_search_request", "web_search_cached"):
        return (
            f"`{label}` is deprecated because web search is enabled by default.",
            'Set `web_search` to "live", "cached" or "disabled" in config.toml to override it.',
        )
    if key == "use_legacy_landlock":
        return f"`{label}` is deprecated and will be removed soon.", "Remove it to use the default sandbox."
    return (
        f"`{label}` is deprecated. Use `[features].{key}` instead.",
        f"Set it with `--enable {key}` or `[features].{key}` in config.toml.",
    )


def unstable_warning(table: Mapping[str, object], enabled: Mapping[str, bool], config_path: str) -> str | None:
    """The warning about under-development features that the effective `[features]` table turns on, if there are any."""
    keys = [
        key
        for key in sorted(table)
        if table[key] is True
        and key in FEATURES
        and FEATURES[key].stage is Stage.UNDER_DEVELOPMENT
        and enabled.get(key, False)
    ]
    if not keys:
        return None
    return (
        f"Under-development features enabled: {', '.join(keys)}. Under-development features are incomplete and may "
        "behave unpredictably. To suppress this warning, set `suppress_unstable_features_warning = true` in "
        f"{config_path}."
    )


def beta_features(enabled: Mapping[str, bool]) -> str:
    """The value of the header `x-codex-beta-features`: enabled experimental features; empty means no header."""
    return ",".join(
        key
        for key, feature in FEATURES.items()
        if enabled.get(key, False) and (feature.stage is Stage.EXPERIMENTAL or key == "remote_compaction_v2")
    )


_LONGEST_WAIT_MS = 3_600_000
_WAITS = {"min_wait_timeout_ms": 10_000, "max_wait_timeout_ms": _LONGEST_WAIT_MS, "default_wait_timeout_ms": 30_000}
_NAMESPACE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def multi_agent_v2_problem(table: Mapping[str, object]) -> tuple[str, str] | None:
    """What is wrong in a well-typed `[features.multi_agent_v2]` table: the key in it, and why. Times in ms."""
    threads = table.get("max_concurrent_threads_per_session")
    if isinstance(threads, int) and threads < 1:
        return "max_concurrent_threads_per_session", "must be at least 1"
    waits: dict[str, int] = {}
    for name, default in _WAITS.items():
        value = table.get(name)
        waits[name] = value if isinstance(value, int) else default
        if not 0 <= waits[name] <= _LONGEST_WAIT_MS:
            return name, f"must be between 0 and {_LONGEST_WAIT_MS}"
    least, most, usual = waits.values()
    if least > most:
        return "min_wait_timeout_ms", "must not be greater than max_wait_timeout_ms"
    if not least <= usual <= most:
        return "default_wait_timeout_ms", "must lie between min_wait_timeout_ms and max_wait_timeout_ms"
    namespace = table.get("tool_namespace")
    if isinstance(namespace, str):
        if not 1 <= len(namespace) <= 64 or not _NAMESPACE.issuperset(namespace):
            return "tool_namespace", "must be 1 to 64 characters of `[a-zA-Z0-9_-]`"
        if namespace == "mcp" or namespace.startswith("mcp__"):
            return "tool_namespace", f"`{namespace}` is reserved"
    return None
