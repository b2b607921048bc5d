"""Every key of the configuration with its kind (config.md 4-10). Defaults stand in `engine.config.model`.

Tables whose contents belong to hosts with a screen, or to rooms that are not built yet, are open: anything is accepted
in them and kept.
"""

from __future__ import annotations

from engine.config.features import FEATURE_ALIASES, FEATURES
from engine.config.kinds import (
    ANY,
    BOOL,
    INT,
    PATH,
    STR,
    TABLE,
    ByType,
    Choice,
    Kind,
    ListOf,
    MapOf,
    Table,
    Whole,
)
from engine.config.mcp_servers import McpServer

__all__ = ["PROFILE_KEYS", "ROOT", "SESSION_ONLY"]

COUNT = Whole()
STRINGS = ListOf(STR)
STRING_MAP = MapOf(STR)

EFFORT = Choice(("none", "minimal", "low", "medium", "high", "xhigh"))
SANDBOX_MODE = Choice(("read-only", "workspace-write", "danger-full-access"))

APPROVAL_POLICY = ByType(
    {
        str: Choice(("untrusted", "on-failure", "on-request", "never")),
        dict: Table(
            {
                "granular": Table(
                    dict.fromkeys(
                        ("sandbox_approval", "rules", "skill_approval", "request_permissions", "mcp_elicitations"), BOOL
                    ),
                    required=("sandbox_approval", "rules", "mcp_elicitations"),
                )
            },
            required=("granular",),
        ),
    },
    "an approval policy name or a `granular` table",
)

WEB_SEARCH = Table(
    {
        "context_size": Choice(("low", "medium", "high")),
        "allowed_domains": STRINGS,
        "location": Table(dict.fromkeys(("country", "region", "city", "timezone"), STR)),
    }
)

MULTI_AGENT_V2 = Table(
    {
        "enabled": BOOL,
        "max_concurrent_threads_per_session": COUNT,
        "min_wait_timeout_ms": INT,
        "max_wait_timeout_ms": INT,
        "default_wait_timeout_ms": INT,
        "usage_hint_enabled": BOOL,
        "usage_hint_text": STR,
        "root_agent_usage_hint_text": STR,
        "subagent_usage_hint_text": STR,
        "tool_namespace": STR,
        "hide_spawn_agent_metadata": BOOL,
        "non_code_mode_only": BOOL,
    }
)
_BOOL_OR_TABLE = "a boolean or a table"
FEATURE_TABLE = Table(
    {
        **dict.fromkeys((*FEATURES, *FEATURE_ALIASES), BOOL),
        "multi_agent_v2": ByType({bool: BOOL, dict: MULTI_AGENT_V2}, _BOOL_OR_TABLE),
        "apps_mcp_path_override": ByType({bool: BOOL, dict: Table({"enabled": BOOL, "path": STR})}, _BOOL_OR_TABLE),
        "network_proxy": ByType({bool: BOOL, dict: TABLE}, _BOOL_OR_TABLE),
    }
)

_OTLP_TLS = Table({"ca-certificate": PATH, "client-certificate": PATH, "client-private-key": PATH})
_OTLP_SERVER = {"endpoint": STR, "headers": STRING_MAP, "tls": _OTLP_TLS}
OTLP = Table(
    {
        "otlp-http": Table({**_OTLP_SERVER, "protocol": Choice(("binary", "json"))}, required=("endpoint",)),
        "otlp-grpc": Table(_OTLP_SERVER, required=("endpoint",)),
    }
)

PROVIDER = Table(
    {
        "name": STR,
        "base_url": STR,
        "env_key": STR,
        "env_key_instructions": STR,
        "experimental_bearer_token": STR,
        "auth": Table(
            {"command": STR, "args": STRINGS, "timeout_ms": Whole(1), "refresh_interval_ms": COUNT, "cwd": PATH},
            required=("command",),
        ),
        "aws": Table({"profile": STR, "region": STR}),
        "wire_api": STR,
        "query_params": STRING_MAP,
        "http_headers": STRING_MAP,
        "env_http_headers": STRING_MAP,
        "request_max_retries": COUNT,
        "stream_max_retries": COUNT,
        "stream_idle_timeout_ms": COUNT,
        "websocket_connect_timeout_ms": COUNT,
        "requires_openai_auth": BOOL,
        "supports_websockets": BOOL,
        "script": PATH,
    }
)

