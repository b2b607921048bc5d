"""The entry point of the console script: picks the command, and turns every error into a line and an exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from engine.cli.arguments import (
    ConfigArguments,
    DoctorArguments,
    ExecArguments,
    ExecPolicyCheckArguments,
    ListModelsArguments,
    LoginArguments,
    SandboxArguments,
    ServeScriptedArguments,
    ThreadsArguments,
    Usage,
    VersionArguments,
    parse,
)

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (default: the process's); returns the exit code 0, 1 or 2 (app_server.md 6.5)."""
    began = time.perf_counter()
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
    except Usage as exc:
        print(exc.text, end="", file=sys.stderr)
        return 2
    except SystemExit:
        return 0  # a help text was printed
    match arguments:
        case VersionArguments():
            return _version()
        case ServeScriptedArguments():
            from engine.cli.serve_scripted import serve_scripted

            return serve_scripted(arguments)
        case LoginArguments():
            from engine.cli.login import run_login

            return run_login(arguments)
        case ListModelsArguments():
            from engine.cli.login import list_models

            return list_models(arguments)
        case ThreadsArguments():
            from engine.cli.threads import run_threads

            return run_threads(arguments)
        case ConfigArguments():
            from engine.cli.config import run_config

            return run_config(arguments)
        case SandboxArguments():
            from engine.cli.sandbox import run_sandbox

            return run_sandbox(arguments)
        case DoctorArguments():
            from engine.cli.doctor import run_doctor

            return run_doctor(arguments)
        case ExecPolicyCheckArguments():
            from engine.cli.execpolicy import check

            return check(arguments)
        case ExecArguments():
            from engine.cli.exec import run_exec

            return run_exec(arguments, began)


def _version() -> int:
    from engine import __version__
    from engine.accel import implementation

    kind = "compiled" if implementation() == "c" else "pure Python"
    print(f"engine {__version__} ({kind})")
    return 0
