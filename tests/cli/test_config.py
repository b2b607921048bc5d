"""`engine config`: what it says of the configuration, and what it writes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given

from engine.cli.arguments import Usage, parse
from engine.cli.config import run_config, shown
from engine.cli.config_arguments import ConfigArguments
from engine.config.features import FEATURES
from tests.config.documents import tables


class Terminal:
    """A home, a project, and calls of the command in it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.project, self.etc = root / "home", root / "p", root / "etc"
        for folder in (self.home, self.etc, self.project / ".git", self.project / ".codex"):
            folder.mkdir(parents=True)
        self.file = self.home / "config.toml"
        self.environment = {"HOME": str(root), "CODEX_HOME": str(self.home)}
        self._capsys = capsys

    def config(self, *words: str) -> tuple[int, str, str]:
        made = parse(["config", "-C", str(self.project), *words])
        assert isinstance(made, ConfigArguments)
        code = run_config(made, environment=self.environment, system_folder=str(self.etc))
        out, err = self._capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err


@pytest.fixture(name="terminal")
def _terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path, capsys)


def test_set_get_unset(terminal: Terminal) -> None:
    assert terminal.config("set", "model", "gpt-5.4") == (0, f"{terminal.file}\n", "")
    assert terminal.config("set", "history.max_bytes", "4096")[0] == 0
    assert terminal.file.read_text() == 'model = "gpt-5.4"\n\n[history]\nmax_bytes = 4096\n'
    assert terminal.config("get", "model") == (0, '"gpt-5.4"\n', "")
    assert terminal.config("get", "history") == (0, "{ max_bytes = 4096 }\n", "")
    assert terminal.config("get", "history", "--json") == (0, '{"max_bytes": 4096}\n', "")
    assert terminal.config("unset", "model")[0] == 0
    assert terminal.config("get", "model") == (1, "", "`model` is not set\n")


def test_trust_lets_a_project_take_part(terminal: Terminal) -> None:
    (terminal.project / ".codex" / "config.toml").write_text("model = 'theirs'\n")
    code, out, _ = terminal.config("list", "--origins")
    assert code == 0
    assert out.startswith(f"# {terminal.project}/.codex takes no part: To load project-local config")
    assert terminal.config("trust")[0] == 0
    assert terminal.config("get", "model") == (0, '"theirs"\n', "")
    assert (
        f'model = "theirs"  # project: {terminal.project}/.codex/config.toml\n'
        in terminal.config("list", "--origins")[1]
    )
    assert terminal.config("trust", ".", "--untrusted")[0] == 0
    assert terminal.config("get", "model")[0] == 1
    assert terminal.config("trust", "nowhere")[2].endswith("nowhere is no directory\n")


def test_list(terminal: Terminal) -> None:
    terminal.file.write_text("a.'x.y' = [1, 'b', {c = true}]\ntui = {}\n")
    assert terminal.config("list")[1] == 'a."x.y" = [1, "b", { c = true }]\ntui = {}\n'
    assert json.loads(terminal.config("list", "--json")[1]) == {"a": {"x.y": [1, "b", {"c": True}]}, "tui": {}}
    listed = terminal.config("-c", "model=m", "list", "--origins")[1]
    assert 'model = "m"  # -c/--config override\n' in listed
    assert f"tui = {{}}  # user: {terminal.file}\n" in listed


def test_a_value_that_is_hidden_or_wrong(terminal: Terminal) -> None:
    (terminal.etc / "managed_config.toml").write_text("model = 'fixed'\n")
    code, out, err = terminal.config("set", "model", "mine")
    assert (code, out) == (0, f"{terminal.file}\n")
    assert err == (
        f'warning: Overridden by legacy managed_config.toml: {terminal.etc}/managed_config.toml; in effect is "fixed"\n'
    )
    before = terminal.file.read_text()
    code, _, err = terminal.config("set", "model_context_window", "big")
    assert (code, err) == (
        1,
        'error: Invalid configuration: invalid type: string "big", expected an integer in `model_context_window`\n',
    )
    assert terminal.config("set", "a..b", "1")[2] == "error: keyPath segments must not be empty\n"
    assert terminal.file.read_text() == before


def test_check_says_what_has_no_effect(terminal: Terminal) -> None:
    terminal.file.write_text("notify = ['x']\ntui.theme = 'x'\nmodle = 'm'\n[features]\ncollab = true\n")
    code, out, _ = terminal.config("check")
    assert code == 0
    assert out.splitlines() == [
        f"user: {terminal.file}",
        f"project: {terminal.project}/.codex/config.toml takes no part: To load project-local config, hooks, and exec "
        f"policies, add {terminal.project} as a trusted project in {terminal.file}.",
        "deprecated: `[features].collab` is deprecated. Use `[features].multi_agent` instead. Set it with `--enable "
        "multi_agent` or `[features].multi_agent` in config.toml.",
        "warning: `notify` is not supported yet by this engine and is ignored",
        "warning: `features.collab` is not supported yet by this engine and is ignored",
        "without effect in this engine: tui",
        "unknown key: modle",
    ]
    terminal.file.write_text("\nmodel = 3\n")
    code, _, err = terminal.config("check")
    assert (code, err) == (1, f"error: {terminal.file}:2:1: `model`: invalid type: integer `3`, expected a string\n")


def test_a_profile_with_a_file_is_what_is_written(terminal: Terminal) -> None:
    (terminal.home / "work.config.toml").write_text("")
    assert terminal.config("-p", "work", "set", "model", "m") == (0, f"{terminal.home}/work.config.toml\n", "")
    assert not terminal.file.exists()


