"""Which paths may not be read, globs included: what tools ask before they open a file (permissions.md 4.7)."""

from __future__ import annotations

import attrs

from engine.permissions.canonical import absolute
from engine.permissions.globs import Glob, GlobError, compile_glob
from engine.permissions.roots import Roots
from engine.permissions.view import View
from engine.permissions.whole_disk import has_denied_read
from engine.protocol.paths import is_under
from engine.protocol.profiles import FileSystemSandboxPolicy
from engine.records import frozen

__all__ = ["ReadDenyMatcher", "read_deny_matcher"]


@frozen
class ReadDenyMatcher:
    """The denied places and globs of a policy in one directory. `is_broken`: a glob has no meaning; all is denied."""

    cwd: str
    places: tuple[str, ...]
    globs: tuple[Glob, ...]
    is_broken: bool
    view: View = attrs.field(repr=False)

    def is_read_denied(self, path: str) -> bool:
        """Whether the path, or what it leads to, lies in a denied place or matches a denied glob.

        A denied place covers all below it, even where a deeper entry reopens a part.
        """
        if self.is_broken:
            return True
        normal = absolute(path, self.view, self.cwd)
        resolved = self.view.resolve(normal)
        for candidate in (normal,) if resolved in (None, normal) else (normal, resolved):
            assert candidate is not None
            if any(is_under(candidate, place) for place in self.places):
                return True
            if any(glob.matches(candidate) for glob in self.globs):
                return True
        return False


def read_deny_matcher(
    policy: FileSystemSandboxPolicy, cwd: str, view: View, *, strict: bool = False
) -> ReadDenyMatcher | None:
    """The matcher of a policy in `cwd`; None where nothing is denied.

    A glob without a meaning denies everything; with `strict` it raises `GlobError` instead.
    """
    if not has_denied_read(policy):
        return None
    roots = Roots(policy, cwd, view)
    places: dict[str, None] = {}
    for root in roots.unreadable:
        places[root] = None
        resolved = view.resolve(root)
        if resolved is not None:
            places[resolved] = None
    globs: list[Glob] = []
    is_broken = False
    for text in roots.unreadable_globs:
        try:
            globs.append(compile_glob(text))
        except GlobError:
            if strict:
                raise
            is_broken = True
    return ReadDenyMatcher(absolute(cwd, view), tuple(places), tuple(globs), is_broken, view)
