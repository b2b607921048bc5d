"""Writing the user's file: whole or not at all, told what hides it, and where it really stands."""

from __future__ import annotations

import os
import stat
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest

import engine.config.writing
from engine.config.editing import ConfigEdit
from engine.config.features import FEATURE_ALIASES
from engine.config.loading import load_config
from engine.config.sightings import Sightings
from engine.config.sources import Sources, read_layers
from engine.config.writing import ConfigWriteError, ConfigWritten, feature_edits, trust_edit, write_config
from engine.errors import ConfigError
from engine.permissions.view import DiskView


class Place:
    """A home and a system folder, and writes to them."""

    def __init__(self, root: Path) -> None:
        self.home, self.etc = root / "home", root / "etc"
        self.home.mkdir()
        self.etc.mkdir()
        self.file = self.home / "config.toml"

    def sources(self, **more: Any) -> Sources:
        view = DiskView({"HOME": str(self.home.parent)})
        return Sources(
            home=str(self.home), cwd=None, user_home=view.home, view=view, system_folder=str(self.etc), **more
        )

    def write(self, key: str, value: object, *, sources: Sources | None = None, **more: Any) -> ConfigWritten:
        return write_config(sources or self.sources(), [ConfigEdit(key, value)], **more)

    def refused(self, key: str, value: object, **more: Any) -> tuple[str, str]:
        before = self.file.read_bytes() if self.file.exists() else None
        with pytest.raises(ConfigWriteError) as caught:
            self.write(key, value, **more)
        assert (self.file.read_bytes() if self.file.exists() else None) == before
        assert [path.name for path in self.home.iterdir() if path.suffix == ".tmp"] == []
        return caught.value.code, str(caught.value)


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_file_comes_into_being_for_its_owner_alone(place: Place) -> None:
    written = place.write("model", "b")
    assert (written.status, written.path, place.file.read_text()) == ("ok", str(place.file), 'model = "b"\n')
    assert stat.S_IMODE(place.file.stat().st_mode) == 0o600
    assert written.version == read_layers(place.sources(), Sightings()).user.version


def test_the_mode_of_a_file_is_kept(place: Place) -> None:
    place.file.write_text("")
    place.file.chmod(0o640)
    place.write("model", "b")
    assert stat.S_IMODE(place.file.stat().st_mode) == 0o640


def test_links_are_followed_to_the_file_behind_them(place: Place, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "config.toml"
    (tmp_path / "middle").symlink_to("dotfiles/config.toml")
    place.file.symlink_to(tmp_path / "middle")
    place.write("model", "b")
    assert place.file.is_symlink()
    assert real.read_text() == 'model = "b"\n'


def test_a_circle_of_links_is_replaced(place: Place) -> None:
    place.file.symlink_to("other")
    (place.home / "other").symlink_to("config.toml")
    with pytest.raises(ConfigError):
        place.write("model", "b")  # a file that can't be read is not written over unasked
    assert engine.config.writing._final_target(str(place.file)) == str(place.file)


def test_versions(place: Place) -> None:
    first = place.write("model", "b").version
    assert place.refused("model", "c", expected_version="sha256:00") == (
        "configVersionConflict",
        "Configuration was modified since last read. Fetch latest version and retry.",
    )
    place.file.write_text('# a comment changes nothing\nmodel = "b"\n')
    assert place.write("model", "c", expected_version=first).status == "ok"


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("a..b", 1, "keyPath segments must not be empty"),
        ("model", 3, "Invalid configuration: invalid type: integer `3`, expected a string in `model`"),
        ("model", object(), "Invalid configuration: "),
        ("model_providers.openai", {"name": "x"}, "Invalid configuration: model_providers contains reserved "),
        ("review_model", {"a": 1}, "Invalid configuration: invalid type: map, expected a string in `review_model`"),
    ],
)
def test_what_makes_no_configuration_is_refused(place: Place, key: str, value: object, text: str) -> None:
    place.file.write_text("# mine\n")
    code, message = place.refused(key, value)
    assert (code, message[: len(text)]) == ("configValidationError", text)


def test_a_value_must_fit_what_other_layers_say(place: Place) -> None:
    (place.etc / "managed_config.toml").write_text("[model_providers.x]\nbase_url = 'u'\n")
    assert place.refused("model", "m")[0] == "configValidationError"  # a provider without a name
    assert place.write("model_providers.x.name", "X").status == "ok"


@pytest.mark.parametrize(
    ("key", "value", "candidate"),
    [
        ("features.hooks", True, "features.hooks=true"),
        ("features", {"codex_hooks": True}, "features.hooks=true"),
        ("profiles.p.features.hooks", True, "profiles.p.features.hooks=true"),
    ],
)
def test_pinned_features(place: Place, key: str, value: object, candidate: str) -> None:
    (place.etc / "requirements.toml").write_text("features = {hooks = false}\n")
    code, message = place.refused(key, value)
    assert code == "configValidationError"
    assert f"invalid value for `features`: `{candidate}` is not in the allowed set [hooks=false]" in message
    assert place.write("features.hooks", False).status == "ok"