MEMORIES = Table(
    {
        **dict.fromkeys(("disable_on_external_context", "generate_memories", "use_memories"), BOOL),
        **dict.fromkeys(
            (
                "max_raw_memories_for_consolidation",
                "max_unused_days",
                "max_rollout_age_days",
                "max_rollouts_per_startup",
                "min_rollout_idle_hours",
                "min_rate_limit_remaining_percent",
            ),
            INT,
        ),
        "extract_model": STR,
        "consolidation_model": STR,
    }
)

AGENTS = Table(
    {
        "max_threads": COUNT,
        "max_depth": INT,
        "job_max_runtime_seconds": COUNT,
        "interrupt_message": BOOL,
    },
    rest=Table({"description": STR, "config_file": PATH, "nickname_candidates": STRINGS}),
)

# What is in them is checked where a profile is chosen: the others do no harm.
PERMISSION_PROFILE = Table(dict.fromkeys(("description", "extends", "filesystem", "network", "workspace_roots"), ANY))

# What a profile may set besides; the same kinds as at the top.
_SHARED: dict[str, Kind] = {
    "model": STR,
    "service_tier": STR,
    "model_provider": STR,
    "approval_policy": APPROVAL_POLICY,
    "approvals_reviewer": Choice(("user", "guardian_subagent", "auto_review")),
    "sandbox_mode": SANDBOX_MODE,
    "model_reasoning_effort": EFFORT,
    "plan_mode_reasoning_effort": EFFORT,
    "model_reasoning_summary": Choice(("auto", "concise", "detailed", "none")),
    "model_verbosity": Choice(("low", "medium", "high")),
    "model_catalog_json": PATH,
    "personality": Choice(("none", "friendly", "pragmatic")),
    "chatgpt_base_url": STR,
    "model_instructions_file": PATH,
    "zsh_path": PATH,
    "experimental_compact_prompt_file": PATH,
    "include_permissions_instructions": BOOL,
    "include_apps_instructions": BOOL,
    "include_collaboration_mode_instructions": BOOL,
    "include_environment_context": BOOL,
    "experimental_use_unified_exec_tool": BOOL,
    "tools": Table({"web_search": ByType({bool: BOOL, dict: WEB_SEARCH}, _BOOL_OR_TABLE), "view_image": BOOL}),
    "web_search": Choice(("disabled", "cached", "live")),
    "analytics": Table({"enabled": BOOL}),
    "tui": TABLE,
    "windows": TABLE,
    "features": FEATURE_TABLE,
    "oss_provider": STR,
}
PROFILE_KEYS = frozenset(_SHARED)

