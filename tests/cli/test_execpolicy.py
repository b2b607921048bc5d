"""`engine execpolicy check`: what rules say of a command, and how a broken file is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.cli.main import main

RULES = """
prefix_rule(pattern=["git", ["push", "fetch"]], decision="prompt", justification="it talks to others")
prefix_rule(pattern=["rm"], decision="forbidden")
"""


def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["execpolicy", "check", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_every_match_and_the_decision_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "a.rules"
    rules.write_text(RULES)
    code, out, err = check(capsys, "--rules", str(rules), "--", "git", "push", "origin")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["decision"] == "prompt"
    assert found["matchedRules"][0]["prefixRuleMatch"]["matchedPrefix"] == ["git", "push"]
    assert out.count("\n") == 1
    assert check(capsys, "-r", str(rules), "--pretty", "rm", "-rf", "x")[1].count("\n") > 3


def test_no_match_is_no_decision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.rules").write_text(RULES)
    assert check(capsys, "-r", str(tmp_path / "a.rules"), "ls") == (0, '{"matchedRules":[]}\n', "")


def test_rules_of_a_name_hold_for_its_path_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.rules").write_text(RULES)
    words = ("-r", str(tmp_path / "a.rules"), "/usr/bin/rm", "x")
    assert "decision" not in json.loads(check(capsys, *words)[1])
    assert json.loads(check(capsys, "--resolve-host-executables", *words)[1])["decision"] == "forbidden"


def test_a_broken_file_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.rules").write_text(RULES)
    broken = tmp_path / "broken.rules"
    broken.write_text('prefix_rule(pattern=["a"])\nprefix_rule(pattern=[], decision="allow")\n')
    code, out, err = check(capsys, "-r", str(tmp_path / "good.rules"), "-r", str(broken), "ls")
    assert (code, out) == (1, "")
    assert f"{broken}:2" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [["execpolicy"], ["execpolicy", "chek"], ["execpolicy", "check", "ls"]])
def test_wrong_words_are_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "usage: engine execpolicy check" in capsys.readouterr().err


def test_help_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["execpolicy", "--help"]) == 0
    assert "--resolve-host-executables" in capsys.readouterr().out
