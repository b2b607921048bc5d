"""`engine config`: look at the configuration of a directory, and change the user's own file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping

from engine.cli.config_arguments import ConfigArguments
from engine.config.editing import ConfigEdit
from engine.config.features import FEATURE_ALIASES, FEATURES, Feature
from engine.config.key_paths import KeyPathError, format_key_path, parse_key_path
from engine.config.layers import Layer, LayerStack
from engine.config.loading import check_layers, find_home, load_config
from engine.config.model import Config
from engine.config.overrides import parse_override
from engine.config.requirements import NO_REQUIREMENTS
from engine.config.sightings import Sightings
from engine.config.sources import SYSTEM_FOLDER, Sources, read_layers
from engine.config.writing import feature_edits, trust_edit, write_config
from engine.errors import ConfigError, EngineError
from engine.permissions.view import DiskView
from engine.protocol.wire import JsonObject

__all__ = ["run_config"]


def run_config(
    arguments: ConfigArguments, *, environment: Mapping[str, str] | None = None, system_folder: str = SYSTEM_FOLDER
) -> int:
    """Does what the words say and prints the answer; the exit code. Errors are one line on stderr."""
    try:
        return _Configured(arguments, os.environ if environment is None else environment, system_folder).run()
    except (EngineError, KeyPathError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1


class _Configured:
    def __init__(self, arguments: ConfigArguments, environment: Mapping[str, str], system_folder: str) -> None:
        self.arguments = arguments
        self.environment = environment
        self.system_folder = system_folder
        self.home = str(find_home(environment))
        self.cwd = os.path.realpath(os.path.join(os.getcwd(), arguments.cd or ""))
        if not os.path.isdir(self.cwd):
            raise EngineError(f"the directory {self.cwd} does not exist")
        self.overrides = tuple(map(parse_override, arguments.overrides))

    def run(self) -> int:
        key, value = self.arguments.key, self.arguments.value
        match self.arguments.action:
            case "get":
                return self.get(key or "")
            case "list":
                return self.list()
            case "check":
                return self.check()
            case "features":
                return self.features()
            case "requirements":
                return self.requirements()
            case "enable" | "disable":
                return self.switch(key or "", self.arguments.action == "enable")
            case "set":
                return self.write(ConfigEdit(key or "", parse_override(f"value={value}")[1]))
            case "unset":
                return self.write(ConfigEdit(key or "", None))
            case "trust":
                return self.trust(key)

    def sources(self, cwd: str | None) -> Sources:
        view = DiskView(self.environment)
        return Sources(
            home=self.home,
            cwd=cwd,
            user_home=view.home,
            view=view,
            system_folder=self.system_folder,
            overrides=self.overrides,
            profile=self.arguments.profile,
        )

    def stack(self) -> LayerStack:
        """All layers that count in the directory, checked."""
        stack = read_layers(self.sources(self.cwd), Sightings()).stack
        check_layers(stack)
        return stack

    def get(self, key: str) -> int:
        path = parse_key_path(key)
        stack = self.stack()
        value = stack.get(*path)
        if value is None:
            print(f"`{format_key_path(path)}` is not set", file=sys.stderr)
            return 1
        print(json.dumps(value, ensure_ascii=False, default=str) if self.arguments.json else shown(value))
        return 0

    def list(self) -> int:
        stack = self.stack()
        if self.arguments.json:
            print(json.dumps(stack.table, ensure_ascii=False, indent=2, default=str))
            return 0
        for path, value in leaves(stack.table):
            line = f"{format_key_path(path)} = {shown(value)}"
            holder = stack.holder(path) if self.arguments.origins else None
            print(line if holder is None else f"{line}  # {origin(holder)}")
        for layer in stack.everything:
            if layer.disabled is not None and self.arguments.origins:
                print(f"# {layer.folder} takes no part: {layer.disabled}")
        return 0

    def config(self) -> Config:
        """What a session in the directory would start with."""
        return load_config(
            self.home,
            cwd=self.cwd,
            overrides=self.overrides,
            env=self.environment,
            profile=self.arguments.profile,
            system_folder=self.system_folder,
        )

    def features(self) -> int:
        config = self.config()
        told = [feature_entry(feature, config) for feature in FEATURES.values()]
        if self.arguments.json:
            print(json.dumps(told, indent=2))
            return 0
        width = max(len(feature) for feature in FEATURES)
        for entry in told:
            by = "" if entry["setBy"] is None else f"  # {entry['setBy']}"
            state = "on" if entry["enabled"] else "off"
            print(f"{entry['name']:<{width}}  {entry['stage']:<17}  {state}{by}")
        return 0

    def requirements(self) -> int:
        required = self.config().requirements
        table = required.table()
        if self.arguments.json:
            told = {
                "requirements": table or None,
                "source": None if required.source == NO_REQUIREMENTS.source else required.source,
                "sources": dict(required.sources),
                "notEnforced": list(required.not_enforced),
                "unknownKeys": list(required.unknown_keys),
            }
            print(json.dumps(told, ensure_ascii=False, indent=2, default=str))
            return 0
        for path, value in leaves(table):
            line = f"{format_key_path(path)} = {shown(value)}"
            unenforced = "; not enforced yet" if path[0] in required.not_enforced else ""
            print(f"{line}  # {required.source_of(_FIELDS.get(path[0], path[0]))}{unenforced}")
        for key in required.unknown_keys:
            print(f"unknown key: {key}")
        if not table:
            print(f"nothing is required: there is no {os.path.join(self.system_folder, 'requirements.toml')}")
        return 0

    def check(self) -> int:
        config = self.config()
        _ = config.provider
        for layer in config.layers:
            if layer.file is not None or layer.folder is not None:
                state = "" if layer.disabled is None else f" takes no part: {layer.disabled}"
                print(f"{layer.name}: {layer.path}{state}")
        if config.lock is not None and config.lock.load_path is not None:
            print(f"sessions run with the lock file {config.lock.load_path}, and with nothing else")
        if config.lock is not None and config.lock.export_dir is not None:
            print(f"each session writes a lock file to {config.lock.export_dir}")
        for summary, details in config.deprecations:
            print(f"deprecated: {summary}{f' {details}' if details else ''}")
        for text in (*config.warnings, *filter(None, [config.unstable_warning])):
            print(f"warning: {text}")
        for thing in config.unsupported:
            if not thing.announced:
                print(f"without effect in this engine: {thing.thing}")
        for server in config.mcp_servers:
            if server.disabled is not None:
                print(f"MCP server {server.name} is not used: {server.disabled}")
        for key in config.unknown_keys:
            print(f"unknown key: {key}")
        for key in config.requirements.unknown_keys:
            print(f"unknown key of requirements: {key}")
        return 0

    def write(self, *edits: ConfigEdit) -> int:
        written = write_config(self.sources(None), edits)
        print(written.path)
        if written.overridden is not None:
            hidden = written.overridden
            print(f"warning: {hidden.message}; in effect is {shown(hidden.effective)}", file=sys.stderr)
        return 0

    def switch(self, feature: str, enabled: bool) -> int:
        profile, user = self.arguments.profile, read_layers(self.sources(None), Sightings()).user
        table = profile if user.profile is None else None  # an older profile, which is a table of the user's file
        return self.write(*feature_edits(user, feature, enabled, profile=table))

    def trust(self, directory: str | None) -> int:
        place = os.path.realpath(os.path.join(self.cwd, directory or ""))
        if not os.path.isdir(place):
            raise ConfigError(f"{place} is no directory")
        return self.write(trust_edit(place, "untrusted" if self.arguments.untrusted else "trusted"))


# Requirements whose source is known under the name of what they are about.
_FIELDS = {
    "allowed_approval_policies": "approval_policy",
    "allowed_approvals_reviewers": "approvals_reviewer",
    "allowed_sandbox_modes": "sandbox_mode",
}


def feature_entry(feature: Feature, config: Config) -> JsonObject:
    """A feature with its state, and who says so: a requirement, a layer by whichever name, another key, or nobody."""
    enabled = config.features[feature.key]
    names = [feature.key, *(alias for alias, key in FEATURE_ALIASES.items() if key == feature.key)]
    above = ["features", *([f"profiles.{config.active_profile}.features"] if config.active_profile else [])]
    places = [f"{table}.{name}" for table in above for name in names]
    by: str | None = None
    for leaf, layer in config.origins.items():
        if any(leaf == place or leaf.startswith(f"{place}.") for place in places):
            by = layer
    if feature.key in config.requirements.features:
        by = f"required by {config.requirements.source_of('features')}"
    elif by is None and enabled != feature.default:
        by = "follows from another key"
    return {
        "name": feature.key,
        "stage": feature.stage.value,
        "enabled": enabled,
        "defaultEnabled": feature.default,
        "setBy": by,
    }


def origin(layer: Layer) -> str:
    """A layer for people."""
    return layer.where if layer.path is None else f"{layer.name}: {layer.path}"


def leaves(table: Mapping[str, object], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every value that is no table, and empty tables, with their paths."""
    for key, value in table.items():
        path = (*above, key)
        if isinstance(value, dict) and value:
            yield from leaves(value, path)
        else:
            yield path, value


def shown(value: object) -> str:
    """A value as TOML writes it on one line; nothing for None."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case dict():
            inner = ", ".join(f"{format_key_path((key,))} = {shown(part)}" for key, part in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case list():
            return f"[{', '.join(map(shown, value))}]"
    return str(value)
