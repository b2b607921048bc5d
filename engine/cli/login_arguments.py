"""The words of `engine login`, `engine logout` and `engine models list`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from engine.cli.parsing import Parser, formatter

__all__ = ["ListModelsArguments", "LoginArguments", "parse_list_models", "parse_login"]


@dataclass(frozen=True)
class LoginArguments:
    """`engine login --with-api-key`, `engine login status`, `engine logout`."""

    action: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class ListModelsArguments:
    """`engine models list`."""

    refresh: bool = False
    hidden: bool = False
    json: bool = False
    provider: str | None = None
    overrides: tuple[str, ...] = ()


LOGIN_HELP = """Keep a login for OpenAI's servers in your home folder, or say which there is.

  engine login --with-api-key    store an API key, read from stdin (asked for without echo on a terminal)
  engine login status            say who you are; exit code 1 without a login
  engine logout                  remove the login

`cli_auth_credentials_store` says whether it is kept in auth.json or in the system's keyring. ChatGPT logins are used
and renewed, but not made here: log in with the other program on the same home.
"""
NO_BROWSER = (
    "a login in the browser or by a device code is not supported: store a key (`--with-api-key`), or log in to ChatGPT "
    "with the other program on the same home, whose login is used and renewed here"
)


def parse_login(words: list[str]) -> LoginArguments:
    """The words from `login` or `logout` on. Raises `Usage`, and `SystemExit(0)` after a help text."""
    leaves = words[0] == "logout"
    parser = Parser(
        prog=f"engine {words[0]}",
        usage="engine login --with-api-key | engine login status | engine logout",
        description=LOGIN_HELP,
        formatter_class=formatter,
        allow_abbrev=False,
    )
    if not leaves:
        parser.add_argument("action", nargs="?", choices=("status",), help="say who you are")
        parser.add_argument("--with-api-key", action="store_true", help="read an API key from stdin and store it")
        parser.add_argument("--device-auth", action="store_true", help=argparse.SUPPRESS)
    _overrides(parser)
    made = parser.parse_args(words[1:])
    if leaves:
        return LoginArguments("logout", tuple(made.overrides))
    if made.device_auth or not (made.with_api_key or made.action):
        parser.error(NO_BROWSER)
    if made.with_api_key and made.action:
        parser.error("say either `--with-api-key` or `status`")
    return LoginArguments("status" if made.action else "key", tuple(made.overrides))


def parse_list_models(words: list[str]) -> ListModelsArguments:
    """The words after `models list`. Raises as `parse_login`."""
    parser = Parser(
        prog="engine models list",
        description="List the models to choose from, best first.",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--refresh", action="store_true", help="ask the server, however new the list is")
    parser.add_argument("--all", action="store_true", dest="hidden", help="those too that are not for choosing")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--model-provider", metavar="NAME", dest="provider", help="of another provider")
    _overrides(parser)
    made = parser.parse_args(words)
    return ListModelsArguments(made.refresh, made.hidden, made.json, made.provider, tuple(made.overrides))


def _overrides(parser: Parser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a configuration value (repeatable)",
    )
