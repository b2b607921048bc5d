"""The words of `engine threads`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from engine.cli.parsing import Parser, Usage, formatter

__all__ = ["ThreadsAction", "ThreadsArguments", "parse_threads"]

ThreadsAction = Literal[
    "list", "show", "fork", "rename", "archive", "unarchive", "delete", "export", "verify", "repair"
]


@dataclass(frozen=True)
class ThreadsArguments:
    """`engine threads ACTION`, as given. `threads` are ids, beginnings of ids, names, or paths of rollouts."""

    action: ThreadsAction
    threads: tuple[str, ...] = ()
    json: bool = False
    # list
    archived: bool = False
    cwd: str | None = None
    sources: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    search: str | None = None
    sort: Literal["created", "updated"] = "updated"
    oldest_first: bool = False
    limit: int = 25
    cursor: str | None = None
    # fork, rename
    before: int | None = None
    through: str | None = None
    name: str | None = None
    # export
    output: str | None = None
    format: Literal["markdown", "html"] | None = None
    force: bool = False
    # delete, repair
    yes: bool = False
    all: bool = False


HELP = """Look at stored threads and look after them.

  engine threads list                  the threads, newest first
  engine threads show THREAD           what is known of one
  engine threads fork THREAD           store a copy as a new thread
  engine threads rename THREAD NAME    give it a name
  engine threads archive THREAD...     put threads out of the way
  engine threads unarchive THREAD...   bring them back
  engine threads delete THREAD...      remove them for good
  engine threads export THREAD         write a readable transcript, Markdown or HTML
  engine threads verify [THREAD...]    say what is damaged, line by line
  engine threads repair THREAD...      write damaged threads anew, the old files beside them

THREAD is an id, the beginning of one, a name, or the path of a rollout file.
Everything works beside running sessions. `engine threads ACTION --help` explains an action.
"""

EPILOG = """exit code:
  0  done, and with `verify`: nothing is wrong
  1  it could not be done, or something is wrong; the message says what
  2  wrong flags

examples:
  engine threads list --search parser --json
  engine threads export 01a2 -o talk.html
  engine threads verify && echo all is well
