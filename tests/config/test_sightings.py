"""What a load looked at: every change that matters is noticed, no other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.config.loading import load_config
from engine.config.sightings import Sightings, WatchingView
from engine.permissions.view import DiskView


def test_contents(tmp_path: Path) -> None:
    file = tmp_path / "f"
    seen = Sightings()
    seen.contents(str(file))
    assert seen.hold()
    file.write_text("a")
    assert not seen.hold()
    seen = Sightings()
    seen.contents(str(file))
    replaced = tmp_path / "g"
    replaced.write_text("b")
    os.utime(replaced, ns=(0, file.stat().st_mtime_ns))
    replaced.replace(file)
    assert not seen.hold()


def test_the_first_look_counts(tmp_path: Path) -> None:
    file = tmp_path / "f"
    seen = Sightings()
    seen.contents(str(file))
    file.write_text("written between the look and the reading")
    seen.contents(str(file))
    assert not seen.hold()
    assert seen.paths() == (str(file),)


@pytest.mark.parametrize("kind", ["contents", "presence", "name"])
def test_of_a_missing_directory_one_look_is_enough(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    seen = Sightings()
    for name in ("a", "b", "c"):
        getattr(seen, kind)(str(folder / name))
    assert seen.paths() == (str(tmp_path / "deep"),)
    assert seen.hold()
    folder.mkdir(parents=True)
    assert not seen.hold()
    seen = Sightings()
    getattr(seen, kind)(str(folder / "a"))
    assert seen.paths() == (str(folder / "a"),)
    (folder / "a").write_text("")
    assert not seen.hold()


def test_a_link_to_a_missing_directory_is_looked_at_again(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    seen = Sightings()
    seen.contents(str(tmp_path / "link" / "file"))
    assert seen.hold()
    (tmp_path / "nowhere").mkdir()
    assert not seen.hold()


def test_presence_is_not_about_what_is_inside(tmp_path: Path) -> None:
    view = WatchingView(DiskView({}), Sightings())
    assert view.is_there(str(tmp_path))
    assert view.is_directory(str(tmp_path))
    assert not view.is_file(str(tmp_path / "link"))
    (tmp_path / "other").write_text("")
    assert view.sightings.hold()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert view.sightings.hold()
    (tmp_path / "nowhere").write_text("")
    assert not view.sightings.hold()


def test_a_retargeted_link(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("a")
    view = WatchingView(DiskView({}), Sightings())
    assert view.resolve(str(tmp_path / "link")) == str(tmp_path / "a")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("b")
    assert not view.sightings.hold()


def test_a_path_that_is_none() -> None:
    seen = Sightings()
    seen.contents("a\0b")
    assert seen.hold()


TRUSTING = '[projects."{p}"]\ntrust_level = "trusted"\n'

CHANGES: dict[str, Callable[[Path], object]] = {
    "user file changes": lambda root: (root / "home/config.toml").write_text("model = 'b'"),
    "user file goes": lambda root: (root / "home/config.toml").unlink(),
    "system file appears": lambda root: (root / "etc/config.toml").write_text("model = 'b'"),
    "managed file appears": lambda root: (root / "etc/managed_config.toml").write_text("model = 'b'"),
    "requirements appear": lambda root: (root / "etc/requirements.toml").write_text(""),
    "project file changes": lambda root: (root / "p/.codex/config.toml").write_text("model = 'b'"),
    "project folder goes": lambda root: (root / "p/.codex").rename(root / "gone"),
    "project folder appears below": lambda root: (root / "p/a/.codex").mkdir(),
    "root marker appears below": lambda root: (root / "p/a/.git").write_text("gitdir: x"),
    "root marker goes": lambda root: (root / "p/.git").rename(root / "gone"),
    "instructions change": lambda root: (root / "home/i.md").write_text("other words"),
    "AGENTS.md of the user appears": lambda root: (root / "home/AGENTS.override.md").write_text("x"),
    "AGENTS.md of the project appears": lambda root: (root / "p/a/AGENTS.md").write_text("x"),
    "AGENTS.md changes": lambda root: (root / "p/AGENTS.md").write_text("other"),
}


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    for folder in ("home", "etc", "p/.codex", "p/.git", "p/a"):
        (tmp_path / folder).mkdir(parents=True)
    text = "model_instructions_file = 'i.md'\n" + TRUSTING.format(p=tmp_path / "p")
    (tmp_path / "home/config.toml").write_text(text)
    (tmp_path / "home/i.md").write_text("words")
    (tmp_path / "p/.codex/config.toml").write_text("model = 'a'")
    (tmp_path / "p/AGENTS.md").write_text("be kind")
    return tmp_path


@pytest.mark.parametrize("change", CHANGES)
def test_a_load_sees_everything_that_may_change_it(root: Path, change: str) -> None:
    seen = Sightings()
    load_config(root / "home", cwd=root / "p/a", env={"HOME": str(root)}, system_folder=root / "etc", sightings=seen)
    assert seen.hold()
    (root / "p/src").mkdir()
    (root / "p/.git/HEAD").write_text("ref: x")
    (root / "home/sessions").mkdir()
    assert seen.hold(), "what a session does all the time is no change"
    CHANGES[change](root)
    assert not seen.hold()
