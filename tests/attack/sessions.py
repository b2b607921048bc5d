"""A session in `workspace-write` whose model does its worst, and what it must not have changed."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

import engine
from engine.models.scripts import ScriptedResponse, call, patch, reply, response
from engine.protocol.settings import ApprovalPolicy
from engine.tools.approvals import ApprovalRequest, Decision

__all__ = ["HostileModel", "add_file", "run"]


def run(script: str, **arguments: object) -> ScriptedResponse:
    """A command by `exec_command`; its streams are one, and its exit code says nothing."""
    return response(call("exec_command", **{"cmd": script, "yield_time_ms": 30_000, "login": False, **arguments}))


def add_file(path: str, text: str = "x") -> ScriptedResponse:
    """A patch that makes a file."""
    return response(patch(f"*** Begin Patch\n*** Add File: {path}\n+{text}\n*** End Patch"))


@attrs.define(eq=False)
class HostileModel:
    """Runs turns made of attacks. `home` is the engine's; nobody agrees to anything, unless `answer` says so."""

    home: Path
    workspace: Path
    answer: Decision = "denied"
    asked: list[ApprovalRequest] = attrs.field(factory=list)
    outputs: list[str] = attrs.field(factory=list)

    async def attack(
        self, *attacks: ScriptedResponse, approval_policy: ApprovalPolicy = "never", **settings: object
    ) -> list[str]:
        """One turn with all of them; what each call gave."""
        async with self.session(*attacks, approval_policy=approval_policy, **settings) as session:
            await session.run("go")
        return self.outputs

    @asynccontextmanager
    async def session(
        self, *attacks: ScriptedResponse, approval_policy: ApprovalPolicy = "never", **settings: object
    ) -> AsyncIterator[engine.Session]:
        """The session itself; `outputs` are there when a turn of it is over, and the home is as it was at the end."""
        before = self._home_state()
        model = engine.ScriptedModel([*attacks, reply("done")])
        chosen = engine.SessionSettings(
            cwd=self.workspace,
            approval_policy=approval_policy,
            **{"sandbox": "workspace-write", **settings},  # type: ignore[arg-type]
        )
        async with engine.open_engine(home=self.home, model=model) as opened:
            async with opened.session(chosen, approve=self._approve) as session:
                yield session
                self.outputs = _outputs(model.requests[-1].body["input"])
        assert self._home_state() == before

    async def _approve(self, request: ApprovalRequest) -> Decision:
        self.asked.append(request)
        return self.answer

    def _home_state(self) -> dict[str, str]:
        """What decides what sessions may do; the recorded sessions have to be there and grow."""
        kept = ("config.toml", "rules", "auth.json", "AGENTS.md", "hooks", "skills")
        found = {}
        for path in self.home.rglob("*"):
            name = path.relative_to(self.home).as_posix()
            if name.startswith(kept):
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        return found


def _outputs(items: object) -> list[str]:
    assert isinstance(items, Sequence)
    kinds = ("function_call_output", "custom_tool_call_output")
    return [str(item["output"]) for item in items if item["type"] in kinds]
