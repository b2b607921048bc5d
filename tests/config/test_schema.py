"""Every key has a kind; what does not fit is reported at its path; what nobody knows is listed."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given

from engine.config.kinds import (
    ANY,
    BOOL,
    FLOAT,
    INT,
    PATH,
    STR,
    TABLE,
    ByType,
    Choice,
    Kind,
    ListOf,
    MapOf,
    Report,
    Whole,
)
from engine.config.kinds import Table as TableKind
from engine.config.schema import PROFILE_KEYS, ROOT
from tests.config.documents import tables


def report(text: str) -> Report:
    made = Report()
    ROOT.check(tomllib.loads(text), (), made)
    return made


def problems(text: str) -> list[tuple[str, str]]:
    return [(".".join(map(str, problem.path)), problem.message) for problem in report(text).problems]


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("model = 3", "model", "invalid type: integer `3`, expected a string"),
        ("model = true", "model", "invalid type: boolean `true`, expected a string"),
        ("model = 1979-05-27", "model", "invalid type: date `1979-05-27`, expected a string"),
        ("log_dir = []", "log_dir", "invalid type: sequence, expected a path string"),
        ("hide_agent_reasoning = 'x'", "hide_agent_reasoning", 'invalid type: string "x", expected a boolean'),
        (
            "model_context_window = 1.5",
            "model_context_window",
            "invalid type: floating point `1.5`, expected an integer",
        ),
        ("model_context_window = true", "model_context_window", "invalid type: boolean `true`, expected an integer"),
        (
            "model_context_window = 9223372036854775808",
            "model_context_window",
            "invalid value: an integer out of range, expected an integer, -9223372036854775808 to 9223372036854775807",
        ),
        (
            "project_doc_max_bytes = -1",
            "project_doc_max_bytes",
            "invalid value: integer `-1`, expected an integer, not negative",
        ),
        ("project_root_markers = '.git'", "project_root_markers", 'invalid type: string ".git", expected an array'),
        ("notify = ['a', 3]", "notify.1", "invalid type: integer `3`, expected a string"),
        ("features = true", "features", "invalid type: boolean `true`, expected a table"),
        ("features.goals = 1", "features.goals", "invalid type: integer `1`, expected a boolean"),
        (
            "features.network_proxy = 1",
            "features.network_proxy",
            "invalid type: integer `1`, expected a boolean or a table",
        ),
        (
            "sandbox_mode = 'none'",
            "sandbox_mode",
            "unknown variant `none`, expected one of `read-only`, `workspace-write`, `danger-full-access`",
        ),
        (
            "approval_policy = 3",
            "approval_policy",
            "invalid type: integer `3`, expected an approval policy name or a `granular` table",
        ),
        ("approval_policy = {}", "approval_policy", "missing field `granular`"),
        (
            "approval_policy.granular = {sandbox_approval = true, rules = true}",
            "approval_policy.granular",
            "missing field `mcp_elicitations`",
        ),
        ("model_providers.p = 'x'", "model_providers.p", 'invalid type: string "x", expected a table'),
        ("model_providers.p.auth = {}", "model_providers.p.auth", "missing field `command`"),
        ("agents.reviewer = 3", "agents.reviewer", "invalid type: integer `3`, expected a table"),
        ("profiles.x.model = 3", "profiles.x.model", "invalid type: integer `3`, expected a string"),
        ("mcp_servers.k = {command = 'x', url = 'u'}", "mcp_servers.k.url", "url is not supported for stdio"),
        (
            "mcp_servers.k = {url = 'u', bearer_token = 's'}",
            "mcp_servers.k.bearer_token",
            "bearer_token is not supported for streamable_http",
        ),
        ("mcp_servers.k = {enabled = true}", "mcp_servers.k", "invalid transport"),
        (
            "mcp_servers.k = {command = 'x', env_vars = ['A', {name = 'B', source = 'moon'}]}",
            "mcp_servers.k.env_vars.1",
            "unsupported env_vars source `moon`; expected `local` or `remote`",
        ),
        ("durability = 'sometimes'", "durability", "unknown variant `sometimes`, expected one of `os`, `fsync`"),
    ],
)
def test_a_value_that_does_not_fit(text: str, path: str, message: str) -> None:
    assert problems(text) == [(path, message)]


@pytest.mark.parametrize(
    "text",
    [
        "approval_policy.granular = {sandbox_approval = true, rules = true, mcp_elicitations = false}",
        "features.multi_agent_v2 = {enabled = true}",
        "features.multi_agent_v2 = false",
        "features.apps_mcp_path_override = {path = '/x'}",
        "tools.web_search = true",
        "tools.web_search = {context_size = 'low', allowed_domains = ['a'], location = {city = 'x'}}",
        "mcp_servers.k = {command = 'x', startup_timeout_sec = 7, tool_timeout_sec = 1.5}",
        "forced_chatgpt_workspace_id = ['a', 'b']",
        "agents = {max_threads = 2, reviewer = {description = 'd'}}",
        "tui.anything = [1, {x = 2}]",
        "otel.exporter = {otlp-http = {endpoint = 'x'}}",
        "otel.metrics_exporter = 'statsig'",
    ],
)
def test_values_that_fit(text: str) -> None:
    made = report(text)
    assert not made.problems
    assert not made.unknown


def test_unknown_keys_are_listed_wherever_they_stand() -> None:
    made = report(
        "no_such_key = 3\nmodel = 'm'\n[history]\nold = 1\n[features]\nbrand_new = true\n[profiles.x]\nnotify = []\n"
        "[profiles.x.features]\nodd = true\n[[skills.config]]\nwhat = 1\n[model_providers.p]\nname = 'p'\nregion = 'x'"
    )
    assert not made.problems
    assert made.unknown == [
        ("no_such_key",),
        ("history", "old"),
        ("features", "brand_new"),
        ("profiles", "x", "notify"),
        ("profiles", "x", "features", "odd"),
        ("skills", "config", 0, "what"),
        ("model_providers", "p", "region"),
    ]


def test_older_names_of_features_are_known() -> None:
    assert not report("[features]\ncollab = true\nweb_search = true\nundo = false").unknown


def test_what_a_profile_may_set() -> None:
    assert {"model", "sandbox_mode", "features", "oss_provider", "zsh_path"} <= PROFILE_KEYS
    assert not PROFILE_KEYS & {"notify", "profile", "model_providers", "projects", "openai_base_url"}


@given(tables)
def test_checking_never_raises_and_changes_nothing(table: dict[str, Any]) -> None:
    kinds: list[Kind] = [
        BOOL,
        INT,
        FLOAT,
        STR,
        PATH,
        TABLE,
        ANY,
        Whole(1, 3),
        Choice(("a",)),
        ListOf(STR),
        MapOf(PATH),
        ByType({str: STR, dict: TABLE}, "text or a table"),
    ]
    for kind in kinds:
        schema = TableKind(dict.fromkeys("abc", kind), required=("a",), rest=MapOf(kind))
        made = Report()
        schema.check(table, (), made)
        for problem in made.problems:
            assert problem.message
        rebased = schema.rebase(table, lambda text: text)
        assert rebased == table


@given(tables)
def test_the_whole_schema_takes_any_table(table: dict[str, Any]) -> None:
    for key in ("features", "agents", "mcp_servers", "model_providers", "skills", "tools"):
        ROOT.check({key: table, **table}, (), Report())
    ROOT.check({"mcp_servers": {"x": {"command": "c", "env_vars": [table, "x", 1]}}}, (), Report())