ROOT = Table(
    {
        **_SHARED,
        "profile": STR,
        "profiles": MapOf(Table(_SHARED)),
        # model and provider
        "review_model": STR,
        "model_providers": MapOf(PROVIDER),
        "model_context_window": INT,
        "model_auto_compact_token_limit": INT,
        "model_supports_reasoning_summaries": BOOL,
        "openai_base_url": STR,
        # prompt content
        "instructions": STR,
        "developer_instructions": STR,
        "compact_prompt": STR,
        "skills": Table(
            {
                "include_instructions": BOOL,
                "bundled": TABLE,
                "config": ListOf(Table({"path": PATH, "name": STR, "enabled": BOOL})),
            }
        ),
        "project_doc_max_bytes": COUNT,
        "project_doc_fallback_filenames": STRINGS,
        "project_root_markers": STRINGS,
        "tool_output_token_limit": COUNT,
        # safety
        "auto_review": Table({"policy": STR}),
        "sandbox_workspace_write": Table(
            {
                "writable_roots": ListOf(PATH),
                "network_access": BOOL,
                "exclude_tmpdir_env_var": BOOL,
                "exclude_slash_tmp": BOOL,
            }
        ),
        "default_permissions": STR,
        "permissions": MapOf(PERMISSION_PROFILE),
        "allow_login_shell": BOOL,
        "shell_environment_policy": Table(
            {
                "inherit": Choice(("all", "core", "none")),
                "ignore_default_excludes": BOOL,
                "exclude": STRINGS,
                "set": STRING_MAP,
                "include_only": STRINGS,
                "experimental_use_profile": BOOL,
            }
        ),
        "projects": MapOf(Table({"trust_level": Choice(("trusted", "untrusted"))})),
        "forced_login_method": Choice(("chatgpt", "api")),
        "forced_chatgpt_workspace_id": ByType({str: STR, list: STRINGS}, "a string or an array of strings"),
        # tools, agents, history
        "background_terminal_max_timeout": COUNT,
        "agents": AGENTS,
        "memories": MEMORIES,
        "history": Table({"persistence": Choice(("save-all", "none")), "max_bytes": COUNT}),
        "notify": STRINGS,
        "hide_agent_reasoning": BOOL,
        "show_raw_agent_reasoning": BOOL,
        "file_opener": Choice(("vscode", "vscode-insiders", "windsurf", "cursor", "none")),
        "suppress_unstable_features_warning": BOOL,
        "feedback": Table({"enabled": BOOL}),
        "check_for_update_on_startup": BOOL,
        # storage and auth
        "durability": Choice(("os", "fsync")),
        "sqlite_home": PATH,
        "log_dir": PATH,
        "cli_auth_credentials_store": Choice(("file", "keyring", "auto", "ephemeral")),
        "mcp_oauth_credentials_store": Choice(("auto", "file", "keyring")),
        "mcp_oauth_callback_port": Whole(0, 65535),
        "mcp_oauth_callback_url": STR,
        "debug": Table(
            {
                "config_lockfile": Table(
                    {
                        "export_dir": PATH,
                        "load_path": PATH,
                        "allow_codex_version_mismatch": BOOL,
                        "save_fields_resolved_from_model_catalog": BOOL,
                    }
                )
            }
        ),
        "experimental_thread_store": Table(
            {"type": Choice(("local", "in_memory")), "id": STR, "endpoint": STR}, required=("type",)
        ),
        "experimental_thread_store_endpoint": STR,
        # belong to rooms and hosts of their own; their contents are checked there
        "mcp_servers": MapOf(McpServer()),
        "hooks": TABLE,
        "plugins": MapOf(TABLE),
        "marketplaces": MapOf(TABLE),
        "apps": MapOf(TABLE),
        "apps_mcp_product_sku": STR,
        "otel": Table(
            {
                "log_user_prompt": BOOL,
                "environment": STR,
                **dict.fromkeys(
                    ("exporter", "trace_exporter", "metrics_exporter"),
                    ByType({str: Choice(("none", "statsig")), dict: OTLP}, "an exporter name or a table"),
                ),
                "span_attributes": STRING_MAP,
                "tracestate": TABLE,
            }
        ),
        "tool_suggest": TABLE,
        "notice": Table({"fast_default_opt_out": BOOL}, rest=ANY),
        "audio": TABLE,
        "realtime": TABLE,
        "experimental_realtime_start_instructions": STR,
        "experimental_realtime_ws_backend_prompt": STR,
        "experimental_realtime_ws_base_url": STR,
        "experimental_realtime_ws_model": STR,
        "experimental_realtime_ws_startup_context": STR,
        "experimental_thread_config_endpoint": STR,
        "ghost_snapshot": TABLE,
        "desktop": TABLE,
        "disable_paste_burst": BOOL,
        "commit_attribution": STR,
        "js_repl_node_path": PATH,
        "js_repl_node_module_dirs": ListOf(PATH),
        "windows_wsl_setup_acknowledged": BOOL,
    }
)

# What a session may be started with, but no file may say.
SESSION_ONLY = Table(
    {
        "base_instructions": STR,
        "additional_writable_roots": ListOf(PATH),
    }
)
