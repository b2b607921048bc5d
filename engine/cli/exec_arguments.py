"""The words of `engine exec`: flags, subcommands and help texts (app_server.md 6.1). Imports nothing but the parser.

`engine exec --help` and a wrong flag must cost no more than this module: no Trio, no HTTP, no tools.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from engine.cli.parsing import Parser, formatter
from engine.cli.words import first_positional, settle_trace_flag, split_words

__all__ = ["ExecArguments", "parse_exec"]

SANDBOX_MODES = ("read-only", "workspace-write", "danger-full-access")
SUBCOMMANDS = ("resume", "fork", "review")


@dataclass(frozen=True)
class ExecArguments:
    """`engine exec`, with its flags as given; nothing is looked up yet.

    `overrides` are the texts of `-c`, `--enable` and `--disable` in the order they stood. `trace_startup` is `None`
    (off), `""` (a waterfall on stderr) or a file name.
    """

    prompt: str | None = None
    subcommand: str | None = None
    session: str | None = None
    last: bool = False
    all_folders: bool = False
    json: bool = False
    model: str | None = None
    model_provider: str | None = None
    oss: bool = False
    local_provider: str | None = None
    script: str | None = None
    sandbox: str | None = None
    cd: str | None = None
    add_dirs: tuple[str, ...] = ()
    profile: str | None = None
    overrides: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    output_schema: str | None = None
    output_last_message: str | None = None
    skip_git_repo_check: bool = False
    ephemeral: bool = False
    ignore_user_config: bool = False
    ignore_rules: bool = False
    strict_config: bool = False
    color: str = "auto"
    bypass: bool = False
    worktree: bool = False
    approve_for_me: bool = False
    thread_source: str | None = None
    cyber_access_program: str | None = None
    trace_startup: str | None = None

    @property
    def resumes(self) -> bool:
        """Whether the `resume` subcommand was given."""
        return self.subcommand == "resume"


class _Feature(argparse.Action):
    """`--enable X` is `-c features.X=true`, in the order of the command line."""

    def __call__(
        self, parser: object, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        on = "true" if option == "--enable" else "false"
        namespace.overrides = [*namespace.overrides, f"features.{values}={on}"]


def _shared_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that stand before or after a subcommand."""
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", "--experimental-json", dest="json", action="store_true", help="print events to stdout as JSON lines"
    )
    output.add_argument(
        "-o", "--output-last-message", metavar="FILE", help="write the final message to FILE when the turn completed"
    )
    output.add_argument(
        "--color", choices=("always", "never", "auto"), help="colour on stderr (default: auto, on a terminal)"
    )
    output.add_argument(
        "--trace-startup",
        metavar="FILE",
        help="show how long each startup step took; with =FILE write a Chrome trace",
    )
    model = parser.add_argument_group("model")
    model.add_argument("-m", "--model", metavar="MODEL", help="model to ask")
    model.add_argument(
        "--model-provider",
        metavar="NAME",
        help="a provider of `[model_providers]`, `openai`, `ollama`, `lmstudio` or `scripted`",
    )
    model.add_argument("--local-provider", metavar="NAME", help="with --oss: `ollama` or `lmstudio`")
    model.add_argument(
        "--oss", action="store_true", help="use the local provider that `oss_provider` names (default: ollama)"
    )
    model.add_argument("--script", metavar="FILE", help="script of the `scripted` provider")
    config = parser.add_argument_group("configuration")
    config.add_argument(
        "-c",
        "--config",
        dest="overrides",
        action="append",
        metavar="KEY=VALUE",
        help="override a configuration value; VALUE is TOML, else plain text (repeatable)",
    )
    config.add_argument("--enable", action=_Feature, metavar="FEATURE", help="same as -c features.FEATURE=true")
    config.add_argument("--disable", action=_Feature, metavar="FEATURE", help="same as -c features.FEATURE=false")
    config.add_argument("--ignore-user-config", action="store_true", help="do not read config.toml of the home folder")
    config.add_argument("--ignore-rules", action="store_true", help="do not read the rules files")
    config.add_argument("--strict-config", action="store_true", help="unknown configuration keys are errors")
    session = parser.add_argument_group("session")
    session.add_argument("--ephemeral", action="store_true", help="leave no session file")
    session.add_argument("--skip-git-repo-check", action="store_true", help="run outside a git repository, too")
    session.add_argument(
        "--dangerously-bypass-approvals-and-sandbox",
        dest="bypass",
        action="store_true",
        help="run everything without asking and without a sandbox; also skips the git check. EXTREMELY DANGEROUS",
    )


EXEC_HELP = """Run one turn without a person at hand: the answer goes to stdout, progress to stderr.

  engine exec [OPTIONS] [PROMPT]
  engine exec [OPTIONS] resume [SESSION_ID] [PROMPT]

PROMPT may also come from stdin (`-` forces it); text piped in beside a PROMPT is appended to it.
Nothing is ever asked: a command that would need approval is refused.
"""

