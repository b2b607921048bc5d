"""Golden cases of configuration: layers, and the environment of commands. Other kinds wait for what they are about."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.config.editing import ConfigEdit
from engine.config.loading import load_config
from engine.config.model import Config
from engine.config.overrides import parse_override
from engine.config.sightings import Sightings
from engine.config.sources import Sources, read_layers
from engine.config.writing import ConfigWriteError, write_config
from engine.errors import ConfigError
from engine.execution.environment import build_environment
from engine.permissions.view import DiskView
from engine.protocol.environment import ShellEnvironmentPolicy

__all__ = ["run_case"]

Row = Mapping[str, Any]

_SANDBOX_TYPES = {
    "read-only": "readOnly",
    "workspace-write": "workspaceWrite",
    "danger-full-access": "dangerFullAccess",
}


def run_case(case: Row, area: Row, root: Path) -> tuple[object, object]:
    """Runs one case in an empty directory; both sides of its comparison."""
    kinds: dict[str, Callable[[Row, Path], tuple[object, object]]] = {
        "agents_md": _agents_md,
        "config_layers": _layers,
        "config_write": _write,
        "shell_env": _shell_environment,
    }
    run = kinds.get(str(area["kind"]))
    if run is None:
        raise NotImplementedError(f"`{area['kind']}` is not built yet")
    return run(case, root)


def _shell_environment(case: Row, root: Path) -> tuple[object, object]:
    given = case["input"]
    policy = ShellEnvironmentPolicy(**given["policy"])
    return case["expect"]["env"], build_environment(policy, given["env"], given["thread_id"])


def _places(root: Path) -> dict[str, Path]:
    return {"{ROOT}": root, "{HOME}": root / "home", "{CODEX_HOME}": root / "home" / ".codex", "{ETC}": root / "etc"}


def _load(given: Row, places: Mapping[str, Path]) -> Config:
    _lay_out(given, places["{CODEX_HOME}"])
    return load_config(
        places["{CODEX_HOME}"],
        cwd=given["cwd"],
        overrides=[parse_override(text) for text in given.get("session_flags", ())],
        env={"HOME": str(places["{HOME}"]), "CODEX_HOME": str(places["{CODEX_HOME}"])},
        strict=given.get("strict", False),
        system_folder=places["{ETC}"],
    )


def _agents_md(case: Row, root: Path) -> tuple[object, object]:
    places = _places(root)
    case = _placed(case, {name: str(path) for name, path in places.items()})
    found = _load(case["input"], places).user_instructions
    got = {"sources": list(found.sources), "text": found.text}
    return case["expect"], {name: got[name] for name in case["expect"]}


def _write(case: Row, root: Path) -> tuple[object, object]:
    places = _places(root)
    case = _placed(case, {name: str(path) for name, path in places.items()})
    given, expect = case["input"], case["expect"]
    file = places["{CODEX_HOME}"] / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(given["initial"])
    if "managed" in given:
        places["{ETC}"].mkdir()
        (places["{ETC}"] / "managed_config.toml").write_text(given["managed"])
    view = DiskView({"HOME": str(places["{HOME}"])})
    sources = Sources(
        home=str(file.parent), cwd=None, user_home=view.home, view=view, system_folder=str(places["{ETC}"])
    )
    version = given.get("expected_version")
    if version == "current":
        version = read_layers(sources, Sightings()).user.version
    got: dict[str, object] = {}
    try:
        written = write_config(
            sources,
            [ConfigEdit(edit["key_path"], edit["value"], edit["merge_strategy"]) for edit in given["edits"]],
            expected_version=version,
            file=given.get("file_path"),
        )
    except ConfigWriteError as error:
        prefix = expect.get("message_prefix", "")
        got = {
            "error_code": error.code,
            "message": error.message,
            "message_prefix": prefix if error.message.startswith(prefix) else error.message,
        }
    else:
        got = {"status": written.status, "version": written.version}
        if written.overridden is not None:
            got["overridden_message"] = written.overridden.message
            got["effective_value"] = written.overridden.effective
    got["text"] = file.read_text()
    got["config"] = tomllib.loads(file.read_text())
    return expect, {name: got.get(name) for name in expect}


def _layers(case: Row, root: Path) -> tuple[object, object]:
    places = _places(root)
    case = _placed(case, {name: str(path) for name, path in places.items()})
    given, expect = case["input"], case["expect"]
    try:
        config = _load(given, places)
    except ConfigError as exc:
        return _error(expect, str(exc))
    return _compared(expect, config)


def _lay_out(given: Row, codex_home: Path) -> None:
    codex_home.mkdir(parents=True)
    for name in given.get("mkdirs", ()):
        Path(name).mkdir(parents=True, exist_ok=True)
    for name in given.get("git_repos", ()):
        Path(name).mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "init", "-q", name], check=True, capture_output=True)
    if given.get("user_config"):
        (codex_home / "config.toml").write_text(given["user_config"])
    for name, content in given.get("files", {}).items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)
    for link, target in given.get("symlinks", {}).items():
        Path(link).parent.mkdir(parents=True, exist_ok=True)
        Path(link).symlink_to(target)


def _compared(expect: Row, config: Config) -> tuple[object, object]:
    got: dict[str, object] = {}
    wanted = dict(expect)
    if "effective" in expect:
        got["effective"] = {path: _at(config.raw, path) for path in expect["effective"]}
    if "origins" in expect:
        got["origins"] = {path: config.origins.get(path) for path in expect["origins"]}
    highest_first = list(reversed(config.layers))
    reasons = [layer.disabled for layer in highest_first if layer.disabled is not None]
    if "layer_types" in expect:
        got["layer_types"] = [layer.name for layer in highest_first]
    if "disabled" in expect:
        got["disabled"] = reasons
    if "n_disabled" in expect:
        got["n_disabled"] = len(reasons)
    if "resolved" in expect:
        resolved = {
            "approval_policy": config.approval_policy,
            "sandbox_type": _SANDBOX_TYPES.get(config.sandbox_policy.type),
            "service_tier": config.service_tier,
        }
        got["resolved"] = {name: resolved[name] for name in expect["resolved"]}
    if "warnings" in expect:
        got["warnings"] = [text if _said(text, config) else list(config.warnings) for text in expect["warnings"]]
    if "no_warnings_containing" in expect:
        silent = [text for text in expect["no_warnings_containing"] if not _said(text, config)]
        got["no_warnings_containing"] = silent
    for name in expect.keys() - got.keys():
        got[name] = "no error" if "error" in name else "not built yet"
    return wanted, got


def _said(text: str, config: Config) -> bool:
    return any(text in warning for warning in (*config.warnings, config.unstable_warning or ""))


def _error(expect: Row, text: str) -> tuple[object, object]:
    for name, wanted in expect.items():
        texts = wanted if isinstance(wanted, list) else [wanted]
        if name in ("error", "error_any", "start_error") and any(str(part) in text for part in texts):
            return {name: wanted}, {name: wanted}
    return dict(expect), {"error": text}


def _at(table: object, path: str) -> object:
    for part in path.split("."):
        table = table.get(part) if isinstance(table, Mapping) else None
    return table


def _placed(value: Any, places: Mapping[str, str]) -> Any:
    match value:
        case str():
            for name, path in places.items():
                value = value.replace(name, path)
            return value
        case dict():
            return {_placed(key, places): _placed(part, places) for key, part in value.items()}
        case list():
            return [_placed(part, places) for part in value]
    return value
