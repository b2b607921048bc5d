"""From the sandbox keys to the sandbox policy a session starts with (config.md 4.3, 11; permissions.md 8.2, 8.4).

Both syntaxes are told apart as specified, and their errors raised. Of the newer one only the built-in profiles have an
effect yet: a profile of the user's own gives read-only access and a warning, never more than was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast

from engine.config.layers import LayerStack
from engine.errors import ConfigError
from engine.protocol.profiles import DangerFullAccess, ReadOnly, SandboxPolicy, WorkspaceWrite

__all__ = ["SandboxChoice", "choose_sandbox", "legacy_policy", "workspace_roots"]

_BUILT_IN: Mapping[str, SandboxPolicy] = {
    ":read-only": ReadOnly(),
    ":workspace": WorkspaceWrite(),
    ":danger-full-access": DangerFullAccess(),
}


class SandboxChoice(NamedTuple):
    """The policy; whether the legacy syntax gave it; a warning if it is not what the configuration asked for."""

    policy: SandboxPolicy
    legacy: bool
    warning: str | None = None


def legacy_policy(mode: str, settings: Mapping[str, object]) -> SandboxPolicy:
    """The policy of a `sandbox_mode`, with `[sandbox_workspace_write]` where it applies."""
    match mode:
        case "danger-full-access":
            return DangerFullAccess()
        case "workspace-write":
            return WorkspaceWrite(
                writable_roots=tuple(cast("list[str]", settings.get("writable_roots", ()))),
                network_access=bool(settings.get("network_access", False)),
                exclude_tmpdir_env_var=bool(settings.get("exclude_tmpdir_env_var", False)),
                exclude_slash_tmp=bool(settings.get("exclude_slash_tmp", False)),
            )
        case _:
            return ReadOnly()


def choose_sandbox(stack: LayerStack, profile: Mapping[str, object]) -> SandboxChoice:
    """What the layers and the selected legacy profile ask for. Raises `ConfigError`.

    Without any sandbox key the session is read-only, as for a directory that nobody decided to trust.
    """
    session = next((layer.table for layer in stack.layers if layer.name == "session"), {})
    if "sandbox_mode" in session and "default_permissions" in session:
        raise ConfigError("`sandbox_mode` and `default_permissions` overrides cannot both be set")
    permissions = cast("dict[str, object]", stack.get("permissions") or {})
    for id in permissions:
        if id.startswith(":"):
            raise stack.error(
                f"permissions profile `{id}` uses a reserved built-in profile prefix", ("permissions", id)
            )
    syntax, mode = _syntax(stack, profile, session)
    settings = cast("dict[str, object]", stack.get("sandbox_workspace_write") or {})
    if syntax == "legacy":
        return SandboxChoice(legacy_policy(str(mode), settings), legacy=True)
    chosen = stack.get("default_permissions")
    if not isinstance(chosen, str):
        if permissions:
            raise stack.error(
                "config defines `[permissions]` profiles but does not set `default_permissions`", ("permissions",)
            )
        return SandboxChoice(ReadOnly(), legacy=False)
    if chosen in _BUILT_IN:
        return SandboxChoice(_BUILT_IN[chosen], legacy=False)
    where = ("default_permissions",)
    if chosen.startswith(":"):
        raise stack.error(f"default_permissions refers to unknown built-in profile `{chosen}`", where)
    if not permissions:
        raise stack.error("default_permissions requires a `[permissions]` table", where)
    if chosen not in permissions:
        raise stack.error(f"default_permissions refers to undefined profile `{chosen}`", where)
    return SandboxChoice(
        ReadOnly(),
        legacy=False,
        warning=f"`default_permissions` names the profile `{chosen}`: profiles of `[permissions]` are not supported "
        "yet by this engine; the session is read-only",
    )


def _syntax(
    stack: LayerStack, profile: Mapping[str, object], session: Mapping[str, object]
) -> tuple[str | None, object]:
    """`legacy` with its mode, `profiles`, or None when nothing decides."""
    if "sandbox_mode" in session:
        return "legacy", session["sandbox_mode"]
    if any("default_permissions" in layer.table for layer in stack.layers if layer.name in ("sessionFlags", "session")):
        return "profiles", None
    if "sandbox_mode" in profile:
        return "legacy", profile["sandbox_mode"]
    chosen: tuple[str | None, object] = (None, None)
    for layer in stack.layers:
        if "default_permissions" in layer.table:
            chosen = "profiles", None
        elif "sandbox_mode" in layer.table:
            chosen = "legacy", layer.table["sandbox_mode"]
    return chosen


def workspace_roots(stack: LayerStack, cwd: str, additional: Iterable[str]) -> tuple[str, ...]:
    """The directories a session works in: cwd, those it was started with, and the legacy writable roots."""
    roots = [cwd, *additional]
    if stack.get("default_permissions") is None:
        roots += cast("list[str]", stack.get("sandbox_workspace_write", "writable_roots") or ())
    return tuple(dict.fromkeys(roots))
