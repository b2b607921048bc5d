"""From the permission keys of the layers to the profile a session starts with (permissions.md 8; config.md 4.3, 11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, cast

import attrs

from engine.config.layers import LayerStack
from engine.config.requirements import fallback_warning
from engine.config.trust import Trust
from engine.errors import ConfigError
from engine.permissions.access import compile_policy
from engine.permissions.compatibility import compatibility_policy
from engine.permissions.constrained import ConstraintError
from engine.permissions.inheritance import merged_profile
from engine.permissions.named import NamedProfileError, Rule, built_in, compile_named
from engine.permissions.profiles import (
    enforcement_of,
    file_system_of,
    from_runtime,
    materialize_profile,
    network_of,
    profile_from_legacy,
    with_legacy_writable,
    with_roots_added,
    workspace_write,
)
from engine.permissions.requirements import PermissionRequirements, fallback
from engine.permissions.state import ProfileSnapshot, ProfileState, SessionPermissions
from engine.permissions.view import View
from engine.permissions.whole_disk import has_full_disk_write
from engine.protocol.profiles import (
    ActivePermissionProfile,
    DangerFullAccess,
    ManagedProfile,
    PermissionProfile,
    ReadOnly,
    SandboxMode,
    SandboxPolicy,
    WorkspaceWrite,
)
from engine.records import frozen

__all__ = [
    "ConfiguredPermissions",
    "PermissionOverrides",
    "PermissionsError",
    "ProfileSource",
    "configure_permissions",
    "legacy_policy",
]

Table = Mapping[str, object]

_NO_TABLE: Table = {}


class PermissionsError(ConfigError):
    """Permission keys without a meaning; `rule` says which rule they break."""

    rule: Rule = "malformed"


@frozen(kw_only=True)
class PermissionOverrides:
    """What the start of a session says itself, above every layer. Paths are normal and absolute.

    `permissions` is the id of a profile; it can't be combined with `sandbox`. `additional_writable_roots` join the cwd
    as workspace roots where `workspace_roots` are not given.
    """

    sandbox: SandboxMode | SandboxPolicy | None = None
    permissions: str | None = None
    workspace_roots: tuple[str, ...] | None = None
    additional_writable_roots: tuple[str, ...] = ()


class Compiled(NamedTuple):
    """A profile as it would be stored, and what to say about it."""

    snapshot: ProfileSnapshot
    warnings: tuple[str, ...]


@frozen(kw_only=True, eq=False)
class ProfileSource:
    """Where profiles come from by id: the merged `[permissions]`, the built-in ones, and what is added to each.

    `memory_root` is the writable folder of the engine's own.
    """

    stack: LayerStack = attrs.field(repr=False)
    requirements: PermissionRequirements
    memory_root: str
    view: View = attrs.field(repr=False)

    def named(self, id: str, *, cwd: str, roots: tuple[str, ...]) -> Compiled:
        """The profile `id` for a session in `cwd` with these workspace roots.

        Raises `PermissionsError` for an id or a table without a meaning, `ConstraintError` for a profile that an
        administrator does not allow.
        """
        compiled = self.compile(id, cwd=cwd, roots=roots)
        self.requirements.check(compiled.snapshot.profile)
        return Compiled(self.finished(compiled.snapshot), compiled.warnings)

    def compile(self, id: str, *, cwd: str, roots: tuple[str, ...]) -> Compiled:
        """The same before requirements have their say."""
        profile = built_in(id, self.view)
        if profile is not None:
            made = self.with_memories(profile, cwd, roots)
            return Compiled(ProfileSnapshot.of(made, ActivePermissionProfile(id)), ())
        tables = self.tables()
        where = ("default_permissions",)
        if id.startswith(":"):
            raise self.error("unknown_builtin", f"default_permissions refers to unknown built-in profile `{id}`", where)
        if self.stack.get("permissions") is None:
            raise self.error("no_permissions_table", "default_permissions requires a `[permissions]` table", where)
        if id not in tables:
            raise self.error("undefined_profile", f"default_permissions refers to undefined profile `{id}`", where)
        try:
            table, parent = merged_profile(tables, id)
        except NamedProfileError as error:
            raise self.error(error.rule, error.message, ("permissions", *error.path)) from error
        try:
            found = compile_named(table, id=id, cwd=cwd, home=self.view.home, inherited=parent is not None)
        except NamedProfileError as error:
            raise self.error(error.rule, error.message, ("permissions", id, *error.path)) from error
        profile = self.with_memories(found.profile(), cwd, roots)
        active = ActivePermissionProfile(id, parent)
        return Compiled(
            ProfileSnapshot.of(profile, active, found.workspace_roots),
            tuple(warning.message for warning in found.warnings),
        )

    def tables(self) -> Mapping[str, Table]:
        """The tables of `[permissions]` by id. Raises `PermissionsError` for a reserved id."""
        tables = self.stack.get("permissions") or {}
        for id, table in cast(Table, tables).items():
            if id.startswith(":"):
                raise self.error(
                    "reserved_prefix",
                    f"permissions profile `{id}` uses a reserved built-in profile prefix",
                    ("permissions", id),
                )
            if not isinstance(table, Mapping):
                raise self.error("malformed", "expected a table", ("permissions", id))
        return cast("Mapping[str, Table]", tables)

    def with_memories(self, profile: PermissionProfile, cwd: str, roots: tuple[str, ...]) -> PermissionProfile:
        """The profile with the engine's own folder, where it lets the session write at all."""
        seen = materialize_profile(profile, roots)
        policy = compatibility_policy(seen, file_system_of(seen), network_of(seen), cwd, self.view)
        return self._added(profile) if isinstance(policy, WorkspaceWrite) else profile

    def with_memories_by_cwd(self, profile: PermissionProfile, cwd: str, roots: tuple[str, ...]) -> PermissionProfile:
        """The same for the legacy syntax, which looks at the cwd alone."""
        seen = file_system_of(materialize_profile(profile, roots))
        if not isinstance(profile, ManagedProfile) or has_full_disk_write(seen):
            return profile
        return self._added(profile) if compile_policy(seen, cwd, self.view).can_write(cwd) else profile

    def _added(self, profile: PermissionProfile) -> PermissionProfile:
        made = with_legacy_writable(file_system_of(profile), (self.memory_root,), self.view)
        return from_runtime(made, network_of(profile), enforcement_of(profile))

    def finished(self, snapshot: ProfileSnapshot) -> ProfileSnapshot:
        """The snapshot with what an administrator denies."""
        return attrs.evolve(snapshot, profile=self.requirements.with_denials(snapshot.profile))

    def error(self, rule: Rule, message: str, path: tuple[str, ...]) -> PermissionsError:
        """The error for a value of the layers, with the place where it stands."""
        made = self.stack.error(message, path, PermissionsError)
        assert isinstance(made, PermissionsError)
        made.rule = rule
        return made


