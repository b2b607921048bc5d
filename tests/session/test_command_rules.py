"""Rules for commands in sessions: an administrator's, broken files, changes on the way; shells that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine
from engine.errors import ConfigError
from engine.models.scripts import reply, response, shell
from engine.protocol.events import EventMsg, Warning
from tests.session.conftest import Lab, collect

FORBID = """
[[rules.prefix_rules]]
pattern = [{token = "touch"}, {any_of = ["here", "there"]}]
decision = "forbidden"
justification = "not on this machine"
"""


def rules(lab: Lab, text: str, name: str = "my.rules") -> None:
    """A rules file of the user."""
    folder = lab.home / "rules"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)


def output(lab: Lab) -> str:
    """What the model was told of its last call."""
    return str(lab.input()[-1]["output"])


def warned(events: list[EventMsg]) -> list[str]:
    """The warnings of a turn that are about rules."""
    return [event.message for event in events if isinstance(event, Warning) and "rules file" in event.message]


async def test_rules_of_an_administrator_hold_whatever_the_user_allows(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "requirements.toml").write_text(FORBID)
    rules(lab, 'prefix_rule(["touch"], "allow")\n')
    answers = (response(shell("touch here")), reply("1"), response(shell("touch elsewhere")), reply("2"))
    async with lab.open(*answers, system_folder=tmp_path) as opened:
        async with opened.session(lab.settings()) as session:
            await session.run("go")
            assert "not on this machine" in output(lab)
            await session.run("again")
    assert [path.name for path in lab.cwd.iterdir()] == ["elsewhere"]


async def test_an_administrators_rules_that_can_not_be_used_fail_the_start(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "requirements.toml").write_text(FORBID.replace("forbidden", "allow"))
    async with lab.open(reply("x"), system_folder=tmp_path) as opened:
        with pytest.raises(engine.SessionStartError) as caught:
            await opened.start_session(lab.settings())
    assert isinstance(caught.value.__cause__, ConfigError)
    text = f"invalid rules in requirements (set by {tmp_path / 'requirements.toml'}): "
    assert text in str(caught.value.__cause__)


async def test_a_rules_file_that_breaks_meanwhile_is_told_and_others_hold(lab: Lab) -> None:
    rules(lab, 'prefix_rule(["touch"], "forbidden")\n')
    answers = [answer for n in range(3) for answer in (response(shell(f"touch {n}")), reply("x"))]
    async with lab.session(*answers) as session:
        assert warned(await collect(await session.start_turn("go"))) == []
        rules(lab, 'prefix_rule(["ls"], "forbidden")\nprefix_rule(pattern=[])\n', "broken.rules")
        (warning,) = warned(await collect(await session.start_turn("go")))
        assert f"{lab.home / 'rules' / 'broken.rules'}:2" in warning
        assert warned(await collect(await session.start_turn("go"))) == []
        assert "policy forbids commands starting with `touch`" in output(lab)
    assert list(lab.cwd.iterdir()) == []


async def test_rules_that_can_not_be_read_stop_commands_not_the_session(lab: Lab) -> None:
    (lab.home / "rules").write_text("a file")
    async with lab.session(response(shell("touch x")), reply("said")) as session:
        assert (await session.run("go")).final_message == "said"
        assert "the rules for commands can't be read, so none can run" in output(lab)
    assert list(lab.cwd.iterdir()) == []


@pytest.mark.parametrize(
    ("zsh", "text"),
    [
        (None, "but `zsh_path` is not configured"),
        ("/no/zsh", "zsh_path `/no/zsh` is not usable"),
        ("/bin/sh", "has no zsh fork backend"),
    ],
)
async def test_a_session_that_wants_a_forking_zsh_does_not_start(lab: Lab, zsh: str | None, text: str) -> None:
    config: dict[str, object] = {"features.shell_zsh_fork": True}
    if zsh is not None:
        config["zsh_path"] = zsh
    async with lab.open(reply("x")) as opened:
        with pytest.raises(engine.SessionStartError) as caught:
            await opened.start_session(lab.settings(config=config))
    assert text in str(caught.value.__cause__)
