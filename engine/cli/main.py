"""The entry point of the console script: picks the command, and turns every error into a line and an exit code."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence

from engine.cli.parsing import Usage

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (default: the process's); returns the exit code 0, 1 or 2 (app_server.md 6.5)."""
    began = time.perf_counter()
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        run = _exec(words[1:], began) if words[:1] == ["exec"] else _other(words)
    except Usage as exc:
        print(exc.text, end="", file=sys.stderr)
        return 2
    except SystemExit:
        return 0  # a help text was printed
    return run()


def _exec(words: Sequence[str], began: float) -> Callable[[], int]:
    """`engine exec`, the one command whose start is measured: it loads nothing of the others."""
    from engine.cli.exec_arguments import parse_exec

    arguments = parse_exec(words)

    def run() -> int:
        # What a start makes stays: looking for garbage in it is a tenth of the time to the first event. `run_turn` lets
        # the collector go on once a turn is under way.
        collects = gc.isenabled()
        gc.disable()
        try:
            from engine.cli.exec import run_exec

            return run_exec(arguments, began)
        finally:
            (gc.enable if collects else gc.disable)()

    return run


def _other(words: Sequence[str]) -> Callable[[], int]:
    from engine.cli.arguments import parse

    arguments = parse(words)

    def run() -> int:
        from engine.cli.commands import run_command

        return run_command(arguments)

    return run
