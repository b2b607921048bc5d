"""Absolute paths by text, and which keys are paths."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.paths import absolute_path, resolve_paths


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("fl", "/p/fl"),
        ("./fl/", "/p/fl"),
        ("../up", "/up"),
        ("../../../x", "/x"),
        ("/a//b/", "/a/b"),
        ("//a//b/", "/a/b"),
        ("~", "/home/user"),
        ("~/x", "/home/user/x"),
        ("~//x", "/home/user/x"),
        ("~name/x", "/p/~name/x"),
        ("", "/p"),
        ("é/Ä", "/p/é/Ä"),
    ],
)
def test_paths_become_absolute_by_text_alone(text: str, made: str) -> None:
    assert absolute_path(text, "/p", "/home/user") == made


def test_without_a_home_the_tilde_is_a_name() -> None:
    assert absolute_path("~/x", "/p", None) == "/p/~/x"


@given(st.text(alphabet="ab./~é", max_size=20), st.sampled_from(["/", "/p", "/p/q"]))
def test_the_result_is_absolute_and_normal(text: str, base: str) -> None:
    made = absolute_path(text, base, "/home/user")
    assert made.startswith("/")
    assert not made.startswith("//")
    assert posixpath.normpath(made) == made
    assert absolute_path(made, "/other", "/elsewhere") == made


def test_only_keys_typed_as_paths_are_rewritten() -> None:
    table = {
        "log_dir": "logs",
        "sqlite_home": "~/db",
        "notify": ["./notify.sh"],
        "sandbox_workspace_write": {"writable_roots": ["./w", "../up", 3], "network_access": True},
        "agents": {"max_depth": 1, "reviewer": {"config_file": "agents/r.toml", "description": "./d"}},
        "profiles": {"x": {"model_instructions_file": "i.md", "model": "./m"}},
        "mcp_servers": {"s": {"command": "./bin", "cwd": "sub"}},
        "model_providers": {"p": {"auth": {"command": "./tok", "cwd": "c"}}, "scripted": {"script": "s.toml"}},
        "skills": {"config": [{"path": "k", "enabled": False}]},
        "debug": {"config_lockfile": {"load_path": "l"}},
        "no_such_key": {"path": "x"},
        "model_catalog_json": 7,
    }
    assert resolve_paths(table, "/b/.codex", "/home/user") == {
        **table,
        "log_dir": "/b/.codex/logs",
        "sqlite_home": "/home/user/db",
        "sandbox_workspace_write": {"writable_roots": ["/b/.codex/w", "/b/up", 3], "network_access": True},
        "agents": {"max_depth": 1, "reviewer": {"config_file": "/b/.codex/agents/r.toml", "description": "./d"}},
        "profiles": {"x": {"model_instructions_file": "/b/.codex/i.md", "model": "./m"}},
        "model_providers": {
            "p": {"auth": {"command": "./tok", "cwd": "/b/.codex/c"}},
            "scripted": {"script": "/b/.codex/s.toml"},
        },
        "skills": {"config": [{"path": "/b/.codex/k", "enabled": False}]},
        "debug": {"config_lockfile": {"load_path": "/b/.codex/l"}},
    }
    assert table["log_dir"] == "logs"
