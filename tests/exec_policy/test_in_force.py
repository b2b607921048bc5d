"""The rules of a session: read again when files change, kept when files break, agreed to on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.exec_policy import in_force
from engine.exec_policy.amendments import default_rules_file
from engine.exec_policy.errors import RulesError
from engine.exec_policy.in_force import RulesInForce
from engine.exec_policy.loading import LoadedRules, load_folders
from engine.exec_policy.rules import Decision, PrefixRule


class Lab:
    """The rules of one home, and what they warned of."""

    def __init__(self, home: Path, *required: PrefixRule) -> None:
        self.home = home
        self.warnings: list[str] = []
        self.rules = RulesInForce(str(home), (str(home),), required)

    async def decision(self, *command: str) -> Decision | None:
        """What the rules say of a command now."""
        policy = await self.rules.policy(self.warnings.append)
        return policy.check([command], resolve_host_executables=True).decision

    def write(self, text: str, name: str = "my.rules") -> None:
        """A rules file."""
        (self.home / "rules").mkdir(exist_ok=True)
        (self.home / "rules" / name).write_text(text)


async def test_rules_hold_as_soon_as_they_are_written(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    assert await lab.decision("rm") is None
    lab.write('prefix_rule(["rm"], "forbidden")\n')
    assert await lab.decision("rm") == "forbidden"
    lab.write('prefix_rule(["rm"], "prompt", justification="ask")\n')
    assert await lab.decision("rm") == "prompt"
    (tmp_path / "rules" / "my.rules").unlink()
    assert await lab.decision("rm") is None


async def test_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    def counted(layers: tuple[str, ...]) -> LoadedRules:
        reads.append(layers)
        return load_folders(layers)

    monkeypatch.setattr(in_force, "load_folders", counted)
    lab = Lab(tmp_path)
    assert await lab.decision("rm") is None
    assert reads == []  # no file, no thread
    lab.write('prefix_rule(["rm"], "forbidden")\n')
    assert [await lab.decision("rm") for _ in range(3)] == ["forbidden"] * 3
    assert len(reads) == 1


async def test_a_file_that_breaks_is_told_once_and_loses_only_itself(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.write('prefix_rule(["rm"], "forbidden")\n')
    lab.write("prefix_rule(", "broken.rules")
    assert await lab.decision("rm") == "forbidden"
    lab.write('prefix_rule(["rm"], "forbidden")  # changed\n')
    assert await lab.decision("rm") == "forbidden"
    (warning,) = lab.warnings
    assert "broken.rules:1" in warning


async def test_what_the_user_agreed_to_holds_here_and_is_saved(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    assert await lab.rules.agree(["git", "push"]) is None
    assert await lab.decision("git", "push", "x") == "allow"
    assert await Lab(tmp_path).decision("git", "push") == "allow"
    assert default_rules_file(tmp_path).read_text().count("\n") == 1


async def test_what_can_not_be_saved_holds_in_the_session(tmp_path: Path) -> None:
    file = default_rules_file(tmp_path)
    file.mkdir(parents=True)
    lab = Lab(tmp_path)
    problem = await lab.rules.agree(["git"])
    assert problem is not None
    assert str(file) in problem
    assert await lab.decision("git") == "allow"


async def test_nobody_loosens_what_is_required(tmp_path: Path) -> None:
    lab = Lab(tmp_path, PrefixRule.for_words(("curl",), "forbidden"))
    lab.write('prefix_rule(["curl"], "allow")\n')
    await lab.rules.agree(["curl"])
    assert await lab.decision("curl") == "forbidden"


async def test_a_folder_that_can_not_be_read_is_an_error_until_it_can(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    (tmp_path / "rules").write_text("a file")
    with pytest.raises(RulesError):
        await lab.decision("x")
    with pytest.raises(RulesError):
        await lab.decision("x")
    (tmp_path / "rules").unlink()
    assert await lab.decision("x") is None
