"""Layers of projects: which take part, which are listed with a reason, what they may not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.loading import load_config
from engine.config.model import Config
from engine.errors import ConfigError


class Checkout:
    """A home, and a project with folders of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.home.mkdir()
        self.project = root / "p"
        (self.project / ".git").mkdir(parents=True)

    def trust(self, *paths: Path, level: str = "trusted", more: str = "") -> None:
        entries = "".join(f'[projects."{path}"]\ntrust_level = "{level}"\n' for path in paths)
        (self.home / "config.toml").write_text(more + entries)

    def write(self, folder: Path, text: str) -> Path:
        file = folder / ".codex" / "config.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def load(self, cwd: Path | None = None, *, strict: bool = False) -> Config:
        return load_config(
            self.home,
            cwd=cwd or self.project,
            env={"HOME": str(self.root)},
            system_folder=self.root / "etc",
            strict=strict,
        )


@pytest.fixture(name="checkout")
def _checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def folders(config: Config) -> list[str]:
    return [layer.folder for layer in reversed(config.layers) if layer.folder is not None]


def test_every_codex_directory_is_a_layer_outer_ones_first(checkout: Checkout) -> None:
    checkout.trust(checkout.project)
    checkout.write(checkout.root, "model = 'outside'")
    checkout.write(checkout.project, "model = 'root'\nreview_model = 'r'")
    deep = checkout.project / "a" / "b"
    checkout.write(deep, "model = 'deep'")
    (checkout.project / "a" / ".codex").mkdir()
    config = checkout.load(deep)
    assert (config.model, config.review_model) == ("deep", "r")
    assert folders(config) == [str(deep / ".codex"), str(deep.parent / ".codex"), str(checkout.project / ".codex")]


def test_a_file_by_that_name_is_no_layer(checkout: Checkout) -> None:
    (checkout.project / ".codex").write_text("")
    assert folders(checkout.load()) == []


@pytest.mark.parametrize("linked", [False, True])
def test_the_home_is_no_project(checkout: Checkout, linked: bool) -> None:
    place = checkout.project / ".codex"
    if linked:
        place.symlink_to(checkout.home)
        home = checkout.home
    else:
        home = checkout.home = place
        home.mkdir()
    (home / "config.toml").write_text("model = 'mine'")
    config = checkout.load()
    assert (config.model, folders(config), config.origins["model"]) == ("mine", [], "user")


@pytest.mark.parametrize("level", ["untrusted", None])
def test_what_is_not_trusted_is_listed_with_the_reason(checkout: Checkout, level: str | None) -> None:
    checkout.write(checkout.project, "model = 'theirs'\nnotify = ['x']\nnonsense = 1")
    if level is not None:
        checkout.trust(checkout.project, level=level)
    config = checkout.load(strict=True)
    assert (config.model, config.unknown_keys, config.warnings) == (None, (), ())
    layer = next(layer for layer in config.layers if layer.name == "project")
    assert layer.table == {"model": "theirs", "nonsense": 1}
    file = checkout.home / "config.toml"
    assert layer.disabled == (
        "To load project-local config, hooks, and exec policies, "
        f"add {checkout.project} as a trusted project in {file}."
        if level is None
        else f"{checkout.project} is marked as untrusted in {file}. To load project-local config, hooks, and exec "
        "policies, mark it trusted."
    )


def test_a_broken_file_matters_only_where_it_takes_part(checkout: Checkout) -> None:
    file = checkout.write(checkout.project, "a = 1\nmodel = = 2\n")
    layer = next(layer for layer in checkout.load().layers if layer.name == "project")
    assert (layer.table, layer.disabled is None) == ({}, False)
    checkout.trust(checkout.project)
    with pytest.raises(ConfigError) as caught:
        checkout.load()
    assert str(caught.value).startswith(f"Error parsing project config file {file}: ")
    assert (caught.value.file, caught.value.line) == (str(file), 2)


def test_a_file_that_can_not_be_read(checkout: Checkout) -> None:
    checkout.trust(checkout.project)
    (checkout.project / ".codex" / "config.toml").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"Failed to read project config file .*: is a directory"):
        checkout.load()


def test_denied_keys_are_named_in_the_order_of_the_list(checkout: Checkout) -> None:
    checkout.trust(checkout.project)
    file = checkout.write(checkout.project, "notify = ['x']\nprofile = 'p'\nopenai_base_url = 'u'\nmodel = 'm'")
    config = checkout.load()
    assert config.warnings == (
        f"Ignored unsupported project-local config keys in {file}: openai_base_url, notify, profile. If you want these "
        "settings to apply, manually set them in your user-level config.toml.",
    )
    assert (config.model, config.notify, config.active_profile) == ("m", None, None)


def test_a_project_can_not_trust_itself_nor_move_its_root(checkout: Checkout) -> None:
    checkout.trust(checkout.project)
    inner = checkout.project / "in"
    checkout.write(checkout.project, f"project_root_markers = ['x']\n[projects.'{inner}']\ntrust_level = 'untrusted'")
    checkout.write(inner, "model = 'inner'")
    config = checkout.load(inner)
    assert (config.model, config.project_root_markers) == ("inner", (".git",))


def test_errors_point_at_the_file_of_the_project(checkout: Checkout) -> None:
    checkout.trust(checkout.project)
    file = checkout.write(checkout.project, "\nmodel = 3\n")
    with pytest.raises(ConfigError) as caught:
        checkout.load()
    assert str(caught.value) == f"{file}:2:1: `model`: invalid type: integer `3`, expected a string"
    file.write_text("\n\nmodle = 'm'\n")
    with pytest.raises(ConfigError, match=r"config\.toml:3:1: unknown configuration field `modle`"):
        checkout.load(strict=True)
    assert checkout.load().unknown_keys == ("modle",)


def test_a_linked_worktree_has_its_own_configuration_and_the_hooks_of_the_main_checkout(checkout: Checkout) -> None:
    main, worktree = checkout.project, checkout.root / "w"
    (main / ".git" / "worktrees" / "w").mkdir(parents=True)
    worktree.mkdir()
    (worktree / ".git").write_text(f"gitdir: {main}/.git/worktrees/w\n")
    checkout.trust(main)
    checkout.write(main / "sub", "model = 'main'\n[hooks]\nwhose = 'main'")
    checkout.write(worktree / "sub", "model = 'worktree'\n[hooks]\nwhose = 'worktree'")
    checkout.write(worktree, "[hooks]\nwhose = 'worktree root'")
    config = checkout.load(worktree / "sub")
    assert (config.model, config.raw["hooks"]) == ("worktree", {"whose": "main"})
    unset = checkout.load(worktree)
    assert "hooks" not in unset.raw
