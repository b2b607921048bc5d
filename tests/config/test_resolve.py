"""What keys come to mean: profiles, features, instructions, limits, warnings in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.config.loading import load_config
from engine.config.model import AgentsConfig, Config, HistoryConfig, MemoriesConfig
from engine.config.overrides import parse_override
from engine.errors import ConfigError, UnknownProvider
from engine.protocol.environment import ShellEnvironmentPolicy
from engine.protocol.profiles import DangerFullAccess, WorkspaceWrite
from engine.protocol.settings import GranularApproval


@pytest.fixture
def load(tmp_path: Path) -> Any:
    home = tmp_path / "codex"
    home.mkdir()

    def load(text: str = "", *flags: str, env: dict[str, str] | None = None, **session: object) -> Config:
        (home / "config.toml").write_text(text)
        overrides = [parse_override(flag) for flag in flags]
        return load_config(home, cwd=tmp_path, overrides=overrides, session=session, env=env or {"HOME": str(tmp_path)})

    return load


def refused(load: Any, text: str, *flags: str, kind: type[ConfigError] = ConfigError, **more: Any) -> str:
    with pytest.raises(kind) as caught:
        load(text, *flags, **more)
    return caught.value.message


# --- profiles ------------------------------------------------------------------------------------

PROFILE = """
profile = "x"
model = "base"
model_verbosity = "low"
[features]
goals = true
[profiles.x]
model = "from-profile"
sandbox_mode = "danger-full-access"
approval_policy = "never"
[profiles.x.features]
goals = false
memories = true
"""


def test_a_profile_beats_all_layers_and_loses_to_the_session(load: Any) -> None:
    config = load(PROFILE, "model=flag", "features.memories=false")
    assert (config.active_profile, config.model, config.model_verbosity) == ("x", "from-profile", "low")
    assert config.sandbox_policy == DangerFullAccess()
    assert config.approval_policy == "never"
    assert (config.features["goals"], config.features["memories"]) == (False, True)
    config = load(PROFILE, model="session", sandbox_mode="workspace-write", features={"goals": True})
    assert config.model == "session"
    assert config.sandbox_policy == WorkspaceWrite((str(config.memory_root),))
    assert config.features["goals"]
    assert config.raw["model"] == "session"


def test_the_profile_can_be_chosen_at_start(load: Any) -> None:
    text = PROFILE.replace('profile = "x"', "")
    assert load(text).active_profile is None
    assert load(text, profile="x").model == "from-profile"
    assert load(text, "profile=x").model == "from-profile"
    assert refused(load, "profile = 'y'") == "config profile `y` not found"


# --- single keys ---------------------------------------------------------------------------------


def test_approval_policies(load: Any) -> None:
    granular = "{sandbox_approval = true, rules = false, mcp_elicitations = true, skill_approval = true}"
    assert load(f"approval_policy.granular = {granular}").approval_policy == GranularApproval(
        sandbox_approval=True, rules=False, mcp_elicitations=True, skill_approval=True
    )
    assert load("approval_policy = 'untrusted'").approval_policy == "untrusted"
    assert load("approvals_reviewer = 'auto_review'").approvals_reviewer == "guardian_subagent"


def test_sandbox_and_workspace(load: Any, tmp_path: Path) -> None:
    text = "sandbox_mode = 'workspace-write'\nsandbox_workspace_write = {writable_roots = ['w'], network_access = true}"
    config = load(text, additional_writable_roots=["extra", Path("/abs")])
    roots = (f"{tmp_path}/extra", "/abs", f"{tmp_path}/codex/w", f"{tmp_path}/codex/memories")
    assert config.sandbox_policy == WorkspaceWrite(roots, network_access=True)
    assert config.workspace_roots == (str(tmp_path), f"{tmp_path}/extra", "/abs", f"{tmp_path}/codex/w")
    config = load("", "sandbox_workspace_write.network_access=true", sandbox_mode="workspace-write")
    assert config.sandbox_policy == WorkspaceWrite((f"{tmp_path}/codex/memories",), network_access=True)


def test_instructions_from_three_places(load: Any, tmp_path: Path) -> None:
    (tmp_path / "codex" / "i.md").write_text("\ufeff\n from file \n")
    both = "instructions = 'plain'\nmodel_instructions_file = 'i.md'"
    assert load("instructions = 'plain'").base_instructions == "plain"
    assert load(both).base_instructions == "from file"
    assert load(both, base_instructions="given").base_instructions == "given"
    assert load().base_instructions is None


def test_instruction_files_that_are_no_use(load: Any, tmp_path: Path) -> None:
    home = tmp_path / "codex"
    (home / "empty.md").write_text(" \n")
    (home / "bad.md").write_bytes(b"\xff")
    key = "model_instructions_file"
    assert refused(load, f"{key} = 'empty.md'") == f"model instructions file is empty: {home}/empty.md"
    assert refused(load, f"{key} = 'no.md'") == (
        f"failed to read model instructions file {home}/no.md: No such file or directory"
    )
    assert refused(load, f"{key} = 'bad.md'").startswith(f"failed to read model instructions file {home}/bad.md: ")
    key = "experimental_compact_prompt_file"
    assert refused(load, f"{key} = 'empty.md'") == f"experimental compact prompt file is empty: {home}/empty.md"


def test_the_compact_prompt(load: Any, tmp_path: Path) -> None:
    (tmp_path / "codex" / "c.md").write_text("from file\n")
    file = "experimental_compact_prompt_file = 'c.md'\n"
    assert load(file + "compact_prompt = ' own '").compact_prompt == "own"
    assert load(file + "compact_prompt = '  '").compact_prompt == "from file"
    assert load("compact_prompt = '  '").compact_prompt is None


def test_service_tiers(load: Any) -> None:
    assert load("service_tier = 'fast'").service_tier == "priority"
    assert load("service_tier = 'priority'").service_tier == "priority"
    assert load("service_tier = 'fast'", "features.fast_mode=false").service_tier is None
    assert load("service_tier = 'flex'").service_tier == "flex"
    assert load("service_tier = 'other'").service_tier == "other"


def test_personality(load: Any) -> None:
    assert load().personality == "pragmatic"
    assert load("features.personality = false").personality is None
    assert load("personality = 'friendly'").personality == "friendly"


def test_web_search(load: Any) -> None:
    assert load("web_search = 'disabled'").web_search == "disabled"
    assert load("features.web_search_request = true").web_search == "live"
    assert load("features = {web_search_request = true, web_search_cached = true}").web_search == "cached"


def test_limits_have_floors_and_ranges(load: Any) -> None:
    assert load("background_terminal_max_timeout = 1").background_terminal_max_timeout == 5000
    assert load("project_doc_max_bytes = 0").project_doc_max_bytes == 0
    config = load(
        "[memories]\nmax_rollouts_per_startup = 0\nmin_rollout_idle_hours = 100\nmax_unused_days = -5\n"
        "min_rate_limit_remaining_percent = 250\ngenerate_memories = false\nunknown = 1"
    )
    assert config.memories == MemoriesConfig(
        max_rollouts_per_startup=1,
        min_rollout_idle_hours=48,
        max_unused_days=0,
        min_rate_limit_remaining_percent=100,
        generate_memories=False,
    )
    assert load("memories.max_rollouts_per_startup = 999").memories.max_rollouts_per_startup == 128


def test_tables_of_settings(load: Any) -> None:
    config = load(
        "project_doc_fallback_filenames = [' A.md ', '', ' ']\nproject_root_markers = []\n"
        "history = {persistence = 'none', max_bytes = 9}\nskills.include_instructions = false\n"
        "agents = {max_threads = 2, interrupt_message = false}\nanalytics.enabled = false\nfeedback.enabled = false\n"
        "shell_environment_policy = {inherit = 'core', exclude = ['A*'], set = {B = 'c'}, include_only = ['B']}"
    )
    assert config.project_doc_fallback_filenames == ("A.md",)
    assert config.project_root_markers == ()
    assert config.history == HistoryConfig(persistence="none", max_bytes=9)
    assert config.agents == AgentsConfig(max_threads=2, interrupt_message=False)
    assert not config.interrupt_message
    assert not config.include_skills_instructions
    assert (config.analytics_enabled, config.feedback_enabled) == (False, False)
    assert config.shell_environment_policy == ShellEnvironmentPolicy(
        inherit="core", exclude=("A*",), set={"B": "c"}, include_only=("B",)
    )
    assert load().shell_environment_policy == ShellEnvironmentPolicy()
    assert load().project_root_markers == (".git",)


def test_where_the_index_lives(load: Any, tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "CODEX_SQLITE_HOME": "db"}
    assert load(env=env).sqlite_home == tmp_path / "db"
    assert load("sqlite_home = 'own'", env=env).sqlite_home == tmp_path / "codex" / "own"
    assert load(env={**env, "CODEX_SQLITE_HOME": " "}).sqlite_home == tmp_path / "codex"


def test_workspace_ids(load: Any) -> None:
    assert load("forced_chatgpt_workspace_id = ' a '").forced_chatgpt_workspace_ids == ("a",)
    assert load("forced_chatgpt_workspace_id = ['a', ' ']").forced_chatgpt_workspace_ids == ("a",)
    assert "comma" in refused(load, "forced_chatgpt_workspace_id = 'a,b'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agents.max_threads = 0", "agents.max_threads must be at least 1"),
        ("agents.max_depth = 0", "agents.max_depth must be at least 1"),
        ("agents.max_depth = -3", "agents.max_depth must be at least 1"),
        ("agents.job_max_runtime_seconds = 0", "agents.job_max_runtime_seconds must be at least 1"),
        (
            "agents.max_threads = 3\nfeatures.multi_agent_v2 = true",
            "agents.max_threads cannot be set when multi_agent_v2 is enabled",
        ),
        (
            "features.multi_agent_v2 = {max_concurrent_threads_per_session = 0}",
            "features.multi_agent_v2.max_concurrent_threads_per_session must be at least 1",
        ),
        (
            "experimental_thread_store_endpoint = 'x'",
            "`experimental_thread_store_endpoint` is no longer supported; remove it from config.toml",
        ),
        ("oss_provider = 'x'", "Invalid OSS provider 'x'. Must be one of: lmstudio, ollama"),
    ],
)
def test_values_that_make_no_sense(load: Any, text: str, message: str) -> None:
    assert refused(load, text) == message


# --- providers -----------------------------------------------------------------------------------


def test_choosing_a_provider(load: Any, tmp_path: Path) -> None:
    text = "model_providers = {mine = {name = 'Mine', base_url = 'http://x/v1'}, scripted = {script = 's.toml'}}"
    config = load(text, "model_provider=mine")
    assert (config.model_provider_id, config.provider.base_url) == ("mine", "http://x/v1")
    assert load(text, model_provider="scripted").provider.script == f"{tmp_path}/codex/s.toml"
    assert load("", 'openai_base_url="http://127.0.0.1:1/v1"').provider.base_url == "http://127.0.0.1:1/v1"
    unknown = refused(load, "", model_provider="nope", kind=UnknownProvider)
    assert unknown == "Model provider `nope` not found (set by the session's settings)"
    removed = refused(load, "model_provider = 'ollama-chat'", kind=UnknownProvider)
    assert removed.startswith("`ollama-chat` is no longer supported")
    assert load("model_provider = 'amazon-bedrock'").provider.id == "amazon-bedrock"


# --- what must be said ---------------------------------------------------------------------------


def test_warnings_come_in_the_order_in_which_they_are_announced(load: Any, tmp_path: Path) -> None:
    config = load(
        "approval_policy = 'on-failure'\ndefault_permissions = 'dev'\nnotify = ['n']\n"
        "[permissions.dev]\n[features]\nruntime_metrics = true\ncollab = true\nmemory_tool = false"
    )
    assert [text.split("`")[1] if text[0] == "`" else text[:34] for text in config.warnings] == [
        "Permissions profile `dev` does not",
        "notify",
        "features.collab",
        "features.runtime_metrics",
    ]
    assert config.unstable_warning is not None
    assert config.unstable_warning.startswith("Under-development features enabled: runtime_metrics.")
    assert f"in {tmp_path}/codex/config.toml." in config.unstable_warning
    assert [summary for summary, _ in config.deprecations] == [
        "`[features].collab` is deprecated. Use `[features].multi_agent` instead.",
        "`[features].memory_tool` is deprecated. Use `[features].memories` instead.",
    ]


def test_the_unstable_warning_can_be_switched_off(load: Any) -> None:
    config = load("suppress_unstable_features_warning = true\nfeatures.runtime_metrics = true")
    assert config.unstable_warning is None
    assert load("features.runtime_metrics = true").unstable_warning is not None


def test_a_configuration_says_little_about_itself(load: Any) -> None:
    text = repr(load("[model_providers.p]\nname = 'p'\nexperimental_bearer_token = 'secret'", "model_provider=p"))
    assert text.startswith("<Config home=")
    assert "secret" not in text
