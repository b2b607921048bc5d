"""The words of the commands about policies: `engine sandbox`, `engine doctor`, `engine execpolicy check`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from engine.cli.parsing import Parser, Usage, formatter

__all__ = [
    "DoctorArguments",
    "ExecPolicyCheckArguments",
    "SandboxArguments",
    "parse_check",
    "parse_doctor",
    "parse_sandbox",
]


@dataclass(frozen=True)
class SandboxArguments:
    """`engine sandbox`: either a command, or a path to explain. `profile` None means the one that is configured."""

    command: tuple[str, ...] = ()
    explain: str | None = None
    profile: str | None = None
    cd: str | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class DoctorArguments:
    """`engine doctor`."""

    cd: str | None = None
    as_json: bool = False


@dataclass(frozen=True)
class ExecPolicyCheckArguments:
    """`engine execpolicy check --rules FILE ... COMMAND...`; `command` are words, never split."""

    rules: tuple[str, ...]
    command: tuple[str, ...]
    resolve_host_executables: bool = False
    pretty: bool = False


SANDBOX_HELP = """Run a command with just the permissions a session would have in this directory.

  engine sandbox [OPTIONS] -- COMMAND [ARGUMENTS]
  engine sandbox [OPTIONS] --explain PATH

What the command may touch is what configuration says, or the profile that --profile names. The exit code is the
command's; 125 means that it could not be started.
"""


def _sandbox_parser() -> Parser:
    parser = Parser(
        prog="engine sandbox",
        usage="engine sandbox [OPTIONS] (-- COMMAND [ARGUMENTS] | --explain PATH)",
        description=SANDBOX_HELP,
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-P",
        "--profile",
        metavar="NAME",
        help="permission profile: one of [permissions], :read-only, :workspace or :danger-full-access",
    )
    parser.add_argument("-C", "--cd", metavar="DIR", help="folder to work in")
    parser.add_argument(
        "-c",
        "--config",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a configuration value (repeatable)",
    )
    parser.add_argument("--explain", metavar="PATH", help="say what may be done with PATH and which entry decides")
    return parser


def parse_sandbox(words: list[str]) -> SandboxArguments:
    """The words after `sandbox`. Raises `Usage`, and `SystemExit(0)` after a help text."""
    at = words.index("--") if "--" in words else len(words)
    parser = _sandbox_parser()
    made = parser.parse_args(words[:at])
    command = tuple(words[at + 1 :])
    if made.explain is None and not command:
        parser.error("a command after `--`, or --explain PATH, is needed")
    if made.explain is not None and command:
        parser.error("--explain takes no command")
    return SandboxArguments(command, made.explain, made.profile, made.cd, tuple(made.overrides))


def parse_doctor(words: list[str]) -> DoctorArguments:
    """The words after `doctor`. Raises `Usage`, and `SystemExit(0)` after a help text."""
    parser = Parser(
        prog="engine doctor",
        description="Say what this machine can enforce, which permissions hold here, and how to get more.\n"
        "The exit code is 0 when a session could run commands here, else 1.",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.add_argument("-C", "--cd", metavar="DIR", help="the directory to look at")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print the report as one JSON object")
    made = parser.parse_args(words)
    return DoctorArguments(made.cd, made.as_json)


CHECK_HELP = """Tell what rules files say of a command, as JSON on stdout: every rule that matches, in the order of
the files, and the decision that holds (forbidden before prompt before allow), if any rule matches.

COMMAND is taken word by word; a shell script is not looked into, as a session does.
"""

CHECK_EPILOG = """exit code:
  0  checked, whatever the decision
  1  a rules file can't be used: the message names the file, the line and the rule
  2  wrong flags

examples:
  engine execpolicy check --rules ~/.codex/rules/default.rules git push origin main
  engine execpolicy check --rules a.rules --rules b.rules --resolve-host-executables /usr/bin/git status
"""


def _check_parser() -> Parser:
    parser = Parser(
        prog="engine execpolicy check",
        usage="engine execpolicy check --rules FILE [--rules FILE ...] [OPTIONS] COMMAND...",
        description=CHECK_HELP,
        epilog=CHECK_EPILOG,
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-r", "--rules", action="append", required=True, metavar="FILE", help="a rules file (repeatable)"
    )
    parser.add_argument(
        "--resolve-host-executables",
        action="store_true",
        help="try the rules of its name for a program given by an absolute path, as sessions do",
    )
    parser.add_argument("--pretty", action="store_true", help="print the JSON over several lines")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command, word by word")
    return parser


def parse_check(words: list[str]) -> ExecPolicyCheckArguments:
    """The words after `execpolicy`. Raises `Usage`, and `SystemExit(0)` after a help text."""
    parser = _check_parser()
    if words[:1] in (["-h"], ["--help"]):
        parser.parse_args(["--help"])
    if words[:1] != ["check"]:
        raise Usage(
            "error: `engine execpolicy` has one command: check\n\n"
            "usage: engine execpolicy check --rules FILE [OPTIONS] COMMAND...\n"
        )
    made = parser.parse_args(words[1:])
    command = made.command[1:] if made.command[:1] == ["--"] else made.command
    if not command:
        parser.error("there is no command to check")
    return ExecPolicyCheckArguments(tuple(made.rules), tuple(command), made.resolve_host_executables, made.pretty)
