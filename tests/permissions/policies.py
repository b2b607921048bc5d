"""Generated policies, profiles, paths and disks."""

from __future__ import annotations

from hypothesis import strategies as st

from engine.permissions.memory_view import MemoryView
from engine.protocol.paths import normal_path
from engine.protocol.profiles import (
    PROJECT_ROOTS_PREFIX,
    Access,
    DangerFullAccess,
    DisabledProfile,
    ExternalProfile,
    ExternalSandbox,
    FileSystemEntry,
    FileSystemSandboxPolicy,
    GlobPath,
    LiteralPath,
    ManagedProfile,
    PermissionProfile,
    ReadOnly,
    RestrictedFileSystem,
    SandboxPolicy,
    SpecialKind,
    SpecialPath,
    SpecialValue,
    UnrestrictedFileSystem,
    WorkspaceWrite,
)

__all__ = ["cwds", "disks", "entries", "legacy_policies", "names", "paths", "policies", "profiles", "roots", "texts"]

# Few names, so that paths meet; some of them mean something, some only look like others.
names = st.sampled_from(
    ["a", "b", "ab", ".git", ".agents", ".codex", ".gitx", "tmp", "é", "é", "日本", "😀", "a b", "...", "\x00", "~"]
)
paths = st.lists(names, max_size=5).map(lambda parts: "/" + "/".join(parts))
cwds = st.one_of(st.sampled_from(["/a", "/a/b", "/", "/tmp"]), paths)
roots = st.lists(cwds, max_size=3).map(tuple)

# What callers ask about: anything.
_parts = st.one_of(names, st.sampled_from(["", ".", "..", "~", "../.."]), st.text(max_size=3))
texts = st.lists(_parts, max_size=9).map("/".join)

accesses: st.SearchStrategy[Access] = st.sampled_from(["read", "write", "none"])
_plain_kinds: st.SearchStrategy[SpecialKind] = st.sampled_from(["root", "minimal", "tmpdir", "slash_tmp"])
_subpaths = st.none() | st.sampled_from([".git", ".codex", "a", "a/../b", "../a", "/a"])
_special = st.one_of(
    _plain_kinds.map(SpecialPath.of),
    _subpaths.map(lambda below: SpecialPath.of("project_roots", below)),
    st.builds(SpecialValue, st.just("unknown"), st.sampled_from([":later", ":x"]), _subpaths).map(SpecialPath),
)
_globs = st.sampled_from(
    ["/a/**", "/a/*.env", "**/*.env", "docs/*", "/a/{b,ab}/*", "/[a-z]", "/x/[", f"{PROJECT_ROOTS_PREFIX}**/x", "/{"]
).map(GlobPath)
entries = st.builds(FileSystemEntry, st.one_of(paths.map(LiteralPath), _special, _globs), accesses)
_depths = st.none() | st.integers(1, 5)
_lists = st.lists(entries, max_size=8).map(tuple)

policies = st.one_of(
    st.builds(FileSystemSandboxPolicy, st.just("restricted"), _depths, _lists),
    st.builds(FileSystemSandboxPolicy, st.sampled_from(["unrestricted", "external-sandbox"])),
)
networks = st.sampled_from(["restricted", "enabled"])
profiles: st.SearchStrategy[PermissionProfile] = st.one_of(
    st.builds(ManagedProfile, st.builds(RestrictedFileSystem, _lists, _depths), networks),
    st.builds(ManagedProfile, st.just(UnrestrictedFileSystem()), networks),
    st.just(DisabledProfile()),
    st.builds(ExternalProfile, networks),
)
legacy_policies: st.SearchStrategy[SandboxPolicy] = st.one_of(
    st.just(DangerFullAccess()),
    st.builds(ReadOnly, network_access=st.booleans()),
    st.builds(ExternalSandbox, networks),
    st.builds(
        WorkspaceWrite,
        writable_roots=st.lists(paths, max_size=3).map(tuple),
        network_access=st.booleans(),
        exclude_tmpdir_env_var=st.booleans(),
        exclude_slash_tmp=st.booleans(),
    ),
)


@st.composite
def disks(draw: st.DrawFn) -> MemoryView:
    """A described machine: few folders, files and links among the same names as the paths, pointer files too."""
    directories = draw(st.lists(paths, max_size=5))
    files = draw(
        st.dictionaries(paths, st.sampled_from(["", "gitdir: /a/b", "gitdir: ../b", "gitdir:", "x"]), max_size=3)
    )
    links = draw(st.dictionaries(paths, st.one_of(paths, st.sampled_from(["b", "../a", "."])), max_size=3))
    taken = {"/"}
    for path in (*directories, *files, *links):
        while path != "/":
            path = normal_path(path.rpartition("/")[0] or "/")
            taken.add(path)
    # Only leaves can be files or links; a directory is neither.
    kept = {path: text for path, text in files.items() if path not in taken and path not in directories}
    return MemoryView(
        files=kept,
        directories=frozenset(directories),
        links={
            path: target
            for path, target in links.items()
            if path not in taken and path not in directories and path not in kept
        },
        home=draw(st.sampled_from([None, "/home", "/a"])),
        tmpdir=draw(st.sampled_from([None, "/tmp/x", "/a/b", "rel", ""])),
        cwd=draw(cwds),
    )
