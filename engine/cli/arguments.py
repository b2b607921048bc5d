"""The words of all commands but `engine exec` (app_server.md 6.1): which one is asked for, with which arguments.

Imports nothing but parsers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from engine.cli.config_arguments import ConfigArguments, parse_config
from engine.cli.login_arguments import ListModelsArguments, LoginArguments, parse_list_models, parse_login
from engine.cli.parsing import Parser, Usage, formatter
from engine.cli.policy_arguments import (
    DoctorArguments,
    ExecPolicyCheckArguments,
    SandboxArguments,
    parse_check,
    parse_doctor,
    parse_sandbox,
)
from engine.cli.threads_arguments import ThreadsArguments, parse_threads

__all__ = [
    "Arguments",
    "ConfigArguments",
    "DoctorArguments",
    "ExecPolicyCheckArguments",
    "ListModelsArguments",
    "LoginArguments",
    "SandboxArguments",
    "ServeScriptedArguments",
    "ThreadsArguments",
    "Usage",
    "VersionArguments",
    "parse",
]


@dataclass(frozen=True)
class VersionArguments:
    """`engine --version`."""


@dataclass(frozen=True)
class ServeScriptedArguments:
    """`engine models serve-scripted SCRIPT --port N`."""

    script: str
    port: int = 0


Arguments = (
    ConfigArguments
    | SandboxArguments
    | DoctorArguments
    | ExecPolicyCheckArguments
    | ListModelsArguments
    | LoginArguments
    | ServeScriptedArguments
    | ThreadsArguments
    | VersionArguments
)


MAIN_HELP = """A session engine for coding agents."""

MAIN_EPILOG = """commands:
  exec                      run one turn, or resume a session for another one
  threads                   list, show, fork, archive, export, verify and repair stored threads
  config                    look at the configuration, change your own file, trust a project
  sandbox                   run a command under a policy, or say what a policy allows
  doctor                    what this machine can enforce, and how to get more
  execpolicy check          tell what rules files say of a command
  login, logout             keep an API key for OpenAI's servers, say who you are, remove the login
  models list               list the models to choose from
  models serve-scripted     serve a model script over HTTP and WebSocket on this machine

`engine COMMAND --help` explains a command.
"""


def _main_parser() -> Parser:
    parser = Parser(
        prog="engine",
        usage="engine [--version] COMMAND ...",
        description=MAIN_HELP,
        epilog=MAIN_EPILOG,
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="store_true", help="print the version and which implementation runs")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return parser


def _serve_parser() -> Parser:
    parser = Parser(
        prog="engine models serve-scripted",
        description="Serve a script of the scripted model as a Responses endpoint on the loopback interface.\n"
        "Prints the base URL on stdout; Ctrl-C stops it.",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.add_argument("script", metavar="SCRIPT", help="script file, TOML or JSONL (docs/scripted-model.md)")
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="port to listen on (default: a free one)")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port (0-65535)")
    return port


def parse(words: Sequence[str]) -> Arguments:
    """What the command line (without the program name) asks for.

    Raises `Usage` for words that make no sense, and `SystemExit(0)` after printing a help text.
    """
    words = list(words)
    if words[:1] == ["threads"]:
        return parse_threads(words[1:])
    if words[:1] == ["config"]:
        return parse_config(words[1:])
    if words[:1] == ["sandbox"]:
        return parse_sandbox(words[1:])
    if words[:1] == ["doctor"]:
        return parse_doctor(words[1:])
    if words[:1] == ["execpolicy"]:
        return parse_check(words[1:])
    if words[:1] in (["login"], ["logout"]):
        return parse_login(words)
    if words[:2] == ["models", "list"]:
        return parse_list_models(words[2:])
    if words[:2] == ["models", "serve-scripted"]:
        made = _serve_parser().parse_args(words[2:])
        return ServeScriptedArguments(made.script, made.port)
    if words[:1] == ["models"]:
        if words[1:2] in (["-h"], ["--help"]):
            _serve_parser().parse_args(["--help"])
        raise Usage(
            "error: `engine models` has two commands: list, serve-scripted\n\n"
            "usage: engine models list [--refresh] [--all] [--json]\n"
            "       engine models serve-scripted SCRIPT [--port N]\n"
        )
    parser = _main_parser()
    made = parser.parse_args(words[:1])
    if made.version:
        return VersionArguments()
    if made.command is None:
        raise Usage(parser.format_help())
    return parser.error(f"there is no command `{made.command}`")