EXEC_EPILOG = """exit code:
  0  the turn completed (a command that failed in it is no failure)
  1  the turn failed or was interrupted, or it never started
  2  wrong flags

examples:
  engine exec "explain this repository"
  git diff | engine exec --json -o review.md "review this diff"
  engine exec --oss --sandbox danger-full-access "make the tests pass"
  engine exec resume --last "now write the change log entry"
"""


def _exec_parser() -> Parser:
    parser = Parser(
        prog="engine exec",
        usage="engine exec [OPTIONS] [PROMPT] | [OPTIONS] resume [SESSION_ID] [PROMPT]",
        description=EXEC_HELP,
        epilog=EXEC_EPILOG,
        formatter_class=formatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to do; `-` reads it from stdin")
    _shared_flags(parser)
    turn = parser.add_argument_group("turn")
    turn.add_argument(
        "-s",
        "--sandbox",
        choices=SANDBOX_MODES,
        metavar="MODE",
        help="read-only, workspace-write or danger-full-access",
    )
    turn.add_argument("-C", "--cd", metavar="DIR", help="folder to work in")
    turn.add_argument(
        "--add-dir",
        dest="add_dirs",
        action="append",
        metavar="DIR",
        help="another folder that may be written (repeatable)",
    )
    turn.add_argument(
        "-p",
        "--profile",
        metavar="NAME",
        help="use NAME.config.toml of the home folder, or else `[profiles.NAME]` of config.toml",
    )
    turn.add_argument("--worktree", action="store_true", help=argparse.SUPPRESS)  # refused with a reason
    turn.add_argument("--approve-for-me", action="store_true", help=argparse.SUPPRESS)  # refused with a reason
    turn.add_argument(
        "-i",
        "--image",
        dest="images",
        action="append",
        metavar="FILE[,FILE...]",
        help="images to put before the text (repeatable)",
    )
    turn.add_argument("--thread-source", metavar="NAME", help="what started a new session; recorded with it")
    turn.add_argument("--cyber-access-program", help=argparse.SUPPRESS)  # the SDK can pass it; nothing here heeds it
    turn.add_argument("--output-schema", metavar="FILE", help="JSON Schema that the final message must follow")
    return parser


RESUME_HELP = """Continue a recorded session.

SESSION_ID is a session's id or its name. With --last the newest session of this folder is taken and the only
positional argument is the prompt. When nothing matches, a new session starts; an unknown id is an error.
"""


def _resume_parser() -> Parser:
    parser = Parser(
        prog="engine exec resume",
        usage="engine exec [OPTIONS] resume [SESSION_ID | --last] [PROMPT]",
        description=RESUME_HELP,
        formatter_class=formatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("session", nargs="?", metavar="SESSION_ID", help="id or name of the session")
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to do next; `-` reads it from stdin")
    parser.add_argument("--last", action="store_true", help="the newest session of this folder")
    parser.add_argument("--all", dest="all_folders", action="store_true", help="with --last or a name: of any folder")
    parser.add_argument(
        "-i",
        "--image",
        dest="images",
        action="append",
        metavar="FILE",
        help="an image to put before the text (repeatable)",
    )
    _shared_flags(parser)
    return parser


def parse_exec(words: Sequence[str]) -> ExecArguments:
    """What the words after `engine exec` ask for.

    Raises `Usage` for words that make no sense, and `SystemExit(0)` after printing a help text.
    """
    parser = _exec_parser()
    words = settle_trace_flag(list(words))
    made = argparse.Namespace(overrides=[])
    at = first_positional(words, parser)
    if at is None or words[at] not in SUBCOMMANDS:
        _parse_into(made, parser, words, ("prompt",))
        return _arguments(made, None)
    _parse_into(made, parser, words[:at], ())
    if words[at] == "resume":
        _parse_into(made, _resume_parser(), words[at + 1 :], ("session", "prompt"))
    return _arguments(made, words[at])


def _parse_into(
    made: argparse.Namespace, parser: argparse.ArgumentParser, words: list[str], names: tuple[str, ...]
) -> None:
    """Flags may stand between positionals, which the standard parser alone does not manage with optional ones."""
    flags, positionals = split_words(words, parser)
    parser.parse_args(flags, made)
    if len(positionals) > len(names):
        parser.error(f"unrecognized arguments: {' '.join(positionals[len(names) :])}")
    for name, word in zip(names, positionals, strict=False):
        setattr(made, name, word)


def _arguments(made: argparse.Namespace, subcommand: str | None) -> ExecArguments:
    values: dict[str, object] = {key: value for key, value in vars(made).items() if value is not None}
    for name in ("overrides", "add_dirs"):
        values[name] = tuple(getattr(made, name, ()))
    values["images"] = tuple(name for group in getattr(made, "images", ()) for name in group.split(",") if name)
    if values.get("last") and "session" in values and "prompt" not in values:
        values["prompt"] = values.pop("session")  # with --last a single positional is the prompt
    return ExecArguments(subcommand=subcommand, **values)  # type: ignore[arg-type]
