"""AGENTS.md: which files are found, how much of them, in which order, joined how (config.md 9)."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.agents_md import CHILD_NOTE, AgentsMd, Instructions
from engine.config.loading import load_config
from engine.config.sightings import Sightings
from engine.permissions.view import DiskView


class Tree:
    """A home, and a project with a marker at its root."""

    def __init__(self, root: Path) -> None:
        self.home, self.project = root / "home", root / "p"
        self.home.mkdir()
        (self.project / ".git").mkdir(parents=True)
        self.deep = self.project / "a" / "b"
        self.deep.mkdir(parents=True)

    def read(self, cwd: Path | None = None, **changes: Any) -> Instructions:
        options: dict[str, Any] = {"limit": 32768, "fallbacks": (), "markers": (".git",), "child_note": False}
        made = AgentsMd(home=str(self.home), **{**options, **changes})
        return made.read(str(cwd or self.project), DiskView({}), Sightings())


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_nothing_anywhere(tree: Tree) -> None:
    assert tree.read() == Instructions(None, ())


def test_every_directory_from_the_root_to_the_cwd_has_one(tree: Tree) -> None:
    (tree.project.parent / "AGENTS.md").write_text("above the root")
    (tree.project / "AGENTS.md").write_text("root\n")
    (tree.project / "a" / "AGENTS.override.md").write_text("override")
    (tree.project / "a" / "AGENTS.md").write_text("hidden")
    (tree.deep / "AGENTS.md").write_text("deep")
    found = tree.read(tree.deep)
    assert found.text == "root\n\n\noverride\n\ndeep"
    assert [os.path.relpath(path, tree.project) for path in found.sources] == [
        "AGENTS.md",
        "a/AGENTS.override.md",
        "a/b/AGENTS.md",
    ]


def test_without_a_root_only_the_cwd_is_looked_at(tree: Tree) -> None:
    (tree.project / "AGENTS.md").write_text("root")
    (tree.deep / "AGENTS.md").write_text("deep")
    assert tree.read(tree.deep, markers=()).text == "deep"


def test_fallback_names_in_their_order(tree: Tree) -> None:
    (tree.project / "B.md").write_text("b")
    assert tree.read(fallbacks=("A.md", "B.md")).text == "b"
    (tree.project / "A.md").write_text("a")
    assert tree.read(fallbacks=("A.md", "B.md")).text == "a"
    (tree.project / "AGENTS.md").write_text("")
    assert tree.read(fallbacks=("A.md", "B.md")) == Instructions(None, (str(tree.project / "AGENTS.md"),))


def test_links_are_read_and_directories_are_not(tree: Tree) -> None:
    (tree.project / "AGENTS.override.md").mkdir()
    (tree.project / "docs").mkdir()
    (tree.project / "docs" / "rules.md").write_text("linked")
    (tree.project / "AGENTS.md").symlink_to("docs/rules.md")
    assert tree.read().text == "linked"


def test_the_cwd_is_where_it_really_is(tree: Tree) -> None:
    (tree.project / "AGENTS.md").write_text("root")
    link = tree.project.parent / "link"
    link.symlink_to(tree.deep)
    assert tree.read(link).sources == (str(tree.project / "AGENTS.md"),)


@pytest.mark.parametrize(
    ("limit", "text"),
    [(0, None), (1, "a"), (6, "abcdef"), (7, "abcdef\n\ng"), (9, "abcdef\n\nghi"), (12, "abcdef\n\nghijkl")],
)
def test_all_project_files_share_one_limit(tree: Tree, limit: int, text: str | None) -> None:
    (tree.project / "AGENTS.md").write_text("abcdef")
    (tree.project / "a" / "AGENTS.md").write_text(" \n")
    (tree.deep / "AGENTS.md").write_text("ghijkl")
    found = tree.read(tree.deep, limit=limit)
    assert found.text == text
    assert len(found.sources) == (3 if limit else 0)


def test_a_cut_inside_a_character_and_bytes_that_are_no_text(tree: Tree) -> None:
    (tree.project / "AGENTS.md").write_bytes("né".encode())
    assert tree.read(limit=2).text == "n\ufffd"
    (tree.project / "AGENTS.md").write_bytes(b"a\xff\r\nb")
    assert tree.read().text == "a\ufffd\r\nb"


@pytest.mark.parametrize(
    ("override", "standard", "text"),
    [(None, " mine \n", "mine"), (" \n", "mine", "mine"), ("first", "second", "first"), (None, "\n", None)],
)
def test_the_users_own_file(tree: Tree, override: str | None, standard: str, text: str | None) -> None:
    if override is not None:
        (tree.home / "AGENTS.override.md").write_text(override)
    (tree.home / "AGENTS.md").write_text(standard)
    assert tree.read(limit=0).text == text


def test_both_are_told_apart(tree: Tree) -> None:
    (tree.home / "AGENTS.md").write_text("mine")
    (tree.project / "AGENTS.md").write_text("theirs")
    found = tree.read()
    assert found.text == "mine\n\n--- project-doc ---\n\ntheirs"
    assert found.sources == (str(tree.home / "AGENTS.md"), str(tree.project / "AGENTS.md"))


def test_the_note_about_files_below(tree: Tree) -> None:
    assert tree.read(child_note=True).text == CHILD_NOTE
    (tree.project / "AGENTS.md").write_text("theirs")
    assert tree.read(child_note=True).text == f"theirs\n\n{CHILD_NOTE}"


def test_a_file_that_can_not_be_read_drops_those_of_the_project(
    tree: Tree, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree.home / "AGENTS.md").write_text("mine")
    (tree.project / "AGENTS.md").write_text("theirs")

    def read(path: str, limit: int = -1) -> bytes:
        if path.startswith(str(tree.project)):
            raise PermissionError(13, "Permission denied", path)
        return Path(path).read_bytes()

    monkeypatch.setattr("engine.config.agents_md._read", read)
    with caplog.at_level(logging.WARNING, "engine"):
        assert tree.read() == Instructions("mine", (str(tree.home / "AGENTS.md"),))
    assert f"{tree.project}/AGENTS.md can't be read: Permission denied" in caplog.text


def test_trust_does_not_matter(tree: Tree) -> None:
    (tree.project / "AGENTS.md").write_text("theirs")
    (tree.home / "config.toml").write_text(f"[projects.'{tree.project}']\ntrust_level = 'untrusted'\n")
    config = load_config(tree.home, cwd=tree.project, env={}, system_folder=tree.home / "etc")
    assert config.user_instructions.text == "theirs"


def test_a_project_does_not_move_its_own_root(tree: Tree) -> None:
    (tree.project / "AGENTS.md").write_text("root")
    (tree.project / ".codex").mkdir()
    (tree.project / ".codex" / "config.toml").write_text("project_root_markers = []\n")
    (tree.home / "config.toml").write_text(f"[projects.'{tree.project}']\ntrust_level = 'trusted'\n")
    config = load_config(tree.home, cwd=tree.deep, env={}, system_folder=tree.home / "etc")
    assert config.user_instructions.text == "root"


@given(st.lists(st.binary(max_size=12), min_size=3, max_size=3), st.integers(0, 20))
def test_any_bytes_give_a_text_within_the_limit(contents: list[bytes], limit: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        tree = Tree(Path(root).resolve())
        for folder, content in zip((tree.project, tree.project / "a", tree.deep), contents, strict=True):
            (folder / "AGENTS.md").write_bytes(content)
        text = tree.read(tree.deep, limit=limit).text or ""
    # A byte that is no text becomes one character.
    assert len(text) - 2 * len("\n\n") <= limit
