"""The words of `engine config`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Literal, cast

from engine.cli.parsing import Parser, Usage, formatter

__all__ = ["Action", "ConfigArguments", "parse_config"]

Action = Literal["get", "set", "unset", "list", "trust", "check", "features", "requirements", "enable", "disable"]


@dataclass(frozen=True)
class ConfigArguments:
    """`engine config ACTION`. `key` is a key path; for `trust` a directory."""

    action: Action
    key: str | None = None
    value: str | None = None
    origins: bool = False
    json: bool = False
    untrusted: bool = False
    cd: str | None = None
    profile: str | None = None
    overrides: tuple[str, ...] = ()


HELP = """Look at the configuration, and change your own file.

  engine config get KEY          the value in effect here
  engine config list             all values in effect here; --origins says where each comes from
  engine config check            whether everything can be read, and what has no effect
  engine config features         all features: how finished, on or off, and who says so
  engine config enable FEATURE   switch a feature on in your own file; disable FEATURE switches it off
  engine config requirements     what an administrator requires
  engine config set KEY VALUE    write a value; VALUE is TOML, else plain text
  engine config unset KEY        take a key away
  engine config trust [DIR]      let a project bring its own configuration; --untrusted forbids it

KEY has dots between its parts; a part with dots stands in double quotes: projects."/work/x.y".trust_level
Comments and the order of keys survive. A file that would be no configuration any more is not written.
"""

EPILOG = """exit code:
  0  done
  1  the key is not set, or the configuration can't be read or written; the message says where and why
  2  wrong flags
"""

_OPERANDS = {
    "get": ("KEY",),
    "set": ("KEY", "VALUE"),
    "unset": ("KEY",),
    "list": (),
    "trust": ("[DIR]",),
    "check": (),
    "features": (),
    "enable": ("FEATURE",),
    "disable": ("FEATURE",),
    "requirements": (),
}


def _parser() -> Parser:
    parser = Parser(
        prog="engine config",
        usage="engine config [OPTIONS] get KEY | set KEY VALUE | unset KEY | list | trust [DIR] | check | features | "
        "enable FEATURE | disable FEATURE | requirements",
        description=HELP,
        epilog=EPILOG,
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", metavar="ACTION", help=argparse.SUPPRESS)
    parser.add_argument("--origins", action="store_true", help="list: the layer and file of each value")
    parser.add_argument("--json", action="store_true", help="print JSON (get, list, features, requirements)")
    parser.add_argument("--untrusted", action="store_true", help="trust: mark the project as untrusted")
    parser.add_argument("-C", "--cd", metavar="DIR", help="the directory to look from")
    parser.add_argument("-p", "--profile", metavar="NAME", help="the profile to use; `set` writes to its file")
    parser.add_argument(
        "-c",
        "--config",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a configuration value (repeatable)",
    )
    return parser


def parse_config(words: list[str]) -> ConfigArguments:
    """The words after `config`. Raises `Usage`, and `SystemExit(0)` after a help text."""
    parser = _parser()
    made = parser.parse_intermixed_args(words)
    if not made.words:
        raise Usage(parser.format_help())
    action, operands = made.words[0], made.words[1:]
    wanted = _OPERANDS.get(action)
    if wanted is None:
        parser.error(f"`engine config` has no action `{action}`; known are {', '.join(_OPERANDS)}")
    least = sum(not name.startswith("[") for name in wanted)
    if not least <= len(operands) <= len(wanted):
        parser.error(f"`engine config {action}` takes {' '.join(wanted) or 'no operand'}")
    key = operands[0] if operands else None
    value = operands[1] if len(operands) > 1 else None
    return ConfigArguments(
        action=cast(Action, action),
        key=key,
        value=value,
        origins=made.origins,
        json=made.json,
        untrusted=made.untrusted,
        cd=made.cd,
        profile=made.profile,
        overrides=tuple(made.overrides),
    )
