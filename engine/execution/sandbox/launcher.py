"""From a command and its permissions to what has to be started instead (tools.md 6.1, 6.2).

One `Sandbox` per engine. A plan is kept for each policy and reused as long as the disk answers every question as it
did when the plan was made; what is left for each start is a few system calls.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal, Self, final

import attrs
import trio

from engine.execution._link import interpreter
from engine.execution.process import ExtraFiles
from engine.execution.sandbox import bubblewrap
from engine.execution.sandbox.capability import ARGUMENTS_FD, FILTER_FD, FIRST_PLACE_FD, Capability, Launcher, probe
from engine.execution.sandbox.disk import ObservedDisk
from engine.execution.sandbox.errors import SandboxPolicyError, SandboxUnavailable
from engine.execution.sandbox.globs import expand_globs
from engine.execution.sandbox.landlock import Rule, encode_stage, landlock_rules, stage_source
from engine.execution.sandbox.layout import Layout, arrange
from engine.execution.sandbox.memory_files import open_memory_file
from engine.execution.sandbox.placeholders import Placeholders
from engine.execution.sandbox.resolving import is_below
from engine.execution.sandbox.rules import FileSystemRules, file_system_rules
from engine.execution.sandbox.seatbelt import SeatbeltProfile, seatbelt_profile
from engine.execution.sandbox.seccomp import network_filter
from engine.execution.sandbox.steady import open_steady
from engine.execution.supervisor import MAX_EXTRA_FDS, Supervisor
from engine.permissions.additional import needs_platform_sandbox
from engine.permissions.view import DiskView
from engine.protocol.profiles import FileSystemSandboxPolicy, NetworkAccess

__all__ = ["NETWORK_VARIABLE", "Enforcement", "Sandbox", "SandboxedCommand"]

# Tells a command that it has no network (tools.md 3.1).
NETWORK_VARIABLE = "CODEX_SANDBOX_NETWORK_DISABLED"
SEATBELT_VARIABLE = "CODEX_SANDBOX"

Enforcement = Literal["none", "external", "bubblewrap", "landlock", "seatbelt"]
_MOST_PLANS = 64
_MOST_PLACES = MAX_EXTRA_FDS - 60  # the rest is for placeholders


@attrs.define(eq=False)
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


@attrs.frozen
class _Plan:
    """How a policy is enforced, as long as `disk` says the same."""

    disk: ObservedDisk
    enforcement: Enforcement
    layout: Layout | None = None  # None: every file may be written
    launcher: Launcher | None = None
    rules: tuple[Rule, ...] | None = None
    profile: SeatbeltProfile | None = None
    has_globs: bool = False


@attrs.frozen
class _Request:
    """What a plan depends on besides the disk."""

    file_system: FileSystemSandboxPolicy
    network: NetworkAccess
    policy_cwd: str


@final
class Sandbox:
    """Runs commands under policies. `environment` is the engine's own: where programs are looked up, what `tmpdir` is.

    `protected` are paths that no policy makes writable by accident: only an entry for just that place does.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        environment: Mapping[str, str] | None = None,
        protected: Sequence[str] = (),
    ) -> None:
        self._supervisor = supervisor
        self._environment = os.environ if environment is None else environment
        self._view = DiskView(self._environment)
        self._protected = tuple(os.path.realpath(path) for path in protected)
        self._capability: Capability | None = None
        self._probing = trio.Lock()
        self._plans: OrderedDict[_Request, _Plan] = OrderedDict()

    async def capability(self) -> Capability:
        """What this machine can do; found out at the first call, some ten ms. Raises `ProcessError`."""
        async with self._probing:
            if self._capability is None:
                self._capability = await probe(self._supervisor, self._environment)
        return self._capability

    async def prepare(
        self,
        argv: Sequence[str],
        *,
        file_system: FileSystemSandboxPolicy,
        network: NetworkAccess,
        policy_cwd: str,
        cwd: str,
        env: Mapping[str, str],
        tty: bool = False,
    ) -> SandboxedCommand:
        """What to start for a command that is to run in `cwd` under a policy, whose symbols mean `policy_cwd`.

        Both are absolute; `env` is complete; `tty` says that it will be started with a terminal. A policy that asks for
        no sandbox gets none; any other gets one or an error: `SandboxUnavailable`, `SandboxPolicyError`, `SpawnError`
        for arguments that can't be passed. Makes placeholders on the disk, which the command's end removes.
        Cancellation leaves nothing behind.
        """
        env = {**env, NETWORK_VARIABLE: "1"} if network == "restricted" else dict(env)
        if not needs_platform_sandbox(file_system, network, managed_requirements=False):
            return SandboxedCommand(tuple(argv), env, "external" if file_system.kind == "external-sandbox" else "none")
        capability = await self.capability()
        plan = await self._plan(_Request(file_system, network, policy_cwd), capability)
        # From here on without an await, so that nothing can be lost.
        return _Assembly(argv, cwd, env, network, tty, capability).command(plan)

    async def _plan(self, request: _Request, capability: Capability) -> _Plan:
        cached = self._plans.get(request)
        given_up = threading.Event()

        def work() -> _Plan:
            if cached is not None and not cached.has_globs and cached.disk.still_holds():
                return cached
            return self._make_plan(request, capability, given_up)

        try:
            plan = await trio.to_thread.run_sync(work, abandon_on_cancel=True)
        finally:
            given_up.set()
        self._plans[request] = plan
        self._plans.move_to_end(request)
        while len(self._plans) > _MOST_PLANS:
            self._plans.popitem(last=False)
        return plan

    def _make_plan(self, request: _Request, capability: Capability, given_up: threading.Event) -> _Plan:
        disk = ObservedDisk(self._view)
        rules = file_system_rules(request.file_system, request.policy_cwd, disk)
        if capability.seatbelt:
            layout = None if rules.full_write else arrange(rules, disk, protected=self._protected)
            network = request.network == "enabled"
            profile = seatbelt_profile(layout, unreadable_globs=rules.unreadable_globs, network=network)
            return _Plan(disk, "seatbelt", layout, profile=profile)
        if capability.system != "linux":
            raise SandboxUnavailable(f"there is no sandbox for {capability.system}")
        if capability.machine is None:
            raise SandboxUnavailable(capability.why_no_launcher())
        trusted = _trusted(capability.usable_launchers, rules, request.policy_cwd)
        launcher = trusted[0] if trusted else None
        if rules.full_write:
            return _Plan(disk, "bubblewrap" if launcher else "landlock", launcher=launcher)
        denied = expand_globs(rules, lambda: not given_up.is_set())

        def arranged(launcher: Launcher | None) -> Layout:
            own_files = launcher.own_files if launcher is not None else ()
            return arrange(rules, disk, denied_files=denied, protected=(*self._protected, *own_files))

        layout = arranged(launcher)
        if launcher is not None:
            if layout.has_loose_mounts and not launcher.binds_descriptors:
                # Names are good enough where nobody has the better program: whoever can change what is behind one
                # must have been started under another policy.
                launcher = next((other for other in trusted if other.binds_descriptors), launcher)
                layout = arranged(launcher)
            return _Plan(disk, "bubblewrap", layout, launcher, has_globs=bool(rules.unreadable_globs))
        try:
            return _Plan(disk, "landlock", layout, rules=landlock_rules(layout, capability.landlock))
        except SandboxUnavailable as exc:
            raise SandboxUnavailable(
                f"this machine can't enforce the sandbox policy. bubblewrap: {capability.why_no_launcher()}. {exc}"
            ) from None


