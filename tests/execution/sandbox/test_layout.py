"""Which mounts a policy comes to, and that they leave exactly what the policy allows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.execution.sandbox.errors import SandboxPolicyError
from engine.execution.sandbox.layout import DeniedFile, Layout, Mount, arrange
from engine.execution.sandbox.resolving import Resolver, depth, is_below
from engine.execution.sandbox.rules import FileSystemRules, file_system_rules
from engine.permissions.access import compile_policy
from engine.permissions.memory_view import MemoryView
from engine.permissions.whole_disk import has_full_disk_write
from engine.protocol.profiles import Access, FileSystemEntry, FileSystemSandboxPolicy, LiteralPath, SpecialPath

from .disks import MemoryDisk, access_behind, described

WS = "/home/user/ws"


def policy(*entries: tuple[str, Access]) -> FileSystemSandboxPolicy:
    """`:root` and `:minimal` are symbols, all else are paths, `.` and what follows it below the workspace."""
    made = []
    for name, access in entries:
        if name == ":root":
            path: SpecialPath | LiteralPath = SpecialPath.of("root")
        elif name == ":minimal":
            path = SpecialPath.of("minimal")
        else:
            path = LiteralPath(name if name[0] == "/" else (WS + name[1:]))
        made.append(FileSystemEntry(path, access))
    return FileSystemSandboxPolicy("restricted", None, tuple(made))


def laid_out(
    view: MemoryView,
    *entries: tuple[str, Access],
    denied_files: Sequence[DeniedFile] = (),
    protected: Sequence[str] = (),
) -> Layout:
    rules = file_system_rules(policy(*entries), WS, view)
    return arrange(rules, MemoryDisk(view), denied_files=denied_files, protected=protected)


def short(layout: Layout) -> list[str]:
    """Each mount in few words, paths below the workspace from there."""
    names = {
        "read": "ro",
        "write": "rw",
        "hidden_folder": "no",
        "hidden_file": "no",
        "placeholder_folder": "new/",
        "placeholder_file": "new",
    }
    return [
        f"{names[mount.kind]} {mount.path.replace(WS, '.')}{' (open)' if mount.open_below else ''}"
        f"{f' = {mount.source}' if mount.source not in ('', mount.path) else ''}"
        for mount in layout.mounts
    ]


PLAIN = described(
    f"{WS}/.git/", f"{WS}/docs/private/public/", f"{WS}/src/", f"{WS}/a/b/c/", "/usr/bin/", "/tmp/", "/srv/"
)


# --- the arrangement ---------------------------------------------------------------------------


def test_reading_everything_takes_no_mount_but_the_disk() -> None:
    layout = laid_out(PLAIN, (":root", "read"))
    assert layout == Layout(whole_disk=True, mounts=())


def test_metadata_of_a_writable_root_is_covered_there_or_not() -> None:
    layout = laid_out(PLAIN, (":root", "read"), (".", "write"))
    assert layout.whole_disk
    assert short(layout) == ["rw .", "new/ ./.agents", "new/ ./.codex", "ro ./.git"]


def test_metadata_with_a_rule_of_its_own_may_be_written() -> None:
    layout = laid_out(PLAIN, (":root", "read"), (".", "write"), ("./.git", "write"))
    assert access_behind(layout, f"{WS}/.git") == "write"
    assert access_behind(layout, f"{WS}/.codex") == "none"


def test_deeper_places_come_later() -> None:
    layout = laid_out(
        PLAIN, ("./docs/private/public", "write"), (".", "write"), ("./docs/private", "none"), ("./docs", "read")
    )
    assert [line for line in short(layout) if "docs" in line and "public/" not in line] == [
        "ro ./docs",
        "no ./docs/private (open)",
        "rw ./docs/private/public",
    ]


def test_an_empty_tree_shows_what_is_listed() -> None:
    layout = laid_out(PLAIN, (":minimal", "read"), ("./src", "read"))
    assert not layout.whole_disk
    assert short(layout) == ["ro /usr", "ro ./src"]


def test_what_is_denied_under_the_whole_disk() -> None:
    layout = laid_out(PLAIN, (":root", "read"), ("./docs", "none"), ("./docs/private/public", "read"))
    assert layout.whole_disk
    assert short(layout) == ["no ./docs (open)", "ro ./docs/private/public"]


def test_missing_writable_roots_are_left_out() -> None:
    assert short(laid_out(PLAIN, (":root", "read"), ("./missing", "write"), ("/srv", "write"))) == [
        "rw /srv",
        "new/ /srv/.agents",
        "new/ /srv/.codex",
        "new/ /srv/.git",
    ]


def test_a_file_is_hidden_as_a_file() -> None:
    view = described(f"{WS}/.env", f"{WS}/other")
    assert short(laid_out(view, (":root", "read"), ("./.env", "none"))) == ["no ./.env"]
    assert laid_out(view, (":root", "read"), ("./.env", "none")).mounts[0].kind == "hidden_file"


def test_what_is_missing_and_denied_can_not_be_created() -> None:
    layout = laid_out(PLAIN, (":root", "read"), (".", "write"), ("./new/secret/key", "none"), ("./plan.md", "read"))
    assert [line for line in short(layout) if line.startswith("new ")] == ["new ./new", "new ./plan.md"]


def test_where_nothing_can_be_written_nothing_has_to_be_kept_from_it() -> None:
    assert short(laid_out(PLAIN, (":root", "read"), ("/srv/new", "none"))) == []


def test_the_pointer_of_a_worktree_is_followed() -> None:
    view = MemoryView(
        files={f"{WS}/.git": "gitdir: /srv/repo/.git/worktrees/ws\n"},
        directories=frozenset(["/srv/repo/.git/worktrees/ws", f"{WS}/.agents", f"{WS}/.codex"]),
    )
    layout = laid_out(view, (":root", "read"), (".", "write"), ("/srv/repo", "write"), ("/srv/repo/.git", "write"))
    assert access_behind(layout, "/srv/repo/.git") == "write"
    assert access_behind(layout, "/srv/repo/.git/worktrees/ws") == "read"
    assert access_behind(layout, f"{WS}/.git") == "read"


def test_a_disk_that_may_be_written_but_for_a_part() -> None:
    layout = laid_out(PLAIN, (":root", "write"), ("./docs", "read"))
    assert layout.whole_disk
    assert short(layout)[0] == "rw /"
    assert access_behind(layout, f"{WS}/docs/private") == "read"
    assert access_behind(layout, f"{WS}/src") == "write"


def test_further_protected_paths_win_over_writable_ones_around_them() -> None:
    layout = laid_out(PLAIN, (":root", "read"), (".", "write"), protected=[f"{WS}/a/b", "/usr/bin", f"{WS}/missing"])
    assert [line for line in short(layout) if "./a" in line] == ["rw ./a", "ro ./a/b"]
    assert "/usr" not in "".join(short(layout))


# --- names that must stay ----------------------------------------------------------------------


def test_folders_above_something_protected_are_pinned() -> None:
    layout = laid_out(PLAIN, (":root", "read"), (".", "write"), ("./a/b/c", "none"))
    assert [line for line in short(layout) if "./a" in line] == ["rw ./a", "rw ./a/b", "no ./a/b/c"]


def test_nested_writable_roots_are_pinned_not_mounted_twice() -> None:
    layout = laid_out(PLAIN, (":root", "read"), ("/home", "write"), (".", "write"))
    assert [line for line in short(layout) if line.startswith("rw")] == ["rw /home", "rw /home/user", "rw ."]


def test_what_a_glob_matches_is_pinned_where_the_glob_names_folders() -> None:
    files = [DeniedFile(f"{WS}/a/b/x.env", pinned=False), DeniedFile(f"{WS}/src/y.env", pinned=True)]
    view = described(f"{WS}/a/b/x.env", f"{WS}/src/y.env")
    layout = laid_out(view, (":root", "read"), (".", "write"), denied_files=files)
    assert "rw ./a" not in short(layout)
    assert "rw ./src" in short(layout)
    assert {"no ./a/b/x.env", "no ./src/y.env"} <= set(short(layout))


def test_pins_never_cover_what_lies_below_them() -> None:
    files = [DeniedFile(f"{WS}/a/x.env", pinned=False)]
    view = described(f"{WS}/a/x.env", f"{WS}/a/b/c/")
    layout = laid_out(view, (":root", "read"), (".", "write"), ("./a/b/c", "none"), denied_files=files)
    assert access_behind(layout, f"{WS}/a/x.env") == "none"


def test_what_has_to_be_mounted_from_a_writable_place_is_told() -> None:
    layout = laid_out(PLAIN, (":root", "read"), (".", "write"), ("./a", "none"), ("./a/b", "write"), ("/srv", "write"))
    assert layout.has_loose_mounts
    assert [mount.path for mount in layout.mounts if mount.loose] == [f"{WS}/a/b"]
    assert not laid_out(PLAIN, (":root", "read"), (".", "write"), ("/srv", "write")).has_loose_mounts


def test_a_file_in_the_place_of_a_protected_folder_has_to_stay() -> None:
    view = described(f"{WS}/build", f"{WS}/other/")
    layout = laid_out(view, (":root", "read"), (".", "write"), ("./build/secret", "none"))
    assert "rw ./build" in short(layout)


# --- links -------------------------------------------------------------------------------------

LINKED = described(
    *(f"{WS}/.git/", f"{WS}/real/.git/", f"{WS}/real/secret/", "/srv/outside/", "/srv/repo/.git/"),
    links={
        f"{WS}/link": "real",
        f"{WS}/out": "/srv/outside",
        "/srv/alias": "/srv/repo",
        f"{WS}/meta": ".git",
        f"{WS}/loop": "loop",
    },
)


def test_a_writable_link_opens_what_it_leads_to() -> None:
    layout = laid_out(LINKED, (":root", "read"), ("/srv/alias", "write"))
    assert short(layout) == ["rw /srv/repo", "new/ /srv/repo/.agents", "new/ /srv/repo/.codex", "ro /srv/repo/.git"]


@pytest.mark.parametrize("access", ["none", "read"])
def test_nothing_is_protected_through_a_link_that_commands_can_change(access: Access) -> None:
    with pytest.raises(SandboxPolicyError, match=f"crosses writable symlink {WS}/link") as caught:
        laid_out(LINKED, (":root", "read"), (".", "write"), ("./link/secret", access))
    assert caught.value.path == f"{WS}/link/secret"


def test_protected_metadata_that_is_a_link_is_refused() -> None:
    view = described(f"{WS}/x/", links={f"{WS}/.git": "x"})
    with pytest.raises(SandboxPolicyError, match="crosses writable symlink"):
        laid_out(view, (":root", "read"), (".", "write"))


def test_a_denied_link_where_nothing_can_be_written_is_followed() -> None:
    layout = laid_out(LINKED, (":root", "read"), ("./link/secret", "none"))
    assert short(layout) == ["no ./real/secret"]


def test_a_link_in_a_writable_root_gives_nothing_outside() -> None:
    with pytest.raises(SandboxPolicyError, match=f"leads outside through writable symlink {WS}/out"):
        laid_out(LINKED, (":root", "read"), (".", "write"), ("./out", "write"))


def test_a_link_in_a_writable_root_opens_no_metadata() -> None:
    layout = laid_out(LINKED, (":root", "read"), (".", "write"), ("./meta", "write"))
    assert access_behind(layout, f"{WS}/.git") == "read"


def test_a_link_to_another_part_of_the_root_brings_its_metadata_along() -> None:
    layout = laid_out(LINKED, (":root", "read"), (".", "write"), ("./link", "write"))
    assert access_behind(layout, f"{WS}/real") == "write"
    assert access_behind(layout, f"{WS}/real/.git") == "read"


def test_a_link_in_a_writable_root_shows_nothing_outside() -> None:
    view = described(f"{WS}/x", "/srv/outside/", links={f"{WS}/out": "/srv/outside", "/data/ws": WS})
    layout = laid_out(view, (":minimal", "read"), (".", "write"), ("/data/ws/out", "read"))
    assert access_behind(layout, "/srv/outside") == "none"
    assert not layout.shows("/data/ws/out")


def test_what_is_denied_is_denied_under_every_name() -> None:
    view = described("/srv/repo/secret/", "/srv/repo/x", links={"/alias": "/srv/repo", "/data/link": "/srv/repo"})
    layout = laid_out(view, ("/data/link", "read"), ("/srv/repo/secret", "none"))
    assert short(layout) == ["ro /data/link = /srv/repo", "no /data/link/secret"]


def test_endless_links_lead_nowhere() -> None:
    assert Resolver(MemoryDisk(LINKED)).resolve(f"{WS}/loop/x").kind == "missing"
    assert short(laid_out(LINKED, (":root", "read"), ("./loop", "write"))) == []


# --- properties --------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", ".git", ".codex"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))
ENTRIES = st.tuples(PATHS, st.sampled_from(["read", "write", "none"]))


@given(st.lists(PATHS, max_size=6), st.lists(ENTRIES, max_size=6), st.sampled_from(["read", "write", None]))
def test_without_links_commands_can_do_exactly_what_the_policy_says(
    folders: list[str], entries: list[tuple[str, Access]], root: Access | None
) -> None:
    view = MemoryView(directories=frozenset(folders))
    made = policy(*([(":root", root)] if root else []), *entries)
    if has_full_disk_write(made):
        return
    rules = file_system_rules(made, "/a", view)
    layout = arrange(rules, MemoryDisk(view))
    decided = compile_policy(made, "/a", view)
    kept = {path for root in rules.writable for path in root.read_only_subpaths}
    shadowed = {mount.path for mount in layout.mounts if mount.kind.startswith("placeholder")}
    for path in sorted(view._directories - {"/"}):
        expected = "write" if decided.can_write(path) else "read" if decided.can_read(path) else "none"
        found = access_behind(layout, path)
        # Metadata of a root inside another root's metadata: decisions only know the outer one (permissions.md 3.2).
        if (expected, found) != ("write", "read") or not any(path == place or is_below(path, place) for place in kept):
            assert found == expected, (path, layout)
        assert path not in shadowed


@given(st.lists(PATHS, max_size=6), st.lists(ENTRIES, max_size=6), st.dictionaries(PATHS, PATHS, max_size=3))
def test_with_links_nothing_becomes_writable_but_where_own_links_lead(
    folders: list[str], entries: list[tuple[str, Access]], links: dict[str, str]
) -> None:
    links = {path: target for path, target in links.items() if not any(folder.startswith(path) for folder in folders)}
    view = MemoryView(directories=frozenset(folders), links=links)
    made = policy((":root", "read"), *entries)
    rules = file_system_rules(made, "/a", view)
    try:
        layout = arrange(rules, MemoryDisk(view))
    except SandboxPolicyError:
        return
    resolver = Resolver(MemoryDisk(view))
    roots = {resolver.resolve(root.root).path for root in rules.writable}
    for mount in layout.mounts:
        if mount.source in ("", mount.path):  # else it has the place of a link in an empty tree
            assert resolver.resolve(mount.path).links == (), "a mount follows links"
        if mount.kind == "write":
            assert any(mount.path == root or is_below(mount.path, root) for root in roots)
    assert [mount.path for mount in layout.mounts] == sorted(
        (mount.path for mount in layout.mounts), key=lambda path: (depth(path), path)
    )


def test_a_layout_tells_what_it_shows() -> None:
    layout = Layout(
        whole_disk=False,
        mounts=(Mount("/usr", "read", "/usr"), Mount("/usr/secret", "hidden_folder"), Mount("/ws", "write", "/ws")),
    )
    shown = ["/usr/bin/sh", "/usr/secret/x", "/ws/a", "/home"]
    assert [layout.shows(path) for path in shown] == [True, False, True, False]


def test_rules_without_anything_hide_everything() -> None:
    assert arrange(FileSystemRules(), MemoryDisk(PLAIN)) == Layout(whole_disk=False, mounts=())
