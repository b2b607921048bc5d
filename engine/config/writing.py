"""Writing the user's configuration: checked against everything else first, whole or not at all (config.md 16)."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from engine.config.editing import ConfigEdit, edited_table, edited_text
from engine.config.features import FEATURE_ALIASES, FEATURES
from engine.config.key_paths import KeyPathError, format_key_path
from engine.config.kinds import Report
from engine.config.layers import Layer, LayerStack
from engine.config.merge import Table
from engine.config.paths import absolute_path, resolve_paths
from engine.config.providers import make_providers
from engine.config.requirements import read_requirements
from engine.config.schema import ROOT
from engine.config.sightings import Sightings
from engine.config.source import read_text
from engine.config.sources import Layers, Sources, read_layers
from engine.errors import ConfigError
from engine.permissions.constrained import ConstraintError
from engine.records import frozen

__all__ = [
    "ConfigWriteError",
    "ConfigWritten",
    "Overridden",
    "WriteErrorCode",
    "feature_edits",
    "trust_edit",
    "write_config",
]

WriteErrorCode = Literal[
    "configLayerReadonly",
    "configVersionConflict",
    "configValidationError",
    "configPathNotFound",
    "configSchemaUnknownKey",
    "userLayerNotFound",
]

_LOCK_TRIES, _LOCK_PAUSE = 250, 0.02  # seconds; a write takes a few milliseconds

_CONFLICT = "Configuration was modified since last read. Fetch latest version and retry."


class ConfigWriteError(ConfigError):
    """A change of the configuration that was refused; the file is as it was. `code` is the reason's wire name."""

    def __init__(self, code: WriteErrorCode, message: str) -> None:
        self.code = code
        super().__init__(message)


@frozen
class Overridden:
    """A written value that has no effect, because `layer` has another one: `effective`."""

    message: str
    layer: Layer
    effective: object


@frozen
class ConfigWritten:
    """What was written. `version` is the new fingerprint of the user's layer; `overridden` is the first edit that has
    no effect, if there is one."""

    version: str
    path: str
    overridden: Overridden | None = None

    @property
    def status(self) -> Literal["ok", "okOverridden"]:
        """The wire name of the outcome."""
        return "ok" if self.overridden is None else "okOverridden"


def write_config(
    sources: Sources,
    edits: Sequence[ConfigEdit],
    *,
    expected_version: str | None = None,
    file: os.PathLike[str] | str | None = None,
) -> ConfigWritten:
    """Applies all edits to the user's file, or none. Blocks; raises `ConfigWriteError`, or `ConfigError` where the
    configuration that is there can't be read.

    `sources` must have no cwd: projects don't matter here. `file` is the file the caller means, which must be the
    user's. With `expected_version`, a file that has another fingerprint by now is left alone. Comments and the order
    of keys survive; the file is replaced in one step, behind all symbolic links that lead to it.
    """
    assert sources.cwd is None
    for edit in edits:
        try:
            _ = edit.path
        except KeyPathError as error:
            raise ConfigWriteError("configValidationError", str(error)) from error
    layers = read_layers(sources, Sightings())
    path = layers.user.path
    assert path is not None
    if file is not None and not _same_file(os.fspath(file), path, sources):
        raise ConfigWriteError("configLayerReadonly", "Only writes to the user config are allowed")
    with _lock(os.path.dirname(path)):
        layers = read_layers(sources, Sightings())  # what somebody else wrote while we waited
        if expected_version is not None and expected_version != layers.user.version:
            raise ConfigWriteError("configVersionConflict", _CONFLICT)
        table = edited_table({} if layers.user.file is None else layers.user.file.table, edits)
        resolved = resolve_paths(table, os.path.dirname(path), sources.user_home)
        user = Layer("user", resolved, path=path, profile=layers.user.profile)
        stack = LayerStack([user if layer is layers.user else layer for layer in layers.stack.everything])
        _check(sources, user, stack, edits)
        before = read_text(path) or ""
        try:
            text = edited_text(before, edits)
        except ValueError as error:
            raise ConfigWriteError("configValidationError", f"Invalid configuration: {error}") from error
        if text != before or not os.path.exists(path):
            _replace(path, text)
    return ConfigWritten(user.version, path, _overridden(layers, user, stack, edits))


def feature_edits(user: Layer, name: str, enabled: bool, *, profile: str | None = None) -> tuple[ConfigEdit, ...]:
    """Edits of the user layer that switch a feature, whatever name it goes by there (config.md 6).

    One that is off by default is switched off by taking its key away, unless for a profile, which may have to overrule
    the rest: `profile` names a table of `[profiles]`. Raises `ConfigError` for a feature that nobody knows.
    """
    key = FEATURE_ALIASES.get(name, name)
    if key not in FEATURES:
        raise ConfigError(f"there is no feature `{name}`")
    above = ("features",) if profile is None else ("profiles", profile, "features")
    table = _at(user.table, above)
    there: Table = table if isinstance(table, dict) else {}
    aliases = [alias for alias, meant in FEATURE_ALIASES.items() if meant == key and alias in there]
    edits = [ConfigEdit(format_key_path((*above, alias)), None) for alias in aliases]
    in_profile = profile is not None or user.profile is not None
    place = (*above, key, "enabled") if isinstance(there.get(key), dict) else (*above, key)
    value = None if not enabled and not FEATURES[key].default and not in_profile and len(place) == 2 else enabled
    return (*edits, ConfigEdit(format_key_path(place), value))


