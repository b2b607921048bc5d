"""docs/exec-policy.md shows only what is so."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.exec_policy.requirements import requirement_rules
from engine.exec_policy.rules_file import read_rules

DOCS = Path(__file__).resolve().parents[2] / "docs" / "exec-policy.md"


def blocks(language: str) -> list[str]:
    """The code of a language in the page."""
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)


def test_the_check_answers_as_it_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (rules,) = blocks("python")
    assert len(read_rules(rules, file="page").prefix_rules) == 2
    file = tmp_path / "my.rules"
    file.write_text(rules)
    (shown,) = blocks("console")
    command, answer = shown.splitlines()
    words = command.removeprefix("$ engine ").replace("~/.codex/rules/my.rules", str(file)).split()
    assert main(words) == 0
    assert capsys.readouterr().out == answer + "\n"
    assert json.loads(answer)["decision"] == "forbidden"


def test_the_rules_of_an_administrator_can_be_used() -> None:
    (text,) = blocks("toml")
    assert len(requirement_rules(tomllib.loads(text)["rules"])) == 2
