"""No key of the configuration is dropped in silence: a place named here uses it, or `engine doctor` lists it."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.config.features import FEATURE_ALIASES, FEATURES, Stage, resolve_features
from engine.config.loading import load_config
from engine.config.schema import PROFILE_KEYS
from engine.config.unsupported import unsupported
from engine.errors import ConfigError
from tests.config.schema_keys import Leaf, fits, schema_leaves

ENGINE = Path(__file__).parents[2] / "engine"

# Who uses a key: the room, and words in it that do.
_OTEL = ("config", "table")
_PROVIDER = "config"
_CONTEXT = "session"
USED: Mapping[str, tuple[str, str]] = {
    "model": ("session", "config.model"),
    "service_tier": ("session", "config.service_tier"),
    "model_provider": ("session", "config.model_provider_id"),
    **dict.fromkeys(
        (
            "approval_policy",
            *(
                f"approval_policy.granular.{key}"
                for key in ("sandbox_approval", "rules", "skill_approval", "request_permissions", "mcp_elicitations")
            ),
        ),
        ("session", "config.approval_policy"),
    ),
    "approvals_reviewer": ("session", "config.approvals_reviewer"),
    "sandbox_mode": ("config", '"sandbox_mode"'),
    "model_reasoning_effort": ("session", "config.model_reasoning_effort"),
    "plan_mode_reasoning_effort": ("session", "config.plan_mode_reasoning_effort"),
    "model_reasoning_summary": ("session", "config.model_reasoning_summary"),
    "model_verbosity": ("session", "config.model_verbosity"),
    "model_catalog_json": ("models", "config.model_catalog_json"),
    "personality": ("session", "config.personality"),
    "model_instructions_file": ("config", '"model_instructions_file"'),
    "experimental_compact_prompt_file": ("config", '"experimental_compact_prompt_file"'),
    "include_permissions_instructions": (_CONTEXT, "config.include_permissions_instructions"),
    "include_collaboration_mode_instructions": (_CONTEXT, "config.include_collaboration_mode_instructions"),
    "include_environment_context": (_CONTEXT, "config.include_environment_context"),
    "experimental_use_unified_exec_tool": ("config", '"experimental_use_unified_exec_tool"'),
    "web_search": ("session", "config.web_search"),
    "analytics.enabled": ("config", "if analytics"),
    "oss_provider": ("cli", "config.oss_provider"),
    "profile": ("config", '"profile"'),
    **{
        f"model_providers.<name>.{key}": (module, words)
        for key, module, words in (
            ("name", _PROVIDER, "self.name"),
            ("base_url", "models", "base_url"),
            ("env_key", "auth", "provider.env_key"),
            ("env_key_instructions", "auth", "provider.env_key_instructions"),
            ("experimental_bearer_token", "auth", "provider.experimental_bearer_token"),
            ("auth.command", "auth", ".command"),
            ("auth.args", "auth", ".args"),
            ("auth.timeout_ms", "auth", ".timeout_ms"),
            ("auth.refresh_interval_ms", "auth", ".refresh_interval_ms"),
            ("auth.cwd", "auth", ".cwd"),
            ("aws.profile", _PROVIDER, "provider aws is only supported for `amazon-bedrock`"),
            ("aws.region", _PROVIDER, "provider aws is only supported for `amazon-bedrock`"),
            ("wire_api", _PROVIDER, '"wire_api"'),
            ("query_params", "models", "query_params"),
            ("http_headers", "models", "http_headers"),
            ("env_http_headers", "models", "env_http_headers"),
            ("request_max_retries", "models", "request_max_retries"),
            ("stream_max_retries", "session", "provider.stream_max_retries"),
            ("stream_idle_timeout_ms", "models", "stream_idle_timeout_ms"),
            ("websocket_connect_timeout_ms", "session", "websocket_connect_timeout_ms"),
            ("requires_openai_auth", "auth", "provider.requires_openai_auth"),
            ("supports_websockets", "session", "provider.supports_websockets"),
            ("script", "models", "provider.script"),
        )
    },
    "model_context_window": ("models", "config.model_context_window"),
    "model_auto_compact_token_limit": ("models", "config.model_auto_compact_token_limit"),
    "model_supports_reasoning_summaries": ("models", "config.model_supports_reasoning_summaries"),
    "openai_base_url": ("config", '"openai_base_url"'),
    "instructions": ("config", 'values.text("instructions")'),
    "developer_instructions": ("session", "config.developer_instructions"),
    "compact_prompt": ("session", "compact_prompt"),
    "project_doc_max_bytes": ("config", "config.project_doc_max_bytes"),
    "project_doc_fallback_filenames": ("config", "config.project_doc_fallback_filenames"),
    "project_root_markers": ("config", '"project_root_markers"'),
    "tool_output_token_limit": ("models", "config.tool_output_token_limit"),
    **{
        f"sandbox_workspace_write.{key}": ("config", f'settings.get("{key}"')
        for key in ("writable_roots", "network_access", "exclude_tmpdir_env_var", "exclude_slash_tmp")
    },
    "default_permissions": ("config", '"default_permissions"'),
    "permissions.<name>.extends": ("permissions", 'table.get("extends")'),
    "permissions.<name>.filesystem": ("permissions", 'table.get("filesystem")'),
    "permissions.<name>.network": ("permissions", 'network.get("enabled")'),
    "permissions.<name>.workspace_roots": ("permissions", 'table.get("workspace_roots")'),
    "allow_login_shell": ("session", "config.allow_login_shell"),
    **{
        f"shell_environment_policy.{key}": ("execution", f"policy.{key}")
        for key in ("inherit", "ignore_default_excludes", "exclude", "set", "include_only")
    },
    "projects.<name>.trust_level": ("config", '"trust_level"'),
    "forced_login_method": ("models", "config.forced_login_method"),
    "forced_chatgpt_workspace_id": ("models", "config.forced_chatgpt_workspace_ids"),
    "background_terminal_max_timeout": ("session", "config.background_terminal_max_timeout"),
    "agents.interrupt_message": ("session", "config.interrupt_message"),
    "memories.generate_memories": ("session", "memories.generate_memories"),
    "hide_agent_reasoning": ("session", "config.hide_agent_reasoning"),
    "show_raw_agent_reasoning": ("session", "config.show_raw_agent_reasoning"),
    "suppress_unstable_features_warning": ("config", '"suppress_unstable_features_warning"'),
    "durability": ("", "base.durability"),
    "cli_auth_credentials_store": ("models", "config.cli_auth_credentials_store"),
    "debug.config_lockfile.export_dir": ("session", "lock.export_dir"),
    "debug.config_lockfile.load_path": ("config", "lock.load_path"),
    "debug.config_lockfile.allow_codex_version_mismatch": ("config", "lock.allow_version_mismatch"),
    "debug.config_lockfile.save_fields_resolved_from_model_catalog": ("session", "save_catalog_fields"),
    "experimental_thread_store.type": ("config", '"local"'),  # which is what there is
    "experimental_thread_store_endpoint": ("config", "is no longer supported"),
    "notice.fast_default_opt_out": ("session", "fast_default_opt_out"),
}
_OTEL_KEYS = re.compile(
    r"otel\.(log_user_prompt|environment|span_attributes|tracestate|(trace_|metrics_)?exporter"
    r"(\.otlp-(http|grpc)\.(endpoint|headers|protocol|tls\.[a-z-]+))?)"
)
LEAVES = [leaf for leaf in schema_leaves() if leaf.path[0] not in ("features", "profiles")]


@functools.cache
def text_of(room: str) -> str:
    """All modules of a room."""
    return "\n".join(path.read_text(encoding="utf-8") for path in (ENGINE / room).rglob("*.py"))


def says(room: str, words: str) -> bool:
    """Whether some module of a room has the words."""
    return words in text_of(room)


def listed(leaf: Leaf, value: object) -> bool:
    """Whether `engine doctor` names the key with that value."""
    table = leaf.table(value)
    assert fits(table)
    path = ".".join(leaf.path)
    things = [found.thing.split(" = ")[0] for found in unsupported(table, resolve_features([]).enabled, {})]
    return any(path == thing or path.startswith(f"{thing}.") or thing.startswith(f"{path}.") for thing in things)


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.dotted)
def test_a_key_is_used_or_listed(leaf: Leaf) -> None:
    told = [listed(leaf, value) for value in leaf.values]
    if _OTEL_KEYS.fullmatch(leaf.dotted):
        assert leaf.path[1].replace("_exporter", "") in (ENGINE / "config" / "otel.py").read_text()
    elif leaf.dotted in USED:
        room, words = USED[leaf.dotted]
        assert says(room, words)
        assert not all(told)
    else:
        assert all(told), "nobody uses the key, and nobody is told"


def test_the_table_of_users_has_only_keys_that_there_are() -> None:
    assert set(USED) <= {leaf.dotted for leaf in LEAVES}
    assert len(LEAVES) > 180


def test_what_a_profile_sets_is_told_as_well(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        "profile = 'p'\n[profiles.p]\nzsh_path = '/z'\n[profiles.p.features]\ngoals = true\n[features]\napps = true\n"
    )
    config = load_config(tmp_path, cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert {thing.thing for thing in config.unsupported} == {"zsh_path", "features.goals", "features.apps"}
    shared = {leaf.path[2] for leaf in schema_leaves() if leaf.path[0] == "profiles"}
    assert shared == PROFILE_KEYS


# Features that the configuration itself acts on.
FEATURES_USED = {
    "child_agents_md": ("config", '"child_agents_md"'),
    "fast_mode": ("config", '"fast_mode"'),
    "personality": ("config", '"personality"'),
    "terminal_resize_reflow": ("config", "def beta_features"),
}


@pytest.mark.parametrize("name", [*FEATURES, *FEATURE_ALIASES])
def test_a_feature_is_used_or_listed(name: str) -> None:
    key = FEATURE_ALIASES.get(name, name)
    told = [thing.thing for thing in unsupported({}, resolve_features([{name: True}]).enabled, {name: True})]
    asked = re.search(rf'features(?:\.get\(|\[)"{key}"', text_of(""))
    if key in FEATURES_USED:
        room, words = FEATURES_USED[key]
        assert says(room, words)
        assert told == []
    elif key == "shell_zsh_fork":
        assert told == []
        assert asked  # to refuse it
    elif asked:
        assert told == []
    else:
        assert told == [f"features.{name}"]
    assert not (FEATURES[key].stage is Stage.REMOVED and asked)


def test_a_misspelled_key_of_a_permission_profile_is_known_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("default_permissions = 'dev'\n[permissions.dev]\nfilsystem = {}\n")
    config = load_config(tmp_path, cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert config.unknown_keys == ("permissions.dev.filsystem",)
    with pytest.raises(ConfigError, match=r"unknown configuration field `permissions.dev.filsystem`"):
        load_config(tmp_path, cwd=tmp_path, env={"HOME": str(tmp_path)}, strict=True)
