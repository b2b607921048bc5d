"""The words of the command line: every flag in every place it may stand."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.cli.arguments import ServeScriptedArguments, VersionArguments, parse
from engine.cli.exec_arguments import ExecArguments, parse_exec
from engine.cli.main import main
from engine.cli.parsing import Usage


def exec_(*words: str) -> ExecArguments:
    return parse_exec(words)


def test_nothing_but_a_prompt() -> None:
    assert exec_("do it") == ExecArguments(prompt="do it")
    assert exec_() == ExecArguments()
    assert exec_("-") == ExecArguments(prompt="-")


def test_flags_may_follow_the_prompt() -> None:
    assert exec_("--experimental-json", "x", "-o", "/last") == ExecArguments(
        prompt="x", json=True, output_last_message="/last"
    )


def test_the_order_in_which_the_typescript_sdk_passes_its_arguments() -> None:
    words = [
        "--experimental-json",
        *("--config", "a=1", "--config", 'openai_base_url="http://h/v1"'),
        *("--model", "m", "--sandbox", "workspace-write", "--cd", "/w", "--add-dir", "/x", "--add-dir", "/y"),
        *("--skip-git-repo-check", "--output-schema", "/s.json"),
        *("--config", 'model_reasoning_effort="high"'),
        *("--config", "sandbox_workspace_write.network_access=true"),
        *("--config", 'web_search="live"', "--config", 'approval_policy="on-failure"'),
        *("resume", "01900000-0000-7000-8000-000000000001", "--image", "/a.png", "--image", "/b.png"),
    ]
    assert exec_(*words) == ExecArguments(
        json=True,
        overrides=(
            "a=1",
            'openai_base_url="http://h/v1"',
            'model_reasoning_effort="high"',
            "sandbox_workspace_write.network_access=true",
            'web_search="live"',
            'approval_policy="on-failure"',
        ),
        model="m",
        sandbox="workspace-write",
        cd="/w",
        add_dirs=("/x", "/y"),
        skip_git_repo_check=True,
        output_schema="/s.json",
        subcommand="resume",
        session="01900000-0000-7000-8000-000000000001",
        images=("/a.png", "/b.png"),
    )


def test_an_image_after_resume_takes_exactly_one_value() -> None:
    made = exec_("resume", "some-id", "--image", "a.png", "the prompt")
    assert (made.session, made.images, made.prompt) == ("some-id", ("a.png",), "the prompt")


def test_images_may_be_joined_by_commas() -> None:
    assert exec_("-i", "a.png,b.png", "-i", "c.png", "look").images == ("a.png", "b.png", "c.png")


@pytest.mark.parametrize(
    "flags",
    [
        ("--json",),
        ("-m", "some-model"),
        ("-o", "file"),
        ("--skip-git-repo-check",),
        ("--ephemeral",),
        ("--ignore-user-config",),
        ("--ignore-rules",),
        ("--strict-config",),
        ("--dangerously-bypass-approvals-and-sandbox",),
        ("-c", "a=b"),
        ("--enable", "goals"),
        ("--oss",),
        ("--model-provider", "scripted"),
        ("--script", "s.toml"),
        ("--trace-startup",),
        ("--color", "never"),
    ],
    ids=lambda flags: flags[0],
)
def test_global_flags_stand_before_or_after_a_subcommand(flags: tuple[str, ...]) -> None:
    before = exec_(*flags, "resume", "id", "prompt")
    after = exec_("resume", "id", *flags, "prompt")
    assert before == after
    assert before != exec_("resume", "id", "prompt")


def test_flags_before_and_after_a_subcommand_add_up_in_order() -> None:
    made = exec_("-c", "a=1", "--enable", "x", "resume", "--last", "--disable", "y", "-c", "b=2")
    assert made.overrides == ("a=1", "features.x=true", "features.y=false", "b=2")


def test_with_last_the_only_positional_is_the_prompt() -> None:
    assert exec_("resume", "--last", "go on") == ExecArguments(subcommand="resume", last=True, prompt="go on")
    assert exec_("resume", "--last") == ExecArguments(subcommand="resume", last=True)
    assert exec_("resume", "name", "go on") == ExecArguments(subcommand="resume", session="name", prompt="go on")


def test_a_flags_value_is_no_subcommand() -> None:
    assert exec_("-m", "resume", "x") == ExecArguments(model="resume", prompt="x")
    assert exec_("--", "resume") == ExecArguments(prompt="resume")
    assert exec_("--model=resume", "resume", "id").session == "id"


def test_the_trace_flag_does_not_swallow_the_prompt() -> None:
    assert exec_("--trace-startup", "hello") == ExecArguments(prompt="hello", trace_startup="")
    assert exec_("--trace-startup=t.json", "hello") == ExecArguments(prompt="hello", trace_startup="t.json")
    assert exec_("--", "--trace-startup").prompt == "--trace-startup"


@pytest.mark.parametrize(
    "words",
    [
        ("exec", "--full-auto", "x"),
        ("exec", "--sandbox", "everything", "x"),
        ("exec", "one", "two"),
        ("exec", "--model"),
        ("exec", "resume", "id", "prompt", "more"),
        ("exec", "--mod", "x"),
        ("models",),
        ("models", "serve-scripted"),
        ("models", "serve-scripted", "s", "--port", "70000"),
        ("models", "serve-scripted", "s", "--port", "x"),
        ("no-such-command",),
        ("--no-such-flag",),
        (),
    ],
    ids=" ".join,
)
def test_words_that_make_no_sense(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert "usage:" in shown.err
    assert shown.out == ""


def test_a_flag_on_the_wrong_side_of_a_subcommand_gets_a_tip() -> None:
    with pytest.raises(Usage, match="put `--sandbox` before the subcommand"):
        exec_("resume", "id", "--sandbox", "read-only")


def test_other_commands() -> None:
    assert parse(["--version"]) == VersionArguments()
    assert parse(["models", "serve-scripted", "s.toml", "--port", "81"]) == ServeScriptedArguments("s.toml", 81)


@pytest.mark.parametrize("words", [("--help",), ("exec", "--help"), ("exec", "resume", "-h"), ("models", "-h")])
def test_help_goes_to_stdout_and_exits_with_zero(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("usage: engine")


HEAVY = """
import sys
from engine.cli.main import main
code = main(sys.argv[1:])
heavy = {"trio", "httpx2", "httpx", "h11", "ssl", "asyncio", "attrs", "attr", "cattrs", "msgspec", "rich", "_speedups"}
heavy |= {"engine.tools", "engine.session", "engine.models", "engine.config", "engine.protocol", "tree_sitter"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("words", "code"), [(("exec", "--help"), 0), (("exec", "--full-auto"), 2), (("--help",), 0)], ids=str
)
def test_help_and_wrong_flags_import_nothing_heavy(words: tuple[str, ...], code: int) -> None:
    done = subprocess.run([sys.executable, "-c", HEAVY, *words], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1] == "[]"