def trust_edit(directory: str, level: Literal["trusted", "untrusted"] = "trusted") -> ConfigEdit:
    """The edit that says whether a directory is trusted; `directory` is absolute and should be canonical."""
    return ConfigEdit(format_key_path(("projects", directory, "trust_level")), level)


def _same_file(given: str, path: str, sources: Sources) -> bool:
    wanted = absolute_path(given, sources.home, sources.user_home)
    return wanted == path or os.path.realpath(wanted) == os.path.realpath(path)


def _check(sources: Sources, user: Layer, stack: LayerStack, edits: Sequence[ConfigEdit]) -> None:
    """Raises `ConfigWriteError` where the file alone, or everything together, would be no configuration any more."""
    for table in (user.table, stack.table):
        report = Report()
        ROOT.check(table, (), report)
        for problem in report.problems:
            where = format_key_path([str(part) for part in problem.path])
            raise ConfigWriteError("configValidationError", f"Invalid configuration: {problem.message} in `{where}`")
    try:
        make_providers(_tables(stack.get("model_providers")), openai_base_url=None, env={}, fail=stack.error)
    except ConfigError as error:
        raise ConfigWriteError("configValidationError", f"Invalid configuration: {error.message}") from error
    requirements = read_requirements(sources.system_folder, sources.user_home)
    for edit in edits:
        for prefix, key, wanted in _feature_changes(edit, user):
            try:
                requirements.check_feature(key, wanted, path=prefix)
            except ConstraintError as error:
                raise ConfigWriteError("configValidationError", f"Invalid configuration: {error}") from error


def _feature_changes(edit: ConfigEdit, user: Layer) -> Iterator[tuple[str, str, bool]]:
    """The features that an edit sets: where the table stands, canonical name, value."""
    path = edit.path
    for depth, prefix in ((1, "features."), (3, f"{'.'.join(path[:3])}.")):
        at = path[:depth]
        if at != ("features",) and not (depth == 3 and len(at) == 3 and (at[0], at[2]) == ("profiles", "features")):
            continue
        found: object = user.table
        for part in at:
            found = found.get(part) if isinstance(found, dict) else None
        for name, value in found.items() if isinstance(found, dict) else ():
            if isinstance(value, bool) and path[depth : depth + 1] in ((), (name,)):
                yield prefix, FEATURE_ALIASES.get(name, name), value


def _tables(value: object) -> Mapping[str, Table]:
    return value if isinstance(value, dict) else {}


def _overridden(layers: Layers, user: Layer, stack: LayerStack, edits: Sequence[ConfigEdit]) -> Overridden | None:
    for edit in edits:
        path = edit.path
        effective, own = _at(stack.table, path), _at(user.table, path)
        if effective == own:
            continue
        layer = stack.holder(path) or stack.holder(path[:1])
        if layer is not None and layer is not user:
            return Overridden(_overridden_text(layer), layer, effective)
    return None


def _overridden_text(layer: Layer) -> str:
    match layer.name:
        case "legacyManagedConfigTomlFromFile":
            return f"Overridden by legacy managed_config.toml: {layer.path}"
        case "legacyManagedConfigTomlFromMdm":
            return "Overridden by legacy managed configuration from MDM"
        case "sessionFlags" | "session":
            return "Overridden by session flags"
        case "project":
            return f"Overridden by project config: {layer.path}"
        case "system":
            return f"Overridden by managed config (system): {layer.path}"
        case "mdm":
            return "Overridden by managed policy (MDM)"
    return f"Overridden by user config: {layer.path}"


def _at(table: Table, path: Sequence[str]) -> object:
    found: object = table
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    return found


# --- the file ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _lock(folder: str) -> Iterator[None]:
    """One writer of ours at a time, where the system has such locks. Makes the folder."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for attempt in range(_LOCK_TRIES):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if attempt == _LOCK_TRIES - 1:
                    raise ConfigError("is being changed by another program; try again", file=folder) from error
                time.sleep(_LOCK_PAUSE)
        yield
    finally:
        os.close(handle)


def _replace(path: str, text: str) -> None:
    """Puts `text` in the place of a file: whoever reads sees the old or the new one, whole. Raises `ConfigError`."""
    target = _final_target(path)
    folder = os.path.dirname(target)
    temporary: str | None = None
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".config-", suffix=".tmp", dir=folder)
        with open(handle, "wb") as file:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(os.stat(target).st_mode))
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise ConfigError(f"can't be written: {error.strerror or error}", file=path) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _final_target(path: str) -> str:
    """The file behind all symbolic links, there or not; the link itself where they go in circles."""
    seen: set[str] = set()
    place = path
    while os.path.islink(place):
        if place in seen:
            return path
        seen.add(place)
        place = os.path.normpath(os.path.join(os.path.dirname(place), os.readlink(place)))
    return place
