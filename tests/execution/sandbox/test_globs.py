"""Which files globs of denied paths match when a command starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.execution.sandbox.errors import SandboxPolicyError
from engine.execution.sandbox.globs import expand_globs, search_folder
from engine.execution.sandbox.layout import DeniedFile
from engine.execution.sandbox.rules import FileSystemRules


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("/a/b/*.env", "/a/b"),
        ("/a/b*/c", "/a"),
        ("/a/**/*.env", "/a"),
        ("/a/[bc]/d", "/a"),
        ("/a/]/d", "/a"),
        ("/a/{b,c}/*", "/a/{b,c}"),
        ("/*.env", None),
        ("/**", None),
        ("*.env", None),
        ("a/*.env", None),
        ("/a/b", "/a"),
        ("/a//b/../c/*", "/a/c"),
    ],
)
def test_where_a_glob_is_searched(pattern: str, folder: str | None) -> None:
    assert search_folder(pattern) == folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (".env", "a/.env", "a/b/x.env", "a/.hidden/y.env", "a/{b,c}/z.env", "other/x.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / ".gitignore").write_text("*.env\n")
    (tmp_path / "folder.env").mkdir()
    (tmp_path / "link.env").symlink_to(tmp_path / "other" / "x.txt")
    (tmp_path / "tree").symlink_to(tmp_path / "a")
    return tmp_path


def found(tree: Path, *patterns: str, levels: int | None = None) -> set[str]:
    rules = FileSystemRules(
        unreadable_globs=tuple(f"{tree}/{pattern}" for pattern in patterns), glob_scan_max_depth=levels
    )
    return {file.path.removeprefix(f"{tree}/") for file in expand_globs(rules)}


def test_hidden_and_ignored_files_and_links_match_and_folders_do_not(tree: Path) -> None:
    assert found(tree, "**/*.env") == {
        *(".env", "a/.env", "a/b/x.env", "a/.hidden/y.env", "a/{b,c}/z.env", "link.env"),
    }


def test_a_star_stays_in_its_folder(tree: Path) -> None:
    assert found(tree, "*.env", "a/*/x.env") == {".env", "link.env", "a/b/x.env"}


def test_braces_do_not_begin_a_glob(tree: Path) -> None:
    assert found(tree, "a/{b,c}/*") == set()  # what is in the folder of that name does not match the alternatives
    assert found(tree, "[a]/{b,c}/*.env") == {"a/b/x.env"}


@pytest.mark.parametrize(("levels", "count"), [(1, 2), (2, 3), (3, 6), (None, 6)])
def test_the_search_goes_as_deep_as_it_may(tree: Path, levels: int | None, count: int) -> None:
    assert len(found(tree, "**/*.env", levels=levels)) == count


def test_a_missing_search_folder_has_nothing(tree: Path) -> None:
    assert found(tree, "missing/*.env") == set()


def test_files_that_go_on_matching_wherever_their_folder_goes_are_not_pinned(tree: Path) -> None:
    def pinned(pattern: str) -> set[bool]:
        return {file.pinned for file in expand_globs(FileSystemRules(unreadable_globs=(f"{tree}/{pattern}",)))}

    assert pinned("**/*.env") == {False}
    assert pinned("*.env") == {False}
    assert pinned("a/*/x.env") == {True}
    both = FileSystemRules(unreadable_globs=(f"{tree}/**/x.env", f"{tree}/a/*/x.env"))
    assert expand_globs(both) == [DeniedFile(f"{tree}/a/b/x.env", pinned=True)]


@pytest.mark.parametrize("count", [8200, pytest.param(100_000, marks=pytest.mark.soak)])
def test_too_many_matches_are_an_error(tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"{number}.env").touch()
    with pytest.raises(SandboxPolicyError, match="more than 8192 files match") as caught:
        expand_globs(FileSystemRules(unreadable_globs=(f"{tmp_path}/*.env",)))
    assert caught.value.path == f"{tmp_path}/*.env"


def test_a_glob_without_a_meaning_is_an_error(tree: Path) -> None:
    with pytest.raises(SandboxPolicyError, match="unreadable glob"):
        found(tree, "a/*.{env")


def test_a_search_that_nobody_waits_for_stops(tree: Path) -> None:
    asked = iter([True, False])
    rules = FileSystemRules(unreadable_globs=(f"{tree}/**/*.env",))
    assert len(expand_globs(rules, lambda: next(asked))) == 2  # of the first folder
