"""Replays recorded `exec` runs: real process, mock model server, fresh home and project (README in `app_server/`).

A transcript that resumes a thread of an earlier one has no history of its own; the thread it needs is made first by
one extra run, whose usage is what the recorded running total says the thread had.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.mock_responses import MockResponses, Reply, message_reply, serve_responses
from tests.vectors.placeholders import Comparison

__all__ = ["ExecTranscript", "Run", "read_transcript", "replay"]

TOOLS = Path(__file__).parent / "app_server" / "tools"
TIMEOUT = 60.0
USAGE_KEYS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens")
NO_GIT = "Not inside a trusted directory"
OWN_DETAIL = re.compile(r"(?P<kept>.*(?:is not valid JSON|Failed to read output schema file [^:]*): ).*")


@dataclass
class Run:
    """One process: its words and stdin, and what was recorded of it."""

    argv: list[str]
    stdin: str | None
    stdout: list[Any] = field(default_factory=list)
    stderr: str = ""
    exit_code: int = 0

    @property
    def json_mode(self) -> bool:
        return "--json" in self.argv or "--experimental-json" in self.argv

    @property
    def resumed(self) -> str | None:
        """The word after `resume`: an id, a name or `--last`."""
        at = self.argv.index("resume") if "resume" in self.argv else None
        return None if at is None or at + 1 == len(self.argv) else self.argv[at + 1]

    @property
    def last_message_file(self) -> Path | None:
        for flag in ("-o", "--output-last-message"):
            if flag in self.argv:
                return Path(self.argv[self.argv.index(flag) + 1])
        return None

    @property
    def final_usage(self) -> Mapping[str, int] | None:
        if self.json_mode and self.stdout and self.stdout[-1].get("type") == "turn.completed":
            usage: Mapping[str, int] = self.stdout[-1]["usage"]
            return usage
        return None

    @property
    def last_message(self) -> str:
        """What `-o` must have written."""
        if not self.json_mode:
            return "\n".join(self.stdout)
        items = [line["item"] for line in self.stdout if line["type"] == "item.completed"]
        texts = [item["text"] for item in items if item["type"] == "agent_message"]
        return str(texts[-1]) if texts else ""


@dataclass
class ExecTranscript:
    """A file: configuration, replies of the model server, runs; `older` marks one recorded with 0.131."""

    config: str
    replies: list[Reply]
    runs: list[Run]
    older: bool


def read_transcript(file: Path, root: Path) -> ExecTranscript:
    """The transcript in `file`, with `/ws` put below `root`."""
    made = ExecTranscript("", [], [], ".v0131" in file.name)
    text = re.sub(r"/ws(?![\w.-])", str(root), file.read_text())
    for line in map(json.loads, text.splitlines()):
        match line["dir"]:
            case "config":
                made.config = line["toml"]
            case "model":
                made.replies.append(Reply.of(line["reply"]))
            case "argv":
                made.runs.append(Run(line["argv"], line["stdin"]))
            case "stdout":
                made.runs[-1].stdout.append(line["msg"] if "msg" in line else line["text"])
            case "stderr":
                made.runs[-1].stderr += line["text"]
            case "exit":
                made.runs[-1].exit_code = line["code"]
    return made


def replay(file: Path, root: Path) -> tuple[object, object]:
    """Runs the transcript below the empty directory `root`; (expected, got) of what differs, both empty if nothing."""
    root = root.resolve()
    transcript = read_transcript(file, root)
    lay_out(transcript, file, root)
    with serve_responses([]) as mock:
        config = transcript.config.replace("PORT", str(mock.port))
        (root / "home" / "config.toml").write_text(config)
        comparison = Comparison(older=transcript.older)
        seed(transcript, mock, root, comparison)
        mock.replies = list(transcript.replies)
        for run in transcript.runs:
            check(run, execute(run, mock, root), root, comparison)
        if mock.replies or mock.unanswered:
            answered = len(transcript.replies) - len(mock.replies)
            comparison.differ("requests", len(transcript.replies), answered + mock.unanswered)
    return comparison.expected, comparison.got


def lay_out(transcript: ExecTranscript, file: Path, root: Path) -> None:
    """Home, project, tools. Only a run that expects to be refused for it gets a project without a repository."""
    for name in ("home", "proj", "user"):
        (root / name).mkdir()
    (root / "proj" / "README.md").write_text("hello\n")
    if not any(NO_GIT in run.stderr for run in transcript.runs):
        subprocess.run(["git", "init", "-q", str(root / "proj")], check=True, env=environment(root))
    beside = file.parent / "tools"
    shutil.copytree(beside if beside.is_dir() else TOOLS, root / "tools")


def environment(root: Path) -> dict[str, str]:
    """What the process sees: nothing of the user's."""
    kept = (
        "PATH",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "PYTHONPATH",
        "VIRTUAL_ENV",
        "ENGINE_PURE_PYTHON",
        "COVERAGE_PROCESS_START",
    )
    own = {"HOME": str(root / "user"), "CODEX_HOME": str(root / "home"), "SHELL": "/bin/bash", "ENGINE_DEBUG": ""}
    return {name: os.environ[name] for name in kept if name in os.environ} | own | {"GIT_CONFIG_NOSYSTEM": "1"}


@dataclass(frozen=True)
class Finished:
    """What a process left."""

    stdout: str
    stderr: str
    exit_code: int


