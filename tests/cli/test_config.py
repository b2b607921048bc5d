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