@frozen(kw_only=True, eq=False)
class ConfiguredPermissions:
    """The permissions a session starts with, and where those of later turns come from."""

    cwd: str
    workspace_roots: tuple[str, ...]
    state: ProfileState
    source: ProfileSource
    warnings: tuple[str, ...] = ()

    def session(self) -> SessionPermissions:
        """The permissions of a session that starts with this configuration."""
        return SessionPermissions(self.cwd, self.workspace_roots, self.state)


class _Choice(NamedTuple):
    """Which syntax is in force, and what it says."""

    syntax: Literal["legacy", "profiles", "undecided"]
    value: object = None


def configure_permissions(
    stack: LayerStack,
    profile: Table,
    overrides: PermissionOverrides,
    *,
    cwd: str,
    trust: Trust | None,
    source: ProfileSource,
) -> ConfiguredPermissions:
    """What layers, the selected legacy profile and the start itself ask for, as far as it is allowed.

    Raises `PermissionsError`. A choice that an administrator does not allow is replaced, with a warning if it was
    explicit.
    """
    choice = _choose(stack, profile, overrides)
    source.tables()
    settings = cast(Table, stack.get("sandbox_workspace_write") or _NO_TABLE)
    roots = _workspace_roots(stack, choice, overrides, settings, cwd)
    warnings: tuple[str, ...] = ()
    match choice.syntax:
        case "legacy":
            value = choice.value
            policy = legacy_policy(value, settings) if isinstance(value, str) else cast(SandboxPolicy, value)
            made = source.with_memories_by_cwd(profile_from_legacy(policy, source.view), cwd, roots)
            snapshot = ProfileSnapshot.of(made)
        case "profiles":
            snapshot, warnings = source.compile(cast(str, choice.value), cwd=cwd, roots=roots)
        case "undecided":
            if stack.get("permissions"):
                raise source.error(
                    "missing_default",
                    "config defines `[permissions]` profiles but does not set `default_permissions`",
                    ("permissions",),
                )
            snapshot = _implicit(stack, source, trust, settings, cwd, roots)
    try:
        source.requirements.check(snapshot.profile)
    except ConstraintError as error:
        if choice.syntax != "undecided":
            warnings = (*warnings, fallback_warning("permission_profile", "ReadOnly", error))
        snapshot = ProfileSnapshot.of(fallback(snapshot.profile))
    return ConfiguredPermissions(
        cwd=cwd,
        workspace_roots=roots,
        state=ProfileState.new(source.finished(snapshot), source.requirements.validator()),
        source=source,
        warnings=warnings,
    )


