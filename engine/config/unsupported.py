"""What configuration can ask for and this engine does not do yet: each thing that a layer sets, by its key.

A line goes when the thing is built. Defaults are never listed, only what a layer sets explicitly. What somebody would
miss is announced when a session starts; what makes no difference to one (keys of programs with a screen, limits on what
does not exist yet) is only listed, for `engine doctor`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from engine.config.features import FEATURE_ALIASES

__all__ = ["Unsupported", "unsupported"]

Table = Mapping[str, object]


class Unsupported(NamedTuple):
    """A key that is set and has no effect, as it would be written, perhaps with its value.

    `more` things of the kind are set; `announced`: a session says so when it starts.
    """

    thing: str
    announced: bool = True
    more: int = 0

    @property
    def warning(self) -> str:
        """What a session says."""
        more = f" (and {self.more} more)" if self.more else ""
        return f"`{self.thing}`{more} is not supported yet by this engine and is ignored"


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
        "chronicle",
        "code_mode",
        "code_mode_only",
        "computer_use",
        "default_mode_request_user_input",
        "enable_fanout",
        "enable_mcp_apps",
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
        "remote_plugin",
        "runtime_metrics",
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


def _enabled(entries: object) -> bool:
    """Whether a table of things has one that is not switched off."""
    return isinstance(entries, dict) and any(
        not isinstance(entry, dict) or entry.get("enabled", True) is not False for entry in entries.values()
    )


def _beyond(table: object, *harmless: str) -> bool:
    """Whether a table has keys beyond the harmless ones."""
    return isinstance(table, dict) and any(key not in harmless for key in table)


_KEYS: Mapping[str, Callable[[object], bool]] = {
    "mcp_servers": _enabled,
    "hooks": lambda hooks: _beyond(hooks, "state"),
    "notify": bool,
    "plugins": _enabled,
    "apps": _enabled,
    "memories": lambda memories: isinstance(memories, dict) and bool(memories),
    "realtime": bool,
    "experimental_thread_store": lambda store: isinstance(store, dict) and store.get("type") != "local",
    "zsh_path": bool,
    "auto_review": bool,
    "review_model": bool,
    "audio": bool,
    "experimental_realtime_ws_base_url": bool,
    "experimental_realtime_ws_model": bool,
    "experimental_realtime_ws_backend_prompt": bool,
    "experimental_realtime_ws_startup_context": bool,
    "experimental_realtime_start_instructions": bool,
    "experimental_thread_config_endpoint": bool,
    "commit_attribution": bool,
}


# Without an effect that a session could miss: keys of hosts with a screen, and limits on what is not there.
# fmt: off
_QUIET = (
    "analytics", "apps_mcp_product_sku", "check_for_update_on_startup", "desktop", "disable_paste_burst",
    "feedback", "file_opener", "ghost_snapshot", "history", "js_repl_node_module_dirs", "js_repl_node_path",
    "log_dir", "marketplaces", "mcp_oauth_callback_port", "mcp_oauth_callback_url", "mcp_oauth_credentials_store",
    "notice", "sqlite_home", "tool_suggest", "tui", "windows", "windows_wsl_setup_acknowledged",
)
# fmt: on
_QUIET_BELOW: Mapping[str, tuple[str, ...]] = {
    "agents": ("max_threads", "max_depth", "job_max_runtime_seconds"),
    "skills": ("include_instructions", "bundled"),
    "shell_environment_policy": ("experimental_use_profile",),
}


def unsupported(table: Table, enabled: Mapping[str, bool], feature_table: Table) -> Iterator[Unsupported]:
    """What a merged, well-typed table asks for in vain. `feature_table` is its effective `[features]`."""
    for key, asks in _KEYS.items():
        if asks(table.get(key)):
            yield Unsupported(key)
    if _table(table, "skills").get("config"):
        yield Unsupported("skills.config")
    roles = [name for name, role in _table(table, "agents").items() if isinstance(role, dict)]
    if roles:
        yield Unsupported(f"agents.{roles[0]}", more=len(roles) - 1)
    if table.get("web_search") == "live":
        yield Unsupported('web_search = "live"')
    if isinstance(_table(table, "tools").get("web_search"), dict):
        yield Unsupported("tools.web_search")
    if table.get("approvals_reviewer") in ("guardian_subagent", "auto_review"):
        yield Unsupported(f'approvals_reviewer = "{table["approvals_reviewer"]}"')
    for name, profile in _table(table, "permissions").items():
        if isinstance(profile, dict) and _beyond(profile.get("network"), "enabled"):
            yield Unsupported(f"permissions.{name}.network")
    for name in sorted(feature_table):
        value = feature_table[name]
        key = FEATURE_ALIASES.get(name, name)
        asked = value is True or (isinstance(value, Mapping) and enabled.get(key, False))
        if asked and key in _FEATURES:
            yield Unsupported(f"features.{name}")
    for name in ("exporter", "trace_exporter", "metrics_exporter"):
        if _table(table, "otel").get(name) == "statsig":
            yield Unsupported(f'otel.{name} = "statsig"', announced=False)
    for key in _QUIET:
        if key in table:
            yield Unsupported(key, announced=False)
    for above, keys in _QUIET_BELOW.items():
        for key in keys:
            if key in _table(table, above):
                yield Unsupported(f"{above}.{key}", announced=False)


def _table(table: Table, key: str) -> Table:
    found = table.get(key)
    return found if isinstance(found, dict) else {}
