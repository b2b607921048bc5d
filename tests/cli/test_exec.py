"""`engine exec` from its words to its exit code, against scripts and mock servers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Cli, make_repository, provider_toml
from tests.mock_responses import MockResponses, Reply, message_reply, serve_responses

ANSWER = '[[responses]]\ntext = "the answer"\nusage = { input = 100, cached = 10, output = 20, reasoning = 5 }\n'


@pytest.fixture
def mock() -> Iterator[MockResponses]:
    with serve_responses([]) as server:
        yield server


def test_json_lines_of_one_answer(cli: Cli) -> None:
    done = cli.exec("--json", *cli.script(ANSWER), "go")
    assert (done.code, done.stderr) == (0, "")
    assert done.types == ["thread.started", "turn.started", "item.completed", "turn.completed"]
    assert done.lines[2]["item"] == {"id": "item_0", "type": "agent_message", "text": "the answer"}
    assert done.lines[3]["usage"]["input_tokens"] == 100


def test_people_get_the_message_on_stdout_and_all_else_on_stderr(cli: Cli) -> None:
    done = cli.exec(*cli.script(ANSWER), "go")
    assert (done.code, done.stdout) == (0, "the answer\n")
    (session,) = cli.sessions()
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Session Engine v")
    assert f"workdir: {cli.project}" in lines
    assert "provider: scripted" in lines
    assert lines[-6:] == ["codex", "the answer", "tokens used", "110", "rollout", str(session)]
    assert "\x1b" not in done.stderr


def test_colour_on_request(cli: Cli) -> None:
    assert "\x1b[1mworkdir:\x1b[0m" in cli.exec("--color", "always", *cli.script(ANSWER), "go").stderr


def test_the_session_goes_on_in_another_process(cli: Cli) -> None:
    script = cli.script(
        '[[turns]]\ntext = "first answer"\nusage.input = 100\n'
        '[[turns]]\nexpect.history = ["one", "first answer"]\ntext = "again"\nusage.input = 7\n'
    )
    first = cli.exec("--json", *script, "one")
    thread = first.lines[0]["thread_id"]
    by_id = cli.exec("--json", *script, "resume", thread, "two")
    assert by_id.code == 0
    assert by_id.lines[0]["thread_id"] == thread
    assert by_id.lines[-1]["usage"]["input_tokens"] == 107
    assert len(cli.sessions()) == 1


def test_resuming_the_last_session_of_this_folder_or_of_any(cli: Cli, tmp_path: Path) -> None:
    script = cli.script('[[responses]]\nrepeat = true\ntext = "x"\n')
    first = cli.exec("--json", *script, "one").lines[0]["thread_id"]
    assert cli.exec("--json", *script, "resume", "--last", "two").lines[0]["thread_id"] == first
    elsewhere = make_repository(tmp_path / "elsewhere")
    cli.monkeypatch.chdir(elsewhere)
    assert cli.exec("--json", *script, "resume", "--last", "--all", "three").lines[0]["thread_id"] == first
    # That turn ran here, so the session now belongs to this folder.
    assert cli.exec("--json", *script, "resume", "--last", "four").lines[0]["thread_id"] == first
    cli.monkeypatch.chdir(cli.project)
    assert cli.exec("--json", *script, "resume", "--last", "five").lines[0]["thread_id"] != first


def test_resuming_the_last_session_stays_with_the_provider(cli: Cli, mock: MockResponses) -> None:
    script = cli.script('[[responses]]\nrepeat = true\ntext = "x"\n')
    first = cli.exec("--json", *script, "one").lines[0]["thread_id"]
    cli.configure(provider_toml(mock.port))
    mock.replies = [message_reply("new"), message_reply("same")]
    other = cli.exec("--json", "resume", "--last", "two")
    assert (other.code, other.lines[0]["thread_id"] != first) == (0, True)
    assert cli.exec("--json", "resume", first, "three").lines[0]["thread_id"] == first


def test_resuming_by_name(cli: Cli) -> None:
    script = cli.script('[[responses]]\nrepeat = true\ntext = "x"\n')
    first = cli.exec("--json", *script, "one").lines[0]["thread_id"]
    (cli.home / "session_index.jsonl").write_text(json.dumps({"id": first, "thread_name": "tidy up"}) + "\n")
    assert cli.exec("--json", *script, "resume", "tidy up", "two").lines[0]["thread_id"] == first
    assert cli.exec("--json", *script, "resume", "no such name", "two").lines[0]["thread_id"] != first


def test_an_unknown_session_id(cli: Cli) -> None:
    unknown = "01900000-0000-7000-8000-00000000abcd"
    done = cli.exec("--json", *cli.script(ANSWER), "resume", unknown, "x")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: thread/resume: thread/resume failed: no rollout found for thread id {unknown} (code -32600)\n\n"
    )


def test_the_last_message_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "last"
    assert cli.exec(*cli.script('[[responses]]\ntext = "grün\\nend"\n'), "-o", str(file), "x").code == 0
    assert file.read_bytes() == "grün\nend".encode()
    silent = cli.script('[[responses]]\nreasoning = "hm"\n')
    done = cli.exec(*silent, "-o", str(file), "x")
    assert (done.code, file.read_bytes(), done.stdout) == (0, b"", "")
    assert done.stderr.endswith(f"Warning: no last agent message; wrote empty content to {file}\n")


def test_the_last_message_file_is_left_alone_when_the_turn_fails(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "last"
    file.write_text("before")
    failing = cli.script('[[responses]]\ntext = "half"\n[[responses.steps]]\nfailed = "context_length_exceeded"\n')
    done = cli.exec("--json", *failing, "-o", str(file), "x")
    assert (done.code, file.read_text()) == (1, "before")
    assert done.types[-2:] == ["error", "turn.failed"]


def test_a_last_message_file_that_can_not_be_written(cli: Cli) -> None:
    done = cli.exec(*cli.script(ANSWER), "-o", "/no/such/folder/file", "x")
    assert (done.code, done.stdout) == (0, "the answer\n")
    assert "Failed to write last message file /no/such/folder/file: No such file or directory" in done.stderr


def test_an_ephemeral_run_leaves_no_session(cli: Cli) -> None:
    done = cli.exec("--ephemeral", *cli.script(ANSWER), "x")
    assert (done.code, cli.sessions()) == (0, [])
    assert "rollout" not in done.stderr


def test_what_the_server_is_sent(cli: Cli, mock: MockResponses, tmp_path: Path) -> None:
    cli.configure(provider_toml(mock.port))
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    (tmp_path / "p.png").write_bytes((Path(__file__).parents[1] / "vectors/app_server/tools/p.png").read_bytes())
    mock.replies = [message_reply("{}")]
    cli.monkeypatch.setenv("CODEX_INTERNAL_ORIGINATOR_OVERRIDE", "codex_sdk_ts")
    words = ["--output-schema", str(tmp_path / "schema.json"), "-i", str(tmp_path / "p.png"), "-m", "other-model"]
    assert cli.exec("--json", *words, "asked", stdin=b"piped").code == 0
    (body,), (headers,) = mock.requests, mock.request_headers
    assert body["model"] == "other-model"
    assert body["text"]["format"] == {
        "type": "json_schema",
        "name": "codex_output_schema",
        "strict": True,
        "schema": {"type": "object"},
    }
    said = body["input"][-1]["content"]
    assert said[-1] == {"type": "input_text", "text": "asked\n\n<stdin>\npiped\n</stdin>"}
    assert any(part.get("image_url", "").startswith("data:image/png;base64,") for part in said)
    assert headers["originator"] == "codex_sdk_ts"


def test_what_is_recorded_about_where_a_session_came_from(cli: Cli) -> None:
    assert cli.exec("--thread-source", "my-tool", *cli.script(ANSWER), "x").code == 0
    meta = json.loads(cli.sessions()[0].read_text().splitlines()[0])["payload"]
    assert (meta["source"], meta["thread_source"]) == ("exec", "my-tool")


def test_the_key_of_exec(cli: Cli, mock: MockResponses) -> None:
    mock.replies = [message_reply("ok")]
    cli.monkeypatch.setenv("CODEX_API_KEY", "exec-key")
    done = cli.exec("--json", "-c", f'openai_base_url="{mock.base_url}"', "-m", "gpt-5.5", "x")
    assert done.code == 0, done.stderr
    assert mock.request_headers[0]["authorization"] == "Bearer exec-key"


def test_a_missing_key_names_the_variable_and_the_other_ways(cli: Cli) -> None:
    done = cli.exec("x")
    assert (done.code, done.stdout) == (1, "")
    assert "OPENAI_API_KEY" in done.stderr
    assert "--oss" in done.stderr
    assert "--model-provider scripted" in done.stderr


def test_a_missing_key_of_another_provider_names_its_variable(cli: Cli, mock: MockResponses) -> None:
    cli.configure(provider_toml(mock.port, env_key="MOCK_KEY", env_key_instructions="Ask Bob for one."))
    done = cli.exec("--json", "x")
    assert done.code == 1
    told = done.stderr + done.stdout
    assert "MOCK_KEY" in told
    assert "Ask Bob for one." in told
    assert mock.requests == []


def test_a_scripted_provider_without_a_script(cli: Cli) -> None:
    done = cli.exec("--model-provider", "scripted", "x")
    assert done.code == 1
    assert "--script FILE" in done.stderr


def test_a_script_that_is_none(cli: Cli) -> None:
    done = cli.exec(*cli.script("responses = 5"), "x")
    assert done.code == 1
    assert done.stderr.startswith("Error: ")
    assert "script.toml" in done.stderr


def test_a_script_that_runs_out(cli: Cli) -> None:
    done = cli.exec("--json", *cli.script('[[responses]]\ntext = "x"\n'), "x")
    assert done.code == 0
    done = cli.exec("--json", *cli.script('[[responses]]\nwhen.user_text = "never"\ntext = "x"\n'), "x")
    assert done.code == 1
    assert done.types[-1] == "turn.failed"


def test_a_server_that_is_not_there(cli: Cli, mock: MockResponses) -> None:
    with serve_responses([]) as gone:
        port = gone.port
    cli.configure(provider_toml(port))
    done = cli.exec("--json", "x")
    assert done.code == 1
    assert done.types == ["thread.started", "item.completed", "turn.started", "error", "turn.failed"]


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_server_that_refuses(cli: Cli, mock: MockResponses, status: int) -> None:
    cli.configure(provider_toml(mock.port))
    mock.replies = [Reply(status=status, json={"error": {"message": "no"}})]
    done = cli.exec("--json", "x")
    assert done.code == 1
    assert done.types[-2:] == ["error", "turn.failed"]
    assert done.lines[-1]["error"]["message"] == done.lines[-2]["message"]
    assert "user_message" in cli.sessions()[0].read_text()


def test_a_stream_that_is_cut_is_tried_again(cli: Cli, mock: MockResponses) -> None:
    cli.configure(provider_toml(mock.port, stream_max_retries=1))
    cut = Reply(events=message_reply("half").events[:3], cut=True)
    mock.replies = [cut, message_reply("whole")]
    done = cli.exec("--json", "x")
    assert done.code == 0
    assert [line["message"].partition(" (")[0] for line in done.lines if line["type"] == "error"] == [
        "Reconnecting... 1/1"
    ]
    assert done.lines[-2]["item"]["text"] == "whole"


def test_an_unreadable_configuration(cli: Cli) -> None:
    cli.configure('model = "x"\nmodel_provider = 5\n')
    done = cli.exec("x")
    assert done.code == 1
    assert done.stderr.startswith(f"Error loading config.toml: {cli.home}/config.toml:2:")
    assert "model_provider" in done.stderr


def test_ignoring_the_users_configuration(cli: Cli) -> None:
    cli.configure("model = \n")
    assert cli.exec("--ignore-user-config", *cli.script(ANSWER), "x").code == 0


def test_strict_configuration(cli: Cli) -> None:
    cli.configure("no_such_key = 1\n")
    assert cli.exec(*cli.script(ANSWER), "x").code == 0
    done = cli.exec("--strict-config", *cli.script(ANSWER), "x")
    assert (done.code, "no_such_key" in done.stderr) == (1, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_can_not_be_written(cli: Cli) -> None:
    script = cli.script(ANSWER)
    cli.home.chmod(0o500)
    try:
        done = cli.exec("--json", *script, "x")
    finally:
        cli.home.chmod(0o700)
    assert done.code == 0
    assert any(line.get("item", {}).get("type") == "error" for line in done.lines)


def test_a_home_where_sessions_can_not_be_written(cli: Cli) -> None:
    (cli.home / "sessions").write_text("in the way")
    done = cli.exec("--json", *cli.script(ANSWER), "x")
    assert done.code == 0
    warnings = [line["item"]["message"] for line in done.lines if line.get("item", {}).get("type") == "error"]
    assert warnings, "somebody must say that nothing is saved"
    assert "Traceback" not in done.stderr
    assert done.lines[-1]["type"] == "turn.completed"


def test_the_startup_trace(cli: Cli) -> None:
    done = cli.exec("--trace-startup", *cli.script(ANSWER), "x")
    lines = done.stderr.splitlines()
    first = [line.split() for line in lines].index(["startup", "start", "took"])
    named = [line.strip().split("  ")[0] for line in lines[first:]]
    assert named[-1] == "ready"
    for step in ("import the command", "configuration and prompt", "import the engine", "open engine", "start session"):
        assert step in named
    assert "thread_persistence" in named


def test_the_startup_trace_beside_json_lines(cli: Cli, tmp_path: Path) -> None:
    done = cli.exec("--json", "--trace-startup", *cli.script(ANSWER), "x")
    assert done.types[0] == "thread.started"
    assert "startup" in done.stderr
    file = tmp_path / "trace.json"
    done = cli.exec("--json", f"--trace-startup={file}", *cli.script(ANSWER), "x")
    assert (done.code, done.stderr) == (0, "")
    names = [event["name"] for event in json.loads(file.read_bytes())["traceEvents"]]
    assert "start session" in names
    failed = cli.exec(f"--trace-startup={file}", "--enable", "shell_zsh_fork", *cli.script(ANSWER), "x")
    assert failed.code == 1
    spans = {event["name"]: event for event in json.loads(file.read_bytes())["traceEvents"]}
    assert spans["shell"]["args"] == {"status": "failed"}
    assert "can't" not in cli.exec("--trace-startup=/no/such/file", *cli.script(ANSWER), "x").stdout


def test_what_is_not_built_yet(cli: Cli) -> None:
    done = cli.exec("review", "--uncommitted")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == "Error: `engine exec review` is not built yet; `engine exec` and `engine exec resume` are\n"


def test_approval_policies_are_accepted_and_have_no_effect(cli: Cli) -> None:
    for policy in ("untrusted", "on-failure", "on-request", "never"):
        done = cli.exec("-c", f'approval_policy="{policy}"', *cli.script(ANSWER), "x")
        assert done.code == 0
        assert "approval: never" in done.stderr
        assert "warning" not in done.stderr


def test_a_megabyte_on_stdin(cli: Cli, mock: MockResponses) -> None:
    cli.configure(provider_toml(mock.port))
    mock.replies = [message_reply("ok")]
    assert cli.exec("--json", stdin=b"x" * 1_000_000).code == 0
    assert mock.requests[0]["input"][-1]["content"][-1]["text"] == "x" * 1_000_000


def test_a_bug_of_ours_is_one_line(cli: Cli) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("oops")

    cli.monkeypatch.setattr("engine.cli.exec.prepare", broken)
    done = cli.exec("x")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: internal error: ZeroDivisionError: oops. ")
    assert done.stderr.count("\n") == 1
    cli.monkeypatch.setenv("ENGINE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.exec("x")


def test_the_version(cli: Cli) -> None:
    done = cli.run("--version")
    assert done.code == 0
    kind = "pure Python" if os.environ.get("ENGINE_PURE_PYTHON") else "compiled"
    assert done.stdout.startswith("engine ")
    assert done.stdout.endswith((f"({kind})\n", "(pure Python)\n"))


def test_wrong_words(cli: Cli) -> None:
    done = cli.exec("--full-auto", "x")
    assert (done.code, done.stdout) == (2, "")
    assert "--full-auto" in done.stderr
    assert cli.run("exec", "--help").code == 0


def test_a_compaction_on_the_way(cli: Cli) -> None:
    script = cli.script(
        '[[responses]]\nwhen = { user_text = "handover note" }\ntext = "the note"\n'
        '[[responses]]\nwhen = { step = 1 }\nsteps = [{ shell = "echo out" }]\nusage = { input = 9000 }\n'
        '[[responses]]\ntext = "the answer"\nusage = { input = 100 }\n'
    )
    limits = ("-c", "model_context_window=20000", "-c", "model_auto_compact_token_limit=8000")
    people = cli.exec(*limits, *script, "go")
    assert (people.code, people.stdout) == (0, "the answer\n")
    assert "context compacted" in people.stderr
    programs = cli.exec("--json", *limits, *script, "go")
    assert (programs.code, programs.lines[-1]["type"]) == (0, "turn.completed")
    items = [line["item"] for line in programs.lines if line["type"] == "item.completed"]
    assert [item["type"] for item in items] == ["command_execution", "error", "agent_message"]
    assert items[1]["message"].startswith("Heads up: Long threads")
