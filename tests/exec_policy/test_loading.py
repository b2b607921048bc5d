"""Rules files on the disk: which count, and that a broken one loses only itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.exec_policy.errors import RulesError
from engine.exec_policy.loading import RulesText, load_folders, load_set, read_rules_text
from engine.exec_policy.policy import Policy


def write(layer: Path, name: str, text: str | bytes) -> Path:
    """A rules file of a configuration folder."""
    file = layer / "rules" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def rule(word: str, decision: str = "forbidden") -> str:
    """The text of a rule."""
    return f"prefix_rule(pattern=[{word!r}], decision={decision!r})\n"


def programs(policy: Policy) -> list[str]:
    """The programs there are rules for, in order."""
    return [rule.program for rule in policy.prefix_rules]


def test_layers_then_names_are_the_order(tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    write(high, "a.rules", rule("high"))
    write(low, "b.rules", rule("low-b"))
    write(low, "a.rules", rule("low-a"))
    write(low, "other.txt", "no starlark")
    (low / "rules" / "folder.rules").mkdir()
    found = load_folders([low, tmp_path / "missing", high])
    assert programs(found.policy) == ["low-a", "low-b", "high"]
    assert found.problems == ()


@pytest.mark.parametrize("broken", [b"prefix_rule(", b"prefix_rule(pattern=[])", b"# \xff\n", b"x = 1 // 0"])
def test_a_broken_file_loses_only_itself(tmp_path: Path, broken: bytes) -> None:
    write(tmp_path, "a.rules", rule("first"))
    bad = write(tmp_path, "b.rules", rule("lost").encode() + broken)
    write(tmp_path, "c.rules", rule("last"))
    found = load_folders([tmp_path])
    assert programs(found.policy) == ["first", "last"]
    (warning,) = found.warnings()
    assert f"{bad}:2" in warning
    assert "not in force" in warning


def test_links_and_pipes_hold_no_rules(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.rules"
    target.write_text(rule("linked", "allow"))
    write(tmp_path, "a.rules", rule("first"))
    (tmp_path / "rules" / "b.rules").symlink_to(target)
    os.mkfifo(tmp_path / "rules" / "c.rules")
    found = load_folders([tmp_path])
    assert programs(found.policy) == ["first"]
    assert [problem.message for problem in found.problems] == [
        "is a symbolic link; rules are read from regular files only",
        "is not a regular file",
    ]


def test_what_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("a file")
    with pytest.raises(RulesError, match="can't be read"):
        load_folders([tmp_path])
    with pytest.raises(RulesError, match="can't be read: No such file"):
        read_rules_text(tmp_path / "missing")


def test_hosts_of_a_lost_file_are_lost_too(tmp_path: Path) -> None:
    write(tmp_path, "a.rules", "host_executable(name='git', paths=['/usr/bin/git'])\nprefix_rule(")
    write(tmp_path, "b.rules", rule("git"))
    policy = load_folders([tmp_path]).policy
    assert policy.matches(["/tmp/git"], resolve_host_executables=True) != ()


def test_a_set_is_whole_or_nothing() -> None:
    good, bad = RulesText("good", rule("a")), RulesText("bad", "prefix_rule(")
    assert programs(load_set([good, good])) == ["a", "a"]
    with pytest.raises(RulesError, match=r"^bad:1"):
        load_set([good, bad])


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    write(tmp_path, "a.rules", b"\xef\xbb\xbf" + rule("a").encode())
    assert programs(load_folders([tmp_path]).policy) == ["a"]
