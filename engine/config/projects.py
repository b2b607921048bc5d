"""Configuration that projects bring along: the `.codex/config.toml` files from the project root to the cwd.

Only a trusted directory takes part; the layer of another one is listed with the reason (config.md 1.4).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from engine.config.layers import Layer
from engine.config.merge import Table
from engine.config.paths import resolve_paths
from engine.config.source import TomlFile, parse_toml
from engine.config.trust import Trust, find_trust, linked_worktree, main_repository, project_folders, project_root
from engine.errors import ConfigError
from engine.permissions.view import View
from engine.records import frozen

__all__ = ["DENIED", "Projects", "ignored_keys_warning"]

# What would let a project decide where prompts and credentials go, or what runs beside a session.
DENIED = (
    "openai_base_url",
    "chatgpt_base_url",
    "apps_mcp_product_sku",
    "model_provider",
    "model_providers",
    "notify",
    "profile",
    "profiles",
    "experimental_realtime_ws_base_url",
    "otel",
)

_WHY = "To load project-local config, hooks, and exec policies, "


@frozen(kw_only=True, eq=False)
class Projects:
    """What decides about the layers of projects. `trusting` is the merge of the layers that may trust.

    `read` gives the text of a file, None where there is none, or raises `ConfigError`.
    """

    cwd: str
    home: str
    user_home: str | None
    user_file: str
    markers: Sequence[str]
    trusting: Table
    view: View
    read: Callable[[str], str | None]

    def layers(self) -> Iterator[Layer]:
        """The layers of projects, outer ones first. Raises `ConfigError` for a broken file of a trusted project."""
        homes = {self.home, self.view.resolve(self.home)}
        for folder in project_folders(self.cwd, self.markers, self.view):
            if folder not in homes and self.view.resolve(folder) not in homes:
                yield self._layer(folder)

    def _layer(self, folder: str) -> Layer:
        directory = os.path.dirname(folder)
        path = os.path.join(folder, "config.toml")
        trust = find_trust(self.trusting.get("projects"), directory, self.markers, self.view)
        disabled = self._reason(directory, trust)
        file = self._read(path, broken_is_empty=disabled is not None)
        table = dict(file.table) if file is not None else {}
        ignored = tuple(key for key in DENIED if table.pop(key, None) is not None)
        table = self._with_hooks_of_main_checkout(table, folder, broken_is_empty=disabled is not None)
        return Layer(
            "project",
            resolve_paths(table, folder, self.user_home),
            file,
            path=path,
            folder=folder,
            disabled=disabled,
            ignored=() if disabled is not None else ignored,
        )

    def _with_hooks_of_main_checkout(self, table: Table, folder: str, *, broken_is_empty: bool) -> Table:
        """In a linked worktree hooks come from the main checkout, which somebody has looked at."""
        found = linked_worktree(os.path.dirname(folder), self.view)
        if found is None:
            return table
        worktree, main = found
        path = os.path.join(main, os.path.relpath(folder, worktree), "config.toml")
        file = self._read(path, broken_is_empty=broken_is_empty)
        table = {key: value for key, value in table.items() if key != "hooks"}
        if file is not None and "hooks" in file.table:
            table["hooks"] = file.table["hooks"]
        return table

    def _read(self, path: str, *, broken_is_empty: bool) -> TomlFile | None:
        try:
            text = self.read(path)
        except ConfigError as error:
            raise _failed("Failed to read", path, error) from error
        if text is None:
            return None
        try:
            return parse_toml(text, path)
        except ConfigError as error:
            if broken_is_empty:
                return None
            raise _failed("Error parsing", path, error) from error

    def _reason(self, directory: str, trust: Trust | None) -> str | None:
        if trust is None:
            key = main_repository(directory, self.view) or project_root(directory, self.markers, self.view)
            return f"{_WHY}add {key} as a trusted project in {self.user_file}."
        if trust.level == "trusted":
            return None
        return f"{trust.key} is marked as untrusted in {self.user_file}. {_WHY}mark it trusted."


def ignored_keys_warning(layer: Layer) -> str:
    """What a start says of keys that a project may not set."""
    return (
        f"Ignored unsupported project-local config keys in {layer.path}: {', '.join(layer.ignored)}. "
        "If you want these settings to apply, manually set them in your user-level config.toml."
    )


def _failed(what: str, path: str, error: ConfigError) -> ConfigError:
    where = "" if error.line is None else f" (line {error.line}, column {error.column})"
    made = ConfigError(f"{what} project config file {path}: {error.message}{where}")
    made.file, made.line, made.column, made.key = path, error.line, error.column, error.key
    return made
