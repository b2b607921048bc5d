"""The checks before a run: each refusal, and the order in which they come."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from engine.cli.exec_arguments import parse_exec
from engine.cli.preparation import ExecPlan, Refused, in_repository, prepare
from engine.protocol.inputs import LocalImageInput, TextInput
from tests.cli.running import make_repository


@attrs.define
class Stdin:
    """Stdin of a test."""

    data: bytes = b""
    terminal: bool = False
    reads: int = 0

    def is_terminal(self) -> bool:
        return self.terminal

    def read(self) -> bytes:
        self.reads += 1
        return self.data


@attrs.define
class Place:
    """A home, a repository, and what was said on stderr."""

    home: Path
    project: Path
    said: list[str] = attrs.field(factory=list)

    def plan(self, *words: str, stdin: Stdin | None = None) -> ExecPlan:
        arguments = parse_exec(words)
        environment = {"CODEX_HOME": str(self.home), "HOME": str(self.home)}
        return prepare(arguments, stdin or Stdin(terminal=True), environment, self.said.append)

    def refusal(self, *words: str, stdin: Stdin | None = None) -> str:
        with pytest.raises(Refused) as caught:
            self.plan(*words, stdin=stdin)
        return str(caught.value)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    home, project = tmp_path / "home", make_repository(tmp_path / "project")
    home.mkdir()
    (project / "sub").mkdir()
    monkeypatch.chdir(project)
    return Place(home, project)


def test_a_plain_run(place: Place) -> None:
    plan = place.plan("do it")
    assert (plan.home, plan.cwd, plan.prompt, plan.output_schema) == (place.home, str(place.project), "do it", None)
    assert plan.input == (TextInput("do it"),)
    assert (plan.provider, plan.sandbox, plan.overrides) == (None, None, ())
    assert place.said == []


def test_flags_become_configuration(place: Place) -> None:
    plan = place.plan(
        *("-m", "some-model", "-s", "workspace-write", "--add-dir", "../more", "-c", "model_verbosity=low"),
        *("--enable", "goals", "-C", "sub", "go"),
    )
    assert plan.cwd == str(place.project / "sub")
    assert plan.config.model == "some-model"
    assert plan.config.sandbox_policy.type == "workspace-write"
    assert plan.config.model_verbosity == "low"
    assert plan.config.features["goals"] is True
    assert plan.writable_roots == (str(place.project / "more"),)
    assert plan.overrides == (("model_verbosity", "low"), ("features.goals", True))


def test_the_bypass_flag_gives_full_access_and_needs_no_repository(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = place.plan("--dangerously-bypass-approvals-and-sandbox", "-s", "read-only", "go")
    assert (plan.sandbox, plan.config.sandbox_policy.type) == ("danger-full-access", "danger-full-access")


def test_images_come_before_the_text(place: Place) -> None:
    plan = place.plan("-i", "a.png,/b.png", "look")
    assert plan.input == (LocalImageInput(str(place.project / "a.png")), LocalImageInput("/b.png"), TextInput("look"))


def test_files_are_relative_to_where_the_program_was_started(place: Place) -> None:
    (place.project / "schema.json").write_text("{}")
    words = ("--output-schema", "schema.json", "-i", "a.png", "--model-provider", "scripted", "--script", "s.toml")
    plan = place.plan("-C", "sub", *words, "--add-dir", "more", "go")
    assert plan.output_schema == {}
    assert plan.input[0] == LocalImageInput(str(place.project / "a.png"))
    assert plan.config.provider.script == str(place.project / "s.toml")
    assert plan.writable_roots == (str(place.project / "sub" / "more"),)


def test_oss_takes_the_configured_provider(place: Place) -> None:
    plan = place.plan("--oss", "go")
    assert (plan.provider, plan.model) == ("ollama", "gpt-oss:20b")
    assert place.plan("--oss", "-m", "mine", "go").model == "mine"
    assert place.plan("--oss", "-c", "model=mine", "go").config.model == "mine"
    (place.home / "config.toml").write_text('oss_provider = "lmstudio"\n')
    plan = place.plan("--oss", "go")
    assert (plan.provider, plan.config.model_provider_id) == ("lmstudio", "lmstudio")
    assert plan.model == "openai/gpt-oss-20b"
    assert "give one of them" in place.refusal("--oss", "--model-provider", "openai", "go")


def test_a_local_provider_that_is_named(place: Place) -> None:
    (place.home / "config.toml").write_text('oss_provider = "lmstudio"\n')
    assert place.plan("--oss", "--local-provider", "ollama", "go").provider == "ollama"
    assert "add --oss" in place.refusal("--local-provider", "ollama", "go")
    assert "Must be one of: lmstudio, ollama" in place.refusal("--oss", "--local-provider", "vllm", "go")


@pytest.mark.parametrize("flag", ["--worktree", "--approve-for-me"])
def test_flags_of_the_other_program_that_are_not_built(place: Place, flag: str) -> None:
    assert place.refusal(flag, "go").startswith(f"Error: {flag} is not supported yet by this engine")


def test_a_profile_is_a_file_or_a_table(place: Place) -> None:
    (place.home / "config.toml").write_text("[profiles.old]\nmodel = 'table'\n")
    (place.home / "work.config.toml").write_text("model = 'file'\n")
    assert place.plan("-p", "old", "go").config.model == "table"
    assert place.plan("-p", "work", "go").config.model == "file"
    assert "config profile `none` not found" in place.refusal("-p", "none", "go")


def test_a_script_is_for_the_scripted_provider(place: Place) -> None:
    plan = place.plan("--model-provider", "scripted", "--script", "s.toml", "go")
    assert plan.config.provider.script == str(place.project / "s.toml")
    assert "--model-provider scripted" in place.refusal("--script", "s.toml", "go")


def test_subcommands_that_are_not_built(place: Place) -> None:
    for command in ("fork", "review"):
        assert place.refusal(command, "x").startswith(f"Error: `engine exec {command}` is not built yet")


def test_configuration_comes_first(place: Place) -> None:
    (place.home / "config.toml").write_text("model = \n")
    text = place.refusal("--output-schema", "missing", stdin=Stdin(b""))
    assert text.startswith("Error loading config.toml: ")
    assert "config.toml:1" in text
    assert place.said == []
    assert place.refusal("-c", "nonsense", "go").startswith("Error parsing -c overrides: ")
    assert place.plan("--ignore-user-config", "go").config.model is None


def test_an_unknown_provider_is_named(place: Place) -> None:
    text = place.refusal("--model-provider", "nope", "go")
    assert text.startswith("Error loading config.toml: ")
    assert "nope" in text


def test_strict_configuration(place: Place) -> None:
    (place.home / "config.toml").write_text("no_such_key = 1\n")
    assert place.plan("go").config.unknown_keys == ("no_such_key",)
    assert "no_such_key" in place.refusal("--strict-config", "go")


def test_prompt_and_schema_come_before_the_repository_check(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert place.refusal(stdin=Stdin(b"  ")) == "No prompt provided via stdin."
    assert place.said == ["Reading prompt from stdin..."]
    assert place.refusal("--output-schema", "/missing.json", "p") == (
        "Failed to read output schema file /missing.json: No such file or directory (os error 2)"
    )
    assert place.refusal("p") == "Not inside a trusted directory and --skip-git-repo-check was not specified."
    assert place.plan("--skip-git-repo-check", "p").prompt == "p"


@pytest.mark.parametrize("text", [b"{", b"", b"[1,", b"\xff", b"[" * 100_000])
def test_a_schema_that_is_no_json(place: Place, text: bytes) -> None:
    (place.project / "bad.json").write_bytes(text)
    assert place.refusal("--output-schema", "bad.json", "p").startswith(
        "Output schema file bad.json is not valid JSON: "
    )


def test_a_schema_that_is_no_object(place: Place) -> None:
    (place.project / "list.json").write_text("[]")
    assert "must be an object" in place.refusal("--output-schema", "list.json", "p")
    (place.project / "good.json").write_text('{"type": "object"}')
    assert place.plan("--output-schema", "good.json", "p").output_schema == {"type": "object"}


def test_resuming_with_a_prompt_leaves_stdin_alone(place: Place) -> None:
    stdin = Stdin(b"ignored")
    assert place.plan("resume", "--last", "go on", stdin=stdin).prompt == "go on"
    assert stdin.reads == 0
    assert place.said == []


def test_a_folder_that_is_none(place: Place) -> None:
    assert place.refusal("-C", "missing", "p") == (
        f"Error: the working directory {place.project / 'missing'} does not exist"
    )
    (place.project / "file").touch()
    assert place.refusal("-C", "file", "p").endswith("is not a directory")


def test_a_home_that_is_none(place: Place, tmp_path: Path) -> None:
    place.home = tmp_path / "nowhere"
    assert place.refusal("p").startswith(f'Error: CODEX_HOME points to "{tmp_path / "nowhere"}"')


def test_a_flag_of_the_sdk_that_means_nothing_here(place: Place) -> None:
    place.plan("--cyber-access-program", "x", "go")
    assert place.said == ["warning: --cyber-access-program has no effect in this engine"]


def test_what_counts_as_a_checkout(tmp_path: Path) -> None:
    worktree, empty = tmp_path / "worktree", tmp_path / "empty"
    (worktree / "deep").mkdir(parents=True)
    (worktree / ".git").write_text("gitdir: /somewhere\n")
    (empty / ".git").mkdir(parents=True)
    assert in_repository(str(make_repository(tmp_path / "checkout")))
    assert in_repository(str(worktree / "deep"))
    assert not in_repository(str(empty))
    (tmp_path / ".git").touch()
    assert not in_repository(str(tmp_path))
