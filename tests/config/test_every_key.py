"""No key of the configuration is dropped in silence: a place named here uses it, or `engine doctor` lists it."""

from __future__ import annotations

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

# Who uses a key: module, and words of its that do. `|` stands between values that are used and those that are listed.
_OTEL = ("config/otel.py", "table")
_PROVIDER = "config/providers.py"
_CONTEXT = "session/context.py"
USED: Mapping[str, tuple[str, str]] = {
    "model": ("session/configuration.py", "config.model"),
    "service_tier": ("session/configuration.py", "config.service_tier"),
    "model_provider": ("session/turn_setup.py", "config.model_provider_id"),
    **dict.fromkeys(
        (
            "approval_policy",
            *(
                f"approval_policy.granular.{key}"
                for key in ("sandbox_approval", "rules", "skill_approval", "request_permissions", "mcp_elicitations")
            ),
        ),
        ("session/configuration.py", "config.approval_policy"),
    ),
    "approvals_reviewer": ("session/configuration.py", "config.approvals_reviewer"),
    "sandbox_mode": ("config/permissions.py", '"sandbox_mode"'),
    "model_reasoning_effort": ("session/configuration.py", "config.model_reasoning_effort"),
    "plan_mode_reasoning_effort": ("session/collaboration.py", "config.plan_mode_reasoning_effort"),
    "model_reasoning_summary": ("session/configuration.py", "config.model_reasoning_summary"),
    "model_verbosity": ("session/request.py", "config.model_verbosity"),
    "model_catalog_json": ("models/opening.py", "config.model_catalog_json"),
    "personality": ("session/configuration.py", "config.personality"),
    "model_instructions_file": ("config/resolve.py", '"model_instructions_file"'),
    "experimental_compact_prompt_file": ("config/resolve.py", '"experimental_compact_prompt_file"'),
    "include_permissions_instructions": (_CONTEXT, "config.include_permissions_instructions"),
    "include_collaboration_mode_instructions": (_CONTEXT, "config.include_collaboration_mode_instructions"),
    "include_environment_context": (_CONTEXT, "config.include_environment_context"),
    "experimental_use_unified_exec_tool": ("config/resolve.py", '"experimental_use_unified_exec_tool"'),
    "web_search": ("session/config_lock.py", "config.web_search"),
    "analytics.enabled": ("config/otel.py", "if analytics"),
    "oss_provider": ("cli/preparation.py", "config.oss_provider"),
    "profile": ("config/values.py", '"profile"'),
    **{
        f"model_providers.<name>.{key}": (module, words)
        for key, module, words in (
            ("name", _PROVIDER, "self.name"),
            ("base_url", "models/client.py", "base_url"),
            ("env_key", "auth/authorizers.py", "provider.env_key"),
            ("env_key_instructions", "auth/authorizers.py", "provider.env_key_instructions"),
            ("experimental_bearer_token", "auth/authorizers.py", "provider.experimental_bearer_token"),
            ("auth.command", "auth/commands.py", ".command"),
            ("auth.args", "auth/commands.py", ".args"),
            ("auth.timeout_ms", "auth/commands.py", ".timeout_ms"),
            ("auth.refresh_interval_ms", "auth/commands.py", ".refresh_interval_ms"),
            ("auth.cwd", "auth/commands.py", ".cwd"),
            ("aws.profile", _PROVIDER, "provider aws is only supported for `amazon-bedrock`"),
            ("aws.region", _PROVIDER, "provider aws is only supported for `amazon-bedrock`"),
            ("wire_api", _PROVIDER, '"wire_api"'),
            ("query_params", "models/client.py", "query_params"),
            ("http_headers", "models/client.py", "http_headers"),
            ("env_http_headers", "models/client.py", "env_http_headers"),
            ("request_max_retries", "models/client.py", "request_max_retries"),
            ("stream_max_retries", "session/sampling.py", "provider.stream_max_retries"),
            ("stream_idle_timeout_ms", "models/client.py", "stream_idle_timeout_ms"),
            ("websocket_connect_timeout_ms", "session/turn.py", "websocket_connect_timeout_ms"),
            ("requires_openai_auth", "auth/authorizers.py", "provider.requires_openai_auth"),
            ("supports_websockets", "session/steps.py", "provider.supports_websockets"),
            ("script", "models/opening.py", "provider.script"),
        )
    },
    "model_context_window": ("models/catalogue.py", "config.model_context_window"),
    "model_auto_compact_token_limit": ("models/catalogue.py", "config.model_auto_compact_token_limit"),
    "model_supports_reasoning_summaries": ("models/catalogue.py", "config.model_supports_reasoning_summaries"),
    "openai_base_url": ("config/resolve.py", '"openai_base_url"'),
    "instructions": ("config/resolve.py", 'values.text("instructions")'),
    "developer_instructions": ("session/configuration.py", "config.developer_instructions"),
    "compact_prompt": ("session/compaction/summarizing.py", "compact_prompt"),
    "project_doc_max_bytes": ("config/loading.py", "config.project_doc_max_bytes"),
    "project_doc_fallback_filenames": ("config/loading.py", "config.project_doc_fallback_filenames"),
    "project_root_markers": ("config/sources.py", '"project_root_markers"'),
    "tool_output_token_limit": ("models/catalogue.py", "config.tool_output_token_limit"),
    **{
        f"sandbox_workspace_write.{key}": ("config/permissions.py", f'settings.get("{key}"')
        for key in ("writable_roots", "network_access", "exclude_tmpdir_env_var", "exclude_slash_tmp")
    },
    "default_permissions": ("config/permissions.py", '"default_permissions"'),
    "permissions.<name>.extends": ("permissions/inheritance.py", 'table.get("extends")'),
    "permissions.<name>.filesystem": ("permissions/named.py", 'table.get("filesystem")'),
    "permissions.<name>.network": ("permissions/named.py", 'network.get("enabled")'),
    "permissions.<name>.workspace_roots": ("permissions/named.py", 'table.get("workspace_roots")'),
    "allow_login_shell": ("session/turn_setup.py", "config.allow_login_shell"),
    **{
        f"shell_environment_policy.{key}": ("execution/environment.py", f"policy.{key}")
        for key in ("inherit", "ignore_default_excludes", "exclude", "set", "include_only")
    },
    "projects.<name>.trust_level": ("config/trust.py", '"trust_level"'),
    "forced_login_method": ("models/opening.py", "config.forced_login_method"),
    "forced_chatgpt_workspace_id": ("models/opening.py", "config.forced_chatgpt_workspace_ids"),
    "background_terminal_max_timeout": ("session/turn_resources.py", "config.background_terminal_max_timeout"),
    "agents.interrupt_message": ("session/core.py", "config.interrupt_message"),
    "memories.generate_memories": ("session/steps.py", "memories.generate_memories"),
    "hide_agent_reasoning": ("session/turn.py", "config.hide_agent_reasoning"),
    "show_raw_agent_reasoning": ("session/turn.py", "config.show_raw_agent_reasoning"),
    "suppress_unstable_features_warning": ("config/notices.py", '"suppress_unstable_features_warning"'),
    "durability": ("runtime.py", "base.durability"),
    "cli_auth_credentials_store": ("models/opening.py", "config.cli_auth_credentials_store"),
    "debug.config_lockfile.export_dir": ("session/config_lock.py", "lock.export_dir"),
    "debug.config_lockfile.load_path": ("config/sources.py", "lock.load_path"),
    "debug.config_lockfile.allow_codex_version_mismatch": ("config/sources.py", "lock.allow_version_mismatch"),
    "debug.config_lockfile.save_fields_resolved_from_model_catalog": ("session/config_lock.py", "save_catalog_fields"),
    "experimental_thread_store.type": ("config/unsupported.py", '"local"'),  # which is what there is
    "experimental_thread_store_endpoint": ("config/resolve.py", "is no longer supported"),
    "notice.fast_default_opt_out": ("session/service_tiers.py", "fast_default_opt_out"),
}
_OTEL_KEYS = re.compile(
    r"otel\.(log_user_prompt|environment|span_attributes|tracestate|(trace_|metrics_)?exporter"
    r"(\.otlp-(http|grpc)\.(endpoint|headers|protocol|tls\.[a-z-]+))?)"
)
LEAVES = [leaf for leaf in schema_leaves() if leaf.path[0] not in ("features", "profiles")]


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
        module, words = USED[leaf.dotted]
        assert words in (ENGINE / module).read_text(encoding="utf-8")
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
    "child_agents_md": ("config/loading.py", '"child_agents_md"'),
    "fast_mode": ("config/resolve.py", '"fast_mode"'),
    "personality": ("config/resolve.py", '"personality"'),
    "terminal_resize_reflow": ("config/features.py", "def beta_features"),
}


@pytest.mark.parametrize("name", [*FEATURES, *FEATURE_ALIASES])
def test_a_feature_is_used_or_listed(name: str) -> None:
    key = FEATURE_ALIASES.get(name, name)
    told = [thing.thing for thing in unsupported({}, resolve_features([{name: True}]).enabled, {name: True})]
    sources = {path: path.read_text(encoding="utf-8") for path in ENGINE.rglob("*.py")}
    asked = [path for path, text in sources.items() if re.search(rf'features(?:\.get\(|\[)"{key}"', text)]
    if key in FEATURES_USED:
        module, words = FEATURES_USED[key]
        assert words in sources[ENGINE / module]
        assert told == []
    elif key == "shell_zsh_fork":
        assert told == []
        assert asked != []  # to refuse it
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