def _choose(stack: LayerStack, profile: Table, overrides: PermissionOverrides) -> _Choice:
    """Which syntax decides (permissions.md 8.2)."""
    if overrides.sandbox is not None:
        if overrides.permissions is not None:
            raise PermissionsError("`sandbox_mode` and `default_permissions` overrides cannot both be set")
        return _Choice("legacy", overrides.sandbox)
    if overrides.permissions is not None:
        return _Choice("profiles", overrides.permissions)
    flags = [layer for layer in stack.layers if layer.name in ("sessionFlags", "session")]
    if any("default_permissions" in layer.table for layer in flags):
        return _Choice("profiles", stack.get("default_permissions"))
    for layer in flags:
        if layer.name == "session" and "sandbox_mode" in layer.table:
            return _Choice("legacy", layer.table["sandbox_mode"])
    if "sandbox_mode" in profile:
        return _Choice("legacy", profile["sandbox_mode"])
    chosen = _Choice("undecided")
    for layer in stack.layers:
        if "default_permissions" in layer.table:
            chosen = _Choice("profiles", stack.get("default_permissions"))
        elif "sandbox_mode" in layer.table:
            chosen = _Choice("legacy", layer.table["sandbox_mode"])
    return chosen


def legacy_policy(mode: str, settings: Table) -> SandboxPolicy:
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
    return ReadOnly()


def _workspace_roots(
    stack: LayerStack, choice: _Choice, overrides: PermissionOverrides, settings: Table, cwd: str
) -> tuple[str, ...]:
    """The directories a session works in (permissions.md 8.4)."""
    if overrides.workspace_roots is not None:
        return tuple(dict.fromkeys(overrides.workspace_roots))
    roots = [cwd, *overrides.additional_writable_roots]
    if choice.syntax != "profiles" and stack.get("default_permissions") is None:
        roots += cast("list[str]", settings.get("writable_roots", ()))
    return tuple(dict.fromkeys(roots))


def _implicit(
    stack: LayerStack, source: ProfileSource, trust: Trust | None, settings: Table, cwd: str, roots: tuple[str, ...]
) -> ProfileSnapshot:
    """What holds where nothing was said: the workspace of a directory that somebody decided about, else reading."""
    if trust is None:
        return source.compile(":read-only", cwd=cwd, roots=roots).snapshot
    if stack.get("sandbox_workspace_write") is None:
        return source.compile(":workspace", cwd=cwd, roots=roots).snapshot
    # The legacy table shapes the implicit profile, which then has no id.
    bare = workspace_write(
        source.view,
        (),
        "enabled" if settings.get("network_access") else "restricted",
        exclude_tmpdir_env_var=bool(settings.get("exclude_tmpdir_env_var", False)),
        exclude_slash_tmp=bool(settings.get("exclude_slash_tmp", False)),
    )
    own = tuple(cast("list[str]", settings.get("writable_roots", ())))
    made = from_runtime(with_roots_added(file_system_of(bare), own), network_of(bare))
    return ProfileSnapshot.of(source.with_memories(made, cwd, roots))
