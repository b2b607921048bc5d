"""The official TypeScript SDK, unmodified, drives `engine`: start, run, stream, resume, schema, failure, abort.

The SDK is installed by the test itself, once per machine, into a folder outside the repository. Without npm the tests
are skipped; with `ENGINE_REQUIRE_CONFORMANCE=1` an installation that fails is a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import make_repository, start_process

pytestmark = pytest.mark.conformance

SDK_VERSION = "0.163.0"
HERE = Path(__file__).parent
PICTURE = HERE.parent / "vectors" / "app_server" / "tools" / "p.png"
USAGE = "usage = { input = 100, cached = 10, output = 20, reasoning = 5 }\n"
SCRIPT = f"""
[[responses]]
when = {{ user_text = "say hello" }}
repeat = true
{USAGE}
steps = [{{ reasoning = "Greet them." }}, {{ text = "Hello from the script." }}]

[[responses]]
when = {{ user_text = "and again" }}
repeat = true
expect.history = ["say hello", "Hello from the script."]
{USAGE}
text = "Hello once more."

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
when = {{ user_text = "answer as json" }}
repeat = true
{USAGE}
text = '{{"answer": 42}}'

[[responses]]
when = {{ user_text = "please fail" }}
repeat = true
failed = "context_length_exceeded"

[[responses]]
when = {{ user_text = "hold on" }}
repeat = true
steps = [{{ commentary = "Wait for it." }}, {{ wait = true }}]
"""

Scenario = Callable[[str], dict[str, Any]]


def cannot(reason: str) -> None:
    """Skips, unless the environment says that this has to run."""
    if os.environ.get("ENGINE_REQUIRE_CONFORMANCE"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def sdk() -> Path:
    """The folder of the installed SDK."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        cannot("npm and node are needed to run the TypeScript SDK")
    assert npm is not None
    cache = Path(tempfile.gettempdir()) / f"session-engine-conformance-{os.getuid()}" / f"codex-sdk-{SDK_VERSION}"
    package = cache / "node_modules" / "@openai" / "codex-sdk"
    if not (package / "dist" / "index.js").exists():
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "package.json").write_text('{"private": true}\n')
        # The binary that comes with the SDK is an optional package; this test is about ours.
        words = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional"]
        environment = {**os.environ, "npm_config_cache": str(cache / "npm-cache")}
        done = subprocess.run(
            [npm, *words, f"@openai/codex-sdk@{SDK_VERSION}"],
            cwd=cache,
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
            check=False,
        )
        if done.returncode:
            cannot(f"the TypeScript SDK can't be installed: {done.stderr.strip()[-500:]}")
    return package


@pytest.fixture(scope="module")
def program() -> str:
    """The console script beside this Python."""
    found = shutil.which("engine", path=str(Path(sys.executable).parent))
    if found is None:
        cannot("the console script `engine` is not installed beside this Python")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A script served over HTTP; its base URL."""
    file = tmp_path_factory.mktemp("script") / "script.toml"
    file.write_text(SCRIPT)
    with start_process(["models", "serve-scripted", str(file)], file.parent, {}, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        yield server.stdout.readline().decode().strip()
        server.terminate()


@pytest.fixture
def scenario(sdk: Path, program: str, model: str, tmp_path: Path) -> Scenario:
    """Runs a scenario of the driver in a fresh repository."""
    home = Path(os.environ["CODEX_HOME"])
    (home / "config.toml").write_text(
        'model = "gpt-5.5"\nmodel_provider = "served"\n'
        f'[model_providers.served]\nname = "served"\nbase_url = "{model}"\nstream_max_retries = 0\n'
    )
    project = make_repository(tmp_path / "project")

    def run(name: str) -> dict[str, Any]:
        done = subprocess.run(
            ["node", str(HERE / "typescript_sdk.mjs"), name],
            capture_output=True,
            text=True,
            env={**os.environ, "SDK": str(sdk), "ENGINE": program, "PROJECT": str(project), "PICTURE": str(PICTURE)},
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        made: dict[str, Any] = json.loads(done.stdout)
        return made

    return run


def recorded() -> list[dict[str, Any]]:
    """The lines of the one session that was recorded."""
    (file,) = Path(os.environ["CODEX_HOME"]).rglob("rollout-*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_turn(scenario: Scenario) -> None:
    made = scenario("run")
    assert made["finalResponse"] == "Hello from the script."
    assert [item["type"] for item in made["items"]] == ["reasoning", "agent_message"]
    assert made["usage"] == {
        "input_tokens": 100,
        "cached_input_tokens": 10,
        "cache_write_input_tokens": 0,
        "output_tokens": 20,
        "reasoning_output_tokens": 5,
    }
    meta = recorded()[0]["payload"]
    assert meta["id"] == made["id"]
    assert (meta["source"], meta["thread_source"], meta["originator"]) == ("exec", "conformance", "codex_sdk_ts")


def test_events_as_they_come(scenario: Scenario) -> None:
    events = scenario("streamed")["events"]
    assert [event["type"] for event in events] == [
        *("thread.started", "turn.started", "item.completed", "item.started", "item.completed", "item.completed"),
        "turn.completed",
    ]
    begun, ended = events[3]["item"], events[4]["item"]
    assert (begun["type"], begun["status"], begun["exit_code"]) == ("command_execution", "in_progress", None)
    assert (ended["id"], ended["status"], ended["exit_code"]) == (begun["id"], "completed", 0)
    assert ended["aggregated_output"].replace("\r\n", "\n") == "from-the-shell\n"
    assert events[-1]["usage"]["input_tokens"] == 200


def test_a_second_turn_of_the_same_thread(scenario: Scenario) -> None:
    made = scenario("twoTurns")
    assert made["second"]["finalResponse"] == "Hello once more."
    assert made["second"]["usage"]["input_tokens"] == 200


def test_resuming_with_an_image(scenario: Scenario) -> None:
    made = scenario("resumed")
    assert made["same"] is True
    assert made["finalResponse"] == "Hello once more."
    assert any("data:image/png;base64," in json.dumps(line) for line in recorded())


def test_a_schema_for_the_answer(scenario: Scenario) -> None:
    assert json.loads(scenario("schema")["finalResponse"]) == {"answer": 42}


def test_a_turn_that_fails(scenario: Scenario) -> None:
    made = scenario("failed")
    assert made["name"] == "Error"
    assert made["message"].startswith("Codex ran out of room in the model's context window.")


def test_a_thread_that_is_not_there(scenario: Scenario) -> None:
    message = scenario("unknownThread")["message"]
    assert "exited with code 1" in message
    assert "no rollout found for thread id 01900000-0000-7000-8000-00000000dead" in message


def test_an_abort_ends_the_turn_and_keeps_the_thread(scenario: Scenario) -> None:
    made = scenario("aborted")
    assert made["name"] == "AbortError"
    assert made["seen"] == ["thread.started", "turn.started", "item.completed"]
    assert recorded()[0]["payload"]["id"] == made["id"]
