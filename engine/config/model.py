"""The configuration of one session or engine: every value resolved, frozen, with what must be said about it.

Keys and defaults: config.md 4-10. Contents of rooms that are not built yet stay in `Config.raw`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, cast

from engine.config.agents_md import Instructions
from engine.config.layers import Layer, LayerName, LayerStack
from engine.config.lock import ConfigLock
from engine.config.mcp_servers import ConfiguredServer, configured_servers
from engine.config.permissions import ConfiguredPermissions
from engine.config.providers import ProviderInfo, find_provider
from engine.config.requirements import NO_REQUIREMENTS, Requirements
from engine.config.trust import Trust
from engine.config.unsupported import Unsupported
from engine.errors import ConfigError
from engine.protocol.environment import ShellEnvironmentPolicy
from engine.protocol.profiles import SandboxPolicy
from engine.protocol.settings import ApprovalPolicy
from engine.records import frozen
from engine.telemetry.settings import NOTHING_EXPORTED, OtelSettings

__all__ = ["AgentsConfig", "Config", "HistoryConfig", "MemoriesConfig"]


class AgentsConfig(NamedTuple):
    """Limits of sub-agents."""

    max_threads: int = 6
    max_depth: int = 1
    job_max_runtime_seconds: int | None = None
    interrupt_message: bool = True


class HistoryConfig(NamedTuple):
    """What goes to `history.jsonl`: `save-all` or `none`; `max_bytes` None means no limit."""

    persistence: str = "save-all"
    max_bytes: int | None = None


class MemoriesConfig(NamedTuple):
    """Memory settings, clamped to their ranges."""

    disable_on_external_context: bool = False
    generate_memories: bool = True
    use_memories: bool = True
    max_raw_memories_for_consolidation: int = 256
    max_unused_days: int = 30
    max_rollout_age_days: int = 10
    max_rollouts_per_startup: int = 2
    min_rollout_idle_hours: int = 6
    min_rate_limit_remaining_percent: int = 25
    extract_model: str | None = None
    consolidation_model: str | None = None


@frozen(kw_only=True, eq=False, repr=False)
class Config:
    """Everything a session may ask. Values of None mean "not set": the model's or the program's default holds.

    - paths are absolute; `config_path` is the user's file, there or not; `memory_root` may be missing on disk
    - `features` has every known feature; `deprecations` (summary, details), `warnings` and `unstable_warning` are to be
      announced, in this order
    - `user_instructions` is the text of the AGENTS.md files that hold for `cwd`
    - `unsupported` is what some layer asks for in vain; `unknown_keys` were kept and ignored
    - `origins` names the layer of each leaf of `raw`, the merge of `layers`
    """

    home: Path
    cwd: Path
    config_path: Path
    memory_root: Path
    active_profile: str | None = None

    # model and provider
    model: str | None = None
    review_model: str | None = None
    model_provider_id: str = "openai"
    model_providers: Mapping[str, ProviderInfo]
    model_reasoning_effort: str | None = None
    plan_mode_reasoning_effort: str | None = None
    model_reasoning_summary: str | None = None
    model_verbosity: str | None = None
    model_context_window: int | None = None
    model_auto_compact_token_limit: int | None = None
    model_supports_reasoning_summaries: bool | None = None
    model_catalog_json: Path | None = None
    tool_output_token_limit: int | None = None
    service_tier: str | None = None
    fast_default_opt_out: bool = False
    personality: str | None = None
    oss_provider: str | None = None
    chatgpt_base_url: str = "https://chatgpt.com/backend-api/"

    # prompt content
    base_instructions: str | None = None
    developer_instructions: str | None = None
    compact_prompt: str | None = None
    include_permissions_instructions: bool = True
    include_apps_instructions: bool = True
    include_collaboration_mode_instructions: bool = True
    include_environment_context: bool = True
    include_skills_instructions: bool = True
    user_instructions: Instructions = Instructions()
    project_doc_max_bytes: int = 32768
    project_doc_fallback_filenames: tuple[str, ...] = ()
    project_root_markers: tuple[str, ...] = (".git",)

    # safety
    approval_policy: ApprovalPolicy = "on-request"
    approvals_reviewer: str = "user"
    permissions: ConfiguredPermissions
    requirements: Requirements = NO_REQUIREMENTS
    trust: Trust | None = None
    shell_environment_policy: ShellEnvironmentPolicy
    allow_login_shell: bool = True
    forced_login_method: str | None = None
    forced_chatgpt_workspace_ids: tuple[str, ...] = ()

    # tools, agents, history
    web_search: str = "cached"
    background_terminal_max_timeout: int = 300_000
    agents: AgentsConfig = AgentsConfig()
    history: HistoryConfig = HistoryConfig()
    memories: MemoriesConfig = MemoriesConfig()
    notify: tuple[str, ...] | None = None
    hide_agent_reasoning: bool = False
    show_raw_agent_reasoning: bool = False
    file_opener: str = "vscode"
    suppress_unstable_features_warning: bool = False
    analytics_enabled: bool | None = None
    feedback_enabled: bool = True
    otel: OtelSettings = NOTHING_EXPORTED
    check_for_update_on_startup: bool = True
    features: Mapping[str, bool]

    # storage and auth
    durability: Literal["os", "fsync"] = "os"
    sqlite_home: Path
    log_dir: Path
    zsh_path: Path | None = None
    cli_auth_credentials_store: Literal["file", "keyring", "auto", "ephemeral"] = "file"
    mcp_oauth_credentials_store: str = "auto"
    mcp_oauth_callback_port: int | None = None
    mcp_oauth_callback_url: str | None = None

    # about the configuration itself
    warnings: tuple[str, ...] = ()
    unstable_warning: str | None = None
    deprecations: tuple[tuple[str, str | None], ...] = ()
    lock: ConfigLock | None = None
    unsupported: tuple[Unsupported, ...] = ()
    unknown_keys: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    origins: Mapping[str, LayerName]
    raw: Mapping[str, object]

    @property
    def provider(self) -> ProviderInfo:
        """The provider `model_provider_id` names. Raises `UnknownProvider`."""
        return find_provider(self.model_provider_id, self.model_providers)

    @property
    def mcp_servers(self) -> tuple[ConfiguredServer, ...]:
        """The configured servers, those too that an administrator does not allow (config.md 2.2)."""
        tables = cast("Mapping[str, Mapping[str, object]]", self.raw.get("mcp_servers", {}))
        return configured_servers(tables, self.requirements.refused_server)

    @property
    def rule_folders(self) -> tuple[str, ...]:
        """The configuration folders whose `rules` count, the lowest precedence first (tools.md 5.4)."""
        folders = []
        for layer in sorted(self.layers, key=lambda layer: layer.precedence):
            folder = layer.folder or (os.path.dirname(layer.path) if layer.path is not None else None)
            if layer.disabled is None and folder is not None and layer.profile is None:
                folders.append(folder)
        return tuple(dict.fromkeys(folders if str(self.home) in folders else [*folders, str(self.home)]))

    @property
    def workspace_roots(self) -> tuple[str, ...]:
        """The directories a session works in at first."""
        return self.permissions.workspace_roots

    @property
    def sandbox_policy(self) -> SandboxPolicy:
        """The legacy policy that stands for the permissions at first; worked out when asked, looks at the disk."""
        return self.permissions.session().turn(self.permissions.source.view).sandbox_policy

    @property
    def interrupt_message(self) -> bool:
        """Whether an interrupt leaves a note for the model (`agents.interrupt_message`)."""
        return self.agents.interrupt_message

    def placed(self, error: ConfigError) -> ConfigError:
        """The error of a value that turned out wrong only when it was used, with the place where it stands."""
        if error.file is not None or error.key is None:
            return error
        path, profile = tuple(error.key.split(".")), self.raw.get("profiles")
        chosen = profile.get(self.active_profile) if isinstance(profile, dict) else None
        if isinstance(chosen, dict) and self.active_profile is not None and path[0] in chosen:
            path = ("profiles", self.active_profile, *path)
        return LayerStack(self.layers).error(error.message, path, type(error))

    def __repr__(self) -> str:
        return f"<Config home={str(self.home)!r} model={self.model!r} provider={self.model_provider_id!r}>"