def execute(run: Run, mock: MockResponses, root: Path) -> Finished:
    """Runs one process; where the server holds a stream, the process gets the interrupt it was recorded with."""
    process = subprocess.Popen(
        [sys.executable, "-m", "engine", *run.argv],
        cwd=root / "proj",
        env=environment(root),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    over = threading.Event()

    def interrupt() -> None:
        while not over.is_set():
            if mock.waiting.wait(0.05):
                process.send_signal(signal.SIGINT)
                return

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    try:
        stdout, stderr = process.communicate((run.stdin or "").encode(), TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        stderr += f"\nkilled: still running after {TIMEOUT:.0f} s".encode()
    finally:
        over.set()
        watcher.join()
    return Finished(stdout.decode(), stderr.decode(), process.returncode)


def seed(transcript: ExecTranscript, mock: MockResponses, root: Path, comparison: Comparison) -> None:
    """Makes the thread that the first run resumes, if the recording shows that there was one."""
    first = transcript.runs[0]
    before = earlier_usage(transcript, first)
    if first.resumed is None or first.exit_code != 0 or (first.resumed == "--last" and not any(before.values())):
        return
    if first.resumed != "--last" and not any(line.get("thread_id") == first.resumed for line in first.stdout):
        return
    mock.replies = [message_reply("Before.", usage=before, number=0)]
    words = ["exec", "--json", "--sandbox", "read-only", "before"]
    made = execute(Run(words, ""), mock, root)
    if made.exit_code != 0:
        comparison.differ("the run that makes the thread to resume", 0, made.stderr or made.exit_code)
        return
    thread = json.loads(made.stdout.splitlines()[0])["thread_id"]
    if first.resumed != "--last":
        comparison.pair(first.resumed, thread)
        first.argv = [thread if word == first.resumed else word for word in first.argv]


def earlier_usage(transcript: ExecTranscript, run: Run) -> dict[str, int]:
    """The running total a recorded run ended with, less what its own replies cost."""
    total = dict(run.final_usage or {})
    for reply in transcript.replies:
        for event in reply.events:
            if not isinstance(event, str) and event.get("type") == "response.completed":
                usage = event["response"].get("usage") or {}
                own = (
                    usage.get("input_tokens", 0),
                    (usage.get("input_tokens_details") or {}).get("cached_tokens", 0),
                    usage.get("output_tokens", 0),
                    (usage.get("output_tokens_details") or {}).get("reasoning_tokens", 0),
                )
                for key, tokens in zip(USAGE_KEYS, own, strict=True):
                    total[key] = total.get(key, 0) - tokens
    return {key: max(0, total.get(key, 0)) for key in USAGE_KEYS}


# --- comparing ---------------------------------------------------------------------------------------


def check(run: Run, done: Finished, root: Path, comparison: Comparison) -> None:
    """Compares everything a run left with what was recorded."""
    if run.json_mode:
        check_lines(run.stdout, done.stdout, comparison)
    else:
        comparison.same("stdout", "".join(f"{line}\n" for line in run.stdout), done.stdout)
    if run.json_mode or run.exit_code:
        comparison.same("stderr", without_own_detail(run.stderr), without_own_detail(done.stderr))
    else:
        check_progress(run.stderr, done.stderr, comparison)
    comparison.same("exit", run.exit_code, done.exit_code)
    check_files(run, root, comparison)


def check_lines(expected: Sequence[Mapping[str, Any]], stdout: str, comparison: Comparison) -> None:
    try:
        got = [json.loads(line) for line in stdout.splitlines()]
    except ValueError:
        comparison.differ("stdout", "JSON lines", stdout)
        return
    comparison.same_lines("stdout", list(map(comparable, expected)), list(map(comparable, got)))


def comparable(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """A line without the engine's own values: the shell around a command and its quoting."""
    item = line.get("item")
    if isinstance(item, dict) and item.get("type") == "command_execution":
        words = shlex.split(item["command"])
        return {**line, "item": {**item, "command": words[-1] if words else ""}}
    return line


def without_own_detail(text: str) -> str:
    """Error texts of the operating system or a parser are the engine's own."""
    return "\n".join(OWN_DETAIL.sub(r"\g<kept>", line) for line in text.splitlines())


def check_progress(expected: str, got: str, comparison: Comparison) -> None:
    """What a person sees: every recorded line in order but the product's name; an engine may show more."""
    wanted = [line for line in expected.splitlines() if not re.fullmatch(r"[\w ]+ v\d+\.\d+\.\d+", line)]
    shown = got.splitlines()
    at = 0
    for line in wanted:
        found = next((n for n in range(at, len(shown)) if comparison.matches(line, shown[n])), None)
        if found is None:
            comparison.differ("stderr line", line, shown[at:])
            return
        at = found + 1


def check_files(run: Run, root: Path, comparison: Comparison) -> None:
    """`-o` is written only by a completed turn, byte for byte; an ephemeral run leaves no session file."""
    file = run.last_message_file
    if file is not None:
        wanted = run.last_message if run.exit_code == 0 else None
        comparison.same("-o file", wanted, file.read_text() if file.exists() else None)
    sessions = list((root / "home").rglob("rollout-*.jsonl"))
    if "--ephemeral" in run.argv:
        comparison.same("session files", [], [path.name for path in sessions])
    elif run.exit_code == 0:
        comparison.same("has a session file", True, bool(sessions))
