"""The real command line and this one take turns on the same threads, and neither spoils what is the other's.

The binary comes with the extra `conformance`; without it the tests are skipped. With `ENGINE_REQUIRE_CONFORMANCE=1`
that is a failure. It talks to a script served on the loopback interface.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from benchmarks.peer import find_peer
from engine.thread_store.verifying import verify_home
from tests.cli.running import make_repository, start_process

pytestmark = pytest.mark.conformance

USAGE = "usage = { input = 100, cached = 10, output = 20, reasoning = 5 }\n"
SCRIPT = f"""
[[responses]]
when = {{ user_text = "say hello" }}
repeat = true
{USAGE}
text = "Hello there."

[[responses]]
when = {{ user_text = "run a command", step = 1 }}
repeat = true
{USAGE}
steps = [{{ commentary = "Let me look." }}, {{ shell = "echo from-the-shell" }}]

[[responses]]
when = {{ user_text = "run a command", tool_output = "from-the-shell" }}
repeat = true
{USAGE}
text = "It printed from-the-shell."

[[responses]]
when = {{ user_text = "and again" }}
repeat = true
expect.history = ["say hello", "Hello there."]
{USAGE}
text = "Hello once more."

[[responses]]
when = {{ user_text = "a third time" }}
repeat = true
expect.history = ["say hello", "Hello there.", "and again", "Hello once more."]
{USAGE}
text = "Hello for the third time."

