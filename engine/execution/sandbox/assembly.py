"""From a plan and a command to what has to be started: arguments, descriptors, placeholders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

from engine.execution._link import interpreter
from engine.execution.process import ExtraFiles
from engine.execution.sandbox import bubblewrap
from engine.execution.sandbox.capability import ARGUMENTS_FD, FILTER_FD, Capability, Launcher
from engine.execution.sandbox.checking import PROGRAMS, check_arguments, read_mounts
from engine.execution.sandbox.disk import ObservedDisk
from engine.execution.sandbox.errors import SandboxUnavailable
from engine.execution.sandbox.landlock import encode_stage, stage_source
from engine.execution.sandbox.layout import Layout
from engine.execution.sandbox.memory_files import open_memory_file
from engine.execution.sandbox.placeholders import Placeholders
from engine.execution.sandbox.plans import Enforcement, Plan
from engine.execution.sandbox.resolving import Resolver
from engine.execution.sandbox.seccomp import network_filter
from engine.permissions.view import DiskView
from engine.protocol.paths import normal_path
from engine.protocol.profiles import NetworkAccess
from engine.records import define, frozen

__all__ = ["Assembly", "SandboxedCommand"]

SEATBELT_VARIABLE = "CODEX_SANDBOX"


@define(eq=False)
class SandboxedCommand:
    """What to start, with `Supervisor.spawn(argv, cwd=..., env=env, files=files)`, `run_command` or a terminal.

    Use it as `with command:` around the start, which must happen inside. `enforcement` says what holds the command:
    `none` where the policy asks for nothing, `external` where it says that somebody else does.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = attrs.field(repr=False)
    enforcement: Enforcement
    files: ExtraFiles = attrs.field(factory=ExtraFiles, repr=False)
    _placeholders: Placeholders = attrs.field(factory=Placeholders, repr=False)

    @property
    def sandboxed(self) -> bool:
        """Whether a sandbox of ours holds it, so that a failure may be a refusal (`denial`)."""
        return self.enforcement not in ("none", "external")

    def close(self) -> None:
        """Close our descriptors; what the supervisor has not taken over is removed. Idempotent."""
        fds, self.files.fds = self.files.fds, {}
        for fd in fds.values():
            os.close(fd)
        if self.files.kept_by_supervisor:
            self._placeholders.close()
        else:
            self._placeholders.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@frozen
class Assembly:
    """The last steps for one start; nothing here waits."""

    argv: Sequence[str]
    cwd: str
    env: dict[str, str]
    network: NetworkAccess
    tty: bool
    capability: Capability

    def command(self, plan: Plan) -> SandboxedCommand:
        """The command under a plan. Raises what `Sandbox.prepare` does; then nothing is left."""
        if plan.profile is not None:
            env = {**self.env, SEATBELT_VARIABLE: "seatbelt"}
            return SandboxedCommand(tuple(plan.profile.argv(self.argv)), env, "seatbelt")
        return self._bubblewrap(plan, plan.launcher) if plan.launcher is not None else self._landlock(plan)

    def _bubblewrap(self, plan: Plan, launcher: Launcher) -> SandboxedCommand:
        placeholders = Placeholders()
        fds: dict[int, int] = {}
        try:
            for mount in plan.layout.mounts if plan.layout is not None else ():
                if mount.kind in ("placeholder_folder", "placeholder_file"):
                    placeholders.make(mount.path, is_folder=mount.kind == "placeholder_folder")
            # Without a shell in view it goes without: its keys end the whole command then.
            takes_terminal = self.tty and plan.layout is not None and plan.layout.shows(bubblewrap.TAKE_TERMINAL[0])
            command = [
                *(bubblewrap.TAKE_TERMINAL if takes_terminal else ()),
                *self._check(plan.layout, launcher, placeholders.left_out),
                *self.argv,
            ]
            argv = [launcher.path, "--args", str(ARGUMENTS_FD), "--", *command]
            arguments = self._arguments(plan.layout, launcher, placeholders.left_out)
            if takes_terminal:
                arguments.append(bubblewrap.OWN_LEADER)
            fds[ARGUMENTS_FD] = open_memory_file(bubblewrap.encode_arguments(arguments, command_length=len(argv)))
            if self.network == "restricted":
                assert self.capability.machine is not None
                fds[FILTER_FD] = open_memory_file(network_filter("restricted", self.capability.machine))
        except BaseException:
            placeholders.release()
            for fd in fds.values():
                os.close(fd)
            raise
        files = ExtraFiles(
            fds,
            tuple(placeholders.held),
            sealed_devices=plan.layout is not None,
            own_session=takes_terminal,
        )
        return SandboxedCommand(tuple(argv), {}, "bubblewrap", files, placeholders)

    def _check(self, layout: Layout | None, launcher: Launcher, left_out: Sequence[str]) -> list[str]:
        """What looks at the mounts before the command runs, where they may not be what they should."""
        if layout is None or not layout.has_loose_mounts or not launcher.proc or not all(map(layout.shows, PROGRAMS)):
            return []
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as exc:
            raise SandboxUnavailable(f"/proc/self/mountinfo can't be read: {exc.strerror}") from exc
        return check_arguments(layout, read_mounts(mountinfo), without=left_out)

    def _arguments(self, layout: Layout | None, launcher: Launcher, left_out: Sequence[str]) -> list[str]:
        restricted = self.network == "restricted"
        if layout is None:
            arguments = [*bubblewrap.WHOLE_DISK, *bubblewrap.network_arguments()]
        else:
            arguments = [
                *bubblewrap.layout_arguments(layout, proc=launcher.proc, root=os.geteuid() == 0, without=left_out),
                *bubblewrap.session_arguments(network=not restricted),
            ]
        canonical = Resolver(ObservedDisk(DiskView())).resolve(normal_path(self.cwd)).path
        if canonical != self.cwd:
            arguments += ("--chdir", canonical)
        if restricted:
            arguments += ("--seccomp", str(FILTER_FD))
        return [*arguments, *bubblewrap.environment_arguments(self.env)]

    def _landlock(self, plan: Plan) -> SandboxedCommand:
        python, machine = interpreter(), self.capability.machine
        if python is None or machine is None:
            raise SandboxUnavailable("the Landlock stage needs a Python interpreter, and sys.executable is none")
        stage = encode_stage(
            self.argv,
            self.env,
            rules=plan.rules,
            network=self.network == "enabled",
            support=self.capability.landlock,
            machine=machine,
        )
        argv = (python, "-I", "-S", "-c", stage_source(), str(ARGUMENTS_FD))
        return SandboxedCommand(argv, {}, "landlock", ExtraFiles({ARGUMENTS_FD: open_memory_file(stage)}))
