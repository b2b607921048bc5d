"""Loading a configuration: from the disk and the environment to a `Config` (config.md 1, 14)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import attrs

from engine.config.agents_md import AgentsMd
from engine.config.kinds import Report
from engine.config.layers import MANAGED, Layer, LayerStack, dotted
from engine.config.layers import Path as Key
from engine.config.merge import Table
from engine.config.model import Config
from engine.config.overrides import plain, set_path, split_path
from engine.config.paths import absolute_path
from engine.config.permissions import PermissionOverrides
from engine.config.requirements import read_requirements
from engine.config.resolve import Surroundings, resolve
from engine.config.schema import ROOT, SESSION_ONLY
from engine.config.sightings import Sightings
from engine.config.source import TomlFile
from engine.config.sources import SYSTEM_FOLDER, Sources, read_layers
from engine.errors import ConfigError
from engine.permissions.view import DiskView

__all__ = ["check_layers", "find_home", "load_config"]


def find_home(env: Mapping[str, str] | None = None) -> Path:
    """The home folder: `CODEX_HOME` (must be a directory; its real path), else `~/.codex`, which need not exist.

    Raises `ConfigError`.
    """
    env = os.environ if env is None else env
    named = env.get("CODEX_HOME", "")
    if named:
        if not os.path.exists(named):
            raise ConfigError(f'CODEX_HOME points to "{named}", but that path does not exist')
        if not os.path.isdir(named):
            raise ConfigError(f'CODEX_HOME points to "{named}", but that path is not a directory')
        return Path(os.path.realpath(named))
    user_home = _user_home(env)
    if user_home is None:
        raise ConfigError("no home directory is known; set CODEX_HOME to an existing folder")
    return Path(user_home, ".codex")


def load_config(
    home: os.PathLike[str] | str,
    *,
    cwd: os.PathLike[str] | str,
    overrides: Sequence[tuple[str, object]] = (),
    session: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    ignore_user_file: bool = False,
    profile: str | None = None,
    strict: bool = False,
    permissions: PermissionOverrides | None = None,
    system_folder: os.PathLike[str] | str = SYSTEM_FOLDER,
    sightings: Sightings | None = None,
) -> Config:
    """The configuration for a session in `cwd`: files of system, user and projects, `-c` overrides, its arguments.

    - `overrides`: (dotted path, value) pairs as `parse_override` gives them, the later ones winning
    - `session`: what the session was started with, above everything but an administrator's file; keys may be dotted,
      values may be tables; None means not given. Besides the keys of the file: `base_instructions`,
      `additional_writable_roots`
    - `env`: the environment, by default the process's
    - `ignore_user_file`: as if `config.toml` were empty
    - `profile`: the profile to use: a file `<profile>.config.toml` in the home, or else a table of `[profiles]`
    - `strict`: keys nobody knows are errors, not just listed (config.md 1.6)
    - `permissions`: the sandbox mode or profile the start itself asks for, and its workspace roots
    - `system_folder`: where an administrator's files stand: `config.toml`, `managed_config.toml`, `requirements.toml`
    - `sightings`: learns what was looked at; as long as that holds, the same arguments give the same configuration

    Paths in a file are relative to its folder, others to `cwd`. Makes the folder `home/memories` where it can. Blocks
    for a few file reads. Raises `ConfigError` with file, line, column and key where they are known.
    """
    env = os.environ if env is None else env
    seen = Sightings() if sightings is None else sightings
    user_home = _user_home(env)
    home, cwd, system = os.path.abspath(home), os.path.abspath(cwd), os.path.abspath(system_folder)
    view = DiskView(env)
    given, extra = _session_tables(session or {})
    layers = read_layers(
        Sources(
            home=home,
            cwd=cwd,
            user_home=user_home,
            view=view,
            system_folder=system,
            overrides=overrides,
            session=given,
            ignore_user_file=ignore_user_file,
            profile=profile,
        ),
        seen,
    )
    stack = layers.stack
    unknown = check_layers(stack, strict=strict)
    checked = Report()
    SESSION_ONLY.check(extra, (), checked)
    for problem in checked.problems:
        raise Layer("session", extra).error(problem.message, problem.path)
    extra = cast(Table, SESSION_ONLY.rebase(extra, lambda text: absolute_path(text, cwd, user_home)))

    asked = permissions or PermissionOverrides()
    added = cast("list[str]", extra.get("additional_writable_roots", []))
    if added:
        asked = attrs.evolve(
            asked,
            additional_writable_roots=(*asked.additional_writable_roots, *added),
        )

    def read(path: str) -> str:
        seen.contents(path)
        return _read(path)

    config = resolve(
        layers,
        extra,
        Surroundings(
            home=Path(home),
            cwd=Path(cwd),
            env=env,
            user_home=user_home,
            read=read,
            view=view,
            requirements=read_requirements(system, user_home, managed=_managed(stack), sightings=seen),
            overrides=asked,
        ),
        tuple(dotted(path) for path in unknown),
    )
    instructions = AgentsMd(
        home=home,
        limit=config.project_doc_max_bytes,
        fallbacks=config.project_doc_fallback_filenames,
        markers=layers.markers,
        child_note=config.features["child_agents_md"],
    ).read(cwd, view, seen)
    config = attrs.evolve(config, user_instructions=instructions)
    try:
        config.memory_root.mkdir(parents=True, exist_ok=True)
    except OSError:
        pass  # a home that can't be written is announced by whoever has something to write
    return config


def check_layers(stack: LayerStack, *, strict: bool = False) -> list[Key]:
    """The paths of keys nobody knows. Raises `ConfigError` for the first value in effect that has a wrong type; with
    `strict`, also for the first unknown key."""
    unknown = _check(stack)
    if strict and unknown:
        raise _unknown_field(stack, unknown[0])
    return unknown


def _managed(stack: LayerStack) -> TomlFile | None:
    return next((layer.file for layer in stack.layers if layer.name in MANAGED), None)


def _check(stack: LayerStack) -> list[Key]:
    """The paths of unknown keys. Raises `ConfigError` for the first value of a wrong type that is in effect."""
    report = Report()
    ROOT.check(stack.table, (), report)
    for problem in report.problems:
        raise stack.error(problem.message, problem.path)
    return report.unknown


def _unknown_field(stack: LayerStack, path: Key) -> ConfigError:
    message = f"unknown configuration field `{dotted(path)}`"
    holder = stack.holder(path)
    if holder is not None and holder.file is None:
        return ConfigError(f"{message} in {holder.where}", key=dotted(path))
    return stack.error(message, path)


def _session_tables(session: Mapping[str, object]) -> tuple[Table, Table]:
    """The session's arguments: those that are configuration keys, and those that are not."""
    given: Table = {}
    extra: Table = {}
    for key, value in session.items():
        if value is None:
            continue
        if key in SESSION_ONLY.keys:
            extra[key] = plain(value)
        else:
            set_path(given, split_path(key), plain(value))
    return given, extra


def _read(path: str) -> str:
    with open(path, encoding="utf-8-sig") as file:
        return file.read()


def _user_home(env: Mapping[str, str]) -> str | None:
    named = env.get("HOME", "")
    if named:
        return named
    found = os.path.expanduser("~")
    return found if found != "~" else None