def _trusted(launchers: Sequence[Launcher], rules: FileSystemRules, policy_cwd: str) -> list[Launcher]:
    """Those that are in no place where commands or a checkout could have put them; else the last resort.

    The last resort is the one of the Python package, which is trusted as the engine's own files are; it is kept from
    being written from now on. Raises `SandboxUnavailable` when there are launchers, but none can be trusted.
    """
    places = {os.path.realpath(policy_cwd), *(os.path.realpath(root.root) for root in rules.writable)} - {"/"}
    trusted = [launcher for launcher in launchers if not any(is_below(launcher.path, place) for place in places)]
    trusted += (launcher for launcher in launchers if launcher.origin == "bundled" and launcher not in trusted)
    if launchers and not trusted:
        raise SandboxUnavailable(
            f"{launchers[0].path} lies in the working directory or in a writable place, so it can't be trusted"
        )
    return trusted


@attrs.frozen
class _Assembly:
    """The last steps for one start."""

    argv: Sequence[str]
    cwd: str
    env: dict[str, str]
    network: NetworkAccess
    tty: bool
    capability: Capability

    def command(self, plan: _Plan) -> SandboxedCommand:
        if plan.profile is not None:
            env = {**self.env, SEATBELT_VARIABLE: "seatbelt"}
            return SandboxedCommand(tuple(plan.profile.argv(self.argv)), env, "seatbelt")
        return self._bubblewrap(plan, plan.launcher) if plan.launcher is not None else self._landlock(plan)

    def _bubblewrap(self, plan: _Plan, launcher: Launcher) -> SandboxedCommand:
        placeholders = Placeholders()
        fds: dict[int, int] = {}
        try:
            for mount in plan.layout.mounts if plan.layout is not None else ():
                if mount.kind in ("placeholder_folder", "placeholder_file"):
                    placeholders.make(mount.path, is_folder=mount.kind == "placeholder_folder")
            descriptors = self._open_places(plan.layout, launcher, fds)
            # Without a shell in view it goes without: its keys end the whole command then.
            takes_terminal = self.tty and plan.layout is not None and plan.layout.shows(bubblewrap.TAKE_TERMINAL[0])
            command = [*(bubblewrap.TAKE_TERMINAL if takes_terminal else ()), *self.argv]
            argv = [launcher.path, "--args", str(ARGUMENTS_FD), "--", *command]
            arguments = self._arguments(plan.layout, launcher, placeholders.left_out, descriptors)
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

    def _open_places(self, layout: Layout | None, launcher: Launcher, fds: dict[int, int]) -> dict[str, int]:
        """Opens what must not be looked up by its name later; adds to `fds`, and returns the numbers by path."""
        if layout is None or not layout.has_loose_mounts or not launcher.binds_descriptors:
            return {}
        found: dict[str, int] = {}
        for mount in layout.mounts:
            if mount.loose:
                if FIRST_PLACE_FD + len(found) >= _MOST_PLACES:
                    raise SandboxPolicyError(
                        f"cannot enforce sandbox: more than {len(found)} folders would have to keep their names; deny "
                        "whole folders, or use globs that match at any depth (`**/name`)",
                        path=mount.path,
                    )
                number = found[mount.path] = FIRST_PLACE_FD + len(found)
                fds[number] = open_steady(mount.path)
        return found

    def _arguments(
        self,
        layout: Layout | None,
        launcher: Launcher,
        left_out: Sequence[str],
        descriptors: Mapping[str, int],
    ) -> list[str]:
        restricted = self.network == "restricted"
        if layout is None:
            arguments = [*bubblewrap.WHOLE_DISK, *bubblewrap.network_arguments()]
        else:
            arguments = [
                *bubblewrap.layout_arguments(layout, proc=launcher.proc, root=os.geteuid() == 0, without=left_out),
                *bubblewrap.session_arguments(network=not restricted),
            ]
        canonical = os.path.realpath(self.cwd)
        if canonical != self.cwd:
            arguments += ("--chdir", canonical)
        if restricted:
            arguments += ("--seccomp", str(FILTER_FD))
        return [*arguments, *bubblewrap.environment_arguments(self.env)]

    def _landlock(self, plan: _Plan) -> SandboxedCommand:
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
