"""What must hold before `engine exec` starts a session, checked in the order of app_server.md 6.5.

Configuration, then prompt and output schema, then the repository check. No Trio here: nothing runs yet.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from engine.cli.exec_arguments import ExecArguments
from engine.cli.prompt import PromptError, plan_prompt
from engine.config.loading import find_home, load_config
from engine.config.overrides import parse_override
from engine.config.permissions import PermissionOverrides
from engine.config.providers import check_oss_provider
from engine.errors import ConfigError, EngineError
from engine.protocol.inputs import LocalImageInput, TextInput, UserInput
from engine.protocol.profiles import SandboxMode
from engine.protocol.wire import JsonObject
from engine.records import frozen

if TYPE_CHECKING:
    from engine.config.model import Config

__all__ = ["ExecPlan", "Refused", "StandardInput", "prepare"]

DEFAULT_OSS_PROVIDER = "ollama"
# What the local servers call the model that `--oss` means where none is named.
OSS_MODELS: Mapping[str, str] = {"ollama": "gpt-oss:20b", "lmstudio": "openai/gpt-oss-20b"}
NOT_BUILT = "`engine exec {command}` is not built yet; `engine exec` and `engine exec resume` are"
NO_REPOSITORY = "Not inside a trusted directory and --skip-git-repo-check was not specified."


class Refused(EngineError):
    """The run does not start; the text goes to stderr as it is, and the exit code is 1."""


class StandardInput(Protocol):
    """Stdin, as far as it matters here."""

    def is_terminal(self) -> bool: ...
    def read(self) -> bytes: ...


@frozen(kw_only=True)
class ExecPlan:
    """Everything a run needs, looked up and checked.

    `overrides` are (dotted key, value) pairs, later ones winning; `model`, `provider` what the command line chose.
    Files on the command line are relative to where the program was started, `--add-dir` to `cwd`.
    """

    arguments: ExecArguments
    home: Path
    cwd: str
    overrides: tuple[tuple[str, object], ...]
    model: str | None
    provider: str | None
    sandbox: str | None
    writable_roots: tuple[str, ...]
    config: Config
    input: tuple[UserInput, ...]
    prompt: str
    output_schema: JsonObject | None


def prepare(
    arguments: ExecArguments,
    stdin: StandardInput,
    environment: Mapping[str, str],
    say: TextOut,
) -> ExecPlan:
    """Makes the plan; `say` gets lines for stderr as they are due. Raises `Refused`."""
    if arguments.subcommand in ("fork", "review"):
        raise Refused(f"Error: {NOT_BUILT.format(command=arguments.subcommand)}")
    _refuse_what_is_not_built(arguments)
    if arguments.cyber_access_program is not None:
        say("warning: --cyber-access-program has no effect in this engine")
    home, started_in, cwd = _folders(arguments, environment)
    overrides = _overrides(arguments, started_in)
    sandbox = "danger-full-access" if arguments.bypass else arguments.sandbox
    roots = tuple(_below(cwd, name) for name in arguments.add_dirs)
    session: dict[str, object] = {
        "model": arguments.model,
        "approval_policy": "never",
        "additional_writable_roots": list(roots) or None,
        "model_provider": _provider_flag(arguments),
    }
    permissions = PermissionOverrides(sandbox=cast("SandboxMode | None", sandbox))
    config = _load(arguments, home, cwd, overrides, session, permissions, environment)
    if arguments.oss and arguments.model_provider is None:
        local = arguments.local_provider or config.oss_provider or DEFAULT_OSS_PROVIDER
        session["model_provider"] = local
        session["model"] = arguments.model or config.model or OSS_MODELS.get(local)
        config = _load(arguments, home, cwd, overrides, session, permissions, environment)
    _check_script(arguments, config)
    prompt = _prompt(arguments, stdin, say)
    schema = _output_schema(arguments)
    if not (arguments.skip_git_repo_check or arguments.bypass) and not in_repository(cwd):
        raise Refused(NO_REPOSITORY)
    images = [LocalImageInput(_below(started_in, name)) for name in arguments.images]
    model, provider = session["model"], session["model_provider"]
    return ExecPlan(
        arguments=arguments,
        home=home,
        cwd=cwd,
        overrides=overrides,
        model=model if isinstance(model, str) else None,
        provider=provider if isinstance(provider, str) else None,
        sandbox=sandbox,
        writable_roots=roots,
        config=config,
        input=(*images, TextInput(prompt)),
        prompt=prompt,
        output_schema=schema,
    )


class TextOut(Protocol):
    """Where lines for people go."""

    def __call__(self, line: str, /) -> None: ...


def _folders(arguments: ExecArguments, environment: Mapping[str, str]) -> tuple[Path, str, str]:
    """The home, where the program was started, and the folder to work in."""
    try:
        home = find_home(environment)
    except ConfigError as exc:
        raise Refused(f"Error: {exc}") from exc
    try:
        start = os.getcwd()
    except OSError as exc:
        raise Refused(f"Error: the current working directory is gone: {exc.strerror}") from exc
    cwd = _below(start, arguments.cd) if arguments.cd is not None else start
    if not os.path.isdir(cwd):
        problem = "is not a directory" if os.path.exists(cwd) else "does not exist"
        raise Refused(f"Error: the working directory {cwd} {problem}")
    return home, start, os.path.realpath(cwd)


def _below(base: str, name: str) -> str:
    return os.path.normpath(os.path.join(base, name))


def _overrides(arguments: ExecArguments, started_in: str) -> tuple[tuple[str, object], ...]:
    made: list[tuple[str, object]] = []
    try:
        made += map(parse_override, arguments.overrides)
    except ConfigError as exc:
        raise Refused(f"Error parsing -c overrides: {exc}") from exc
    if arguments.script is not None:
        made.append(("model_providers.scripted.script", _below(started_in, arguments.script)))
    return tuple(made)


def _refuse_what_is_not_built(arguments: ExecArguments) -> None:
    if arguments.worktree:
        raise Refused(
            "Error: --worktree is not supported yet by this engine; make a worktree with `git worktree add DIR` and "
            "pass it with --cd DIR"
        )
    if arguments.approve_for_me:
        raise Refused(
            "Error: --approve-for-me is not supported yet by this engine: there is no automatic review. Without it "
            "what needs approval is refused; --sandbox workspace-write lets commands write in the workspace"
        )


def _provider_flag(arguments: ExecArguments) -> str | None:
    if arguments.oss and arguments.model_provider is not None:
        raise Refused("Error: --oss and --model-provider both choose a provider; give one of them")
    if arguments.local_provider is not None:
        if not arguments.oss:
            raise Refused("Error: --local-provider says which local provider --oss means; add --oss")
        try:
            check_oss_provider(arguments.local_provider)
        except ConfigError as exc:
            raise Refused(f"Error: {exc.message}") from exc
    return arguments.model_provider


def _load(
    arguments: ExecArguments,
    home: Path,
    cwd: str,
    overrides: tuple[tuple[str, object], ...],
    session: Mapping[str, object],
    permissions: PermissionOverrides,
    environment: Mapping[str, str],
) -> Config:
    try:
        config = load_config(
            home,
            cwd=cwd,
            overrides=overrides,
            session=session,
            env=environment,
            ignore_user_file=arguments.ignore_user_config,
            profile=arguments.profile,
            strict=arguments.strict_config,
            permissions=permissions,
        )
        _ = config.provider
    except ConfigError as exc:
        raise Refused(f"Error loading config.toml: {exc}") from exc
    return config


def _check_script(arguments: ExecArguments, config: Config) -> None:
    if arguments.script is not None and config.model_provider_id != "scripted":
        raise Refused("Error: --script is for the scripted provider; add --model-provider scripted")


def _prompt(arguments: ExecArguments, stdin: StandardInput, say: TextOut) -> str:
    try:
        plan = plan_prompt(arguments.prompt, stdin_is_terminal=stdin.is_terminal(), resumes=arguments.resumes)
        if plan.notice is not None:
            say(plan.notice)
        return plan.finish(stdin.read() if plan.reads_stdin else b"")
    except PromptError as exc:
        raise Refused(str(exc)) from exc
    except OSError as exc:
        raise Refused(f"Failed to read prompt from stdin: {_os_text(exc)}") from exc


def _output_schema(arguments: ExecArguments) -> JsonObject | None:
    name = arguments.output_schema
    if name is None:
        return None
    try:
        text = Path(name).read_bytes()
    except OSError as exc:
        raise Refused(f"Failed to read output schema file {name}: {_os_text(exc)}") from exc
    import json

    try:
        schema = json.loads(text)
    except json.JSONDecodeError as exc:
        detail = f"{exc.msg} at line {exc.lineno} column {exc.colno}"
        raise Refused(f"Output schema file {name} is not valid JSON: {detail}") from exc
    except (ValueError, RecursionError) as exc:
        raise Refused(f"Output schema file {name} is not valid JSON: {exc}") from exc
    if not isinstance(schema, dict):
        raise Refused(f"Output schema file {name} holds no JSON Schema: it must be an object")
    return schema


def _os_text(exc: OSError) -> str:
    return f"{exc.strerror} (os error {exc.errno})"


def in_repository(cwd: str) -> bool:
    """Whether `cwd` or a folder above it is a checkout: it has a `.git` folder with a head, or a `.git` file.

    An empty `.git` folder is none: programs leave such things behind (config.md 17).
    """
    return any(_is_checkout(os.path.join(folder, ".git")) for folder in (cwd, *map(str, Path(cwd).parents)))


def _is_checkout(entry: str) -> bool:
    if os.path.isdir(entry):
        return os.path.lexists(os.path.join(entry, "HEAD"))
    try:
        return os.stat(entry).st_size > 0
    except OSError:
        return False
