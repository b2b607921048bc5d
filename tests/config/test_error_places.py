"""Whatever layer a wrong value comes from: the error names file, line, column and key, or the flag or argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import engine
from engine.config.loading import find_home, load_config
from engine.config.model import Config
from engine.errors import ConfigError, UnknownProvider

# A wrong type, a word that is not one of a few, and values that make no sense together: text, line, key, what is said.
WRONG = [
    ("# one\nmodel = 3\n", 2, "model", "invalid type: integer `3`, expected a string"),
    ("[history]\npersistence = 'x'\n", 2, "history.persistence", "unknown variant `x`, expected one of `save-all`"),
    ("\n\nmodel_provider = 'nope'", 3, "model_provider", "Model provider `nope` not found"),
    ("[agents]\nmax_depth = 0", 2, "agents.max_depth", "agents.max_depth must be at least 1"),
    ("[[skills.config]]\npath='/x'\n[[skills.config]]\nenabled=1", 4, "skills.config.1.enabled", "invalid type"),
    ("[mcp_servers.a]\ncommand='x'\nurl='y'", 3, "mcp_servers.a.url", "url is not supported for stdio"),
    ("[model_providers.z]\nbase_url='u'", 1, "model_providers.z", "provider name must not be empty"),
]
SYNTAX = "model = 'm'\nbroken\n"


class Places:
    """A machine with a file for every layer."""

    def __init__(self, root: Path) -> None:
        self.home, self.etc, self.project = root / "home", root / "etc", root / "project"
        for folder in (self.home, self.etc, self.project / ".codex"):
            folder.mkdir(parents=True)
        (self.home / "config.toml").write_text(f"[projects.'{self.project}']\ntrust_level = 'trusted'\n")
        self.files = {
            "system": self.etc / "config.toml",
            "user": self.home / "config.toml",
            "profile": self.home / "work.config.toml",
            "project": self.project / ".codex" / "config.toml",
            "managed": self.etc / "managed_config.toml",
            "lock": root / "some.config.lock.toml",
        }

    def load(self, *flags: tuple[str, object], **arguments: object) -> Config:
        options: dict[str, object] = {"env": {"HOME": str(self.home)}, **arguments}
        if self.files["profile"].exists():
            options["profile"] = "work"
        return load_config(self.home, cwd=self.project, overrides=flags, system_folder=self.etc, **options)  # type: ignore[arg-type]

    def refused(self, *flags: tuple[str, object], **arguments: object) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            self.load(*flags, **arguments)
        return caught.value


@pytest.fixture(name="places")
def _places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.mark.parametrize("layer", ["system", "user", "profile", "project", "managed"])
@pytest.mark.parametrize(("text", "line", "key", "said"), WRONG, ids=[key for _, _, key, _ in WRONG])
def test_a_value_in_a_file(places: Places, layer: str, text: str, line: int, key: str, said: str) -> None:
    if layer == "project" and key.startswith("model_provider"):
        # A project may not say such things; something else then.
        text, line, key, said = "\nmodel = []\n", 2, "model", "invalid type: sequence, expected a string"
    file = places.files[layer]
    file.write_text(text + ("\n" + file.read_text() if layer == "user" else ""))
    error = places.refused()
    assert (error.file, error.line, error.key) == (str(file), line, key)
    assert error.column is not None
    assert str(error).startswith(f"{file}:{line}:{error.column}: ")
    assert said in error.message


@pytest.mark.parametrize("layer", ["system", "user", "profile", "project", "managed", "lock"])
def test_text_that_is_no_toml(places: Places, layer: str) -> None:
    file = places.files[layer]
    file.write_text(SYNTAX)
    flags = [("debug.config_lockfile.load_path", str(file))] if layer == "lock" else []
    if layer == "user":
        (places.project / ".codex").rmdir()
    error = places.refused(*flags)
    assert (error.file, error.line, error.column) == (str(file), 2, 7)
    assert str(file) in str(error)


def test_a_lower_layer_is_not_blamed_for_a_higher_one(places: Places) -> None:
    for layer in ("system", "user", "profile", "project", "managed"):
        file = places.files[layer]
        file.write_text((file.read_text() if file.exists() else "") + "[history]\nmax_bytes = 1\n")
    places.files["managed"].write_text("[history]\n\nmax_bytes = true\n")
    error = places.refused()
    assert (error.file, error.line) == (str(places.files["managed"]), 3)
    places.files["managed"].unlink()
    places.files["system"].write_text("[history]\nmax_bytes = true\n")
    assert places.load().history.max_bytes == 1  # nobody needs it


def test_a_profile_of_the_older_form(places: Places) -> None:
    text = "profile = 'p'\n[profiles.p]\nmodel = 'm'\nmodel_verbosity = 'loud'\n"
    places.files["user"].write_text(text)
    error = places.refused()
    assert (error.line, error.key) == (4, "profiles.p.model_verbosity")
    places.files["user"].write_text("profile = 'p'\n[profiles.p]\nmodel_provider = 'nope'\n")
    error = places.refused()
    assert (type(error), error.line, error.key) == (UnknownProvider, 3, "profiles.p.model_provider")
    places.files["user"].write_text("model = 'm'\nprofile = 'q'\n")
    error = places.refused()
    assert (error.line, error.key, error.message) == (2, "profile", "config profile `q` not found")


@pytest.mark.parametrize(
    ("flag", "key"),
    [
        (("model", 3), "model"),
        (("history", {"max_bytes": "x"}), "history.max_bytes"),
        (("model_provider", "nope"), "model_provider"),
        (("agents.max_depth", 0), "agents.max_depth"),
    ],
)
def test_flags_and_arguments_are_named(places: Places, flag: tuple[str, object], key: str) -> None:
    error = places.refused(flag)
    assert (error.file, error.line, error.key) == (None, None, key)
    assert str(error).endswith("(set by -c/--config override)")
    error = places.refused(session=dict([flag]))
    assert (error.file, error.key) == (None, key)
    assert str(error).endswith("(set by the session's settings)")


REQUIREMENTS = [
    ("\nallowed_approval_policies = ['maybe']\n", 2, "allowed_approval_policies.0"),
    ("allowed_approval_policies = []\n", 1, "allowed_approval_policies"),
    ("x = 1\nallowed_sandbox_modes = ['workspace-write']\n", 2, "allowed_sandbox_modes"),
    ("allowed_web_search_modes = 'live'\n", 1, "allowed_web_search_modes"),
    ("enforce_residency = 'moon'\n", 1, "enforce_residency"),
    ("[features]\ngoals = 1\n", 2, "features.goals"),
    ("[permissions.filesystem]\ndeny_read = [3]\n", 2, "permissions.filesystem.deny_read.0"),
    ("[permissions]\nfilesystem = 1\n", 2, "permissions.filesystem"),
    ("remote_sandbox_config = [1]\n", 1, "remote_sandbox_config.0"),
    ("\n[mcp_servers.b.identity]\ncommand = 1\n", 3, "mcp_servers.b.identity.command"),
    ("[plugins.p.mcp_servers.a]\nidentity = {}\n", 2, "plugins.p.mcp_servers.a.identity"),
    ("[hooks]\nmanaged_dir = 1\n", 2, "hooks.managed_dir"),
    ("[apps.a]\nenabled = 'no'\n", 2, "apps.a.enabled"),
    ("allow_managed_hooks_only = 'yes'\n", 1, "allow_managed_hooks_only"),
    ("guardian_policy_config = 1\n", 1, "guardian_policy_config"),
    ("[experimental_network]\nallowed_domains = ['a']\ndomains = {}\n", 2, "experimental_network.allowed_domains"),
    ("broken\n", 1, None),
]


@pytest.mark.parametrize(("text", "line", "key"), REQUIREMENTS, ids=[str(key) for _, _, key in REQUIREMENTS])
def test_requirements(places: Places, text: str, line: int, key: str | None) -> None:
    file = places.etc / "requirements.toml"
    file.write_text(text)
    error = places.refused()
    assert (error.file, error.line, error.key) == (str(file), line, key)
    assert str(file) in str(error)


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("version = 2\ncodex_version = 'x'\n[config]\n", 1, "version"),
        ("version = 1\ncodex_version = 'x'\n[config]\n", 2, "codex_version"),
        (f"version = 1\ncodex_version = '{engine.__version__}'\n[config]\nmodel = 3\n", 4, "model"),
        (
            f"version = 1\ncodex_version = '{engine.__version__}'\n[config.history]\nmax_bytes=-1\n",
            4,
            "history.max_bytes",
        ),
        ("version = 1\n", None, None),
    ],
)
def test_lock_files(places: Places, text: str, line: int | None, key: str | None) -> None:
    file = places.files["lock"]
    file.write_text(text)
    error = places.refused(("debug.config_lockfile.load_path", str(file)))
    assert (error.file, error.line, error.key) == (str(file), line, key)


def test_variables(places: Places, tmp_path: Path) -> None:
    for name, said in (("gone", "that path does not exist"), ("home/config.toml", "that path is not a directory")):
        with pytest.raises(ConfigError, match=f'CODEX_HOME points to "{tmp_path / name}", but {said}'):
            find_home({"CODEX_HOME": str(tmp_path / name)})
    config = places.load(env={"HOME": "/h", "CODEX_OSS_PORT": "http", "CODEX_SQLITE_HOME": "/x"})
    assert config.warnings == ("The environment variable `CODEX_OSS_PORT` is no port: 'http'; it is ignored",)
    assert "CODEX_SQLITE_HOME" in [thing.thing for thing in config.unsupported]


Start = Callable[[Mapping[str, object]], object]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("model = 'm'\nmodel_provider = 'amazon-bedrock'\n", 2, "the provider `amazon-bedrock` is not supported yet"),
        ("model_catalog_json = 'none.json'\n", 1, "failed to read model_catalog_json path"),
        ("features.shell_zsh_fork = true\nzsh_path = '/none'\n", 2, "zsh_path `/none` is not usable"),
        ("profile = 'p'\n[profiles.p]\nzsh_path = '/none'\n[features]\nshell_zsh_fork = true", 3, "is not usable"),
    ],
)
async def test_what_turns_out_wrong_only_when_it_is_used(places: Places, text: str, line: int, said: str) -> None:
    file = places.files["user"]
    file.write_text(text)
    async with engine.open_engine(home=places.home, system_folder=places.etc) as opened:
        with pytest.raises(engine.SessionStartError) as caught:
            await opened.start_session(engine.SessionSettings(cwd=places.project))
    error = caught.value.__cause__
    assert isinstance(error, ConfigError)
    assert (error.file, error.line) == (str(file), line)
    assert said in str(error)
