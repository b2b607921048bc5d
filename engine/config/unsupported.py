"""What configuration can ask for and this engine does not do yet: one warning for each thing, naming its key.

A line goes when the thing is built. Defaults never warn, only what a layer sets explicitly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import cast

from engine.config.features import FEATURE_ALIASES

__all__ = ["unsupported_warnings"]

Table = Mapping[str, object]

# Features that have no effect yet, apart from their place in the feature table.
_FEATURES = frozenset(
    (
        "apps",
        "apply_patch_streaming_events",
        "apps_mcp_path_override",
        "artifact",
        "auth_elicitation",
        "browser_use",
        "browser_use_external",
        "child_agents_md",
        "chronicle",
        "code_mode",
        "code_mode_only",
        "computer_use",
        "default_mode_request_user_input",
        "enable_fanout",
        "enable_mcp_apps",
        "exec_permission_approvals",
        "enable_request_compression",
        "external_migration",
        "goals",
        "guardian_approval",
        "hooks",
        "image_generation",
        "in_app_browser",
        "memories",
        "mentions_v2",
        "multi_agent",
        "multi_agent_v2",
        "network_proxy",
        "plugin_hooks",
        "plugin_sharing",
        "plugins",
        "prevent_idle_sleep",
        "realtime_conversation",
        "remote_compaction_v2",
        "remote_plugin",
        "request_permissions_tool",
        "responses_websocket_response_processed",
        "runtime_metrics",
        "shell_snapshot",
        "shell_zsh_fork",
        "skill_env_var_dependency_prompt",
        "skill_mcp_dependency_install",
        "tool_call_mcp_elicitation",
        "tool_search",
        "tool_search_always_defer_mcp_tools",
        "tool_suggest",
        "use_legacy_landlock",
        "workspace_dependencies",
    )
)


def _text(thing: str) -> str:
    return f"{thing} is not supported yet by this engine and is ignored"


def _enabled(entries: object) -> bool:
    """Whether a table of things has one that is not switched off."""
    return isinstance(entries, dict) and any(
        not isinstance(entry, dict) or entry.get("enabled", True) is not False for entry in entries.values()
    )


def _beyond(table: object, *harmless: str) -> bool:
    """Whether a table has keys beyond the harmless ones."""
    return isinstance(table, dict) and any(key not in harmless for key in table)


def _exports(otel: object) -> bool:
    names = ("exporter", "trace_exporter", "metrics_exporter")
    return isinstance(otel, dict) and any(otel.get(name, "none") != "none" for name in names)


_KEYS: Mapping[str, Callable[[object], bool]] = {
    "mcp_servers": _enabled,
    "hooks": lambda hooks: _beyond(hooks, "state"),
    "notify": bool,
    "plugins": _enabled,
    "apps": _enabled,
    "otel": _exports,
    "memories": lambda memories: isinstance(memories, dict) and bool(memories),
    "realtime": bool,
    "experimental_thread_store": lambda store: isinstance(store, dict) and store.get("type") != "local",
    "zsh_path": bool,
    "auto_review": bool,
    "model_catalog_json": bool,
    "review_model": bool,
    "plan_mode_reasoning_effort": bool,
    "compact_prompt": bool,
    "experimental_compact_prompt_file": bool,
    "model_auto_compact_token_limit": bool,
    "project_doc_max_bytes": bool,  # 0 switches them off, and off they are
    "project_doc_fallback_filenames": bool,
    "audio": bool,
    "experimental_realtime_ws_base_url": bool,
    "experimental_realtime_ws_model": bool,
    "experimental_realtime_ws_backend_prompt": bool,
    "experimental_realtime_ws_startup_context": bool,
    "experimental_realtime_start_instructions": bool,
    "experimental_thread_config_endpoint": bool,
}


def unsupported_warnings(table: Table, enabled: Mapping[str, bool], feature_table: Table) -> Iterator[str]:
    """The warnings for a merged, well-typed table. `feature_table` is its effective `[features]`."""
    for key, asks in _KEYS.items():
        if asks(table.get(key)):
            yield _text(f"`{key}`")
    skills = table.get("skills")
    if isinstance(skills, dict) and skills.get("config"):
        yield _text("`skills.config`")
    agents = table.get("agents")
    roles = [name for name, role in agents.items() if isinstance(role, dict)] if isinstance(agents, dict) else []
    if roles:
        yield _text(f"`agents.{roles[0]}`" + (f" (and {len(roles) - 1} more roles)" if len(roles) > 1 else ""))
    if table.get("web_search") == "live":
        yield _text('`web_search = "live"`')
    if table.get("approvals_reviewer") in ("guardian_subagent", "auto_review"):
        yield _text(f'`approvals_reviewer = "{table["approvals_reviewer"]}"`')
    lock = cast("dict[str, Table]", table.get("debug") or {}).get("config_lockfile", {})
    for key in ("load_path", "export_dir"):
        if key in lock:
            yield _text(f"`debug.config_lockfile.{key}`")
    for name in sorted(feature_table):
        value = feature_table[name]
        key = FEATURE_ALIASES.get(name, name)
        asked = value is True or (isinstance(value, Mapping) and enabled.get(key, False))
        if asked and key in _FEATURES:
            yield _text(f"`features.{name}`")
