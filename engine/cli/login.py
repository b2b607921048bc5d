"""`engine login`, `engine logout` and `engine models list`: who you are at model servers, and what they offer."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from engine.cli.login_arguments import ListModelsArguments, LoginArguments
from engine.cli.terminal import plain
from engine.config.overrides import parse_override
from engine.errors import EngineError
from engine.runtime import Engine, open_engine

if TYPE_CHECKING:
    from engine.auth.manager import Login
    from engine.models.manager import RefreshStrategy

__all__ = ["list_models", "run_login"]


def run_login(arguments: LoginArguments) -> int:
    """Does what the words say; the exit code. Errors are one line on stderr."""
    match arguments.action:
        case "key":
            key = getpass.getpass("API key: ") if sys.stdin.isatty() else sys.stdin.read()
            return _with_engine(arguments.overrides, lambda engine: _log_in(engine, key))
        case "logout":
            return _with_engine(arguments.overrides, _log_out)
        case _:
            return _with_engine(arguments.overrides, _status)


def list_models(arguments: ListModelsArguments) -> int:
    """Prints a line per model; the exit code."""

    async def show(engine: Engine) -> int:
        refresh: RefreshStrategy = "online" if arguments.refresh else "online_if_uncached"
        for model in await engine.models(refresh, provider=arguments.provider, hidden=arguments.hidden):
            if arguments.json:
                efforts = [level.effort for level in model.supported_reasoning_levels]
                entry = {"slug": model.slug, "display_name": model.display_name, "description": model.description}
                print(json.dumps({**entry, "context_window": model.window, "reasoning_efforts": efforts}))
            else:
                print(plain(f"{model.slug:<24} {model.description or model.display_name}"))
        return 0

    return _with_engine(arguments.overrides, show)


async def _log_in(engine: Engine, key: str) -> int:
    await engine.log_in(key)
    print("Logged in with an API key.", file=sys.stderr)
    return 0


async def _log_out(engine: Engine) -> int:
    print("Logged out." if await engine.log_out() else "There was no login.", file=sys.stderr)
    return 0


async def _status(engine: Engine) -> int:
    login = await engine.login()
    print("Not logged in." if login is None else _words(login))
    return 1 if login is None else 0


def _words(login: Login) -> str:
    if login.mode == "apikey":
        return "Logged in with an API key" + (" of the environment." if login.external else ".")
    who = plain(login.email or login.account_id or "an account that its tokens do not name")
    return f"Logged in with ChatGPT as {who}" + (f" ({plain(login.plan)})." if login.plan else ".")


def _with_engine(overrides: Sequence[str], work: Callable[[Engine], Awaitable[int]]) -> int:
    async def main() -> int:
        async with open_engine(config=dict(map(parse_override, overrides))) as engine:
            return await work(engine)

    try:
        return trio.run(main)
    except EngineError as exc:
        print(f"error: {plain(str(exc))}", file=sys.stderr)
    except BrokenPipeError:
        # Nobody reads any more; let the flush at exit go nowhere instead of complaining.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    return 1
