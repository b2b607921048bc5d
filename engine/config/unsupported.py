"""What configuration can ask for and this engine does not do yet: each thing that a layer sets, by its key.

A line goes when the thing is built. Defaults are never listed, only what a layer sets explicitly. What somebody would
miss is announced when a session starts; what makes no difference to one (keys of programs with a screen, limits on what
does not exist yet, things that are switched off) is only listed, for `engine doctor`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from engine.config.features import FEATURE_ALIASES, FEATURES, Stage

__all__ = ["Unsupported", "unsupported"]

Table = Mapping[str, object]


class Unsupported(NamedTuple):
    """A key that is set and has no effect, as it would be written, perhaps with its value.

    `announced`: a session says so when it starts, and that `more` things of the kind are set.
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
    "realtime": bool,
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
    "apps_mcp_product_sku", "chatgpt_base_url", "check_for_update_on_startup", "desktop", "disable_paste_burst",
    "feedback", "file_opener", "ghost_snapshot", "history", "include_apps_instructions", "js_repl_node_module_dirs",
    "js_repl_node_path", "log_dir", "marketplaces", "mcp_oauth_callback_port", "mcp_oauth_callback_url",
    "mcp_oauth_credentials_store", "sqlite_home", "tool_suggest", "tui", "windows", "windows_wsl_setup_acknowledged",
)
# fmt: on
_QUIET_BELOW: Mapping[str, tuple[str, ...]] = {
    "agents": ("max_threads", "max_depth", "job_max_runtime_seconds"),
    "skills": ("include_instructions", "bundled"),
    "shell_environment_policy": ("experimental_use_profile",),
    "tools": ("view_image",),
}


def unsupported(table: Table, enabled: Mapping[str, bool], feature_table: Table) -> Iterator[Unsupported]:
    """What a merged, well-typed table asks for in vain. `feature_table` is its effective `[features]`."""
    for key, asks in _KEYS.items():
        if key in table:
            yield Unsupported(key, announced=asks(table[key]))
    if _beyond(table.get("memories"), "generate_memories"):
        yield Unsupported("memories")
    yield from _stores(_table(table, "experimental_thread_store"))
    if "config" in _table(table, "skills"):
        yield Unsupported("skills.config", announced=bool(_table(table, "skills")["config"]))
    roles = [name for name, role in _table(table, "agents").items() if isinstance(role, dict)]
    if roles:
        yield Unsupported(f"agents.{roles[0]}", more=len(roles) - 1)
        yield from (Unsupported(f"agents.{name}", announced=False) for name in roles[1:])
    yield from _web_search(table, feature_table)
    if table.get("approvals_reviewer") in ("guardian_subagent", "auto_review"):
        yield Unsupported(f'approvals_reviewer = "{table["approvals_reviewer"]}"')
    yield from _permissions(_table(table, "permissions"))
    if "aws" in _table(_table(table, "model_providers"), "amazon-bedrock"):
        yield Unsupported("model_providers.amazon-bedrock.aws", announced=False)  # choosing it is refused
    yield from _features(enabled, feature_table)
    for name in ("exporter", "trace_exporter", "metrics_exporter"):
        if _table(table, "otel").get(name) == "statsig":
            yield Unsupported(f'otel.{name} = "statsig"', announced=False)
    if _table(table, "analytics").get("enabled") is True:
        yield Unsupported("analytics.enabled = true", announced=False)
    for key in _QUIET:
        if key in table:
            yield Unsupported(key, announced=False)
    for above, keys in _QUIET_BELOW.items():
        for key in keys:
            if key in _table(table, above):
                yield Unsupported(f"{above}.{key}", announced=False)
    for key in _table(table, "notice"):
        if key != "fast_default_opt_out":
            yield Unsupported(f"notice.{key}", announced=False)


def _permissions(profiles: Table) -> Iterator[Unsupported]:
    for name in profiles:
        profile = _table(profiles, name)
        network = _table(profile, "network")
        if _beyond(network, "enabled"):
            yield Unsupported(f"permissions.{name}.network")
        for key in network:
            if key != "enabled":
                yield Unsupported(f"permissions.{name}.network.{key}", announced=False)
        if "description" in profile:
            yield Unsupported(f"permissions.{name}.description", announced=False)


def _stores(store: Table) -> Iterator[Unsupported]:
    if store and store.get("type") != "local":
        yield Unsupported("experimental_thread_store")
        return
    for key in store:
        if key != "type":
            yield Unsupported(f"experimental_thread_store.{key}", announced=False)


def _web_search(table: Table, feature_table: Table) -> Iterator[Unsupported]:
    """The model is offered none, so only `disabled` is done as it is said."""
    mode = table.get("web_search")
    if mode in ("live", "cached"):
        yield Unsupported(f'web_search = "{mode}"', announced=mode == "live")
    if "web_search" in _table(table, "tools"):
        yield Unsupported("tools.web_search", announced=isinstance(_table(table, "tools")["web_search"], dict))
    for name in ("web_search", "web_search_cached", "web_search_request"):
        if feature_table.get(name) is True:
            yield Unsupported(f"features.{name}", announced=False)  # it is deprecated, which is said anyway


def _features(enabled: Mapping[str, bool], feature_table: Table) -> Iterator[Unsupported]:
    for name in sorted(feature_table):
        value = feature_table[name]
        key = FEATURE_ALIASES.get(name, name)
        asked = value is True or (isinstance(value, Mapping) and enabled.get(key, False))
        if asked and key in _FEATURES:
            yield Unsupported(f"features.{name}")
        elif key in FEATURES and FEATURES[key].stage is Stage.REMOVED:
            yield Unsupported(f"features.{name}", announced=False)


def _table(table: Table, key: str) -> Table:
    """The table at a key, an empty one where there is none."""
    found = table.get(key)
    return found if isinstance(found, dict) else {}
