"""The product's face: what is exported, what importing costs in modules, and that a user's file type-checks."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import engine

# A name that comes or goes is a change users see: it belongs into the CHANGELOG.
# fmt: off
PUBLIC: Final = [
    "AdditionalFileSystem", "AdditionalNetwork", "AdditionalPermissionProfile", "ApprovalRequest", "Approver",
    "AttestationProvider", "CollaborationMode", "CollaborationSettings", "CommandApproval", "CompactionFacts",
    "CompactionHooks", "Config", "ConfigEdit", "ConfigError", "ConfigWriteError", "ConfigWritten", "ConflictError",
    "ContextWindowExceeded", "Decision", "Engine", "EngineClosed", "EngineError", "EnvironmentSelection",
    "Event", "EventMsg", "EventStream", "EventsLost", "ExecPolicyAmendment", "ExternalLogin", "ExternalTokens",
    "GitPatch", "GranularApproval", "ImageInput", "InMemoryThreadStore", "InputImage", "InputText",
    "InvalidRequest", "ItemPage", "Layer", "LayerStack", "ListItems", "ListThreads", "ListTurns",
    "LocalImageInput", "Login", "LoginError", "MetadataPatch", "MissingCredential", "Model", "ModelError",
    "ModelInfo", "PatchApproval", "PatchError", "PermissionGrant", "PermissionsApproval", "ProcessError",
    "ProtocolError", "RemoteEnvironment", "Requirements", "ScriptError", "ScriptedModel", "Session", "SessionClosed",
    "SessionCrashed", "SessionSettings", "SessionStartError", "SettingsUpdate", "Span", "SpawnEdge",
    "StartupTrace", "StoreError", "StoreUnsupported", "StoredHistory", "StoredItem", "StoredThread",
    "TextInput", "ThreadId", "ThreadItem", "ThreadNotFound", "ThreadPage", "ThreadQuery", "ThreadStore",
    "ThreadTurn", "Threads", "TokenUsage", "Tool", "ToolApproval", "ToolDefinitionError", "Turn", "TurnFailed",
    "TurnId", "TurnInterrupted", "TurnPage", "TurnResult", "UnknownProvider", "open_engine", "open_threads",
    "refuse", "tool",
]
# fmt: on

USER_FILE = """
import engine
import trio

@engine.tool(needs_approval=True)
async def lookup(key: str, limit: int = 10) -> list[str]:
    \"\"\"Looks keys up.\"\"\"
    return [key] * limit

async def approve(request: engine.ApprovalRequest, /) -> engine.Decision:
    match request:
        case engine.ToolApproval(tool="lookup"):
            return "approved"
    return "denied"

async def main() -> None:
    async with engine.open_engine(model=engine.ScriptedModel(["hello"])) as host:
        settings = engine.SessionSettings(cwd=".", sandbox="danger-full-access", approval_policy="never")
        async with host.session(settings, tools=[lookup], approve=approve) as session:
            async with session.turn("Say hello") as turn:
                async for event in turn:
                    print(event.id, event.msg.type)
                result: engine.TurnResult = await turn.result()
            print(result.final_message, result.total_usage.total_tokens, session.startup_trace.duration)
            resumed: engine.Session = await host.resume_session(session.thread_id)
            await resumed.run("again", engine.SettingsUpdate(model="gpt-5.4"))

trio.run(main)
"""


def test_the_export_list_is_what_it_is() -> None:
    assert sorted(engine.__all__) == sorted(["__version__", *PUBLIC])
    assert set(PUBLIC) <= set(dir(engine))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(engine, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value), f"{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        _ = engine.nope


@pytest.mark.parametrize("name", ["Engine", "Session", "Turn"])
def test_handles_have_no_public_constructor(name: str) -> None:
    with pytest.raises(TypeError, match="use `"):
        getattr(engine, name)()


def modules_after(code: str) -> set[str]:
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(shown.stdout.split())


def test_importing_the_package_loads_nothing_of_it() -> None:
    loaded = {name for name in modules_after("import engine") if name.startswith(("engine.", "_speedups", "trio"))}
    assert loaded == set()


RUNNING = """
import engine, tempfile, trio
async def main():
    async with engine.open_engine(home=tempfile.mkdtemp(), model=engine.ScriptedModel(["hello"])) as host:
        async with host.session() as session:
            {doing}
trio.run(main)
"""


def test_a_running_session_never_loads_asyncio_nor_http() -> None:
    loaded = modules_after(RUNNING.format(doing='await session.run("hi")'))
    assert not loaded & {"asyncio", "httpx2", "httpcore2", "h11", "rich", "tomlkit", "tree_sitter"}


def test_a_start_never_loads_sqlite() -> None:
    assert "sqlite3" not in modules_after(RUNNING.format(doing="pass"))  # it comes with what is worth indexing


def test_a_users_file_passes_mypy_strict(tmp_path: Path) -> None:
    file = tmp_path / "user_file.py"
    file.write_text(USER_FILE)
    source = str(Path(engine.__file__).parent.parent)
    # An editable install is found by an import hook, which type checkers don't run.
    environment = dict(os.environ) if "site-packages" in source else {**os.environ, "MYPYPATH": source}
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(file)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_example_in_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    block = readme.split("<!-- example -->")[1].split("```python\n")[1].split("```")[0]
    assert len(block.strip().splitlines()) <= 12
    (tmp_path / "example.py").write_text(block)
    shown = subprocess.run([sys.executable, "example.py"], capture_output=True, text=True, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip()
