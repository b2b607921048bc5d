"""What may be done with a path under a policy, and which entry decides, in words (permissions.md 4)."""

from __future__ import annotations

from engine.permissions.access import compile_policy
from engine.permissions.canonical import absolute
from engine.permissions.globs import GlobError, compile_glob
from engine.permissions.roots import Roots
from engine.permissions.view import View
from engine.protocol.paths import is_under
from engine.protocol.profiles import FileSystemEntry, FileSystemSandboxPolicy, GlobPath, LiteralPath

__all__ = ["describe_entry", "explain_path"]

_WORDS = {
    (True, True): "can be read and written",
    (True, False): "can be read, not written",
    (False, False): "can't be read or written",
}


def explain_path(path: str, policy: FileSystemSandboxPolicy, cwd: str, view: View) -> list[str]:
    """Lines for people: the verdict first, then why. A link is followed, for what it leads to is what counts."""
    name = absolute(path, view, cwd)
    target = view.resolve(name) or name
    lines = _explain(name, policy, cwd, view)
    if target != name:
        lines += [f"it leads to {target}, for which holds:", *_explain(target, policy, cwd, view)]
    return lines


def _explain(path: str, policy: FileSystemSandboxPolicy, cwd: str, view: View) -> list[str]:
    decision = compile_policy(policy, cwd, view).explain(path)
    glob = _denying_glob(path, policy, cwd, view)
    verdict = _WORDS[(decision.can_read and glob is None, decision.can_write and glob is None)]
    lines = [f"{path} {verdict}"]
    if glob is not None:
        lines.append(f"  it matches the glob {glob}, whose files are denied when a command starts")
    entry = None if decision.entry is None else policy.entries[decision.entry]
    match decision.reason:
        case "open":
            lines.append("  the policy restricts no files")
        case "no_entry":
            lines.append("  no entry of the policy covers it")
        case "metadata":
            assert entry is not None
            lines.append(
                f"  {decision.forbidden_metadata} of a writable place is protected; the place is entry "
                f"{decision.entry}: {describe_entry(entry)}"
            )
        case "entry":
            assert entry is not None
            lines.append(f"  the deepest entry around it is number {decision.entry}: {describe_entry(entry)}")
    for root in Roots(policy, cwd, view).writable:
        for kept in root.read_only_subpaths:
            if decision.can_write and is_under(path, kept):
                lines[0] = f"{path} {_WORDS[(decision.can_read, False)]}"
                lines.append(f"  {kept} is kept from being written, as metadata of {root.root}")
    return lines


def _denying_glob(path: str, policy: FileSystemSandboxPolicy, cwd: str, view: View) -> str | None:
    for text in Roots(policy, cwd, view).unreadable_globs:
        try:
            if compile_glob(text).matches(path):
                return text
        except GlobError:
            return text  # one without a meaning denies everything
    return None


def describe_entry(entry: FileSystemEntry) -> str:
    """An entry as configuration would have it: access and place."""
    path = entry.path
    if isinstance(path, LiteralPath):
        place = path.path
    elif isinstance(path, GlobPath):
        place = path.pattern
    else:
        place = f":{path.kind}" if path.subpath is None else f":{path.kind}/{path.subpath}"
    return f"{entry.access} {place}"
