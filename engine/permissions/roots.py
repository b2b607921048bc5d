"""What a policy comes to in a directory: its root lists, and equivalence by them (permissions.md 4.5, 4.6, 4.8)."""

from __future__ import annotations

from functools import cached_property

import attrs

from engine.permissions.access import compile_policy
from engine.permissions.canonical import absolute, effective
from engine.permissions.legacy import UnbridgeablePolicy, from_legacy, legacy_runtime, to_legacy
from engine.permissions.projection import CompiledPolicy
from engine.permissions.protected import read_only_subpaths
from engine.permissions.view import View
from engine.permissions.whole_disk import has_full_disk_read, has_full_disk_write, includes_platform_defaults
from engine.protocol.paths import components, is_under, join
from engine.protocol.profiles import (
    PROTECTED_NAMES,
    FileSystemSandboxPolicy,
    GlobPath,
    NetworkAccess,
    SandboxPolicy,
    WorkspaceWrite,
)
from engine.records import frozen

__all__ = [
    "Roots",
    "WritableRoot",
    "is_semantically_equivalent",
    "legacy_writable_roots",
    "needs_direct_enforcement",
]


@frozen
class WritableRoot:
    """A place that may be written, without what stays read-only below it. All paths are normal."""

    root: str
    read_only_subpaths: tuple[str, ...] = ()
    protected_metadata_names: tuple[str, ...] = ()

    def is_path_writable(self, path: str) -> bool:
        """Whether the normal `path` lies in the root and in nothing that is kept from writing."""
        if not is_under(path, self.root) or any(is_under(path, kept) for kept in self.read_only_subpaths):
            return False
        below = components(path)[len(components(self.root)) :]
        return not below or below[0] not in PROTECTED_NAMES


@attrs.define(slots=False, frozen=True, eq=False)
class Roots:
    """The root lists of a policy in `cwd`, each worked out when it is first asked for; the disk is looked at then."""

    policy: FileSystemSandboxPolicy
    cwd: str
    view: View

    @cached_property
    def compiled(self) -> CompiledPolicy:
        """The policy compiled for `cwd`."""
        return compile_policy(self.policy, self.cwd, self.view)

    @cached_property
    def readable(self) -> tuple[str, ...]:
        """Effective paths of what may be read; empty where everything may."""
        return () if has_full_disk_read(self.policy) else self.compiled.readable_roots(self._effective)

    @cached_property
    def unreadable(self) -> tuple[str, ...]:
        """Effective paths of what may not be read."""
        return self.compiled.unreadable_roots(self._effective) if self.policy.kind == "restricted" else ()

    @cached_property
    def unreadable_globs(self) -> tuple[str, ...]:
        """Absolute globs of what may not be read, sorted. A symbolic glob is taken for relative text."""
        if self.policy.kind != "restricted":
            return ()
        globs = (entry.path for entry in self.policy.entries if entry.access == "none")
        return tuple(
            sorted({absolute(glob.pattern, self.view, self.cwd) for glob in globs if isinstance(glob, GlobPath)})
        )

    @cached_property
    def writable(self) -> tuple[WritableRoot, ...]:
        """What may be written; empty where everything may."""
        if has_full_disk_write(self.policy):
            return ()
        here = effective(absolute(self.cwd, self.view), self.view)
        facts = self.compiled.writable_roots(
            self._effective,
            lambda root: read_only_subpaths(root, self.view, protect_missing_dot_codex=root == here),
        )
        return tuple(WritableRoot(*fact) for fact in facts)

    @cached_property
    def signature(self) -> tuple[object, ...]:
        """What the policy amounts to; equal for policies that allow the same (permissions.md 4.6)."""
        return (
            has_full_disk_read(self.policy),
            has_full_disk_write(self.policy),
            includes_platform_defaults(self.policy),
            sorted(self.readable),
            sorted(
                (root.root, sorted(root.read_only_subpaths), sorted(set(root.protected_metadata_names)))
                for root in self.writable
            ),
            sorted(self.unreadable),
            self.unreadable_globs,
        )

    @cached_property
    def _seen(self) -> dict[str, str]:
        return {}

    def _effective(self, path: str) -> str:
        # Every carve-out is asked about for every root.
        found = self._seen.get(path)
        if found is None:
            found = self._seen[path] = effective(path, self.view)
        return found


def is_semantically_equivalent(
    left: FileSystemSandboxPolicy, right: FileSystemSandboxPolicy, cwd: str, view: View
) -> bool:
    """Whether both allow the same in `cwd`; kind, scan depth, order and repetition of entries don't matter."""
    return left == right or Roots(left, cwd, view).signature == Roots(right, cwd, view).signature


def legacy_writable_roots(policy: SandboxPolicy, cwd: str, view: View) -> tuple[WritableRoot, ...]:
    """What a legacy `workspace-write` policy lets be written, as it is written and with repetitions (4.5)."""
    if not isinstance(policy, WorkspaceWrite):
        return ()
    cwd = absolute(cwd, view)
    roots = [*policy.writable_roots, cwd]
    if not policy.exclude_slash_tmp and view.is_directory("/tmp"):
        roots.append("/tmp")
    if not policy.exclude_tmpdir_env_var and view.tmpdir:
        roots.append(absolute(view.tmpdir, view))
    return tuple(
        WritableRoot(root, read_only_subpaths(root, view, protect_missing_dot_codex=root == cwd)) for root in roots
    )


def needs_direct_enforcement(policy: FileSystemSandboxPolicy, network: NetworkAccess, cwd: str, view: View) -> bool:
    """Whether the legacy form of the policy would enforce something else than the policy (permissions.md 4.8)."""
    if policy.kind != "restricted":
        return False
    try:
        legacy = to_legacy(policy, network, cwd, view)
    except UnbridgeablePolicy:
        return True
    roots = Roots(policy, cwd, view)
    known = legacy_writable_roots(legacy, cwd, view)
    for writable in roots.writable:
        kept = {path for root in known if root.root == writable.root for path in root.read_only_subpaths}
        if any(join(writable.root, name) not in kept for name in writable.protected_metadata_names):
            return True
    runtime = legacy_runtime(legacy, cwd, view) if isinstance(legacy, WorkspaceWrite) else from_legacy(legacy, view)
    return roots.signature != Roots(runtime, cwd, view).signature