"""


def parse_threads(words: list[str]) -> ThreadsArguments:
    """The words after `threads`. Raises `Usage`, and `SystemExit(0)` after a help text."""
    parser, actions = _parser()
    if not words:
        raise Usage(parser.format_help())
    made = parser.parse_args(words)
    given = {name: value for name, value in vars(made).items() if value is not None}
    action = cast(ThreadsAction, given.pop("action"))
    threads = given.pop("threads", ())
    for name in ("sources", "providers"):
        if name in given:
            given[name] = tuple(given[name])
    arguments = ThreadsArguments(action, (threads,) if isinstance(threads, str) else tuple(threads), **given)
    if action == "repair" and bool(arguments.threads) == arguments.all:
        actions["repair"].error("`engine threads repair` takes threads, or --all for every one that is damaged")
    return arguments


def _parser() -> tuple[Parser, Mapping[str, Parser]]:
    parser = Parser(
        prog="engine threads",
        usage="engine threads ACTION ...",
        description=HELP,
        epilog=EPILOG,
        formatter_class=formatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(
        prog=parser.prog, dest="action", metavar="ACTION", parser_class=Parser, help=argparse.SUPPRESS
    )
    for action in get_args(ThreadsAction):
        sub = actions.add_parser(
            action,
            description=_DESCRIPTIONS[action],
            formatter_class=formatter,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        _FLAGS[action](sub)
    return parser, actions.choices


_DESCRIPTIONS = {
    "list": "The threads somebody has said something in, newest first.",
    "show": "What is known of a thread, without reading all of it.",
    "fork": "Store a copy of a thread as a new one, without running it; prints the new id.\n"
    "By default all of it, and a turn that has not ended is told as interrupted.",
    "rename": "Give a thread a name. `engine exec resume NAME` finds it by that.",
    "archive": "Put threads, and those they spawned, out of the way. Nothing is lost.",
    "unarchive": "Bring archived threads back, with those they spawned.",
    "delete": "Remove threads for good. Asks first; without a terminal it needs --yes.",
    "export": "Write a readable transcript: Markdown, or one HTML file that needs nothing else.\n"
    "Tool calls are folded; each image stands in it once. A file that is there is not overwritten without --force.",
    "verify": "Read threads (default: everything in the home) and say which lines can't be read and why,\n"
    "whether the index says what the files say, and which locks are left over. Changes nothing.",
    "repair": "Write damaged threads anew, in one step. Nothing that can be read is lost, also parts of damaged\n"
    "lines; the old file stays beside the new one. A thread that somebody writes is left alone.\n"
    "With --all, the list of names is repaired as well; left-over locks, and an index that says something\n"
    "wrong, are removed.",
}


def _list_flags(parser: argparse.ArgumentParser) -> None:
    _json_flag(parser)
    parser.add_argument("--archived", action="store_true", help="the archived threads instead")
    parser.add_argument("--search", metavar="TEXT", help="part of the title or the name")
    parser.add_argument("-C", "--cd", dest="cwd", metavar="DIR", help="threads that were started in DIR")
    parser.add_argument(
        "--source",
        dest="sources",
        action="append",
        metavar="KIND",
        help="cli, vscode, exec, appServer, subAgent, custom, unknown (repeatable)",
    )
    parser.add_argument(
        "--model-provider", dest="providers", action="append", metavar="NAME", help="of this provider (repeatable)"
    )
    parser.add_argument("--sort", choices=("created", "updated"), help="by which time (default: updated)")
    parser.add_argument("--oldest-first", action="store_true", help="the other way round")
    parser.add_argument("-n", "--limit", type=_count, metavar="N", help="how many (default: 25)")
    parser.add_argument("--cursor", metavar="CURSOR", help="go on where another page ended")


def _fork_flags(parser: argparse.ArgumentParser) -> None:
    _thread(parser)
    _json_flag(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--before", type=_number, metavar="N", help="only what comes before the N-th user message, counted from 0"
    )
    where.add_argument("--through", metavar="TURN_ID", help="only up to the end of that turn")
    parser.add_argument("--name", metavar="NAME", help="name the new thread")


def _rename_flags(parser: argparse.ArgumentParser) -> None:
    _thread(parser)
    parser.add_argument("name", metavar="NAME", help="the new name")


def _delete_flags(parser: argparse.ArgumentParser) -> None:
    _threads(parser, "+")
    parser.add_argument("-y", "--yes", action="store_true", help="don't ask")


def _export_flags(parser: argparse.ArgumentParser) -> None:
    _thread(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="where to (default: stdout)")
    parser.add_argument(
        "--format", choices=("markdown", "html"), help="default: html for a FILE that ends in .html or .htm"
    )
    parser.add_argument("--force", action="store_true", help="overwrite FILE")


def _verify_flags(parser: argparse.ArgumentParser) -> None:
    _threads(parser, "*")
    _json_flag(parser)


def _repair_flags(parser: argparse.ArgumentParser) -> None:
    _threads(parser, "*")
    _json_flag(parser)
    parser.add_argument("--all", action="store_true", help="everything that is damaged in the home")


def _show_flags(parser: argparse.ArgumentParser) -> None:
    _thread(parser)
    _json_flag(parser)


def _several(parser: argparse.ArgumentParser) -> None:
    _threads(parser, "+")


_FLAGS = {
    "list": _list_flags,
    "show": _show_flags,
    "fork": _fork_flags,
    "rename": _rename_flags,
    "archive": _several,
    "unarchive": _several,
    "delete": _delete_flags,
    "export": _export_flags,
    "verify": _verify_flags,
    "repair": _repair_flags,
}


def _thread(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("threads", metavar="THREAD", help="id, beginning of an id, name, or path of a rollout")


def _threads(parser: argparse.ArgumentParser, count: Literal["+", "*"]) -> None:
    parser.add_argument("threads", nargs=count, metavar="THREAD", help="ids, beginnings of ids, names, or paths")


def _json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 on")
    return int(text)


def _count(text: str) -> int:
    number = _number(text)
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 10000")
    return number
