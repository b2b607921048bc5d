"""Warnings for what is asked for and not built yet, and silence about everything else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from engine.config.features import FEATURES, resolve_features
from engine.config.unsupported import unsupported

ROOT_FOLDER = Path(__file__).parents[2]


def warnings(text: str) -> list[str]:
    table = tomllib.loads(text)
    features = table.get("features", {})
    found = unsupported(table, resolve_features([features]).enabled, features)
    return [thing.warning for thing in found if thing.announced]


@pytest.mark.parametrize(
    ("text", "thing"),
    [
        ("mcp_servers.docs = {command = 'x'}", "`mcp_servers`"),
        ("hooks.PreToolUse = []", "`hooks`"),
        ("notify = ['x']", "`notify`"),
        ("plugins.'a@b' = {}", "`plugins`"),
        ("memories.use_memories = false", "`memories`"),
        ("experimental_thread_store = {type = 'in_memory', id = 'x'}", "`experimental_thread_store`"),
        ("skills.config = [{name = 'x', enabled = false}]", "`skills.config`"),
        ("agents.reviewer = {description = 'x'}", "`agents.reviewer`"),
        ("agents = {a = {}, b = {}, max_depth = 1}", "`agents.a` (and 1 more)"),
        ("web_search = 'live'", '`web_search = "live"`'),
        ("approvals_reviewer = 'auto_review'", '`approvals_reviewer = "auto_review"`'),
        ("tools.web_search.context_size = 'low'", "`tools.web_search`"),
        ("commit_attribution = 'me'", "`commit_attribution`"),
        ("permissions.dev.network = {enabled = true, mode = 'full'}", "`permissions.dev.network`"),
        ("features.goals = true", "`features.goals`"),
        ("features.code_mode = true", "`features.code_mode`"),
        ("features.memory_tool = true", "`features.memory_tool`"),
        ("features.network_proxy = {enabled = true}", "`features.network_proxy`"),
    ],
)
def test_each_thing_is_named_once(text: str, thing: str) -> None:
    assert warnings(text) == [f"{thing} is not supported yet by this engine and is ignored"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mcp_servers.docs = {command = 'x', enabled = false}",
        "hooks.state.x = {enabled = false}",
        "plugins.x.enabled = false",
        "notify = []",
        "otel = {environment = 'dev', exporter = 'none', metrics_exporter = 'statsig'}",
        "otel.exporter = {otlp-http = {endpoint = 'http://h'}}",
        "web_search = 'cached'",
        "approvals_reviewer = 'user'",
        "agents = {max_threads = 2, interrupt_message = false}",
        "skills.include_instructions = false",
        "experimental_thread_store.type = 'local'",
        "projects.'/p'.trust_level = 'trusted'",
        "features = {goals = false, shell_tool = true, unified_exec = true, undo = true, unknown_one = true}",
        "features.network_proxy = {enabled = false}",
        "tui.theme = 'x'",
    ],
)
def test_what_asks_for_nothing_says_nothing(text: str) -> None:
    assert warnings(text) == []


def test_defaults_of_features_never_warn() -> None:
    assert not list(unsupported({}, dict.fromkeys(FEATURES, True), {}))


def test_what_makes_no_difference_to_a_session_is_listed_and_not_said() -> None:
    table = tomllib.loads("log_dir = '/l'\ntui.theme = 'x'\nagents = {max_depth = 2}\nfile_opener = 'none'")
    found = list(unsupported(table, {}, {}))
    assert [thing.thing for thing in found] == ["file_opener", "log_dir", "tui", "agents.max_depth"]
    assert not any(thing.announced for thing in found)


def test_what_is_used_is_not_listed() -> None:
    """A line goes when the thing is built."""
    sources = [path.read_text() for path in (ROOT_FOLDER / "engine").rglob("*.py") if path.parent.name != "config"]
    used = {name for text in sources for name in re.findall(r'features(?:\.get\(|\[)"(\w+)"', text)}
    enabled = resolve_features([dict.fromkeys(used, True)]).enabled
    listed = [thing.thing for thing in unsupported({}, enabled, dict.fromkeys(used, True))]
    assert set(listed) <= {f"features.{name}" for name in ONLY_REFUSED}


# Asked for only to say that it can't be had.
ONLY_REFUSED = ("shell_zsh_fork",)
