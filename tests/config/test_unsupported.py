"""Warnings for what is asked for and not built yet, and silence about everything else."""

from __future__ import annotations

import tomllib

import pytest

from engine.config.features import FEATURES, resolve_features
from engine.config.unsupported import unsupported_warnings


def warnings(text: str) -> list[str]:
    table = tomllib.loads(text)
    features = table.get("features", {})
    return list(unsupported_warnings(table, resolve_features([features]).enabled, features))


@pytest.mark.parametrize(
    ("text", "thing"),
    [
        ("mcp_servers.docs = {command = 'x'}", "`mcp_servers`"),
        ("hooks.PreToolUse = []", "`hooks`"),
        ("notify = ['x']", "`notify`"),
        ("plugins.'a@b' = {}", "`plugins`"),
        ("otel.exporter = {otlp-http = {}}", "`otel`"),
        ("otel.trace_exporter = 'statsig'", "`otel`"),
        ("memories.use_memories = false", "`memories`"),
        ("experimental_thread_store = {type = 'in_memory', id = 'x'}", "`experimental_thread_store`"),
        ("skills.config = [{name = 'x', enabled = false}]", "`skills.config`"),
        ("agents.reviewer = {description = 'x'}", "`agents.reviewer`"),
        ("agents = {a = {}, b = {}, max_depth = 1}", "`agents.a` (and 1 more roles)"),
        ("web_search = 'live'", '`web_search = "live"`'),
        ("approvals_reviewer = 'auto_review'", '`approvals_reviewer = "auto_review"`'),
        ("debug.config_lockfile.load_path = '/x'", "`debug.config_lockfile.load_path`"),
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
        "otel = {environment = 'dev', exporter = 'none'}",
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
    assert not list(unsupported_warnings({}, dict.fromkeys(FEATURES, True), {}))
