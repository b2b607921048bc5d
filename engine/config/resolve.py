"""From checked layers to a `Config`: defaults, the legacy profile, features, providers and the errors of values.

Pure: what it must know of files and the environment comes in (`Surroundings`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar, cast

from engine.config.features import (
    FeatureSet,
    multi_agent_v2_problem,
    resolve_features,
    unstable_warning,
)
from engine.config.model import AgentsConfig, Config, HistoryConfig, MemoriesConfig
from engine.config.paths import absolute_path
from engine.config.permissions import ConfiguredPermissions, PermissionOverrides, ProfileSource, configure_permissions
from engine.config.providers import OSS_PROVIDERS, find_provider, make_providers
from engine.config.requirements import Requirements, approval_name, fallback_warning
from engine.config.trust import Trust, find_trust, project_files
from engine.config.unsupported import unsupported_warnings
from engine.errors import ConfigError
from engine.permissions.constrained import ConstraintError
from engine.permissions.view import View
from engine.protocol.environment import ShellEnvironmentPolicy
from engine.protocol.settings import ApprovalPolicy, GranularApproval

if TYPE_CHECKING:
    from engine.config.layers import LayerStack

__all__ = ["Surroundings", "resolve", "select_profile"]

T = TypeVar("T")
Table = Mapping[str, object]

_EMPTY: Table = {}

_ON_FAILURE = (
    "`on-failure` approval policy is deprecated and will be removed in a future release. Use `on-request` for "
    "interactive approvals or `never` for non-interactive runs."
)

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


def select_profile(stack: LayerStack) -> tuple[str | None, Table]:
    """The legacy profile that `profile` selects, and its table. Raises `ConfigError` when no profile has that name."""
    name = stack.get("profile")
    if not isinstance(name, str):
        return None, _EMPTY
    table = stack.get("profiles", name)
    if not isinstance(table, dict):
        raise stack.error(f"config profile `{name}` not found", ("profile",))
    return name, table


class _Values:
    """Looking up keys: what the session was started with beats the profile, which beats all other layers."""

    def __init__(self, stack: LayerStack, profile_name: str | None, profile: Table) -> None:
        self.stack = stack
        self.profile = profile
        self._profile_name = profile_name
        self.session: Table = next((layer.table for layer in stack.layers if layer.name == "session"), _EMPTY)
        self._sources = (self.session, profile, stack.table)

    def get(self, key: str) -> object:
        return next((source[key] for source in self._sources if key in source), None)

    def text(self, key: str) -> str | None:
        return cast("str | None", self.get(key))

    def number(self, key: str) -> int | None:
        return cast("int | None", self.get(key))

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        return default if value is None else cast(bool, value)

    def path(self, key: str) -> Path | None:
        value = self.text(key)
        return None if value is None else Path(value)

    def table(self, key: str) -> Table:
        return cast(Table, self.stack.table.get(key) or _EMPTY)

    def strings(self, key: str) -> tuple[str, ...]:
        return tuple(cast("list[str]", self.get(key) or ()))

    def error(self, message: str, *path: str, kind: type[ConfigError] = ConfigError) -> ConfigError:
        if path[0] not in self.session and path[0] in self.profile and self._profile_name is not None:
            path = ("profiles", self._profile_name, *path)
        return self.stack.error(message, path, kind)


def resolve(stack: LayerStack, extra: Table, around: Surroundings, unknown_keys: tuple[str, ...] = ()) -> Config:
    """The configuration of well-typed layers. `extra` has the session's arguments that no file may hold.

    Raises `ConfigError` (`UnknownProvider` for a provider nobody knows).
    """
    profile_name, profile = select_profile(stack)
    values = _Values(stack, profile_name, profile)
    if values.get("experimental_thread_store_endpoint") is not None:
        raise values.error(
            "`experimental_thread_store_endpoint` is no longer supported; remove it from config.toml",
            "experimental_thread_store_endpoint",
        )
    features = _features(stack, values)
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
    config_path = around.home / "config.toml"
    cwd = str(around.cwd)
    markers = (".git",) if values.get("project_root_markers") is None else values.strings("project_root_markers")
    trust = find_trust(stack.get("projects"), cwd, markers, around.view)
    ignored = [] if trust is None or trust.level != "trusted" else project_files(cwd, markers, around.view)
    if str(config_path) in ignored:
        ignored.remove(str(config_path))  # a project may lie around the home
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
    required = _Required(around.requirements)
    approval = required.approval_policy(values.get("approval_policy"), trust)
    reviewer = required.approvals_reviewer(values.get("approvals_reviewer"))
    web_search = required.web_search(values.text("web_search"), _web_search(values, features.enabled))
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
        project_root_markers=markers,
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
        analytics_enabled=cast("bool | None", cast(Table, values.get("analytics") or _EMPTY).get("enabled")),
        feedback_enabled=values.table("feedback").get("enabled") is not False,
        check_for_update_on_startup=values.flag("check_for_update_on_startup", True),
        features=features.enabled,
        # storage and auth
        durability=cast('Literal["os", "fsync"]', values.text("durability") or "os"),
        sqlite_home=values.path("sqlite_home") or _sqlite_home(around),
        log_dir=values.path("log_dir") or around.home / "log",
        zsh_path=values.path("zsh_path"),
        cli_auth_credentials_store=values.text("cli_auth_credentials_store") or "file",
        mcp_oauth_credentials_store=values.text("mcp_oauth_credentials_store") or "auto",
        mcp_oauth_callback_port=values.number("mcp_oauth_callback_port"),
        mcp_oauth_callback_url=values.text("mcp_oauth_callback_url"),
        # about the configuration itself
        warnings=tuple(_warnings(values, features, permissions, required, approval, str(config_path), ignored)),
        deprecations=features.deprecations,
        unknown_keys=unknown_keys,
        layers=tuple(stack.layers),
        origins=stack.origins,
        raw=stack.table,
    )


def service_tier(tier: str | None, enabled: Mapping[str, bool]) -> str | None:
    """The tier as it is sent: `fast` is `priority`, and both need the feature `fast_mode`; others pass."""
    if tier in ("fast", "priority"):
        return "priority" if enabled["fast_mode"] else None
    return tier


def _features(stack: LayerStack, values: _Values) -> FeatureSet:
    below = stack.upto(sum(layer.name != "session" for layer in stack.layers))
    tables = [cast(Table, source.get("features") or _EMPTY) for source in (below, values.profile, values.session)]
    legacy = [
        cast("bool | None", source.get("experimental_use_unified_exec_tool"))
        for source in (below, values.profile, values.session)
    ]
    return resolve_features(tables, legacy)


def _warnings(
    values: _Values,
    features: FeatureSet,
    permissions: ConfiguredPermissions,
    required: _Required,
    approval: ApprovalPolicy,
    config_path: str,
    ignored: Sequence[str],
) -> Iterator[str]:
    """In the order in which a session announces them (session.md 2.4, C3)."""
    feature_table = values.table("features")
    effective = {**values.stack.table, **values.profile, **values.session}
    yield from permissions.warnings
    yield from required.warnings
    for path in ignored:
        yield f"`{path}`: configuration of projects is not supported yet by this engine and is ignored"
    yield from unsupported_warnings(effective, features.enabled, feature_table)
    if not values.flag("suppress_unstable_features_warning", False):
        unstable = unstable_warning(feature_table, features.enabled, config_path)
        if unstable:
            yield unstable
    if approval == "on-failure":
        yield _ON_FAILURE


class _Required:
    """Values as an administrator allows them. An explicit one that is refused leaves a warning, a default none."""

    def __init__(self, requirements: Requirements) -> None:
        self._requirements = requirements
        self.warnings: list[str] = list(requirements.warnings())

    def approval_policy(self, value: object, trust: Trust | None) -> ApprovalPolicy:
        required = self._requirements.approval_policies
        if isinstance(value, Mapping):
            policy: ApprovalPolicy = GranularApproval(**value["granular"])
        elif value is not None:
            policy = cast(str, value)
        else:
            policy = "untrusted" if trust is not None and trust.level == "untrusted" else "on-request"
        try:
            self._requirements.check_approval_policy(policy)
        except ConstraintError as error:
            assert required
            self._refused("approval_policy", approval_name(required[0]), error, explicit=value is not None)
            return required[0]
        return policy

    def approvals_reviewer(self, value: object) -> str:
        reviewer = "user" if value in (None, "user") else "guardian_subagent"
        try:
            self._requirements.check_approvals_reviewer(reviewer)
        except ConstraintError as error:
            allowed = self._requirements.approvals_reviewers or ("user",)
            self._refused("approvals_reviewer", allowed[0], error, explicit=value is not None)
            return allowed[0]
        return reviewer

    def web_search(self, explicit: str | None, mode: str) -> str:
        try:
            self._requirements.check_web_search(mode)
        except ConstraintError as error:
            allowed = self._requirements.required_web_search
            self._refused("web_search_mode", allowed.capitalize(), error, explicit=explicit is not None)
            return allowed
        return mode

    def _refused(self, field: str, required: str, error: ConstraintError, *, explicit: bool) -> None:
        if explicit:
            self.warnings.append(fallback_warning(field, required, error))


def _oss_provider(values: _Values) -> str | None:
    id = values.text("oss_provider")
    if id is not None and id not in OSS_PROVIDERS:
        raise values.error(f"Invalid OSS provider '{id}'. Must be one of: {', '.join(OSS_PROVIDERS)}", "oss_provider")
    return id


def _file_text(values: _Values, around: Surroundings, key: str, label: str) -> str | None:
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


def _workspace_ids(values: _Values) -> tuple[str, ...]:
    key = "forced_chatgpt_workspace_id"
    value = values.get(key)
    if isinstance(value, str) and "," in value:
        raise values.error(f"{key} must be one id or an array of ids, not a comma-separated string", key)
    ids = [value] if isinstance(value, str) else cast("list[str]", value or [])
    return tuple(id.strip() for id in ids if id.strip())


def _web_search(values: _Values, enabled: Mapping[str, bool]) -> str:
    mode = values.text("web_search")
    if mode is not None:
        return mode
    # The two flags came before the key; only `live` differs from the default.
    return "live" if enabled["web_search_request"] and not enabled["web_search_cached"] else "cached"


def _agents(values: _Values, enabled: Mapping[str, bool]) -> AgentsConfig:
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


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
