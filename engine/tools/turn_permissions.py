"""What a turn may touch: its profile, and what the user granted besides (tools.md 4.5, 4.6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from weakref import WeakValueDictionary

import attrs
import trio

from engine.exec_policy.in_force import RulesInForce
from engine.permissions.access import compile_policy
from engine.permissions.additional import effective_profile, merge
from engine.permissions.profiles import file_system_of
from engine.permissions.projection import CompiledPolicy
from engine.permissions.view import View
from engine.permissions.whole_disk import has_full_disk_write
from engine.protocol.profiles import (
    AdditionalPermissionProfile,
    FileSystemEntry,
    FileSystemSandboxPolicy,
    LiteralPath,
    PermissionProfile,
)
from engine.records import define

__all__ = ["SessionApprovals", "TurnPermissions"]


@define(eq=False)
class SessionApprovals:
    """What the user agreed to for as long as the session runs, and the rules for its commands."""

    rules: RulesInForce
    granted: AdditionalPermissionProfile | None = None
    _keys: set[str] = attrs.field(factory=set, init=False)
    _asking: WeakValueDictionary[str, trio.Lock] = attrs.field(factory=WeakValueDictionary, init=False)

    def asking(self, key: str) -> trio.Lock:
        """To be held while the user is asked about what has this key, so that calls side by side ask one by one."""
        return self._asking.setdefault(key, trio.Lock())

    def remember(self, key: str) -> None:
        """What has this key was approved for the session."""
        self._keys.add(key)

    def remembers(self, *keys: str) -> bool:
        """Whether all of them were approved for the session."""
        return all(key in self._keys for key in keys)


@define(eq=False)
class TurnPermissions:
    """The permissions of one turn: `profile` without symbols, as it holds in `cwd`, plus what was granted.

    `protected` are paths that no policy makes writable by accident, as the sandbox has it: only an entry for just that
    place does. A home below `/tmp` would else be the model's to write, and decide what the next session may do.
    """

    profile: PermissionProfile
    cwd: str
    view: View
    session: SessionApprovals
    protected: tuple[str, ...] = ()
    granted: AdditionalPermissionProfile | None = attrs.field(default=None, init=False)

    @property
    def granted_now(self) -> AdditionalPermissionProfile | None:
        """What the user granted, for this turn or the session."""
        return merge(self.session.granted, self.granted)

    def effective(self, additional: AdditionalPermissionProfile | None = None) -> PermissionProfile:
        """The profile with everything granted, and with what one call asks for besides."""
        return effective_profile(self.profile, merge(self.granted_now, additional))

    def file_system(self, additional: AdditionalPermissionProfile | None = None) -> FileSystemSandboxPolicy:
        """The file-system part of `effective`, with what is protected."""
        policy = file_system_of(self.effective(additional))
        if policy.kind != "restricted" or not self.protected or has_full_disk_write(policy):
            return policy
        compiled = compile_policy(policy, self.cwd, self.view)
        named = {entry.path.path for entry in policy.entries if isinstance(entry.path, LiteralPath)}
        kept = [path for path in self.protected if path not in named and compiled.can_write(path)]
        return attrs.evolve(
            policy, entries=(*policy.entries, *(FileSystemEntry(LiteralPath(path), "read") for path in kept))
        )

    def compiled(self, additional: AdditionalPermissionProfile | None = None) -> CompiledPolicy:
        """`file_system`, made for questions."""
        return compile_policy(self.file_system(additional), self.cwd, self.view)

    def guards(self, paths: Sequence[str]) -> bool:
        """Whether no command can write to these files, or all commands can write to all files anyway."""
        policy = self.file_system()
        if policy.kind != "restricted" or has_full_disk_write(policy):
            return True
        compiled = compile_policy(policy, self.cwd, self.view)
        return not any(compiled.can_write(path) for path in paths)

    def grants_writing(self, paths: Iterable[str]) -> bool:
        """Whether what the user granted is enough to write all of these."""
        granted = self.granted_now
        if granted is None or granted.file_system is None:
            return False
        policy = FileSystemSandboxPolicy("restricted", None, granted.file_system.entries)
        compiled = compile_policy(policy, self.cwd, self.view)
        return all(map(compiled.can_write, paths))

    def grant(self, permissions: AdditionalPermissionProfile, *, for_session: bool) -> None:
        """The user granted this, too."""
        if for_session:
            self.session.granted = merge(self.session.granted, permissions)
        else:
            self.granted = merge(self.granted, permissions)
