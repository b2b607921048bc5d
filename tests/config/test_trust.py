"""Trust of a directory: its own entry, its project's, its main repository's."""

from __future__ import annotations

import pytest

from engine.config.trust import Trust, find_trust, linked_worktree, main_repository, project_folders, project_root
from engine.permissions.memory_view import MemoryView

DISK = MemoryView(
    files={
        "/real/repo/.git/config": "",
        "/real/repo/.git/worktrees/wt/HEAD": "",
        "/wt/.git": "gitdir: /real/repo/.git/worktrees/wt\n",
        "/sub/.git": "gitdir: ../real/repo/.git/modules/sub",
        "/odd/.git": "no pointer",
    },
    directories=frozenset({"/real/repo/src", "/wt/src", "/sub/x", "/odd", "/plain/a", "/hg/.hg", "/hg/a"}),
    links={"/link": "/real/repo"},
)
MARKERS = (".git",)


def level(key: str, value: str = "trusted") -> dict[str, object]:
    return {key: {"trust_level": value}}


@pytest.mark.parametrize(
    ("directory", "projects", "key"),
    [
        ("/real/repo/src", level("/real/repo"), "/real/repo"),
        ("/real/repo/src", level("/real/repo/src"), "/real/repo/src"),
        ("/real/repo/src", level("/real"), None),
        ("/link", level("/link"), "/link"),
        ("/link", level("/real/repo"), "/real/repo"),
        ("/link", {**level("/real/repo"), **level("/link", "untrusted")}, "/real/repo"),
        ("/wt/src", level("/real/repo"), "/real/repo"),
        ("/wt/src", {**level("/real/repo"), **level("/wt", "untrusted")}, "/wt"),
        ("/sub/x", level("/real/repo"), None),
        ("/odd", level("/real/repo"), None),
        ("/plain/a", level("/plain"), None),
        ("/plain/a", {}, None),
        ("/plain/a", {"/plain/a": {}}, None),
        ("/missing", level("/missing"), "/missing"),
    ],
)
def test_whose_decision_counts(directory: str, projects: dict[str, object], key: str | None) -> None:
    found = find_trust(projects, directory, MARKERS, DISK)
    assert (None if found is None else found.key) == key


def test_levels() -> None:
    assert find_trust(level("/plain/a", "untrusted"), "/plain/a", MARKERS, DISK) == Trust("untrusted", "/plain/a")
    assert find_trust("nonsense", "/plain/a", MARKERS, DISK) is None


def test_folders_of_a_project() -> None:
    disk = MemoryView(
        files={f"/{place}/.codex/config.toml": "" for place in ("p", "p/a/b", "")},
        directories=frozenset({"/p/.git", "/p/a/.codex", "/p/a/b/c"}),
    )
    assert project_folders("/p/a/b/c", MARKERS, disk) == ["/p/.codex", "/p/a/.codex", "/p/a/b/.codex"]


@pytest.mark.parametrize(
    ("directory", "expected"),
    [("/wt/src", ("/wt", "/real/repo")), ("/real/repo/src", None), ("/sub/x", None), ("/plain/a", None)],
)
def test_linked_worktrees(directory: str, expected: tuple[str, str] | None) -> None:
    assert linked_worktree(directory, DISK) == expected


def test_roots() -> None:
    assert project_root("/hg/a", (".hg",), DISK) == "/hg"
    assert project_root("/hg/a", (), DISK) == "/hg/a"
    assert project_root("/wt/src", MARKERS, DISK) == "/wt"
    assert main_repository("/real/repo/src", DISK) == "/real/repo"
    assert main_repository("/plain/a", DISK) is None
