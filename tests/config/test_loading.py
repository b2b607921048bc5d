"""Loading from disk: layers, places of errors, the home, strict mode, and how long it takes."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.loading import find_home, load_config
from engine.config.merge import leaves
from engine.config.model import Config
from engine.config.overrides import parse_override
from engine.errors import ConfigError


class Home:
    """A home folder with a configuration file, and loads from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home" / ".codex"
        self.home.mkdir(parents=True)
        self.file = self.home / "config.toml"
        self.cwd = root / "p"
        self.cwd.mkdir()
        self.env = {"HOME": str(root / "home")}

    def load(self, text: str = "", *flags: str, session: dict[str, object] | None = None, **more: Any) -> Config:
        self.file.write_text(text)
        return load_config(
            self.home,
            cwd=self.cwd,
            overrides=[parse_override(flag) for flag in flags],
            session=session,
            env=more.pop("env", self.env),
            system_folder=self.root / "etc",
            **more,
        )

    def refused(self, text: str = "", *flags: str, **more: Any) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            self.load(text, *flags, **more)
        return caught.value


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# --- layers --------------------------------------------------------------------------------------


def test_defaults_without_any_file(home: Home) -> None:
    config = load_config(home.home, cwd=home.cwd, env=home.env, system_folder=home.root / "etc")
    assert (config.model, config.model_provider_id, config.provider.name) == (None, "openai", "OpenAI")
    assert (config.approval_policy, config.sandbox_policy.type) == ("on-request", "read-only")
    assert (config.durability, config.web_search, config.background_terminal_max_timeout) == ("os", "cached", 300_000)
    assert (config.log_dir, config.sqlite_home) == (home.home / "log", home.home)
    assert config.workspace_roots == (str(home.cwd),)
    assert config.interrupt_message
    assert (config.warnings, config.deprecations, config.unknown_keys) == ((), (), ())
    assert (config.raw, config.origins) == ({}, {})
    assert [layer.name for layer in config.layers] == ["system", "user"]
    assert config.layers[0].version == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_flags_beat_the_file_and_the_session_beats_all(home: Home) -> None:
    text = "model = 'user'\nreview_model = 'user'\ndurability = 'fsync'\n[history]\nmax_bytes = 1"
    config = home.load(text, 'model="flag"', "review_model=flag", session={"model": "session", "history.max_bytes": 7})
    assert (config.model, config.review_model, config.durability) == ("session", "flag", "fsync")
    assert config.history.max_bytes == 7
    assert config.origins == {
        "model": "session",
        "review_model": "sessionFlags",
        "durability": "user",
        "history.max_bytes": "session",
    }
    assert config.raw["model"] == "session"


def test_what_is_none_in_the_session_is_not_given(home: Home) -> None:
    config = home.load("model = 'user'", session={"model": None, "tools": {"web_search": None}})
    assert config.model == "user"
    assert config.raw == {"model": "user", "tools": {}}


def test_the_user_file_can_be_left_out(home: Home) -> None:
    config = home.load("model = 3", "review_model=r", ignore_user_file=True)
    assert (config.model, config.review_model) == (None, "r")
    assert [layer.name for layer in config.layers] == ["system", "user", "sessionFlags"]


def test_unknown_keys_are_kept_and_listed(home: Home) -> None:
    config = home.load("no_such_key = {x = [1]}\n[features]\nodd = true", "also.unknown=1")
    assert config.unknown_keys == ("no_such_key", "features.odd", "also")
    assert config.raw["no_such_key"] == {"x": [1]}
    assert "odd" not in config.features


def test_paths_in_the_file_are_relative_to_the_home_and_others_to_the_cwd(home: Home) -> None:
    config = home.load("log_dir = './logs'\nsqlite_home = '~/db'", session={"model_catalog_json": "m.json"})
    assert config.log_dir == home.home / "logs"
    assert config.sqlite_home == home.root / "home" / "db"
    assert config.model_catalog_json == home.cwd / "m.json"
    assert home.load("", "log_dir=fl").log_dir == home.cwd / "fl"
    assert home.load("", 'log_dir="fl"').raw["log_dir"] == str(home.cwd / "fl")


def test_a_wrong_value_that_is_overridden_does_no_harm(home: Home) -> None:
    assert home.load("model = 3", "model=m").model == "m"


def test_a_relative_home_and_cwd(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home.root)
    config = load_config("home/.codex", cwd="p/../p", env=home.env, system_folder=home.root / "etc")
    assert (config.home, config.cwd) == (home.home, home.cwd)


