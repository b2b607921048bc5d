"""Loading a configuration: the one place of this room that reads the disk and the environment (config.md 1, 14)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import attrs

from engine.config.kinds import Report
from engine.config.layers import Layer, LayerName, LayerStack, dotted
from engine.config.layers import Path as Key
from engine.config.merge import Table, normalise
from engine.config.model import Config
from engine.config.overrides import overrides_table, plain, set_path, split_path
from engine.config.paths import absolute_path, resolve_paths
from engine.config.permissions import PermissionOverrides
from engine.config.requirements import SYSTEM_FOLDER, read_requirements
from engine.config.resolve import Surroundings, resolve
from engine.config.schema import ROOT, SESSION_ONLY
from engine.config.source import TomlFile, read_toml
from engine.errors import ConfigError
from engine.permissions.view import DiskView

__all__ = ["find_home", "load_config"]


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
    strict: bool = False,
    permissions: PermissionOverrides | None = None,
    system_folder: os.PathLike[str] | str = SYSTEM_FOLDER,
) -> Config:
    """The configuration for a session in `cwd`, from `home/config.toml`, `-c` overrides and the session's arguments.

    - `overrides`: (dotted path, value) pairs as `parse_override` gives them, the later ones winning
    - `session`: what the session was started with, above everything; keys may be dotted, values may be tables; None
      means not given. Besides the keys of the file: `base_instructions`, `additional_writable_roots`
    - `env`: the environment, by default the process's
    - `ignore_user_file`: as if `config.toml` were empty
    - `strict`: keys nobody knows are errors, not just listed (config.md 1.6)
    - `permissions`: the sandbox mode or profile the start itself asks for, and its workspace roots
    - `system_folder`: where an administrator's `requirements.toml` stands

    Paths in the file are relative to `home`, others to `cwd`. Makes the folder `home/memories` where it can. Blocks for
    a few file reads. Raises `ConfigError` with file, line, column and key where they are known.
    """
    env = os.environ if env is None else env
    user_home = _user_home(env)
    home, cwd = os.path.abspath(home), os.path.abspath(cwd)

    def layer(name: LayerName, table: Table, base: str, file: TomlFile | None = None) -> Layer:
        return Layer(name, resolve_paths(normalise(table), base, user_home), file)

    file = None if ignore_user_file else read_toml(os.path.join(home, "config.toml"))
    layers = [layer("user", file.table, home, file) if file else Layer("user", {})]
    flags = overrides_table(overrides)
    if flags:
        layers.append(layer("sessionFlags", flags, cwd))
    given, extra = _session_tables(session or {})
    if given:
        layers.append(layer("session", given, cwd))
    stack = LayerStack(layers)

    unknown = _check(stack)
    if strict and unknown:
        raise _unknown_field(stack, unknown[0])
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
    config = resolve(
        stack,
        extra,
        Surroundings(
            home=Path(home),
            cwd=Path(cwd),
            env=env,
            user_home=user_home,
            read=_read,
            view=DiskView(env),
            requirements=read_requirements(os.path.abspath(system_folder), user_home),
            overrides=asked,
        ),
        tuple(dotted(path) for path in unknown),
    )
    try:
        config.memory_root.mkdir(parents=True, exist_ok=True)
    except OSError:
        pass  # a home that can't be written is announced by whoever has something to write
    return config


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
