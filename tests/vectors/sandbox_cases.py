"""Golden cases of enforcement: one command in the real sandbox tries to read and to change every path of a case."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from engine.execution.oneshot import run_command
from engine.execution.sandbox.errors import SandboxUnavailable
from engine.execution.sandbox.launcher import Sandbox
from engine.execution.supervisor import open_supervisor
from engine.permissions.access import compile_policy
from engine.permissions.profiles import file_system_of, network_of
from engine.permissions.view import DiskView
from engine.protocol.profile_decoding import decode_profile
from engine.protocol.profiles import PermissionProfile
from tests.vectors.permission_places import layout_named, place_of
from tests.vectors.run import Skip

__all__ = ["OPERATIONS", "run_case"]

OPERATIONS = frozenset({"sandbox_probe"})

MARK = "probed"
# Prints one line per path: its content as hexadecimal digits behind an `=`, or `-` if it can't be read.
PROBE = f"""
for path in "$@"; do
    if content=$(od -An -v -tx1 < "$path" 2>/dev/null); then echo "="$content; else echo -; fi
    printf {MARK} 2>/dev/null >> "$path"
done 2>/dev/null
exit 0
"""

Row = Mapping[str, Any]


def run_case(case: Row, area: object, root: Path) -> tuple[object, object]:
    """Runs one case; rows that hold for decisions as well are put to the decision functions, too."""
    layout = layout_named(case.get("layout"), area.parent if isinstance(area, Path) else None)
    with place_of(layout) as place:
        given, rows = place.real(case["in"]), place.real(case["out"])
        contents = {place.real(path): place.real(text) for path, text in layout["files"].items()}
        view = DiskView({"PATH": os.environ["PATH"], **place.environment(case["in"].get("env") or {})})
        profile = decode_profile(given["profile"])
        decided = [_decided(row, profile, given["cwd"], view) for row in rows]
        paths = [row["path"] for row in rows]
        read = trio.run(_probe, paths, profile, given["cwd"], view.environment)
        enforced = [_enforced(row, content, contents) for row, content in zip(rows, read, strict=True)]
        return (
            {"sandbox": rows, "decisions": [row for row in rows if not row.get("launcher_only")]},
            {"sandbox": enforced, "decisions": [row for row in decided if not row.get("launcher_only")]},
        )


async def _probe(
    paths: Sequence[str], profile: PermissionProfile, cwd: str, environment: Mapping[str, str]
) -> list[str | None]:
    """What the command could read of each path; None where it could not."""
    async with open_supervisor() as supervisor:
        sandbox = Sandbox(supervisor, environment=environment)
        try:
            prepared = await sandbox.prepare(
                ["/bin/sh", "-c", PROBE, "sh", *paths],
                file_system=file_system_of(profile),
                network=network_of(profile),
                policy_cwd=cwd,
                cwd=cwd,
                env=environment,
            )
        except SandboxUnavailable as exc:
            raise Skip(str(exc)) from exc
        with prepared:
            result = await run_command(supervisor, prepared.argv, cwd=cwd, env=prepared.env, files=prepared.files)
    lines = result.stdout_text.splitlines()
    if len(lines) != len(paths):
        raise AssertionError(f"the probe ended with {result.exit_code}: {result.stderr_text}")
    return [bytes.fromhex(line[1:]).decode() if line[0] == "=" else None for line in lines]


def _enforced(row: Row, content: str | None, contents: Mapping[str, str]) -> Row:
    path = row["path"]
    found = {**row, "writable": _holds_mark(path)}
    if "readable" in row:
        found["readable"] = content is not None and content == contents[path]
    return found


def _holds_mark(path: str) -> bool:
    try:
        return Path(path).read_text().endswith(MARK)
    except OSError:
        return False


def _decided(row: Row, profile: PermissionProfile, cwd: str, view: DiskView) -> Row:
    compiled = compile_policy(file_system_of(profile), cwd, view)
    found = {**row, "writable": compiled.can_write(row["path"])}
    if "readable" in row:
        found["readable"] = compiled.can_read(row["path"])
    return found
