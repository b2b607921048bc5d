"""The examples of docs/approvals.md load, run and decide as the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.config.loading import load_config
from engine.protocol.turn_items import AddChange
from tests.session.conftest import Lab

DOCS = (Path(__file__).parents[2] / "docs" / "approvals.md").read_text()


def example(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)
    return str(found)


def test_the_granular_policy(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(example("toml"))
    config = load_config(tmp_path, cwd=tmp_path, env={}, system_folder=tmp_path / "none")
    assert config.approval_policy == engine.GranularApproval(
        sandbox_approval=True, rules=False, mcp_elicitations=False, request_permissions=True
    )


@pytest.fixture
def page() -> Any:
    source = example("python")
    assert source.endswith("trio.run(main)\n")
    names: dict[str, Any] = {}
    exec(compile(source.removesuffix("trio.run(main)\n"), "approvals.md", "exec"), names)
    return names


async def test_the_approver(page: Any) -> None:
    files = engine.AdditionalFileSystem()
    wanted = engine.AdditionalPermissionProfile(engine.AdditionalNetwork(True), files)
    answers: list[tuple[engine.ApprovalRequest, engine.Decision]] = [
        (engine.CommandApproval(call_id="c", turn_id="t", command=("bash", "-c", "date"), cwd="/"), "approved"),
        (engine.CommandApproval(call_id="c", turn_id="t", command=("bash", "-c", "rm -rf x"), cwd="/"), "denied"),
        (engine.PatchApproval(call_id="c", turn_id="t", changes={"/srv/notes/a": AddChange("a")}), "approved"),
        (engine.PatchApproval(call_id="c", turn_id="t", changes={"/etc/a": AddChange("a")}), "denied"),
        (
            engine.PermissionsApproval(call_id="c", turn_id="t", permissions=wanted, cwd="/"),
            engine.PermissionGrant(engine.AdditionalPermissionProfile(None, files), "turn"),
        ),
        (engine.ToolApproval(call_id="c", turn_id="t", tool="lookup", arguments={}), "approved"),
        (engine.ToolApproval(call_id="c", turn_id="t", tool="deploy", arguments={}), "denied"),
    ]
    for request, decision in answers:
        assert await page["approve"](request) == decision


async def test_the_program(
    page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Lab(tmp_path)
    monkeypatch.setenv("CODEX_HOME", str(lab.home))
    await page["main"]()
    assert capsys.readouterr().out == "Hello.\n"


def test_every_decision_and_request_is_on_the_page() -> None:
    for name in engine.__all__:
        if name.endswith("Approval") and name != "GranularApproval":
            assert f"| `{name}` |" in DOCS, name
    for word in ("approved", "approved_for_session", "denied", "timed_out", "abort"):
        assert f'`"{word}"`' in DOCS, word
