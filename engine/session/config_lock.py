"""The configuration a session really runs with, written down for a replay or held to a lock file (config.md 13)."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from typing import TYPE_CHECKING, TextIO

import trio

from engine import __version__
from engine.config.lock import ConfigLock, check_replay, lock_text, without_controls
from engine.config.merge import Table, merge
from engine.errors import ConfigError
from engine.protocol.profiles import DangerFullAccess, ReadOnly, WorkspaceWrite
from engine.protocol.settings import GranularApproval

if TYPE_CHECKING:
    from engine.models.catalogue import ModelInfo
    from engine.session.configuration import SessionConfiguration
    from engine.session.startup import Start

__all__ = ["effective_table", "hold_to_lock"]

TRIES = 20  # against other starts that fail, and take back the folder at the same moment


async def hold_to_lock(start: Start, lock: ConfigLock, instructions: str) -> None:
    """Compares the start with the lock that is loaded, and writes its own where one is wanted.

    The file goes again with a start that fails, and the folders made for it. Raises `ConfigError`.
    """
    assert start.configuration is not None
    assert start.model is not None
    assert start.thread_id is not None
    table = effective_table(start.configuration, start.model, instructions, catalog=lock.save_catalog_fields)
    if lock.loaded is not None:
        check_replay(lock.loaded, table)
    if lock.export_dir is not None:
        path = os.path.join(lock.export_dir, f"{start.thread_id}.config.lock.toml")
        made: list[str] = []
        start.undo.append(functools.partial(_take_back, path, made))
        await trio.to_thread.run_sync(_write, path, table, made)


def effective_table(
    configuration: SessionConfiguration, model: ModelInfo, instructions: str, *, catalog: bool = True
) -> Table:
    """What would have to stand in one file to get this session again: layers merged, files read in, settings applied.

    Without `catalog` what only the model's own metadata decided is left open.
    """
    config = configuration.config
    table = without_controls(config.raw)
    profiles = table.pop("profiles", None)
    name = table.pop("profile", None)
    if isinstance(profiles, dict) and isinstance(name, str):
        table = merge(table, profiles[name])
    own = configuration.instructions is not None
    for key in ("model_instructions_file", "experimental_compact_prompt_file"):
        table.pop(key, None)
    policy = configuration.approval_policy
    if isinstance(policy, GranularApproval):
        approval: object = {"granular": {key: getattr(policy, key) for key in _GRANULAR}}
    else:
        approval = policy
    found: dict[str, object] = {
        "model": model.slug if catalog or configuration.model is not None else None,
        "model_provider": config.model_provider_id,
        "model_reasoning_effort": configuration.reasoning_effort
        or (model.default_reasoning_level if catalog else None),
        "model_reasoning_summary": configuration.reasoning_summary
        or (model.default_reasoning_summary if catalog else None),
        "approval_policy": approval,
        "approvals_reviewer": configuration.approvals_reviewer,
        "service_tier": configuration.service_tier,
        "personality": configuration.personality,
        "instructions": instructions if catalog or own else None,
        "developer_instructions": configuration.developer_instructions,
        "compact_prompt": config.compact_prompt,
        "web_search": config.web_search,
        **_permission_keys(configuration),
    }
    for key, value in found.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
    return table


def _permission_keys(configuration: SessionConfiguration) -> dict[str, object]:
    """What a file says to get these permissions, None for what it must not say. Raises `ConfigError` for those that no
    file can ask for."""
    active = configuration.permissions.snapshot.active
    if active is not None:
        return {"default_permissions": active.id, "sandbox_mode": None}
    policy = configuration.sandbox_policy
    keys: dict[str, object] = {"default_permissions": None, "sandbox_mode": policy.type}
    match policy:
        case WorkspaceWrite():
            own = str(configuration.config.memory_root)  # is added to each
            keys["sandbox_workspace_write"] = {
                "writable_roots": [root for root in policy.writable_roots if root != own],
                "network_access": policy.network_access,
                "exclude_tmpdir_env_var": policy.exclude_tmpdir_env_var,
                "exclude_slash_tmp": policy.exclude_slash_tmp,
            }
        case DangerFullAccess() | ReadOnly(network_access=False):
            pass
        case _:
            raise ConfigError(
                f"a config lock can't hold the permissions of this session: no configuration file can ask for {policy}"
            )
    return keys


_GRANULAR = ("sandbox_approval", "rules", "mcp_elicitations", "skill_approval", "request_permissions")


def _write(path: str, table: Table, made: list[str]) -> None:
    """Writes the file; `made` gets the folders it made for it, the innermost first."""
    try:
        text = lock_text(table, __version__)
        folder = os.path.dirname(path)
        missing = folder
        while not os.path.lexists(missing):
            made.append(missing)
            missing = os.path.dirname(missing)
        with _made_with_folder(path) as file:
            file.write(text)
    except OSError as exc:
        raise ConfigError(f"failed to write config lock file {path}: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise ConfigError(f"failed to serialize config lock file {path}: {exc}") from exc


def _made_with_folder(path: str) -> TextIO:
    for _ in range(TRIES):
        with contextlib.suppress(FileNotFoundError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            return open(path, "x", encoding="utf-8")
    raise FileNotFoundError(errno.ENOENT, "others keep removing its folder", path)


def _take_back(path: str, made: list[str]) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
    with contextlib.suppress(OSError):  # somebody else uses the folder by now
        for folder in made:
            os.rmdir(folder)
