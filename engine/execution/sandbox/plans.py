"""How a policy is enforced on this machine, as the disk is now: chosen once, kept while nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from engine.execution.sandbox.capability import Capability, Launcher
from engine.execution.sandbox.disk import Disk, ObservedDisk
from engine.execution.sandbox.errors import SandboxUnavailable
from engine.execution.sandbox.globs import expand_globs
from engine.execution.sandbox.landlock import Rule, landlock_rules
from engine.execution.sandbox.layout import Layout, arrange
from engine.execution.sandbox.resolving import Resolver, is_below
from engine.execution.sandbox.rules import FileSystemRules, file_system_rules
from engine.execution.sandbox.seatbelt import SeatbeltProfile, seatbelt_profile
from engine.permissions.view import DiskView
from engine.protocol.paths import normal_path
from engine.protocol.profiles import FileSystemSandboxPolicy, NetworkAccess
from engine.records import frozen

__all__ = ["Enforcement", "Plan", "PolicyInPlace", "make_plan", "seatbelt_for"]

Enforcement = Literal["none", "external", "bubblewrap", "landlock", "seatbelt"]


@frozen
class PolicyInPlace:
    """A policy that asks for a sandbox, and the directory its symbols mean."""

    file_system: FileSystemSandboxPolicy
    network: NetworkAccess
    cwd: str


@frozen
class Plan:
    """How a policy is enforced, as long as `disk` says the same."""

    disk: ObservedDisk
    enforcement: Enforcement
    layout: Layout | None = None  # None: every file may be written
    launcher: Launcher | None = None
    rules: tuple[Rule, ...] | None = None
    profile: SeatbeltProfile | None = None
    has_globs: bool = False


def make_plan(
    request: PolicyInPlace,
    capability: Capability,
    view: DiskView,
    *,
    protected: Sequence[str] = (),
    is_wanted: Callable[[], bool] = lambda: True,
) -> Plan:
    """The plan for a policy; looks at the disk, for globs at whole trees. `protected`: as `arrange` has it.

    Stops early, with a plan that is worth nothing, when `is_wanted` says no. Raises `SandboxUnavailable` and
    `SandboxPolicyError`.
    """
    disk = ObservedDisk(view)
    rules = file_system_rules(request.file_system, request.cwd, disk)
    if capability.seatbelt:
        layout = None if rules.full_write else arrange(rules, disk, protected=protected)
        profile = seatbelt_for(rules, layout, disk, network=request.network == "enabled")
        return Plan(disk, "seatbelt", layout, profile=profile)
    if capability.system != "linux":
        raise SandboxUnavailable(f"there is no sandbox for {capability.system}")
    if capability.machine is None:
        raise SandboxUnavailable(capability.why_no_launcher())
    trusted = _trusted(capability.usable_launchers, rules, request.cwd, Resolver(disk))
    launcher = trusted[0] if trusted else None
    if rules.full_write:
        return Plan(disk, "bubblewrap" if launcher else "landlock", launcher=launcher)
    denied = expand_globs(rules, is_wanted)

    own_files = launcher.own_files if launcher is not None else ()
    layout = arrange(rules, disk, denied_files=denied, protected=(*protected, *own_files))
    if launcher is not None:
        return Plan(disk, "bubblewrap", layout, launcher, has_globs=bool(rules.unreadable_globs))
    try:
        return Plan(disk, "landlock", layout, rules=landlock_rules(layout, capability.landlock))
    except SandboxUnavailable as exc:
        raise SandboxUnavailable(
            f"this machine can't enforce the sandbox policy. bubblewrap: {capability.why_no_launcher()}. {exc}"
        ) from None


def seatbelt_for(rules: FileSystemRules, layout: Layout | None, disk: Disk, *, network: bool) -> SeatbeltProfile:
    """The profile of a layout with what no mount can say: globs, and denied paths that do not exist yet."""
    places = map(Resolver(disk).resolve, rules.unreadable)
    later = [place.path for place in places if place.kind == "missing"]
    return seatbelt_profile(layout, unreadable_globs=rules.unreadable_globs, denied_later=later, network=network)


def _trusted(
    launchers: Sequence[Launcher], rules: FileSystemRules, policy_cwd: str, resolver: Resolver
) -> list[Launcher]:
    """Those that are in no place where commands or a checkout could have put them; else the last resort.

    The last resort is the one of the Python package, which is trusted as the engine's own files are; it is kept from
    being written from now on. Raises `SandboxUnavailable` when there are launchers, but none can be trusted.
    """
    names = [normal_path(policy_cwd), *(root.root for root in rules.writable)]
    places = {resolver.resolve(name).path for name in names} - {"/"}
    trusted = [launcher for launcher in launchers if not any(is_below(launcher.path, place) for place in places)]
    trusted += (launcher for launcher in launchers if launcher.origin == "bundled" and launcher not in trusted)
    if launchers and not trusted:
        raise SandboxUnavailable(
            f"{launchers[0].path} lies in the working directory or in a writable place, so it can't be trusted"
        )
    return trusted
