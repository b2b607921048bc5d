"""From checked layers to a `Config`: defaults, the legacy profile, features, providers and the errors of values.

Pure: what it must know of files and the environment comes in (`Surroundings`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar, cast

from engine.config.constraints import Required
from engine.config.features import FeatureSet, multi_agent_v2_problem, resolve_features
from engine.config.merge import merge
from engine.config.model import AgentsConfig, Config, HistoryConfig, MemoriesConfig
from engine.config.notices import startup_warnings, unstable_notice
from engine.config.paths import absolute_path
from engine.config.permissions import PermissionOverrides, ProfileSource, configure_permissions
from engine.config.providers import OSS_PROVIDERS, find_provider, is_port, make_providers
from engine.config.requirements import Requirements
from engine.config.sources import Layers
from engine.config.unsupported import Unsupported, unsupported
from engine.config.values import Values, select_profile
from engine.errors import ConfigError
from engine.permissions.view import View
from engine.protocol.environment import ShellEnvironmentPolicy
from engine.telemetry.settings import NOTHING_EXPORTED, OtelSettings

if TYPE_CHECKING:
    from engine.config.layers import LayerStack

__all__ = ["Surroundings", "resolve"]

T = TypeVar("T")
Table = Mapping[str, object]

_EMPTY: Table = {}

_LEAST_POLL_MS = 5000

# Name of the setting, lowest and highest value; what lies outside is clamped.
_MEMORY_RANGES: Mapping[str, tuple[int, int]] = {
    "max_raw_memories_for_consolidation": (1, 4096),
    "max_unused_days": (0, 365),
    "max_rollout_age_days": (0, 90),
    "max_rollouts_per_startup": (1, 128),
    "min_rollout_idle_hours": (1, 48),
    "min_rate_limit_remaining_percent": (0, 100),
}


class Surroundings(NamedTuple):
    """What a configuration depends on besides its layers. `read` gives the text of a file or raises `OSError`."""

    home: Path
    cwd: Path
    env: Mapping[str, str]
    user_home: str | None
    read: Callable[[str], str]
    view: View
    requirements: Requirements
    overrides: PermissionOverrides


def resolve(layers: Layers, extra: Table, around: Surroundings, unknown_keys: tuple[str, ...] = ()) -> Config:
    """The configuration of well-typed layers. `extra` has the session's arguments that no file may hold.

    Raises `ConfigError` (`UnknownProvider` for a provider nobody knows).
    """
    stack, trust = layers.stack, layers.trust
    profile_name, profile = select_profile(stack)
    values = Values(stack, profile_name, profile)
    if values.get("experimental_thread_store_endpoint") is not None:
        raise values.error(
            "`experimental_thread_store_endpoint` is no longer supported; remove it from config.toml",
            "experimental_thread_store_endpoint",
        )
    required = Required(around.requirements)
    features = required.features(_features(stack, values, around.requirements.features))
    providers = make_providers(
        cast("Mapping[str, Table]", values.table("model_providers")),
        openai_base_url=values.text("openai_base_url"),
        env=around.env,
        fail=stack.error,
    )
    provider_id = values.text("model_provider") or "openai"
    find_provider(
        provider_id, providers, lambda message, path, kind=ConfigError: values.error(message, str(path[0]), kind=kind)
    )
    assert layers.user.path is not None
    config_path = Path(layers.user.path)
    cwd = str(around.cwd)
    permissions = configure_permissions(
        stack,
        profile,
        around.overrides,
        cwd=cwd,
        trust=trust,
        source=ProfileSource(
            stack=stack,
            requirements=around.requirements.permissions,
            memory_root=str(around.home / "memories"),
            view=around.view,
        ),
    )
    approval = required.approval_policy(values.get("approval_policy"), trust)
    reviewer = required.approvals_reviewer(values.get("approvals_reviewer"))
    web_search = required.web_search(values.text("web_search"), _web_search(values, features.enabled))
    effective = merge(merge(stack.table, values.profile), values.session)
    analytics = cast("bool | None", cast(Table, values.get("analytics") or _EMPTY).get("enabled"))
    otel, otel_warnings = _otel(values.table("otel"), stack, analytics is not False)
    feature_table = cast(Table, effective.get("features") or _EMPTY)
    ignored = (*unsupported(effective, features.enabled, feature_table), *_ignored_variables(around.env))
    return Config(
        home=around.home,
        cwd=around.cwd,
        config_path=config_path,
        memory_root=around.home / "memories",
        active_profile=profile_name,
        # model and provider
        model=values.text("model"),
        review_model=values.text("review_model"),
        model_provider_id=provider_id,
        model_providers=providers,
        model_reasoning_effort=values.text("model_reasoning_effort"),
        plan_mode_reasoning_effort=values.text("plan_mode_reasoning_effort"),
        model_reasoning_summary=values.text("model_reasoning_summary"),
        model_verbosity=values.text("model_verbosity"),
        model_context_window=values.number("model_context_window"),
        model_auto_compact_token_limit=values.number("model_auto_compact_token_limit"),
        model_supports_reasoning_summaries=cast("bool | None", values.get("model_supports_reasoning_summaries")),
        model_catalog_json=values.path("model_catalog_json"),
        tool_output_token_limit=values.number("tool_output_token_limit"),
        service_tier=service_tier(values.text("service_tier"), features.enabled),
        fast_default_opt_out=values.table("notice").get("fast_default_opt_out") is True,
        personality=values.text("personality") or ("pragmatic" if features.enabled["personality"] else None),
        oss_provider=_oss_provider(values),
        chatgpt_base_url=values.text("chatgpt_base_url") or "https://chatgpt.com/backend-api/",
        # prompt content
        base_instructions=cast("str | None", extra.get("base_instructions"))
        or _file_text(values, around, "model_instructions_file", "model instructions file")
        or values.text("instructions"),
        developer_instructions=values.text("developer_instructions"),
        compact_prompt=(values.text("compact_prompt") or "").strip()
        or _file_text(values, around, "experimental_compact_prompt_file", "experimental compact prompt file"),
        include_permissions_instructions=values.flag("include_permissions_instructions", True),
        include_apps_instructions=values.flag("include_apps_instructions", True),
        include_collaboration_mode_instructions=values.flag("include_collaboration_mode_instructions", True),
        include_environment_context=values.flag("include_environment_context", True),
        include_skills_instructions=values.table("skills").get("include_instructions") is not False,
        project_doc_max_bytes=_or(values.number("project_doc_max_bytes"), 32768),
        project_doc_fallback_filenames=tuple(
            name.strip() for name in values.strings("project_doc_fallback_filenames") if name.strip()
        ),
        project_root_markers=layers.markers,
        # safety
        approval_policy=approval,
        approvals_reviewer=reviewer,
        permissions=permissions,
        requirements=around.requirements,
        trust=trust,
        shell_environment_policy=ShellEnvironmentPolicy(**values.table("shell_environment_policy")),  # type: ignore[arg-type]
        allow_login_shell=values.flag("allow_login_shell", True),
        forced_login_method=values.text("forced_login_method"),
        forced_chatgpt_workspace_ids=_workspace_ids(values),
        # tools, agents, history
        web_search=web_search,
        background_terminal_max_timeout=max(
            _LEAST_POLL_MS, _or(values.number("background_terminal_max_timeout"), 300_000)
        ),
        agents=_agents(values, features.enabled),
        history=HistoryConfig(**values.table("history")),  # type: ignore[arg-type]
        memories=_memories(values.table("memories")),
        notify=None if values.get("notify") is None else values.strings("notify"),
        hide_agent_reasoning=values.flag("hide_agent_reasoning", False),
        show_raw_agent_reasoning=values.flag("show_raw_agent_reasoning", False),
        file_opener=values.text("file_opener") or "vscode",
        suppress_unstable_features_warning=values.flag("suppress_unstable_features_warning", False),
        analytics_enabled=analytics,
        feedback_enabled=values.table("feedback").get("enabled") is not False,
        otel=otel,
        check_for_update_on_startup=values.flag("check_for_update_on_startup", True),
        features=features.enabled,
        # storage and auth
        durability=cast('Literal["os", "fsync"]', values.text("durability") or "os"),
        sqlite_home=values.path("sqlite_home") or _sqlite_home(around),
        log_dir=values.path("log_dir") or around.home / "log",
        zsh_path=values.path("zsh_path"),
        cli_auth_credentials_store=_credentials_store(values),
        mcp_oauth_credentials_store=values.text("mcp_oauth_credentials_store") or "auto",
        mcp_oauth_callback_port=values.number("mcp_oauth_callback_port"),
        mcp_oauth_callback_url=values.text("mcp_oauth_callback_url"),
        # about the configuration itself
        warnings=(
            *startup_warnings(values, permissions, required, ignored),
            *otel_warnings,
            *_environment_warnings(around.env),
        ),
        unstable_warning=unstable_notice(values, features, str(config_path)),
        deprecations=features.deprecations,
        lock=layers.lock,
        unsupported=ignored,
        unknown_keys=unknown_keys,
        layers=stack.everything,
        origins=stack.origins,
        raw=stack.table,
    )


def service_tier(tier: str | None, enabled: Mapping[str, bool]) -> str | None:
    """The tier as it is sent: `fast` is `priority`, and both need the feature `fast_mode`; others pass."""
    if tier in ("fast", "priority"):
        return "priority" if enabled["fast_mode"] else None
    return tier


def _features(stack: LayerStack, values: Values, pins: Mapping[str, bool]) -> FeatureSet:
    sources = (stack.without("session"), values.profile, values.session)
    tables = [cast(Table, source.get("features") or _EMPTY) for source in sources]
    legacy = [cast("bool | None", source.get("experimental_use_unified_exec_tool")) for source in sources]
    return resolve_features(tables, legacy, pins)


def _otel(table: Table, stack: LayerStack, analytics: bool) -> tuple[OtelSettings, tuple[str, ...]]:
    if not table:
        return NOTHING_EXPORTED, ()
    from engine.config.otel import otel_settings

    return otel_settings(table, stack, analytics=analytics)


def _oss_provider(values: Values) -> str | None:
    id = values.text("oss_provider")
    if id is not None and id not in OSS_PROVIDERS:
        raise values.error(f"Invalid OSS provider '{id}'. Must be one of: {', '.join(OSS_PROVIDERS)}", "oss_provider")
    return id


def _file_text(values: Values, around: Surroundings, key: str, label: str) -> str | None:
    path = values.text(key)
    if path is None:
        return None
    try:
        text = around.read(path).strip()
    except (OSError, ValueError) as exc:
        detail = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise values.error(f"failed to read {label} {path}: {detail}", key) from exc
    if not text:
        raise values.error(f"{label} is empty: {path}", key)
    return text


def _credentials_store(values: Values) -> Literal["file", "keyring", "auto", "ephemeral"]:
    chosen = values.text("cli_auth_credentials_store")
    return next((mode for mode in ("keyring", "auto", "ephemeral") if mode == chosen), "file")


def _workspace_ids(values: Values) -> tuple[str, ...]:
    key = "forced_chatgpt_workspace_id"
    value = values.get(key)
    if isinstance(value, str) and "," in value:
        raise values.error(f"{key} must be one id or an array of ids, not a comma-separated string", key)
    ids = [value] if isinstance(value, str) else cast("list[str]", value or [])
    return tuple(id.strip() for id in ids if id.strip())


def _web_search(values: Values, enabled: Mapping[str, bool]) -> str:
    mode = values.text("web_search")
    if mode is not None:
        return mode
    # The two flags came before the key; only `live` differs from the default.
    return "live" if enabled["web_search_request"] and not enabled["web_search_cached"] else "cached"


def _agents(values: Values, enabled: Mapping[str, bool]) -> AgentsConfig:
    table = values.table("agents")
    for key in ("max_threads", "max_depth", "job_max_runtime_seconds"):
        value = table.get(key)
        if isinstance(value, int) and value < 1:
            raise values.error(f"agents.{key} must be at least 1", "agents", key)
    if enabled["multi_agent_v2"] and "max_threads" in table:
        raise values.error("agents.max_threads cannot be set when multi_agent_v2 is enabled", "agents", "max_threads")
    v2 = values.table("features").get("multi_agent_v2")
    problem = multi_agent_v2_problem(v2) if isinstance(v2, Mapping) else None
    if problem:
        key, why = problem
        raise values.error(f"features.multi_agent_v2.{key} {why}", "features", "multi_agent_v2", key)
    return AgentsConfig(
        max_threads=_or(cast("int | None", table.get("max_threads")), 6),
        max_depth=_or(cast("int | None", table.get("max_depth")), 1),
        job_max_runtime_seconds=cast("int | None", table.get("job_max_runtime_seconds")),
        interrupt_message=table.get("interrupt_message") is not False,
    )


def _memories(table: Table) -> MemoriesConfig:
    fields = {key: value for key, value in table.items() if key in MemoriesConfig._fields}
    for key, (low, high) in _MEMORY_RANGES.items():
        value = fields.get(key)
        if isinstance(value, int):
            fields[key] = min(max(value, low), high)
    return MemoriesConfig(**fields)  # type: ignore[arg-type]


def _sqlite_home(around: Surroundings) -> Path:
    named = around.env.get("CODEX_SQLITE_HOME", "").strip()
    return Path(absolute_path(named, str(around.cwd), around.user_home)) if named else around.home


def _environment_warnings(env: Mapping[str, str]) -> Iterator[str]:
    port = env.get("CODEX_OSS_PORT", "").strip()
    if port and not is_port(port):
        yield f"The environment variable `CODEX_OSS_PORT` is no port: {port!r}; it is ignored"


def _ignored_variables(env: Mapping[str, str]) -> Iterator[Unsupported]:
    if env.get("CODEX_SQLITE_HOME", "").strip():
        yield Unsupported("CODEX_SQLITE_HOME", announced=False)


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