def test_only_the_users_file_is_written(place: Place, tmp_path: Path) -> None:
    refused = ("configLayerReadonly", "Only writes to the user config are allowed")
    assert place.refused("model", "b", file=tmp_path / "p" / ".codex" / "config.toml") == refused
    assert place.write("model", "b", file=place.home / "x" / ".." / "config.toml").status == "ok"


def test_a_profile_file_is_the_one_that_is_written(place: Place) -> None:
    place.file.write_text("model = 'base'\n")
    (place.home / "work.config.toml").write_text("review_model = 'r'\n")
    sources = place.sources(profile="work")
    written = place.write("model", "mine", sources=sources)
    assert (written.status, written.path) == ("ok", str(place.home / "work.config.toml"))
    assert place.file.read_text() == "model = 'base'\n"


@pytest.mark.parametrize(
    ("hide", "message"),
    [
        ("managed", "Overridden by legacy managed_config.toml: {etc}/managed_config.toml"),
        ("flags", "Overridden by session flags"),
    ],
)
def test_a_value_that_something_hides(place: Place, hide: str, message: str) -> None:
    flags: list[tuple[str, object]] = [("model", "other")] if hide == "flags" else []
    if hide == "managed":
        (place.etc / "managed_config.toml").write_text("model = 'other'\n")
    written = place.write("model", "b", sources=place.sources(overrides=flags))
    assert written.status == "okOverridden"
    assert written.overridden is not None
    assert written.overridden.message == message.format(etc=place.etc)
    assert written.overridden.effective == "other"
    assert place.file.read_text() == 'model = "b"\n'


def test_a_key_taken_away_from_above_the_systems(place: Place) -> None:
    (place.etc / "config.toml").write_text("model = 'system'\n")
    place.file.write_text("model = 'b'\n")
    written = place.write("model", None)
    assert written.overridden is not None
    assert written.overridden.message == f"Overridden by managed config (system): {place.etc}/config.toml"


def test_trust(place: Place) -> None:
    write_config(place.sources(), [trust_edit("/a.b/c"), trust_edit("/d", "untrusted")])
    assert place.file.read_text() == (
        '[projects."/a.b/c"]\ntrust_level = "trusted"\n\n[projects."/d"]\ntrust_level = "untrusted"\n'
    )


def test_a_write_that_fails_leaves_the_file_and_nothing_else(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.file.write_text("model = 'a'\n")

    def fail(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ConfigError, match=r"config\.toml: can't be written: No space left on device"):
        place.write("model", "b")
    assert [path.name for path in place.home.iterdir()] == ["config.toml"]
    assert place.file.read_text() == "model = 'a'\n"


def test_writers_at_the_same_time_lose_nothing(place: Place) -> None:
    threads = [
        threading.Thread(target=place.write, args=(f'projects."/p{number}".trust_level', "trusted"))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert place.file.read_text().count("trusted") == 8


@pytest.mark.parametrize(
    ("before", "feature", "enabled", "after"),
    [
        ("", "goals", True, {"features": {"goals": True}}),
        ("[features]\ngoals = true\n", "goals", False, {"features": {}}),  # it is off without a word
        ("", "shell_tool", False, {"features": {"shell_tool": False}}),
        ("[features]\nmemory_tool = true\n", "memories", False, {"features": {}}),  # the older name would win
        ("[features]\ncollab = false\n", "collab", True, {"features": {"multi_agent": True}}),
        (
            "[features.multi_agent_v2]\nenabled = true\nusage_hint_enabled = false\n",
            "multi_agent_v2",
            False,
            {"features": {"multi_agent_v2": {"enabled": False, "usage_hint_enabled": False}}},
        ),
    ],
)
def test_switching_a_feature(place: Place, before: str, feature: str, enabled: bool, after: dict[str, object]) -> None:
    place.file.write_text(before)
    user = read_layers(place.sources(), Sightings()).user
    write_config(place.sources(), feature_edits(user, feature, enabled))
    assert tomllib.loads(place.file.read_text()) == after
    config = load_config(place.home, cwd=place.home, env={"HOME": str(place.home)}, system_folder=place.etc)
    assert config.features[FEATURE_ALIASES.get(feature, feature)] is enabled


def test_switching_a_feature_for_a_profile_is_always_written(place: Place) -> None:
    place.file.write_text("[profiles.old]\nmodel = 'm'\n[features]\ngoals = true\n")
    user = read_layers(place.sources(profile="old"), Sightings()).user
    write_config(place.sources(), feature_edits(user, "goals", False, profile="old"))
    assert tomllib.loads(place.file.read_text())["profiles"]["old"] == {"model": "m", "features": {"goals": False}}
    (place.home / "work.config.toml").write_text("model = 'w'\n")
    user = read_layers(place.sources(profile="work"), Sightings()).user
    write_config(place.sources(profile="work"), feature_edits(user, "goals", False))
    assert tomllib.loads((place.home / "work.config.toml").read_text())["features"] == {"goals": False}
    with pytest.raises(ConfigError, match="there is no feature `nonsense`"):
        feature_edits(user, "nonsense", True)
