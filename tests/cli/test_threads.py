"""`engine threads` from its words to its exit codes, on homes that `engine exec` and others have left."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.progress import DELAY, ProgressBar
from engine.cli.terminal import Palette
from engine.cli.threads_arguments import ThreadsArguments, parse_threads
from engine.cli.threads_listing import cells, cut, cut_front, table
from engine.protocol.ids import ThreadId, new_thread_id
from engine.thread_store.interface import StoredThread
from engine.thread_store.locks import RolloutLocks
from tests.cli.running import Cli, start_process

SCRIPT = """
[[responses]]
when = { step = 1 }
repeat = true
text = "The answer & more."
"""


@pytest.fixture
def talk(cli: Cli) -> str:
    """A thread somebody has had; its id."""
    done = cli.exec(*cli.script(SCRIPT), "--json", "What is <b>it</b>?")
    assert done.code == 0, done.stderr
    return str(done.lines[0]["thread_id"])


def other(cli: Cli, prompt: str) -> str:
    done = cli.exec(*cli.script(SCRIPT), "--json", prompt)
    return str(done.lines[0]["thread_id"])


def file_of(cli: Cli, thread: str) -> Path:
    [path] = cli.home.rglob(f"rollout-*{thread}.jsonl")
    return path


# --- words ---------------------------------------------------------------------------------------


def test_words() -> None:
    assert parse_threads(["list", "-n", "3", "--source", "cli", "--source", "exec"]) == ThreadsArguments(
        "list", limit=3, sources=("cli", "exec")
    )
    assert parse_threads(["export", "a", "-o", "f", "--force"]) == ThreadsArguments(
        "export", ("a",), output="f", force=True
    )
    assert parse_threads(["rename", "a", "b c"]) == ThreadsArguments("rename", ("a",), name="b c")
    assert parse_threads(["verify"]) == ThreadsArguments("verify")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "engine threads list"),
        (["frobnicate"], "invalid choice"),
        (["show"], "THREAD"),
        (["repair"], "--all"),
        (["repair", "x", "--all"], "--all"),
        (["list", "-n", "0"], "between 1 and 10000"),
        (["fork", "x", "--before", "-1"], "--before"),
        (["fork", "x", "--before", "1", "--through", "t"], "not allowed"),
    ],
)
def test_words_that_make_no_sense(cli: Cli, words: list[str], said: str) -> None:
    done = cli.run("threads", *words)
    assert done.code == 2
    assert said in done.stderr


@pytest.mark.parametrize("action", ["", "list", "export", "repair"])
def test_help(cli: Cli, action: str) -> None:
    done = cli.run("threads", *action.split(), "--help")
    assert done.code == 0
    assert f"usage: engine threads {action or 'ACTION'}" in done.stdout


# --- looking -------------------------------------------------------------------------------------


def test_a_list_for_people_and_for_programs(cli: Cli, talk: str) -> None:
    done = cli.run("threads", "list")
    assert done.code == 0
    [line] = done.stdout.splitlines()
    assert line.startswith(talk)
    assert "What is <b>it</b>?" in line
    assert "\x1b" not in line
    [thread] = json.loads(cli.run("threads", "list", "--json").stdout)["threads"]
    assert (thread["thread_id"], thread["title"], thread["archived"]) == (talk, "What is <b>it</b>?", False)
    assert cli.run("threads", "list", "--archived").stderr == "no threads\n"


def test_pages_and_filters(cli: Cli, talk: str) -> None:
    second = other(cli, "second")
    done = cli.run("threads", "list", "-n", "1", "--sort", "created")
    assert done.stdout.startswith(second)
    cursor = done.stderr.split("--cursor ")[1].strip()
    done = cli.run("threads", "list", "-n", "1", "--sort", "created", "--cursor", cursor)
    assert done.stdout.startswith(talk)
    assert not done.stderr
    assert cli.run("threads", "list", "--search", "sec").stdout.startswith(second)
    assert cli.run("threads", "list", "--oldest-first", "--sort", "created").stdout.startswith(talk)
    assert not cli.run("threads", "list", "--cd", str(cli.home)).stdout
    assert len(cli.run("threads", "list", "--cd", str(cli.project)).stdout.splitlines()) == 2
    assert not cli.run("threads", "list", "--source", "cli").stdout
    assert not cli.run("threads", "list", "--model-provider", "nobody").stdout
    done = cli.run("threads", "list", "--cursor", "nonsense")
    assert (done.code, done.stderr) == (1, "error: invalid cursor: nonsense\n")


def test_a_thread_is_found_by_beginning_name_and_path(cli: Cli, talk: str) -> None:
    assert cli.run("threads", "rename", talk, "  my talk ").code == 0
    for word in (talk, talk.upper(), talk[:30], "my talk", str(file_of(cli, talk))):
        assert talk in cli.run("threads", "show", word).stdout
    second = other(cli, "second")
    done = cli.run("threads", "show", talk[:4])
    assert done.code == 1
    assert talk in done.stderr
    assert second in done.stderr
    done = cli.run("threads", "show", "nobody")
    assert done.code == 1
    assert "engine threads list" in done.stderr
    assert cli.run("threads", "show", "/no/such/file").code == 1
    cli.run("threads", "rename", second, "my talk")
    assert "have the name" in cli.run("threads", "show", "my talk").stderr


def test_facts(cli: Cli, talk: str) -> None:
    lines = cli.run("threads", "show", talk).stdout.splitlines()
    assert f"id: {talk}" in lines
    assert "provider: scripted" in lines
    assert f"file: {file_of(cli, talk)}" in lines
    told = json.loads(cli.run("threads", "show", talk, "--json").stdout)
    assert (told["thread_id"], told["holder"], told["spawned"]) == (talk, None, [])
    locks = RolloutLocks(cli.home)
    locks.take(str(file_of(cli, talk)))
    assert f"being written by: process {os.getpid()}" in cli.run("threads", "show", talk).stdout
    locks.close()


def test_a_table_fits_and_hides_what_moves_the_cursor() -> None:
    thread = StoredThread(
        thread_id=new_thread_id(),
        path=None,
        created_at=0,
        updated_at=0,
        cwd="/home/me/" + "deep/" * 20,
        latest_cwd="/home/me/" + "deep/" * 20,
        source="cli",
        title="\x1b[31m日本語\n" * 30,
        name="name",
    )
    for width in (100, 120, 200):
        [line] = table([thread], width=width, palette=Palette(False), user_home="/home/me")
        assert cells(line) <= width
        assert "\x1b" not in line
    assert cut("日本語", 5) == "日本…"
    assert cut_front("/a/b/c", 4) == "…b/c"


# --- changing ------------------------------------------------------------------------------------


def test_a_fork_is_a_thread_of_its_own(cli: Cli, talk: str) -> None:
    made = cli.run("threads", "fork", talk[:20], "--name", "copy").stdout.strip()
    assert made != talk
    told = json.loads(cli.run("threads", "show", "copy", "--json").stdout)
    assert (told["thread_id"], told["forked_from_id"]) == (made, talk)
    done = cli.exec(*cli.script(SCRIPT), "--json", "resume", made, "go on")
    assert done.code == 0
    before = cli.run("threads", "fork", talk, "--before", "0", "--json")
    assert json.loads(before.stdout)["preview"] is None
    assert cli.run("threads", "fork", talk, "--through", "no-such-turn").code == 1
    cli.run("threads", "archive", talk)
    assert cli.run("threads", "fork", talk).code == 0, "an archived one can be copied"
    assert cli.run("threads", "verify").code == 0


def test_archived_and_back_and_gone(cli: Cli, talk: str) -> None:
    assert cli.run("threads", "archive", talk).stdout == f"archived {talk}\n"
    assert "archived already" in cli.run("threads", "archive", talk).stderr
    assert cli.run("threads", "list", "--archived").stdout.startswith(talk)
    assert "archived: yes" in cli.run("threads", "show", talk).stdout
    assert cli.run("threads", "unarchive", talk).stdout == f"brought back {talk}\n"
    assert cli.run("threads", "unarchive", talk).code == 1
    done = cli.run("threads", "delete", talk, stdin=b"y\n")
    assert done.code == 1
    assert "--yes" in done.stderr
    done = cli.run("threads", "delete", talk)  # a person who just presses enter
    assert done.code == 1
    assert file_of(cli, talk).exists()
    done = cli.run("threads", "archive", "nobody", talk)
    assert (done.code, done.stdout) == (1, f"archived {talk}\n")
    assert cli.run("threads", "delete", talk, "--yes").stdout == f"deleted {talk}\n"
    assert not cli.sessions()


def test_a_thread_in_use_is_not_deleted(cli: Cli, talk: str) -> None:
    locks = RolloutLocks(cli.home)
    locks.take(str(file_of(cli, talk)))
    done = cli.run("threads", "delete", "-y", talk)
    assert done.code == 1
    assert str(os.getpid()) in done.stderr
    locks.close()
    assert file_of(cli, talk).exists()


# --- transcripts ---------------------------------------------------------------------------------


def test_export(cli: Cli, talk: str, tmp_path: Path) -> None:
    done = cli.run("threads", "export", talk)
    assert done.code == 0
    assert done.stdout.startswith("# What is <b>it</b>?\n")
    assert "### Assistant\n\nThe answer & more.\n" in done.stdout
    page = tmp_path / "talk.html"
    assert cli.run("threads", "export", talk, "-o", str(page)).code == 0
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "What is &lt;b&gt;it&lt;/b&gt;?" in text
    assert "The answer &amp; more." in text
    done = cli.run("threads", "export", talk, "-o", str(page), "--format", "markdown")
    assert done.code == 1
    assert "--force" in done.stderr
    assert page.read_text() == text
    assert cli.run("threads", "export", talk, "-o", str(page), "--format", "markdown", "--force").code == 0
    assert page.read_text().startswith("# ")
    assert os.listdir(tmp_path).count("talk.html") == 1
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".partial")]
    done = cli.run("threads", "export", talk, "-o", str(tmp_path / "no" / "folder"))
    assert done.code == 1
    assert "failed to write" in done.stderr


@pytest.mark.damages_home
def test_damaged_lines_are_left_out_of_a_transcript_and_told(cli: Cli, talk: str) -> None:
    path = file_of(cli, talk)
    path.write_bytes(path.read_bytes() + b"nonsense\n")
    done = cli.run("threads", "export", talk)
    assert done.code == 0
    assert "1 lines can't be read" in done.stderr
    assert "The answer" in done.stdout


def test_a_reader_that_goes_away_is_no_error(cli: Cli, talk: str) -> None:
    path = file_of(cli, talk)
    line = path.read_bytes().splitlines(keepends=True)[-1]
    assert line
    message = json.dumps(
        {
            "timestamp": "t",
            "type": "response_item",
            "payload": {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "x" * 4000000}],
            },
        }
    )
    path.write_bytes(path.read_bytes() + message.encode() + b"\n")
    with start_process(
        ["threads", "export", talk],
        cli.project,
        {"CODEX_HOME": str(cli.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


# --- damage --------------------------------------------------------------------------------------


def test_verify_says_what_is_wrong_and_repair_what_it_did(cli: Cli, talk: str) -> None:
    done = cli.run("threads", "verify")
    assert (done.code, done.stdout.splitlines()[-1].split(": ")[1]) == (0, "nothing is wrong")
    path = file_of(cli, talk)
    whole = path.read_bytes()
    path.write_bytes(whole + b"nonsense\n" + whole.splitlines(keepends=True)[-1][:-9])
    done = cli.run("threads", "verify")
    assert done.code == 1
    number = len(whole.splitlines()) + 1
    assert f"{path}: line {number} (bytes {len(whole)}-{len(whole) + 8}): " in done.stdout
    assert f"line {number + 1}" in done.stdout
    assert "1 damaged, 2 lines lost" in done.stdout
    assert cli.run("threads", "verify", talk).code == 1
    told = json.loads(cli.run("threads", "verify", "--json").stdout)
    assert not told["clean"]
    assert [problem["number"] for problem in told["files"][0]["damaged_lines"]] == [number, number + 1]
    locks = RolloutLocks(cli.home)
    locks.take(str(path))
    done = cli.run("threads", "repair", talk)
    assert done.code == 1
    assert f"process {os.getpid()}" in done.stderr
    locks.close()
    done = cli.run("threads", "repair", talk)
    assert done.code == 0, done.stderr
    assert path.read_bytes() == whole
    [aside] = path.parent.glob("*.damaged-*")
    assert str(aside) in done.stdout
    assert cli.run("threads", "verify").code == 0
    assert cli.run("threads", "repair", "--all").stdout == "nothing is damaged\n"
    assert cli.exec(*cli.script(SCRIPT), "--json", "resume", talk, "go on").code == 0


def test_everything_is_repaired_at_once(cli: Cli, talk: str) -> None:
    second, path = other(cli, "second"), file_of(cli, talk)
    path.write_bytes(path.read_bytes() + b"nonsense\n")
    file_of(cli, second).write_bytes(b"")
    (cli.home / "engine_index.sqlite").write_bytes(b"no database" * 99)
    dead = RolloutLocks(cli.home)
    dead.take(str(path))
    dead.abandon()
    cli.run("threads", "rename", talk, "a name")
    listed = cli.home / "session_index.jsonl"
    listed.write_bytes(listed.read_bytes() + b"{\n")
    verified = cli.run("threads", "verify")
    assert verified.code == 1
    assert f"line 2 of {listed} can't be read" in verified.stdout
    done = cli.run("threads", "repair", "--all", "--json")
    told = json.loads(done.stdout)
    assert done.code == 0
    assert (len(told["repaired"]), told["refused"], told["index_removed"], told["locks_removed"]) == (2, [], True, 1)
    assert (told["names"]["lines"], told["names"]["lost"]) == (1, 1)
    assert cli.run("threads", "verify").code == 0
    [line] = cli.run("threads", "list").stdout.splitlines()
    assert line.startswith(talk)
    assert "a name" in line


@pytest.mark.damages_home
def test_what_can_not_be_repaired_is_told(cli: Cli) -> None:
    path = cli.home / "sessions/2025/01/02" / f"rollout-2025-01-02T03-04-05-{ThreadId(new_thread_id())}.jsonl"
    path.mkdir(parents=True)
    assert "no regular file" in cli.run("threads", "verify").stdout
    done = cli.run("threads", "repair", "--all")
    assert done.code == 1
    assert "is not repaired" in done.stderr


# --- progress ------------------------------------------------------------------------------------


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    bar = ProgressBar("working", pipe)
    monkeypatch.setattr(bar, "_begin", -2 * DELAY)
    bar.tell(1, 2)
    assert pipe.getvalue() == ""
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal, open(ours, "rb", buffering=0) as screen:
        bar = ProgressBar("working", terminal)
        bar.tell(1, 2)
        monkeypatch.setattr(bar, "_begin", -2 * DELAY)
        bar.tell(1, 2)
        bar.close()
        bar.tell(2, 2)
        assert b"working" in screen.read(4096)


def test_a_list_needs_no_progress_library(cli: Cli, talk: str) -> None:
    code = (
        "import sys; from engine.cli.main import main; assert main(['threads', 'list']) == 0; "
        "assert 'rich' not in sys.modules and 'httpx2' not in sys.modules, [m for m in sys.modules if 'httpx2' in m]"
    )
    environment = {**os.environ, "CODEX_HOME": str(cli.home)}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
