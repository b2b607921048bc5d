"""Where the layers of a configuration come from: files of the system, the user and projects, flags, the session.

config.md 1 has the order; `read_layers` is the one place that reads them all.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import attrs

from engine import __version__
from engine.config.layers import Layer, LayerName, LayerStack, merged
from engine.config.lock import ConfigLock, lock_controls, read_lock
from engine.config.merge import Table
from engine.config.overrides import overrides_table
from engine.config.paths import resolve_paths
from engine.config.projects import Projects
from engine.config.sightings import Sightings, WatchingView
from engine.config.source import parse_toml, read_text
from engine.config.trust import Trust, find_trust
from engine.permissions.view import View
from engine.records import frozen

__all__ = ["SYSTEM_FOLDER", "Layers", "Sources", "managed_file", "profile_file", "read_layers", "user_file"]

SYSTEM_FOLDER = (
    os.path.join(os.environ.get("PROGRAMDATA", r"C:\ProgramData"), "OpenAI", "Codex")
    if sys.platform == "win32"
    else "/etc/codex"
)

_PROFILE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_MARKERS = (".git",)


@frozen(kw_only=True, eq=False)
class Sources:
    """What layers are read from. Paths are absolute.

    - `cwd`: None for a configuration that belongs to no directory; it has no project layers
    - `overrides`: the `-c` flags; `session`: what a session was started with, keys of the file only
    - `ignore_user_file`: as if the user's own file were empty
    - `profile`: a second user file above the first, `<home>/<profile>.config.toml`, or where there is none the table
      `[profiles.<profile>]`
    """

    home: str
    cwd: str | None
    user_home: str | None
    view: View
    system_folder: str = SYSTEM_FOLDER
    overrides: Sequence[tuple[str, object]] = ()
    session: Mapping[str, object] = attrs.field(factory=dict)
    ignore_user_file: bool = False
    profile: str | None = None


class Layers(NamedTuple):
    """The layers of one load, and what was decided on the way to them. `user` is the layer that is written to.

    `lock` is what is to be done about a lock file; where one is loaded, it is the only layer.
    """

    stack: LayerStack
    markers: tuple[str, ...]
    trust: Trust | None
    user: Layer
    lock: ConfigLock | None = None


def user_file(home: str) -> str:
    """The user's own configuration."""
    return os.path.join(home, "config.toml")


def profile_file(home: str, profile: str) -> str:
    """The user file of a profile."""
    return os.path.join(home, f"{profile}.config.toml")


def managed_file(home: str, system_folder: str) -> str:
    """The administrator's older file, above all else."""
    return os.path.join(home if sys.platform == "win32" else system_folder, "managed_config.toml")


def read_layers(sources: Sources, sightings: Sightings) -> Layers:
    """All layers, the disabled ones of projects too. `sightings` learns what was looked at.

    Blocks for a few file reads. Raises `ConfigError` with file, line and column.
    """
    view = WatchingView(sources.view, sightings)
    base = sources.cwd or sources.home

    def text(path: str) -> str | None:
        sightings.contents(path)
        return read_text(path)

    def layer(name: LayerName, path: str, *, profile: str | None = None, use: bool = True) -> Layer:
        found = text(path) if use else None
        file = None if found is None else parse_toml(found, path)
        table = {} if file is None else resolve_paths(file.table, os.path.dirname(path), sources.user_home)
        return Layer(name, table, file, path=path, profile=profile)

    def given(name: LayerName, table: Table) -> list[Layer]:
        return [Layer(name, resolve_paths(table, base, sources.user_home))] if table else []

    lower = [
        layer("system", os.path.join(sources.system_folder, "config.toml")),
        layer("user", user_file(sources.home), use=not sources.ignore_user_file),
    ]
    overrides = list(sources.overrides)
    active = lower[-1]
    if sources.profile is not None:
        active = _profile_layer(sources.profile, sources.home, layer) or active
        if active.profile is None:
            overrides.append(("profile", sources.profile))  # a table of the user's file
        else:
            _check_profile(active, lower[-1])
            lower.append(active)
    assert active.path is not None
    flags = given("sessionFlags", overrides_table(overrides)) + given("session", dict(sources.session))
    trusting = merged([*lower, *flags])
    markers = _markers(LayerStack([*lower, *flags]))
    trust: Trust | None = None
    projects: list[Layer] = []
    if sources.cwd is not None:
        trust = find_trust(trusting.get("projects"), sources.cwd, markers, view)
        found = Projects(
            cwd=sources.cwd,
            home=sources.home,
            user_home=sources.user_home,
            user_file=active.path,
            markers=markers,
            trusting=trusting,
            view=view,
            read=text,
        )
        projects = list(found.layers())
    managed = layer("legacyManagedConfigTomlFromFile", managed_file(sources.home, sources.system_folder))
    stack = LayerStack([*lower, *projects, *flags, *([managed] if managed.file is not None else [])])
    lock = lock_controls(stack.table)
    if lock is not None and lock.load_path is not None:
        return _locked(lock, lock.load_path, sources, sightings, active)
    return Layers(stack, markers, trust, active, lock)


def _locked(lock: ConfigLock, path: str, sources: Sources, sightings: Sightings, user: Layer) -> Layers:
    """A lock file in the place of all layers."""
    sightings.contents(path)
    loaded = read_lock(path, __version__, allow_version_mismatch=lock.allow_version_mismatch)
    stack = LayerStack([Layer("user", loaded.config, loaded.file)])
    markers = _markers(stack)
    view = WatchingView(sources.view, sightings)
    trust = None if sources.cwd is None else find_trust(stack.get("projects"), sources.cwd, markers, view)
    return Layers(stack, markers, trust, user, attrs.evolve(lock, loaded=loaded))


def _profile_layer(profile: str, home: str, layer: Callable[..., Layer]) -> Layer | None:
    """The user layer of a profile that has a file of its own."""
    if not _PROFILE_NAME.fullmatch(profile):
        return None
    made = layer("user", profile_file(home, profile), profile=profile)
    return None if made.file is None else made


def _markers(stack: LayerStack) -> tuple[str, ...]:
    found = stack.table.get("project_root_markers", list(_MARKERS))
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise stack.error("project_root_markers must be an array of strings", ("project_root_markers",))
    return tuple(cast("list[str]", found))


def _check_profile(profile: Layer, user: Layer) -> None:
    """The two kinds of profiles can't have one name at the same time."""
    name, profiles = profile.profile, user.table.get("profiles")
    if name is not None and isinstance(profiles, dict) and name in profiles:
        raise user.error(
            f"--profile-v2 `{name}` cannot be used while {user.path} contains `[profiles.{name}]`; move its settings "
            f"to {profile.path} and remove the table",
            ("profiles", name),
        )