def test_the_memory_folder_is_made_and_a_home_that_can_not_be_written_is_no_error(home: Home) -> None:
    assert home.load().memory_root == home.home / "memories"
    assert (home.home / "memories").is_dir()
    blocked = home.root / "file"
    blocked.write_text("")
    assert load_config(blocked / "home", cwd=home.cwd, env=home.env, system_folder=home.root / "etc").model is None


def test_the_process_environment_is_the_default(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEX_OSS_PORT", "99")
    config = load_config(home.home, cwd=home.cwd)
    assert config.model_providers["ollama"].base_url == "http://localhost:99/v1"


# --- errors --------------------------------------------------------------------------------------


def test_errors_of_the_file_have_file_line_column_and_key(home: Home) -> None:
    error = home.refused("# c\nmodel = 'm'\n[history]\n  max_bytes = 'x'\n")
    assert (error.file, error.line, error.column, error.key) == (str(home.file), 4, 3, "history.max_bytes")
    assert str(error) == f'{home.file}:4:3: `history.max_bytes`: invalid type: string "x", expected an integer'
    assert str(home.refused("model = ")).startswith(f"{home.file}:1:9: invalid TOML: ")
    home.file.unlink()
    home.file.mkdir()
    with pytest.raises(ConfigError, match="is a directory"):
        load_config(home.home, cwd=home.cwd, env=home.env, system_folder=home.root / "etc")


def test_errors_elsewhere_say_where(home: Home) -> None:
    expected = "`model`: invalid type: integer `3`, expected a string (set by "
    assert str(home.refused("model = 'm'", "model=3")) == expected + "-c/--config override)"
    assert str(home.refused("model = 'm'", session={"model": 3})) == expected + "the session's settings)"
    assert str(home.refused(session={"base_instructions": 3})).startswith("`base_instructions`: invalid type")
    assert "Empty segment" in str(home.refused(session={"a..b": 3}))


def test_errors_of_meaning_have_a_place_too(home: Home) -> None:
    error = home.refused("[model_providers.z]\nname = 'z'\nwire_api = 'chat'\n")
    assert (error.line, error.column, error.key) == (3, 1, "model_providers.z.wire_api")
    error = home.refused("model = 'm'\nmodel_provider = 'nope'\n")
    assert str(error) == f"{home.file}:2:1: `model_provider`: Model provider `nope` not found"
    error = home.refused("profile = 'x'\n[profiles.x]\noss_provider = 'y'\n")
    assert str(error).startswith(f"{home.file}:3:1: `profiles.x.oss_provider`: Invalid OSS provider 'y'.")


_WRONG: list[tuple[str, object]] = [
    ("model", 3),
    ("log_dir", True),
    ("hide_agent_reasoning", "yes"),
    ("tool_output_token_limit", 1.5),
    ("project_doc_fallback_filenames", {}),
    ("project_doc_fallback_filenames", ["a", ["b"]]),
    ("history.max_bytes", "x"),
    ("history.persistence", "sometimes"),
    ("features.goals", "on"),
    ("shell_environment_policy.set.A", 1),
    ("model_providers.p.http_headers.h", 1),
    ("mcp_servers.s.tools.t.approval_mode", "maybe"),
    ("agents.r.description", 0),
    ("permissions", 1),
]


@given(
    data=st.data(), wrong=st.sampled_from(_WRONG), before=st.integers(0, 5), indent=st.sampled_from(["", "  ", "\t"])
)
def test_every_wrong_type_is_found_where_it_stands(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    wrong: tuple[str, object],
    before: int,
    indent: str,
) -> None:
    path, value = wrong
    *table, key = path.split(".")
    # The header takes some of the segments, dotted keys the rest.
    cut = data.draw(st.integers(0, len(table)))
    text = "# comment\n" * before
    if cut:
        text += f"[{'.'.join(table[:cut])}]\n"
    line = text.count("\n") + 1
    dotted = indent + "".join(f"{part} . " for part in table[cut:])
    column = len(dotted) + 1
    text += f"{dotted}{key} = "
    inner = value if isinstance(value, list) else None
    if inner:
        column = len(dotted) + len(f"{key} = [ 'a', ") + 1
        text += "[ 'a', [\"b\"] ]\n"
    else:
        text += f"{toml(value)}\n"
    tomllib.loads(text)
    home = Home(tmp_path_factory.mktemp("home"))
    error = home.refused(text)
    assert (error.file, error.line, error.column) == (str(home.file), line, column), text
    assert error.key == (f"{path}.1" if inner else path)


def toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


@given(st.text(alphabet="ab_=.[]{}\"'#\n ,1modelfatursch", max_size=80))
def test_any_text_loads_or_is_refused_with_a_place(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    home = Home(tmp_path_factory.mktemp("home"))
    try:
        config = home.load(text)
    except ConfigError as exc:
        placed = exc.file is not None and exc.line is not None
    else:
        placed = set(leaves(config.raw)) <= set(config.origins)
    assert placed


# --- strict --------------------------------------------------------------------------------------


def test_strict_mode(home: Home) -> None:
    text = "model = 'm'\n[features]\n  odd = true\n"
    error = home.refused(text, strict=True)
    assert str(error) == f"{home.file}:3:3: unknown configuration field `features.odd`"
    assert error.key == "features.odd"
    error = home.refused("", "no_such_key=3", strict=True)
    assert str(error) == "unknown configuration field `no_such_key` in -c/--config override"
    assert home.refused("[profiles.x.features]\nodd = true", strict=True).key == "profiles.x.features.odd"
    assert home.load("[features]\ncollab = true", strict=True).model is None


# --- home ----------------------------------------------------------------------------------------


def test_the_home_named_by_the_environment(tmp_path: Path) -> None:
    missing, file, real, link = (tmp_path / name for name in ("missing", "file", "real", "link"))
    file.write_text("")
    real.mkdir()
    link.symlink_to(real)
    with pytest.raises(ConfigError) as caught:
        find_home({"CODEX_HOME": str(missing)})
    assert str(caught.value) == f'CODEX_HOME points to "{missing}", but that path does not exist'
    with pytest.raises(ConfigError) as caught:
        find_home({"CODEX_HOME": str(file)})
    assert str(caught.value) == f'CODEX_HOME points to "{file}", but that path is not a directory'
    assert find_home({"CODEX_HOME": str(link)}) == real
    assert not missing.exists()


def test_the_home_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_home({"CODEX_HOME": "", "HOME": str(tmp_path)}) == tmp_path / ".codex"
    assert not (tmp_path / ".codex").exists()
    assert find_home({}).name == ".codex"
    monkeypatch.setattr("os.path.expanduser", lambda text: text)
    with pytest.raises(ConfigError, match="set CODEX_HOME"):
        find_home({})


# --- cost ----------------------------------------------------------------------------------------

TYPICAL = """\
model = "gpt-5.2"
model_provider = "mock"
model_reasoning_effort = "high"
approval_policy = "never"
sandbox_mode = "workspace-write"
notify = ["python3", "/x/notify.py"]
log_dir = "./logs"
developer_instructions = \"\"\"
be
brief
\"\"\"

[sandbox_workspace_write]
writable_roots = ["../up", "~/x"]

[shell_environment_policy]
inherit = "core"
set = { A = "1", B = "2" }

[model_providers.mock]
name = "mock"
base_url = "http://127.0.0.1:1/v1"
http_headers = { "x-a" = "b" }

[features]
collab = true

[mcp_servers.docs]
command = "docs"
args = ["--a"]
""" + "".join(f'\n[projects."/p/{number}"]\ntrust_level = "trusted"\n' for number in range(10))


def quickest(home: Home) -> float:
    """Seconds of the quickest of thirty loads: what else the machine does is in all others."""
    times: list[float] = []
    for _ in range(30):
        start = perf_counter()
        load_config(home.home, cwd=home.cwd, env=home.env, system_folder=home.root / "etc")
        times.append(perf_counter() - start)
    return min(times)


def test_a_typical_file_loads_in_less_than_three_milliseconds(home: Home) -> None:
    home.load(TYPICAL)
    assert quickest(home) < 0.003
    home.file.unlink()
    assert quickest(home) < 0.003


def test_nothing_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys\n"
        "from engine.config.loading import load_config\n"
        "from engine.config.overrides import parse_override\n"
        "load_config('none', cwd='.', overrides=[parse_override('model=\"m\"')], env={})\n"
        "print(*(name for name in ('trio', 'tomllib', 'tomlkit', 'cattrs', 'json', 'hashlib', 'asyncio',\n"
        "    'engine.config.locate', 'engine.protocol.codec') if name in sys.modules))"
    )
    # A home that can't be made: nothing is left behind.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/proc", env={})
    assert done.stdout.split() == []
