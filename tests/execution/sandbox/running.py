"""Commands in real sandboxes, as this user and, where that is root, as an unprivileged one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import pytest

from engine.execution.oneshot import CommandResult, run_command
from engine.execution.sandbox.launcher import Sandbox
from engine.execution.supervisor import Supervisor
from engine.permissions.legacy import from_legacy_for_cwd
from engine.permissions.view import DiskView
from engine.protocol.profiles import (
    Access,
    FileSystemEntry,
    FileSystemSandboxPolicy,
    GlobPath,
    LiteralPath,
    NetworkAccess,
    SpecialPath,
    WorkspaceWrite,
)

from ..processes import environment

__all__ = ["NOBODY", "READ_ALL", "Runner", "policy", "require_sandbox", "workspace_write"]

NOBODY = 65534
READ_ALL: tuple[str, Access] = (":root", "read")


def policy(*entries: tuple[str, Access], levels: int | None = None) -> FileSystemSandboxPolicy:
    """`:root` and the like are symbols, texts with a star globs, all else paths."""
    made = []
    for name, access in entries:
        path: SpecialPath | LiteralPath | GlobPath
        if name in (":root", ":minimal", ":tmpdir", ":slash_tmp", ":project_roots"):
            path = SpecialPath.of(name[1:])  # type: ignore[arg-type]
        else:
            path = GlobPath(name) if "*" in name else LiteralPath(name)
        made.append(FileSystemEntry(path, access))
    return FileSystemSandboxPolicy("restricted", levels, tuple(made))


def workspace_write(cwd: Path, *roots: Path, tmp: bool = False) -> FileSystemSandboxPolicy:
    """What a session may do by default in `cwd`; without the temporary folders unless asked for."""
    legacy = WorkspaceWrite(
        writable_roots=tuple(map(str, roots)), exclude_slash_tmp=not tmp, exclude_tmpdir_env_var=not tmp
    )
    return from_legacy_for_cwd(legacy, str(cwd), DiskView())


async def require_sandbox(sandbox: Sandbox) -> None:
    """Skip the test where bubblewrap can't work."""
    capability = await sandbox.capability()
    if not capability.usable_launchers:
        pytest.skip(capability.why_no_launcher())


@attrs.define
class Runner:
    """Runs commands in `cwd` under a policy. With `user` they run as that user, sandbox and all."""

    supervisor: Supervisor
    sandbox: Sandbox
    cwd: Path
    policy: FileSystemSandboxPolicy
    network: NetworkAccess = "restricted"
    user: int | None = None

    async def run(
        self, *argv: str, env: Mapping[str, str] | None = None, timeout_ms: int | None = 30_000
    ) -> CommandResult:
        """A command to its end."""
        with await self.sandbox.prepare(
            argv,
            file_system=self.policy,
            network=self.network,
            policy_cwd=str(self.cwd),
            cwd=str(self.cwd),
            env=environment(HOME="/nonexistent") if env is None else env,
        ) as command:
            return await run_command(
                self.supervisor,
                self.as_user(command.argv),
                cwd=str(self.cwd),
                env=command.env,
                files=command.files,
                timeout_ms=timeout_ms,
            )

    async def sh(self, script: str, *arguments: str) -> CommandResult:
        """A shell script to its end."""
        return await self.run("/bin/sh", "-c", script, "sh", *arguments)

    def as_user(self, argv: Sequence[str]) -> Sequence[str]:
        """The arguments, started as `user`."""
        if self.user is None:
            return argv
        program = shutil.which("setpriv")
        if os.geteuid() != 0 or program is None:
            pytest.skip("only root can become another user, with setpriv")
        return [program, f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "--", *argv]