@pytest.mark.parametrize(
    "words", [[], ["dance"], ["get"], ["set", "a"], ["list", "a"], ["unset", "a", "b"], ["trust", "a", "b"], ["--no"]]
)
def test_wrong_words(words: list[str]) -> None:
    with pytest.raises(Usage):
        parse(["config", *words])


@given(tables)
def test_what_is_shown_is_toml(table: dict[str, object]) -> None:
    text = shown(table).replace("\x7f", "\\u007f")
    assert tomllib.loads(f"x = {text}")["x"] == table


def test_features_with_their_stages_and_who_says_so(terminal: Terminal) -> None:
    terminal.file.write_text(
        "profile = 'p'\n[features]\ncollab = false\ngoals = true\nenable_fanout = true\n"
        "network_proxy = {enabled = true}\n[profiles.p.features]\nshell_snapshot = false\n"
    )
    (terminal.etc / "requirements.toml").write_text("[features]\nmemories = true\n")
    code, out, err = terminal.config("features", "-c", "features.plugins=false")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    assert set(lines) == set(FEATURES)
    assert lines["unified_exec"].split() == ["stable", "on"]
    assert lines["goals"].split(maxsplit=2) == ["experimental", "on", "# user"]
    assert lines["multi_agent"].split(maxsplit=2) == ["stable", "on", "# user"]
    assert lines["network_proxy"].split(maxsplit=2) == ["experimental", "on", "# user"]
    assert lines["shell_snapshot"].split(maxsplit=2) == ["stable", "off", "# user"]
    assert lines["plugins"].split(maxsplit=2) == ["stable", "off", "# sessionFlags"]
    required = f"# required by {terminal.etc / 'requirements.toml'}"
    assert lines["memories"].split(maxsplit=2) == ["experimental", "on", required]
    assert lines["undo"].split() == ["removed", "off"]
    told = json.loads(terminal.config("features", "--json")[1])
    assert [entry["name"] for entry in told] == list(FEATURES)
    assert told[list(FEATURES).index("goals")] == {
        "name": "goals",
        "stage": "experimental",
        "enabled": True,
        "defaultEnabled": False,
        "setBy": "user",
    }


def test_a_feature_that_another_one_brings_along(terminal: Terminal) -> None:
    terminal.file.write_text("features.code_mode_only = true\n")
    told = {entry["name"]: entry for entry in json.loads(terminal.config("features", "--json")[1])}
    assert (told["code_mode"]["enabled"], told["code_mode"]["setBy"]) == (True, "follows from another key")


def test_requirements(terminal: Terminal) -> None:
    file = terminal.etc / "requirements.toml"
    assert terminal.config("requirements") == (0, f"nothing is required: there is no {file}\n", "")
    assert json.loads(terminal.config("requirements", "--json")[1])["requirements"] is None
    file.write_text(
        "allowed_sandbox_modes = ['read-only']\nnonsense = 1\n[permissions.filesystem]\ndeny_read = ['keys']\n"
        "[mcp_servers.docs.identity]\ncommand = 'docs'\n[hooks]\nmanaged_dir = '/h'\n"
    )
    managed = terminal.etc / "managed_config.toml"
    managed.write_text("approval_policy = 'never'\n")
    code, out, err = terminal.config("requirements")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f'allowed_approval_policies = ["never"]  # {managed}',
        f'allowed_sandbox_modes = ["read-only"]  # {file}',
        f'hooks.managed_dir = "/h"  # {file}; not enforced yet',
        f'mcp_servers.docs.identity.command = "docs"  # {file}',
        f'permissions.filesystem.deny_read = ["{terminal.etc}/keys"]  # {file}',  # relative to the file
        "unknown key: nonsense",
    ]
    told = json.loads(terminal.config("requirements", "--json")[1])
    assert told["requirements"]["allowed_approval_policies"] == ["never"]
    assert (told["source"], told["sources"]) == (str(file), {"approval_policy": str(managed)})
    assert (told["notEnforced"], told["unknownKeys"]) == (["hooks"], ["nonsense"])
    terminal.file.write_text("[mcp_servers.other]\ncommand = 'x'\n[mcp_servers.docs]\ncommand = 'docs'\n")
    out = terminal.config("check")[1]
    assert f"MCP server other is not used: requirements ({file})" in out.splitlines()
    assert "MCP server docs" not in out
    assert "unknown key of requirements: nonsense" in out.splitlines()


def test_switching_features(terminal: Terminal) -> None:
    (terminal.etc / "requirements.toml").write_text("[features]\nmemories = false\n")
    assert terminal.config("enable", "goals") == (0, f"{terminal.file}\n", "")
    assert terminal.config("disable", "codex_hooks")[0] == 0
    assert tomllib.loads(terminal.file.read_text()) == {"features": {"goals": True, "hooks": False}}
    assert terminal.config("disable", "goals")[0] == 0
    assert tomllib.loads(terminal.file.read_text()) == {"features": {"hooks": False}}
    assert terminal.config("enable", "nonsense")[2] == "error: there is no feature `nonsense`\n"
    code, _, err = terminal.config("enable", "memories")
    assert (code, "`features.memories=true` is not in the allowed set [memories=false]" in err) == (1, True)
    terminal.file.write_text("[profiles.p]\nmodel = 'm'\n")
    assert terminal.config("-p", "p", "disable", "goals")[0] == 0
    assert tomllib.loads(terminal.file.read_text())["profiles"]["p"]["features"] == {"goals": False}