[[responses]]
when = {{ user_text = "what did it print" }}
repeat = true
expect.history = ["run a command", "It printed from-the-shell."]
{USAGE}
text = "from-the-shell"
"""


@pytest.fixture(scope="module")
def peer() -> Path:
    """The real binary."""
    found = find_peer(None)
    if found is None:
        if os.environ.get("ENGINE_REQUIRE_CONFORMANCE"):
            pytest.fail("the package openai-codex-cli-bin is not installed")
        pytest.skip("the package openai-codex-cli-bin (extra `conformance`) is not installed")
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The script over HTTP; its base URL."""
    file = tmp_path_factory.mktemp("script") / "script.toml"
    file.write_text(SCRIPT)
    with start_process(["models", "serve-scripted", str(file)], file.parent, {}, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        yield server.stdout.readline().decode().strip()
        server.terminate()


@attrs.frozen
class Answer:
    """The JSON lines of a run."""

    lines: list[dict[str, Any]]

    @property
    def thread(self) -> str:
        """The thread it ran in."""
        return str(next(line["thread_id"] for line in self.lines if line["type"] == "thread.started"))

    @property
    def text(self) -> str:
        """What was said last."""
        items = [line["item"] for line in self.lines if line["type"] == "item.completed"]
        return str([item["text"] for item in items if item["type"] == "agent_message"][-1])


@attrs.frozen
class Both:
    """Two programs, one home, one folder."""

    binary: Path
    home: Path
    project: Path

    def theirs(self, *words: str) -> Answer:
        """Runs `exec` of the real program."""
        flags = ["exec", "--json", "--skip-git-repo-check", "-s", "danger-full-access"]
        return self._run([str(self.binary), *flags, *words])

    def ours(self, *words: str) -> Answer:
        """Runs `exec` of this one."""
        with start_process(
            ["exec", "--json", "-s", "danger-full-access", *words],
            self.project,
            {},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            out, err = process.communicate()
        return _answer(process.returncode, out, err)

    def threads(self, *words: str) -> str:
        """Runs `engine threads`."""
        with start_process(
            ["threads", *words], self.project, {}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            out, err = process.communicate()
        assert process.returncode == 0, (out, err)
        return out.decode()

    def file(self, thread: str) -> Path:
        """The rollout of a thread."""
        [path] = self.home.rglob(f"rollout-*{thread}.jsonl")
        return path

    def private(self) -> dict[str, str]:
        """What the real program keeps beside the threads, by digest."""
        files = [path for path in self.home.rglob("*") if path.is_file()]
        return {
            str(path.relative_to(self.home)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if not path.name.startswith("engine_") and "sessions" not in path.parts
        }

    def _run(self, argv: list[str]) -> Answer:
        done = subprocess.run(
            argv, cwd=self.project, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False
        )
        return _answer(done.returncode, done.stdout, done.stderr)


def _answer(code: int, out: bytes, err: bytes) -> Answer:
    assert code == 0, (out.decode(), err.decode())
    return Answer([json.loads(line) for line in out.splitlines()])


@pytest.fixture
def both(peer: Path, served: str, tmp_path: Path) -> Both:
    home = Path(os.environ["CODEX_HOME"])
    (home / "config.toml").write_text(
        'model = "gpt-5.5"\nmodel_provider = "served"\n'
        f'[model_providers.served]\nname = "served"\nbase_url = "{served}"\nstream_max_retries = 0\n'
    )
    return Both(peer, home, make_repository(tmp_path / "project"))


def test_it_resumes_what_was_written_here_and_back(both: Both) -> None:
    first = both.ours("say hello")
    second = both.theirs("resume", first.thread, "and again")
    assert second.thread == first.thread
    assert second.text == "Hello once more."
    third = both.ours("resume", first.thread, "a third time")
    assert (third.thread, third.text) == (first.thread, "Hello for the third time.")
    assert verify_home(both.home).clean


def test_its_threads_are_listed_resumed_and_forked_here(both: Both) -> None:
    first = both.theirs("run a command")
    assert first.text == "It printed from-the-shell."
    before = both.private()
    listed = json.loads(both.threads("list", "--json"))["threads"]
    assert [(thread["thread_id"], thread["title"]) for thread in listed] == [(first.thread, "run a command")]
    assert "run a command" in both.threads("show", first.thread)
    assert "from-the-shell" in both.threads("export", first.thread)
    made = both.threads("fork", first.thread).strip()
    assert both.ours("resume", made, "what did it print").text == "from-the-shell"
    assert both.ours("resume", first.thread, "what did it print").text == "from-the-shell"
    both.threads("rename", first.thread, "theirs")
    assert verify_home(both.home).clean
    after = both.private()
    assert {name: after.get(name) for name in before} == before, "its own files are not touched"
    for thread in (made, first.thread):  # our copy, and its own with a turn of ours in it
        assert both.theirs("resume", thread, "what did it print").text == "from-the-shell"
    assert verify_home(both.home).clean


def test_lines_of_its_format_and_of_later_ones_survive_a_fork_byte_for_byte(both: Both) -> None:
    first = both.theirs("run a command")
    path = both.file(first.thread)
    foreign = [
        b'{"timestamp":"2026-01-01T00:00:00.000Z",  "ordinal":900,"type":"later_line","payload":{"a":[1, 2.50]}}\n',
        b'{"timestamp":"2026-01-01T00:00:00.000Z","type":"event_msg","payload":{"type":"later_event","x":"\\u00e9"}}\n',
        b'{"timestamp":"2026-01-01T00:00:00.000Z","type":"response_item","payload":{"type":"later_item"},"more":{}}\n',
    ]
    with path.open("ab") as file:
        file.writelines(foreign)
    theirs = path.read_bytes().splitlines(keepends=True)
    made = both.threads("fork", first.thread).strip()
    copied = both.file(made).read_bytes().splitlines(keepends=True)
    assert json.loads(copied[0])["payload"]["id"] == made
    # Lines that are understood get the time of the copy, as in its own forks; nothing else of them changes.
    stamp = json.loads(copied[0])["timestamp"]
    known = [line.replace(json.loads(line)["timestamp"].encode(), stamp.encode(), 1) for line in theirs]
    body = copied[1 : 1 + len(theirs)]
    assert [line in (old, new) for line, old, new in zip(body, theirs, known, strict=True)] == [True] * len(theirs)
    assert body[-len(foreign) :] == foreign
    assert both.ours("resume", made, "what did it print").text == "from-the-shell"
    assert path.read_bytes().splitlines(keepends=True) == theirs


def test_archived_here_is_archived_there(both: Both) -> None:
    first = both.ours("say hello")
    both.threads("archive", first.thread)
    done = subprocess.run(
        [str(both.binary), "exec", "--json", "--skip-git-repo-check", "resume", first.thread, "and again"],
        cwd=both.project,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert b"is archived" in done.stderr
    # It remembers what it has seen archived, so it is the one to bring it back.
    subprocess.run([str(both.binary), "unarchive", first.thread], cwd=both.project, capture_output=True, check=True)
    assert first.thread in both.threads("list")
    assert both.theirs("resume", first.thread, "and again").text == "Hello once more."


def test_brought_back_here_is_resumed_there(both: Both) -> None:
    first = both.ours("say hello")
    both.threads("archive", first.thread)
    both.threads("unarchive", first.thread)
    assert both.theirs("resume", first.thread, "and again").text == "Hello once more."
