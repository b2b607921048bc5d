"""What would make a machine enforce more: from what bwrap said and a few facts about the system."""

from __future__ import annotations

import os
from pathlib import Path

from engine.execution.sandbox.capability import Capability
from engine.records import frozen

__all__ = ["SystemFacts", "advice", "system_facts"]

INSTALL = "install the package `bubblewrap` of your system, or `pip install 'session-engine[sandbox]'`"


@frozen
class SystemFacts:
    """Settings that keep user namespaces from working, where they are known; `container`: we run in one."""

    apparmor_restricts: bool = False
    max_user_namespaces: int | None = None
    unprivileged_clone: bool = True
    container: bool = False


def system_facts() -> SystemFacts:
    """The facts of this machine."""
    limit = _read("/proc/sys/user/max_user_namespaces")
    return SystemFacts(
        apparmor_restricts=_read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1",
        max_user_namespaces=int(limit) if limit.isdigit() else None,
        unprivileged_clone=_read("/proc/sys/kernel/unprivileged_userns_clone") != "0",
        container=os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"),
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def advice(capability: Capability, facts: SystemFacts) -> list[str]:
    """What to do, one sentence each; nothing where bubblewrap works with everything."""
    if capability.system != "linux" or capability.machine is None:
        return []
    if capability.usable_launchers:
        if capability.usable_launchers[0].proc:
            return []
        return ["a fresh /proc can't be mounted here (usual in containers): commands see the machine's own, read-only"]
    if not capability.launchers:
        return [INSTALL]
    problems = " ".join(launcher.problem or "" for launcher in capability.launchers)
    found: list[str] = []
    if "Unknown option" in problems:
        found.append(f"that bubblewrap is too old, 0.5 is needed: {INSTALL}")
    if facts.max_user_namespaces == 0:
        found.append("user namespaces are switched off: `sysctl user.max_user_namespaces=10000`")
    if not facts.unprivileged_clone:
        found.append("user namespaces are for root alone: `sysctl kernel.unprivileged_userns_clone=1`")
    if facts.apparmor_restricts:
        found.append(
            "AppArmor keeps user namespaces from programs without a profile: install a profile for bwrap (Ubuntu: "
            "`apt install apparmor-profiles`), or `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
        )
    if facts.container:
        found.append(
            "the container's own filters forbid namespaces: start it with `--security-opt seccomp=unconfined` (Docker, "
            "Podman), or isolate with the container and use `danger-full-access` inside"
        )
    return found or ["ask your administrator for unprivileged user namespaces"]
